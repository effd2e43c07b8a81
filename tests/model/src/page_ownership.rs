//! Page ownership: two domains, dom0, four pages.
//!
//! Domains are given single pages and pairs, give pages back one by one, and are destroyed; dom0 maps their pages and lets go
//! when it likes, also after the owner is gone. Every transition is `vmm::frames` itself; beside it the model keeps what a
//! bystander would write down (who was given which page, what dom0 still maps) and compares.

use godwit_vmm::frames::{
    Counts, DomainId, Frame, FrameError, FrameInfo, Frames, Freed, Owner, Unmapped, Zone,
};
use stateright::{Model, Property};

/// Pages in the world.
const PAGES: usize = 4;
const DOMAINS: usize = 2;

/// The world and its rules.
#[derive(Clone, Debug)]
pub struct PageOwnership {
    /// Mappings of one page that dom0 may hold at a time.
    pub mappings_max: u8,
    /// The broken variant: memory of a domain is freed although dom0 still maps it.
    pub frees_while_mapped: bool,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    frames: Frames<Vec<FrameInfo>>,
    /// The bystander's notes: which domain holds a page.
    holder: [Option<usize>; PAGES],
    /// The bystander's notes: how often dom0 has it mapped.
    mapped: [u8; PAGES],
    destroyed: [bool; DOMAINS],
    /// What the bystander saw that must not be.
    wrong: Option<&'static str>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A domain is given a block of this order.
    Give(usize, u8),
    /// dom0 maps a page, naming this domain as its owner, rightly or not.
    Map(usize, usize),
    /// dom0 lets go of one mapping, real or not.
    Unmap(usize),
    /// A domain gives a page back, its own or not: ballooning, or one step of its destruction.
    TakeBack(usize, usize),
    /// From now on a domain gets and maps nothing.
    Destroy(usize),
}

fn owner(domain: usize) -> Owner {
    Owner::Domain(DomainId::from_raw(domain as u32 + 1))
}

impl World {
    fn give(&mut self, domain: usize, order: u8) -> Option<()> {
        let start = self
            .frames
            .allocate(order, owner(domain), Zone::Any)
            .ok()?
            .0 as usize;
        for page in start..start + (1 << order) {
            if self.holder[page].is_some() {
                self.wrong = Some("a page was given to two owners");
            }
            if self.mapped[page] > 0 {
                self.wrong = Some("a page was given away while dom0 maps it");
            }
            self.holder[page] = Some(domain);
        }
        Some(())
    }

    fn map(&mut self, page: usize, domain: usize) -> Option<()> {
        let result = self.frames.map(Frame(page as u64), owner(domain));
        if result.is_ok() != (self.holder[page] == Some(domain)) {
            self.wrong = Some("mapping follows from owning, and from nothing else");
        }
        result.ok()?;
        self.mapped[page] += 1;
        Some(())
    }

    fn unmap(&mut self, page: usize) -> Option<()> {
        let result = self.frames.unmap(Frame(page as u64));
        if result.is_ok() != (self.mapped[page] > 0) {
            self.wrong = Some("what is mapped can be unmapped, and nothing else");
        }
        let outcome = result.ok()?;
        self.mapped[page] -= 1;
        let last_of_dying = self.holder[page].is_none() && self.mapped[page] == 0;
        if (outcome == Unmapped::Freed(1)) != last_of_dying {
            self.wrong = Some("a dying page is freed by its last unmap, and by nothing else");
        }
        Some(())
    }

    fn take_back(&mut self, page: usize, domain: usize, broken: bool) -> Option<()> {
        let mine = self.holder[page] == Some(domain);
        if broken && mine {
            // A hypervisor that forgets its foreign mappings when a domain goes.
            while self.frames.unmap(Frame(page as u64)).is_ok() {}
        }
        let result = self.frames.free(Frame(page as u64), 0, owner(domain));
        if result.is_ok() != mine {
            self.wrong = Some("the owner can give back, once, and nobody else");
        }
        let freed = result.ok()?;
        self.holder[page] = None;
        let expected = match self.mapped[page] {
            0 => Freed {
                now: 1,
                deferred: 0,
            },
            _ => Freed {
                now: 0,
                deferred: 1,
            },
        };
        if freed != expected {
            self.wrong = Some("a page was freed while dom0 maps it");
        }
        Some(())
    }

