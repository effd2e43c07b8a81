//! The life of a domain: `vmm::lifecycle` under every order of events, with one vCPU that enters and leaves the processor and
//! hypercalls that hold the domain meanwhile. The model keeps its own notes and compares.

use godwit_vmm::lifecycle::{Event, Guest, Life, ShutdownReason, Stage};
use stateright::{Model, Property};

/// Bounds of the world, and its broken variant.
#[derive(Clone, Debug)]
pub struct DomainLife {
    /// Pauses pending at a time.
    pub pauses_max: u32,
    /// Holders besides the vCPU.
    pub holders_max: u32,
    /// The broken variant: a vCPU enters without holding its domain.
    pub enters_unheld: bool,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    life: Life,
    /// The vCPU is in guest mode.
    on_processor: bool,
    /// Hypercalls and mappings that hold the domain.
    holders: u32,
    /// Notes: accepted pauses less accepted unpauses.
    pauses: u32,
    /// Notes: why it may not run for good or for now, other than pauses.
    stopped: bool,
    destroyed: bool,
    released: bool,
    wrong: Option<&'static str>,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Something happens to the domain.
    Event(Event),
    /// The scheduler picks the vCPU, if it may.
    Enter,
    /// The vCPU leaves the processor.
    Leave,
}

const EVENTS: [Event; 13] = [
    Event::Built,
    Event::Pause,
    Event::Unpause,
    Event::ShutDown(ShutdownReason::PowerOff),
    Event::ShutDown(ShutdownReason::Reboot),
    Event::ShutDown(ShutdownReason::Suspend),
    Event::Resume,
    Event::Crash,
    Event::Reset,
    Event::Destroy,
    Event::Released,
    Event::Acquire,
    Event::Drop,
];

impl World {
    fn take(&mut self, event: Event) -> Option<()> {
        self.life = self.life.step(event).ok()?;
        match event {
            Event::Built | Event::Resume => self.stopped = false,
            Event::Pause => self.pauses += 1,
            Event::Unpause => self.pauses -= 1,
            Event::ShutDown(_) | Event::Crash => self.stopped = true,
            Event::Reset => {
                self.stopped = true;
                self.pauses = 0;
            }
            Event::Destroy => self.destroyed = true,
            Event::Released => self.released = true,
            Event::Acquire | Event::Drop => {}
        }
        Some(())
    }

    fn enter(&mut self, held: bool) -> Option<()> {
        if !self.life.may_run() {
            return None;
        }
        if self.destroyed || self.stopped || self.pauses > 0 {
            self.wrong = Some("a domain ran that must not");
        }
        if held {
            self.take(Event::Acquire)?;
        }
        self.on_processor = true;
        Some(())
    }

    fn held_by(&self) -> u32 {
        self.holders + u32::from(self.on_processor)
    }

    /// Whether destroying it now, releasing it and letting go, in this order or the other, ends it.
    fn can_end(&self) -> bool {
        [false, true].into_iter().all(|drop_first| {
            let mut life = self.life;
            if !self.destroyed {
                life = life
                    .step(Event::Destroy)
                    .expect("an undestroyed domain can be destroyed");
            }
            let release = |life: Life| match self.released {
                true => life,
                false => life
                    .step(Event::Released)
                    .expect("a dying domain can be released"),
            };
            let drops = |mut life: Life| {
                for _ in 0..life.references() {
                    life = life.step(Event::Drop).expect("what is held can be dropped");
                }
                life
            };
            life = if drop_first {
                release(drops(life))
            } else {
                drops(release(life))
            };
            life.stage() == Stage::Gone
        })
    }
}

impl Model for DomainLife {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            life: Life::new(),
            on_processor: false,
            holders: 0,
            pauses: 0,
            stopped: true,
            destroyed: false,
            released: false,
            wrong: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.wrong.is_some() {
            return;
        }
        let inside = |event: &Event| match event {
            Event::Pause => world.pauses < self.pauses_max,
            Event::Acquire => world.holders < self.holders_max,
            // Holders drop what they hold, and no more: a wild drop is our own bug.
            Event::Drop => world.holders > 0,
            // The guest can only stop itself, or go wrong, while it runs.
            Event::ShutDown(_) | Event::Crash => world.on_processor,
            // Whoever resets waits until it has left, so that it cannot stop the domain anew.
            Event::Reset => !world.on_processor,
            Event::Built | Event::Unpause | Event::Resume | Event::Destroy | Event::Released => {
                true
            }
        };
        actions.extend(EVENTS.into_iter().filter(inside).map(Step::Event));
        actions.push(if world.on_processor {
            Step::Leave
        } else {
            Step::Enter
        });
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        match step {
            Step::Event(event) => {
                next.take(event)?;
                next.holders += u32::from(event == Event::Acquire);
                next.holders -= u32::from(event == Event::Drop);
            }
            Step::Enter => next.enter(!self.enters_unheld)?,
            Step::Leave => {
                next.on_processor = false;
                if !self.enters_unheld {
                    next.take(Event::Drop).expect("the vCPU holds its domain");
                }
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("only what may run runs", |_, world: &World| {
                world.wrong.is_none()
            }),
            Property::always("a dying domain never may run", |_, world: &World| {
                !(world.destroyed && world.life.may_run())
            }),
            Property::always(
                "gone if and only if destroyed, released and unheld",
                |_, world: &World| {
                    let over = world.destroyed && world.released && world.held_by() == 0;
                    (world.life.stage() == Stage::Gone) == over
                },
            ),
            Property::always("pauses balance", |_, world: &World| {
                let alive = !world.destroyed && !world.stopped;
                world.life.pauses() == world.pauses
                    && world.life.may_run() == (alive && world.pauses == 0)
            }),
            Property::always("destroy leads to gone", |_, world: &World| world.can_end()),
            Property::sometimes(
                "a vCPU is still running when its domain is destroyed",
                |_, world: &World| world.destroyed && world.released && world.on_processor,
            ),
            Property::sometimes("reset and built again while held", |_, world: &World| {
                world.life.stage() == Stage::Building && world.holders > 1
            }),
            Property::sometimes("crashed while paused", |_, world: &World| {
                world.life.stage() == Stage::Alive(Guest::Crashed) && world.pauses > 1
            }),
            Property::sometimes("gone", |_, world: &World| world.life.stage() == Stage::Gone),
        ]
    }
}

#[cfg(test)]
mod tests {
    use stateright::Checker;

    use super::*;

    fn model(enters_unheld: bool) -> DomainLife {
        DomainLife {
            pauses_max: 3,
            holders_max: 3,
            enters_unheld,
        }
    }

    #[test]
    fn every_order_of_events_keeps_the_rules() {
        let checker = model(false).checker().spawn_bfs().join();
        println!("{} states", checker.unique_state_count());
        checker.assert_properties();
    }

    #[test]
    fn a_vcpu_that_does_not_hold_its_domain_is_found() {
        let checker = model(true).checker().spawn_bfs().join();
        checker.assert_any_discovery("gone if and only if destroyed, released and unheld");
    }
}
