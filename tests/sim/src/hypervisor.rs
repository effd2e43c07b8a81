//! The hypervisor of a simulated host: the toolstack's fake for what is told, and `vmm`'s own code for what is decided about a
//! domain's life, whose its memory is, where it is mapped, what was written to and what is absent.
//!
//! | real (`vmm`) | fake |
//! |---|---|
//! | life of domains: built, paused, ended, destroyed | names, ids, schedulers, consoles |
//! | frames and their owners | what is in a page |
//! | nested tables: EPT with a log of writes on one host, NPT with write protection on the other | what processors remember of them |
//! | arming, harvesting, putting back, ending; absent pages | records of CPUs and devices |
//!
//! What the fake notes of writes and of absent pages is the oracle: a page that it knows to be dirty and that a harvest does not
//! report ends the run, and both must always say the same of what is absent and of who may run.

mod calls;
mod machine;
mod space;

pub use space::Wrote;

use godwit_abi::{DomainId, DomainState, ShutdownReason, Status};
use godwit_toolstack::host::fake::{FakeDomain, FakeHypervisor};
use godwit_vmm::lifecycle::{self, Event, Life, Stage};
use godwit_vmm::nested::{Ept, Method, Npt};
use machine::Machine;
use space::{Space, Tables};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Deref;

/// What `vmm` knows of a domain.
struct Domain {
    life: Life,
    space: Box<dyn Space>,
    /// Its pages, as the fake counts them.
    pages: BTreeMap<u64, godwit_vmm::frames::Frame>,
}

impl Domain {
    fn step(&mut self, event: Event) {
        let stepped = self.life.step(event);
        self.life =
            stepped.unwrap_or_else(|error| panic!("{event:?} of {:?}: {error:?}", self.life));
    }
}

/// The hypervisor of one host.
pub struct SimHypervisor {
    fake: FakeHypervisor,
    machine: RefCell<Machine>,
    domains: RefCell<BTreeMap<u32, Domain>>,
    /// The processor logs the pages that are written to.
    has_log: bool,
    /// Broken on purpose: what the processor has logged is told nobody.
    pub loses_log: Cell<bool>,
    wrong: RefCell<Option<String>>,
}

impl Deref for SimHypervisor {
    type Target = FakeHypervisor;

    fn deref(&self) -> &FakeHypervisor {
        &self.fake
    }
}

impl SimHypervisor {
    /// A host that runs only the control domain.
    pub fn new(has_log: bool) -> Self {
        Self {
            fake: FakeHypervisor::new(),
            machine: RefCell::default(),
            domains: RefCell::default(),
            has_log,
            loses_log: Cell::new(false),
            wrong: RefCell::default(),
        }
    }

    fn add(&self, id: DomainId) {
        let machine = &mut *self.machine.borrow_mut();
        let space: Box<dyn Space> = match self.has_log {
            true => Box::new(Tables::<Ept>::new(machine, id, Method::DirtyLog)),
            false => Box::new(Tables::<Npt>::new(machine, id, Method::WriteProtect)),
        };
        let domain = Domain {
            life: Life::new(),
            space,
            pages: BTreeMap::new(),
        };
        let before = self.domains.borrow_mut().insert(id.raw(), domain);
        assert!(before.is_none(), "an id is given once");
    }

    fn remove(&self, id: DomainId) {
        let domain = self.domains.borrow_mut().remove(&id.raw());
        let mut domain = domain.expect("it was there");
        domain.step(Event::Destroy);
        let machine = &mut *self.machine.borrow_mut();
        for (page, frame) in std::mem::take(&mut domain.pages) {
            assert_eq!(domain.space.unmap(machine, page), Some(frame));
            machine.take(frame, id, page);
        }
        domain.space.destroy(machine);
        domain.life = domain.life.step(Event::Released).expect("it is dying");
        assert_eq!(domain.life.stage(), Stage::Gone);
    }

    /// Works on what `vmm` knows of a domain. Nothing for dom0, which has no space here.
    fn on<T>(&self, id: DomainId, work: impl FnOnce(&mut Domain, &mut Machine) -> T) -> Option<T> {
        let mut domains = self.domains.borrow_mut();
        let domain = domains.get_mut(&id.raw())?;
        Some(work(domain, &mut self.machine.borrow_mut()))
    }

    /// An event of a domain's life; both must say the same of it afterwards.
    fn live(&self, id: DomainId, event: Event) {
        let may_run = self.on(id, |domain, _| {
            domain.step(event);
            domain.life.may_run()
        });
        let runs = self.fake.with(id, |domain| crate::host::runs(domain));
        assert!(
            may_run.is_none_or(|may_run| Ok(may_run) == runs),
            "{event:?}"
        );
    }