    /// What the frame table says of a page is what the bystander wrote down.
    fn agrees(&self, page: usize) -> bool {
        let frame = Frame(page as u64);
        let right_owner = match (self.frames.owner(frame), self.holder[page]) {
            (Owner::Domain(id), Some(domain)) => Owner::Domain(id) == owner(domain),
            (Owner::Free, None) => self.mapped[page] == 0,
            (Owner::Dying(_), None) => self.mapped[page] > 0,
            _ => false,
        };
        right_owner && self.frames.mappings(frame) == u32::from(self.mapped[page])
    }

    /// Whether all pages come back, in one block, when everybody lets go now.
    fn all_come_back(&self) -> bool {
        let mut world = self.clone();
        for page in 0..PAGES {
            if let Some(domain) = world.holder[page] {
                world.take_back(page, domain, false);
            }
            while world.mapped[page] > 0 && world.wrong.is_none() {
                world.unmap(page);
            }
        }
        let whole = world.frames.allocate(2, Owner::Hypervisor, Zone::Any);
        world.wrong.is_none() && whole == Ok(Frame(0))
    }

    fn counts_balance(&self) -> bool {
        let Counts {
            total,
            free,
            hypervisor,
            domains,
            dying,
        } = self.frames.counts();
        let held = self.holder.iter().flatten().count() as u64;
        total == PAGES as u64
            && free + domains + dying == total
            && hypervisor == 0
            && domains == held
    }
}

impl Model for PageOwnership {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        let mut frames = Frames::new(vec![FrameInfo::RESERVED; PAGES]);
        let added: Result<(), FrameError> = frames.add_region(Frame(0), Frame(PAGES as u64));
        assert_eq!(added, Ok(()));
        vec![World {
            frames,
            holder: [None; PAGES],
            mapped: [0; PAGES],
            destroyed: [false; DOMAINS],
            wrong: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.wrong.is_some() {
            return;
        }
        for domain in 0..DOMAINS {
            if !world.destroyed[domain] {
                actions.extend([
                    Step::Give(domain, 0),
                    Step::Give(domain, 1),
                    Step::Destroy(domain),
                ]);
            }
            for page in 0..PAGES {
                actions.push(Step::TakeBack(page, domain));
                if !world.destroyed[domain] && world.mapped[page] < self.mappings_max {
                    actions.push(Step::Map(page, domain));
                }
            }
        }
        actions.extend((0..PAGES).map(Step::Unmap));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        let done = match step {
            Step::Give(domain, order) => next.give(domain, order),
            Step::Map(page, domain) => next.map(page, domain),
            Step::Unmap(page) => next.unmap(page),
            Step::TakeBack(page, domain) => next.take_back(page, domain, self.frees_while_mapped),
            Step::Destroy(domain) => {
                next.destroyed[domain] = true;
                Some(())
            }
        };
        // A refusal must leave everything as it was; a wrong refusal is a state of its own.
        if done.is_none() && next.wrong.is_none() && next != *world {
            next.wrong = Some("a refusal changed something");
        }
        (done.is_some() || next.wrong.is_some()).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing wrong is seen", |_, world: &World| {
                world.wrong.is_none()
            }),
            Property::always("table and notes agree", |_, world: &World| {
                (0..PAGES).all(|page| world.agrees(page))
            }),
            Property::always("counts balance", |_, world: &World| world.counts_balance()),
            Property::always("all pages come back", |_, world: &World| {
                world.all_come_back()
            }),
            Property::sometimes("a page outlives its destroyed owner", |_, world: &World| {
                world.destroyed == [true; DOMAINS] && world.frames.counts().dying > 1
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::Checker;

    use super::*;

    #[test]
    fn every_interleaving_keeps_ownership() {
        let model = PageOwnership {
            mappings_max: 2,
            frees_while_mapped: false,
        };
        let checker = model.checker().threads(2).spawn_bfs().join();
        println!("{} states", checker.unique_state_count());
        checker.assert_properties();
        assert!(
            checker.unique_state_count() > 50_000,
            "the world has shrunk"
        );
    }

    #[test]
    fn freeing_while_mapped_is_found() {
        let model = PageOwnership {
            mappings_max: 1,
            frees_while_mapped: true,
        };
        let checker = model.checker().spawn_bfs().join();
        let path = checker.assert_any_discovery("nothing wrong is seen");
        let last = path.last_state().wrong;
        assert_eq!(last, Some("a page was freed while dom0 maps it"));
    }
}
