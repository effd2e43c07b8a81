//! A host: its power, its dom0 with the tasks it has in earnest, and what outlives either.

use crate::disk::SimDisk;
use crate::executor::{Executor, Owner};
use crate::link::{Cable, End};
use crate::random::Random;
use crate::site::{Parts, SimSite};
use godwit_abi::{DomainId, DomainState};
use godwit_backends::disk::Disk;
use godwit_migrate::link::Link;
use godwit_migrate::pipe::pipe;
use godwit_toolstack::host::fake::FakeDomain;
use godwit_toolstack::hosts::link::{HANDSHAKE_LIMIT_US, HostLink};
use godwit_toolstack::modules::BootModule;
use godwit_toolstack::operate::Toolstack;
use godwit_toolstack::operate::migrate::{
    Direction, Evacuated, Job, LOCALHOST, MoveOptions, Peers, Stage, Wanted, unwatched,
};
use godwit_toolstack::site::Site;
use godwit_toolstack::site::fake::{FakeFiles, FakeStores, kernel};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::{Poll, Waker};

/// Domains taken in at a time, as dom0 does it.
const ARRIVALS_MAX: usize = 2;
/// A connection that nobody answers is given up after this.
const CONNECT_US: u64 = 3_000_000;
const CONNECT_PAUSE_US: u64 = 500_000;
/// How often domains that have ended are looked for.
const ATTEND_US: u64 = 150_000;

/// A toolstack of the simulation.
pub type Tools = Toolstack<SimSite>;

/// Connections that wait to be taken.
#[derive(Default)]
struct Door {
    waiting: RefCell<VecDeque<End>>,
    /// Listeners that are free.
    free: Cell<usize>,
    knock: RefCell<Vec<Waker>>,
}

/// A host.
pub struct Host {
    /// 0 or 1.
    pub index: usize,
    executor: Rc<Executor>,
    cable: Rc<Cable>,
    random: Random,
    /// Survives everything.
    pub files: Rc<FakeFiles>,
    /// Survives everything, except for what was not flushed; `None`: it has none.
    pub disk: RefCell<Option<Rc<SimDisk>>>,
    /// `None`: it is off.
    parts: RefCell<Option<Rc<Parts>>>,
    tools: RefCell<Option<Rc<Tools>>>,
    /// dom0 is alive.
    is_up: RefCell<Rc<Cell<bool>>>,
    /// dom0 has found its domains again.
    is_ready: Rc<Cell<bool>>,
    door: RefCell<Rc<Door>>,
    peer: RefCell<Option<Rc<Host>>>,
    /// Connections are encrypted.
    pub encrypts: bool,
    ahead_us: Cell<u64>,
    /// After so many writes to its disk its power is to be cut.
    pub cut_after: Cell<Option<u64>>,
    /// Domains that it has sent back where they came from.
    pub returned: Rc<Cell<u64>>,
    /// What a jobless host without guests has free.
    pub baseline_bytes: u64,
}

/// The name of a host.
pub fn name(index: usize) -> &'static str {
    ["host-a", "host-b"][index]
}

/// The kernel of all guests: 64 KiB.
fn module() -> BootModule<'static> {
    static KERNEL: OnceLock<Vec<u8>> = OnceLock::new();
    BootModule::new("k", KERNEL.get_or_init(|| kernel(1 << 16)))
}

impl Host {
    /// A host that is off.
    pub fn new(
        index: usize,
        executor: &Rc<Executor>,
        cable: &Rc<Cable>,
        random: Random,
        encrypts: bool,
        disk: Option<Rc<SimDisk>>,
    ) -> Rc<Self> {
        let parts = Parts::new(index);
        let baseline_bytes = parts.hypervisor.state.borrow().host.free_bytes;
        Rc::new(Self {
            index,
            executor: Rc::clone(executor),
            cable: Rc::clone(cable),
            files: Rc::default(),
            disk: RefCell::new(disk),
            parts: RefCell::new(None),
            tools: RefCell::new(None),
            is_up: RefCell::default(),
            is_ready: Rc::default(),
            door: RefCell::default(),
            peer: RefCell::new(None),
            encrypts,
            cut_after: Cell::new(None),
            returned: Rc::default(),
            ahead_us: Cell::new(random.below(1 << 40)),
            random,
            baseline_bytes,
        })
    }