    /// A domain ends by itself.
    pub fn end(&self, id: DomainId, reason: ShutdownReason) {
        self.fake.end(id, reason);
        let state = self.fake.with(id, |domain| domain.info.state);
        self.live(
            id,
            match (reason, state) {
                (ShutdownReason::PowerOff, _) => {
                    Event::ShutDown(lifecycle::ShutdownReason::PowerOff)
                }
                (ShutdownReason::Reboot, _) => Event::ShutDown(lifecycle::ShutdownReason::Reboot),
                (_, state) => {
                    assert_eq!(state, Ok(DomainState::Crashed as u32));
                    Event::Crash
                }
            },
        );
    }

    /// A virtual CPU is about to write to a page.
    pub fn guest_writes(&self, domain: &FakeDomain, page: u64) -> Result<Wrote, String> {
        let wrote = self.on(domain.id, |it, machine| it.space.write(machine, page));
        let wrote = wrote.expect("it is no dom0")?;
        let waits = domain.absent.contains(&page);
        match waits == (wrote == Wrote::Waits) {
            true => Ok(wrote),
            false => Err(format!("page {page:#x}: {wrote:?}, absent: {waits}")),
        }
    }

    /// What `vmm` has done wrong.
    pub fn wrong(&self) -> Option<String> {
        self.wrong.borrow().clone()
    }

    /// dom0 has died: nobody harvests any more.
    pub fn dom0_died(&self) {
        let machine = &mut *self.machine.borrow_mut();
        for domain in self.domains.borrow_mut().values_mut() {
            domain.space.abandon(machine);
        }
    }

    /// Broken on purpose: pages that have not come are there all the same.
    pub fn show(&self, id: DomainId, pages: &[u64]) {
        self.on(id, |domain, machine| {
            for page in pages {
                domain.space.make_present(machine, *page);
            }
        });
    }

    /// Frames that belong to somebody while no guest is here: leaks.
    pub fn leaked_frames(&self) -> u64 {
        match self.domains.borrow().is_empty() {
            true => self.machine.borrow().in_use(),
            false => 0,
        }
    }

    fn populated(&self, id: DomainId, page: u64, pages: u64) {
        self.on(id, |domain, machine| {
            for page in page..page + pages {
                let frame = machine.give(id, page);
                domain.space.map(machine, page, frame);
                domain.pages.insert(page, frame);
            }
        });
    }

    fn released(&self, id: DomainId, pages: &[u64]) {
        self.on(id, |domain, machine| {
            for page in pages {
                if let Some(frame) = domain.pages.remove(page) {
                    assert_eq!(domain.space.unmap(machine, *page), Some(frame));
                    machine.take(frame, id, *page);
                }
            }
        });
    }

    /// dom0 has read or written a range.
    fn accessed(&self, id: DomainId, address: u64, bytes: usize, writes: bool) {
        if bytes == 0 {
            return;
        }
        let last = address + bytes as u64 - 1;
        self.on(id, |domain, machine| {
            for page in address / 4096..=last / 4096 {
                let frame = domain.space.frame(machine, page);
                assert_eq!(frame.ok(), domain.pages.get(&page).copied());
                let whose = machine.holds(domain.pages[&page]);
                assert_eq!(whose, Some((id, page)));
                if writes {
                    domain.space.touched(machine, page);
                }
            }
        });
    }

    /// What `vmm` says was written to, which must be all that the fake knows of.
    fn harvested(
        &self,
        id: DomainId,
        first: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status> {
        let tells = !self.loses_log.get();
        let done = self.on(id, |domain, machine| {
            domain.space.harvest(machine, first, words, tells)
        });
        let done = done.ok_or(Status::BadState)?.min(pages);
        let mut known = vec![0; words.len()];
        // The count of calls has this one already.
        self.fake.with(id, |domain| {
            let dirty = domain.dirty.as_mut().expect("it is armed");
            for page in 0..done {
                if dirty.remove(&(first + page)) && domain.pages.contains_key(&(first + page)) {
                    known[(page / 64) as usize] |= 1u64 << (page % 64);
                }
            }
        })?;
        for (index, (found, known)) in words.iter().zip(&known).enumerate() {
            let missed = known & !found;
            let page = first + index as u64 * 64 + u64::from(missed.trailing_zeros());
            if missed != 0 {
                let what = format!("a harvest misses page {page:#x} of domain {id}");
                self.wrong.borrow_mut().get_or_insert(what);
            }
        }
        if let Some(by) = self.fake.state.borrow().forgotten_writes {
            let lost = |page: &u64| (first + page).is_multiple_of(by);
            for page in (0..done).filter(lost) {
                words[(page / 64) as usize] &= !(1 << (page % 64));
            }
        }
        Ok(done)
    }
}