    /// Tells two hosts of each other.
    pub fn introduce(a: &Rc<Self>, b: &Rc<Self>) {
        *a.peer.borrow_mut() = Some(Rc::clone(b));
        *b.peer.borrow_mut() = Some(Rc::clone(a));
    }

    /// What it has while it is on.
    pub fn parts(&self) -> Option<Rc<Parts>> {
        self.parts.borrow().clone()
    }

    /// Its toolstack, once that has found its domains.
    pub fn tools(&self) -> Option<Rc<Tools>> {
        self.tools.borrow().clone().filter(|_| self.is_ready.get())
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.parts.borrow().is_some()
    }

    /// Whether dom0 is alive.
    pub fn has_dom0(&self) -> bool {
        self.is_up.borrow().get()
    }

    /// Whether its power is to be cut now.
    pub fn is_cut_due(&self) -> bool {
        let writes = self.disk.borrow().as_ref().map(|disk| disk.writes());
        let due = self.cut_after.get();
        writes.is_some_and(|writes| due.is_some_and(|due| writes >= due))
    }

    /// Switches it on, with nothing in its memory.
    pub fn power_on(self: &Rc<Self>) {
        assert!(!self.is_on(), "it is on");
        *self.parts.borrow_mut() = Some(Rc::new(Parts::new(self.index)));
        self.ahead_us.set(self.random.below(1 << 40));
        self.start_dom0();
    }

    /// Cuts its power.
    pub fn power_off(&self) {
        self.crash_dom0();
        self.cut_after.set(None);
        *self.parts.borrow_mut() = None;
        let mut disk = self.disk.borrow_mut();
        *disk = disk.take().map(|disk| disk.after_power_cut());
    }

    /// dom0 dies, whatever it is doing.
    pub fn crash_dom0(&self) {
        self.is_up.borrow().set(false);
        self.is_ready.set(false);
        self.executor.kill(Owner::Dom0(self.index));
        *self.tools.borrow_mut() = None;
        if let Some(parts) = self.parts() {
            parts.hypervisor.dom0_died();
            // dom0's memory.
            parts.devices.quiesced.take();
            parts.devices.prepared.take();
            parts.devices.written.take();
        }
    }

    /// The run is over: lets go of all that holds it in turn.
    pub fn take_apart(&self) {
        self.crash_dom0();
        *self.parts.borrow_mut() = None;
        *self.peer.borrow_mut() = None;
    }

    /// Builds dom0 anew.
    pub fn start_dom0(self: &Rc<Self>) {
        assert!(!self.has_dom0(), "there is one");
        let parts = self.parts().expect("it is on");
        // Calls that fail while dom0 looks for its domains are not simulated: it tells of them and leaves domains unserved.
        parts.hypervisor.state.borrow_mut().fail = None;
        let site = SimSite {
            name: name(self.index).into(),
            parts,
            files: Rc::clone(&self.files),
            stores: self.stores(),
            executor: Rc::clone(&self.executor),
            ahead_us: self.ahead_us.get(),
            random: self.random.fork(),
        };
        let tools = Rc::new(Toolstack::new(site, vec![module()]));
        *self.tools.borrow_mut() = Some(Rc::clone(&tools));
        *self.is_up.borrow_mut() = Rc::new(Cell::new(true));
        *self.door.borrow_mut() = Rc::default();
        self.cable.forget_connections(self.index);
        let host = Rc::clone(self);
        self.spawn(async move { host.serve(tools).await });
    }

    fn stores(&self) -> Rc<FakeStores> {
        let disk = self.disk.borrow().clone();
        let stores = disk.as_ref().map(|disk| FakeStores::over(disk.memory()));
        let stores = stores.unwrap_or_default();
        *stores.journal_disk.borrow_mut() = disk.map(|disk| disk as Rc<dyn Disk>);
        Rc::new(stores)
    }

    /// Adds a task of dom0's.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.executor.spawn(Owner::Dom0(self.index), future);
    }

    async fn serve(self: Rc<Self>, tools: Rc<Tools>) {
        let told = tools.recover().await;
        told.expect("no call of the fake fails here");
        tools.load_hosts().await;
        for _ in 0..ARRIVALS_MAX {
            let (host, tools) = (Rc::clone(&self), Rc::clone(&tools));
            self.spawn(async move { host.listen(&tools).await });
        }
        for (domain, ..) in tools.unsettled() {
            let (tools, peers) = (Rc::clone(&tools), self.peers());
            self.spawn(async move {
                let _ = tools.settle_move(&peers, domain).await;
            });
        }
        for orphan in tools.orphans() {
            let (tools, peers) = (Rc::clone(&tools), self.peers());
            self.spawn(async move {
                tools.settle_orphan(&peers, &orphan).await;
            });
        }
        self.is_ready.set(true);
        loop {
            tools.settle(None).await;
            self.send_back(&tools);
            for claim in tools.jobs.take_claims() {
                let (tools, peers) = (Rc::clone(&tools), self.peers());
                self.spawn(async move {
                    tools.press_claim(&peers, &claim).await;
                });
            }
            let now_us = self.executor.now_us();
            self.executor.sleep_until(now_us + ATTEND_US).await;
        }
    }

    async fn listen(&self, tools: &Tools) {
        let door = Rc::clone(&self.door.borrow());
        loop {
            door.free.set(door.free.get() + 1);
            let end = std::future::poll_fn(|context| {
                if let Some(end) = door.waiting.borrow_mut().pop_front() {
                    return Poll::Ready(end);
                }
                door.knock.borrow_mut().push(context.waker().clone());
                Poll::Pending
            })
            .await;
            door.free.set(door.free.get() - 1);
            let from = name(1 - self.index);
            let admitted = tools.admit(end, from, !self.encrypts);
            let admitted = limited(&tools.site, HANDSHAKE_LIMIT_US, admitted).await;
            if let Some(Ok((link, peer))) = admitted {
                // What the other side was told is in the job.
                let _ = tools.receive(link, &peer).await;
            }
        }
    }

    /// The way to the other host.
    pub fn peers(self: &Rc<Self>) -> SimPeers {
        SimPeers {
            host: Rc::clone(self),
        }
    }

    /// How the other host is named in `xl migrate`.
    pub fn peer_name(&self) -> String {
        let peer = 1 - self.index;
        match self.encrypts {
            true => name(peer).into(),
            false => format!("plaintext:10.0.0.{}", peer + 1),
        }
    }

    /// Begins to move a domain.
    pub fn migrate(self: &Rc<Self>, job: Rc<Job>, domain: DomainId, options: MoveOptions) {
        let tools = self.tools().expect("it was asked");
        let peers = self.peers();
        self.spawn(async move {
            let _ = tools.migrate(&peers, &job, domain, options).await;
        });
    }

    /// Whether its disk may say of an attempt that its domain is this host's.
    pub fn may_have_promised(&self, attempt: u64) -> bool {
        let line = format!("committed {attempt:016x}");
        let disk = self.disk.borrow();
        disk.as_ref()
            .is_some_and(|disk| disk.contains(line.as_bytes()))
    }

    /// Whether there is such a file.
    pub fn has_file(&self, path: &str) -> bool {
        self.files.files.borrow().contains_key(path)
    }

    /// Moves the configuration of a domain that does not run.
    pub fn migrate_offline(self: &Rc<Self>, path: &'static str) {
        let Some(tools) = self.tools() else {
            return;
        };
        let peers = self.peers();
        let peer = self.peer_name();
        self.spawn(async move {
            let _ = tools.migrate_offline(&peers, &peer, path).await;
        });
    }

    /// `xl host-evacuate`: the moves were begun; remembers those that went when all are over.
    pub fn evacuate(self: &Rc<Self>, moves: Vec<(DomainId, Evacuated, Rc<Job>)>) {
        let tools = self.tools().expect("it was asked");
        for (domain, _, job) in &moves {
            self.migrate(Rc::clone(job), *domain, unwatched());
        }
        let executor = Rc::clone(&self.executor);
        self.spawn(async move {
            while moves.iter().any(|(.., job)| job.stage() != Stage::Done) {
                executor.sleep_until(executor.now_us() + ATTEND_US).await;
            }
            let went = |job: &Rc<Job>| job.outcome().is_some_and(|outcome| outcome.is_ok());
            let moved = moves.into_iter().filter(|(.., job)| went(job));
            let moved = moved.map(|(_, it, _)| it).collect();
            tools
                .remember_evacuated(moved)
                .await
                .expect("files are there");
        });
    }

    /// `xl host-return`.
    pub fn ask_back(self: &Rc<Self>) {
        let Some(tools) = self.tools() else {
            return;
        };
        let (peers, peer) = (self.peers(), self.peer_name());
        self.spawn(async move {
            let _ = tools.recall(&peers, &peer).await;
        });
    }

    /// What the other host has asked for goes back to it.
    fn send_back(self: &Rc<Self>, tools: &Rc<Tools>) {
        for Wanted { domain, name } in tools.jobs.take_wanted() {
            let now_us = tools.site.now_us();
            let job = tools
                .jobs
                .begin(Direction::Out, &name, &self.peer_name(), now_us);
            let (tools, peers) = (Rc::clone(tools), self.peers());
            let returned = Rc::clone(&self.returned);
            self.spawn(async move {
                let moved = tools.migrate(&peers, &job, domain, unwatched()).await;
                returned.set(returned.get() + u64::from(moved.is_ok()));
            });
        }
    }

    /// Looks at all guests of the host.
    pub fn guests<T>(&self, mut look: impl FnMut(&mut FakeDomain) -> T) -> Vec<T> {
        let Some(parts) = self.parts() else {
            return Vec::new();
        };
        let mut state = parts.hypervisor.state.borrow_mut();
        let all = state.slots.iter_mut().flatten();
        all.filter(|domain| domain.id != DomainId::CONTROL)
            .map(&mut look)
            .collect()
    }
}

/// Whether a domain's CPUs run.
pub fn runs(domain: &FakeDomain) -> bool {
    domain.info.state == DomainState::Running as u32 && domain.info.pauses == 0
}

/// What a future gives, unless it takes longer.
async fn limited<T>(site: &SimSite, limit_us: u64, future: impl Future<Output = T>) -> Option<T> {
    let end_us = site.now_us() + limit_us;
    let (mut future, mut late) = (pin!(future), pin!(site.sleep_until(end_us)));
    std::future::poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The way from a host to the other one.
pub struct SimPeers {
    host: Rc<Host>,
}

impl SimPeers {
    async fn connect(&self) -> Result<End, String> {
        let (host, executor) = (&self.host, &self.host.executor);
        let peer = host.peer.borrow().clone().expect("they know each other");
        let end_us = executor.now_us() + CONNECT_US;
        loop {
            let round_us = 2 * host.cable.quality.get().delay_us;
            executor.sleep_until(executor.now_us() + round_us).await;
            let door = Rc::clone(&peer.door.borrow());
            let hears = !host.cable.is_cut() && peer.has_dom0();
            if hears && door.free.get() > door.waiting.borrow().len() {
                let (mine, other) = (host.is_up.borrow().clone(), peer.is_up.borrow().clone());
                let up = match host.index {
                    0 => [&mine, &other],
                    _ => [&other, &mine],
                };
                let [here, there] = host.cable.connect(host.index, up);
                door.waiting.borrow_mut().push_back(there);
                door.knock.take().into_iter().for_each(Waker::wake);
                return Ok(here);
            }
            let now_us = executor.now_us();
            if now_us >= end_us {
                return Err(format!("{}: no route", name(peer.index)));
            }
            executor.sleep_until(now_us + CONNECT_PAUSE_US).await;
        }
    }
}

impl Peers for SimPeers {
    type Link = HostLink<End>;

    async fn dial(&self, peer: &str) -> Result<HostLink<End>, String> {
        let tools = self.host.tools.borrow().clone();
        let tools = tools.expect("it is its task");
        if peer == LOCALHOST {
            let (mine, other) = pipe();
            self.host.spawn(async move {
                // What the other side was told is in the job.
                let _ = tools.receive_local(HostLink::<End>::Local(other)).await;
            });
            return Ok(HostLink::Local(mine));
        }
        let target = tools.target(peer)?;
        let end = self.connect().await?;
        let greeted = tools.greet(end, &target);
        let greeted = limited(&tools.site, HANDSHAKE_LIMIT_US, greeted).await;
        greeted.unwrap_or_else(|| Err(format!("{peer}: it does not answer the greeting")))
    }
}

/// A link of the simulation carries what the toolstack wants carried.
const _: fn() = || {
    fn is_link<L: Link>() {}
    is_link::<HostLink<End>>();
};
