//! A domain moved between two hosts in memory: the same there as it was here; whatever fails, wherever
//! the link is cut, exactly one copy runs and nothing is left of the other.

mod checks;
mod crash;
mod faults;
mod jobs;
mod local;
mod offline;
mod planned;
mod postcopy;
mod proof;
mod resolving;
mod returning;

use super::*;
use crate::config::Config;
use crate::names;
use crate::operate::migrate::{Direction, MoveOptions, Peers};
use crate::site::fake::CLOCK_STEP_US;
use crate::site::yield_now;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use godwit_migrate::link::{Link, LinkError};
use godwit_migrate::precopy::{Goals, OnMiss};
use godwit_records::PlatformTime;
use std::collections::{BTreeMap, VecDeque};

/// Bytes that one direction holds.
const PIPE_BYTES: usize = 64 << 10;

/// What the guest's world does to a link.
#[derive(Default)]
struct Weather {
    /// Writes that still get through; `None`: all.
    left: Cell<Option<usize>>,
    /// Writes so far.
    writes: Cell<usize>,
    /// No connection can be made.
    is_down: Cell<bool>,
}

/// One end of a pipe.
struct End {
    inward: Rc<RefCell<VecDeque<u8>>>,
    outward: Rc<RefCell<VecDeque<u8>>>,
    is_open: Rc<Cell<bool>>,
    weather: Rc<Weather>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.is_open.set(false);
    }
}

impl Link for End {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        loop {
            let count = {
                let mut inward = self.inward.borrow_mut();
                let count = inward.len().min(out.len());
                out.iter_mut()
                    .zip(inward.drain(..count))
                    .for_each(|(to, from)| *to = from);
                count
            };
            match count {
                0 if !self.is_open.get() => return Err(LinkError::Closed),
                0 => yield_now().await,
                count => return Ok(count),
            }
        }
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        let weather = &self.weather;
        weather.writes.set(weather.writes.get() + 1);
        if let Some(left) = weather.left.get() {
            if left == 0 {
                weather.is_down.set(true);
                self.is_open.set(false);
            }
            weather.left.set(Some(left.saturating_sub(1)));
        }
        while !bytes.is_empty() {
            if !self.is_open.get() {
                return Err(LinkError::Closed);
            }
            let room = PIPE_BYTES - self.outward.borrow().len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.outward.borrow_mut().extend(now);
            bytes = later;
            yield_now().await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        while !self.outward.borrow().is_empty() && self.is_open.get() {
            yield_now().await;
        }
        Ok(())
    }
}

/// Connects to the other host; the ends it is to serve wait here.
struct Wire {
    arrived: RefCell<Vec<End>>,
    weather: Rc<Weather>,
}

impl Peers for Wire {
    type Link = End;
    async fn dial(&self, peer: &str) -> Result<End, String> {
        assert_eq!(peer, "there");
        yield_now().await;
        if self.weather.is_down.get() {
            return Err("there: no route".into());
        }
        let (one, other) = (Rc::default(), Rc::default());
        let is_open = Rc::new(Cell::new(true));
        let end = |inward: &Rc<_>, outward: &Rc<_>| End {
            inward: Rc::clone(inward),
            outward: Rc::clone(outward),
            is_open: Rc::clone(&is_open),
            weather: Rc::clone(&self.weather),
        };
        self.arrived.borrow_mut().push(end(&one, &other));
        Ok(end(&other, &one))
    }
}

/// Two hosts, and a domain on the first.
struct World {
    here: Toolstack<FakeSite>,
    there: Toolstack<FakeSite>,
    wire: Wire,
    domain: DomainId,
}

type Memory = BTreeMap<u64, Vec<u8>>;

fn small() -> Vec<&'static str> {
    let other = |setting: &&str| {
        !["memory=", "maxmem=", "kernel=", "disk="]
            .iter()
            .any(|key| setting.starts_with(key))
    };
    let kept = SETTINGS.into_iter().filter(other);
    kept.chain([
        "kernel=module:s",
        "memory=2",
        "maxmem=2",
        "disk=[\"nbd://10.0.0.9/d,raw,vda,rw\"]",
    ])
    .collect()
}

fn platform() -> Vec<u8> {
    let mut bytes = std::vec![0; PlatformTime::MAX_BYTES];
    let time = PlatformTime {
        tsc_hz: 1_000_000_000,
        platform_tsc: 5_000,
    };
    let length = time.encode(&mut bytes).unwrap();
    bytes.truncate(length);
    bytes
}

fn world() -> World {
    world_of(3)
}

/// One page in `stride` has something in it.
fn world_of(stride: usize) -> World {
    world_with(stride, 2)
}

/// The same with so much memory.
fn world_with(stride: usize, memory_mib: u64) -> World {
    let mut here = toolstack();
    let mut there = toolstack();
    (here.site.name, there.site.name) = ("here".into(), "there".into());
    // Their random numbers and clocks differ, as hosts' do; time itself does not.
    there.site.randoms.set(100);
    there.site.clock_us = Rc::clone(&here.site.clock_us);
    here.site.clock_us.set(7);
    let settings = [
        std::format!("memory={memory_mib}"),
        std::format!("maxmem={memory_mib}"),
    ];
    let settings: Vec<&str> = small()
        .into_iter()
        .chain(settings.iter().map(|one| &**one))
        .collect();
    let domain = make(&here, &settings).unwrap();
    host(&here)
        .with(domain, |domain| {
            domain.platform = platform();
            for page in (20..500).step_by(stride) {
                let pattern = |at: usize| ((page as usize * at) >> 3) as u8;
                *domain.pages.get_mut(&page).unwrap() = (0..4096).map(pattern).collect();
            }
        })
        .unwrap();
    let given_back: Vec<u64> = (400..410).collect();
    host(&here).memory_release(domain, &given_back).unwrap();
    World {
        here,
        there,
        wire: Wire {
            arrived: RefCell::default(),
            weather: Rc::default(),
        },
        domain,
    }
}

impl World {
    fn options() -> MoveOptions {
        MoveOptions {
            verify: true,
            ..MoveOptions::default()
        }
    }

    /// Moves the domain, `meanwhile` being done over and over until that is over.
    fn migrate(
        &self,
        options: MoveOptions,
        mut meanwhile: impl FnMut(&World),
    ) -> Result<String, OperateError> {
        let now_us = self.here.site.clock_us.get();
        let job = self.here.jobs.begin(Direction::Out, "n", "there", now_us);
        let moving = self.here.migrate(&self.wire, &job, self.domain, options);
        self.drive(moving, &mut meanwhile)
    }

    /// Polls a future of the source and, beside it, all connections that arrive at the destination.
    fn drive<T>(&self, future: impl Future<Output = T>, meanwhile: &mut dyn FnMut(&World)) -> T {
        let mut future = pin!(future);
        let mut serving: Vec<core::pin::Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
        let mut outcome = None;
        block_on(poll_fn(|context| {
            meanwhile(self);
            let step = self.here.site.clock_us.get() + 1;
            self.here.site.clock_us.set(step);
            if outcome.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                outcome = Some(value);
            }
            for end in self.wire.arrived.take() {
                serving.push(Box::pin(self.there.receive(end, "here")));
            }
            serving.retain_mut(|one| one.as_mut().poll(context).is_pending());
            match outcome.is_some() && serving.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        outcome.expect("it has ended")
    }

    fn list(toolstack: &Toolstack<FakeSite>) -> Vec<godwit_abi::DomainInfo> {
        names::all(host(toolstack)).unwrap().split_off(1)
    }

    /// Exactly one copy runs; of the other nothing is left. True: there.
    fn only_one_runs(&self, what: &str) -> bool {
        let (here, there) = (Self::list(&self.here), Self::list(&self.there));
        let (here_runs, there_runs) = (
            here.iter().any(|info| info.pauses == 0),
            there.iter().any(|info| info.pauses == 0),
        );
        assert!(here_runs != there_runs, "{what}: {here:?} {there:?}");
        let (one, other) = match there_runs {
            true => (&self.there, &self.here),
            false => (&self.here, &self.there),
        };
        let left = Self::list(other);
        assert!(left.is_empty(), "{what}: left over: {left:?}");
        assert!(other.site.devices.attached.borrow().is_empty(), "{what}");
        assert!(other.site.devices.written.borrow().is_empty(), "{what}");
        for site in [&one.site, &other.site] {
            assert!(site.devices.prepared.borrow().is_empty(), "{what}");
            let late = site.devices.unprepared.borrow();
            assert!(late.is_empty(), "{what}: reached during the stop");
        }
        let free = |toolstack| {
            let host: &FakeHypervisor = host(toolstack);
            host.state.borrow().host.free_bytes
        };
        assert_eq!(free(other), 300 << 20, "{what}: memory");
        let [info] = &Self::list(one)[..] else {
            panic!("{what}: one domain");
        };
        let id = names::id_of(info);
        let entry = one.registry.entry(id).unwrap();
        assert_eq!(entry.phase, Phase::Live, "{what}");
        assert_eq!(entry.links.len(), 4, "{what}");
        assert_eq!(one.site.devices.of(id).len(), 4, "{what}");
        assert!(one.site.devices.quiesced.borrow().is_empty(), "{what}");
        assert!(one.site.devices.written.borrow().is_empty(), "{what}");
        assert!(one.registry.reserve(id).is_some(), "{what}: still busy");
        host(one)
            .with(id, |domain| {
                assert!(domain.dirty.is_none(), "{what}: still tracked");
                assert!(domain.absent.is_empty(), "{what}: memory is missing");
                let once = domain.fills.values().all(|count| *count == 1);
                assert!(once, "{what}: a page was filled twice");
                assert_eq!(domain.write_quota, 0, "{what}");
                assert!(!domain.blobs.contains_key(&2), "{what}: still noted");
            })
            .unwrap();
        there_runs
    }

    fn memory(toolstack: &Toolstack<FakeSite>) -> Memory {
        let info = Self::list(toolstack)[0];
        host(toolstack)
            .with(names::id_of(&info), |domain| domain.pages.clone())
            .unwrap()
    }

    fn config(toolstack: &Toolstack<FakeSite>) -> Config {
        let info = Self::list(toolstack)[0];
        toolstack
            .registry
            .entry(names::id_of(&info))
            .unwrap()
            .config
    }

    /// The guest writes, as long as it runs here.
    fn scribble(&self, step: &mut u64) {
        *step += 1;
        let page = 20 + *step * 7 % 100;
        let runs = host(&self.here).with(self.domain, |domain| domain.info.pauses == 0);
        if step.is_multiple_of(5) && runs == Ok(true) {
            host(&self.here)
                .with(self.domain, |domain| {
                    domain.pages.get_mut(&page).unwrap()[(*step % 4000) as usize] ^= 0x55;
                    if let Some(dirty) = &mut domain.dirty {
                        dirty.insert(page);
                    }
                })
                .unwrap();
        }
    }
}

#[test]
fn what_arrives_is_what_left() {
    let world = world();
    let mut step = 0;
    let (mut before, config) = (Memory::new(), World::config(&world.here));
    let told = world
        .migrate(World::options(), |world| {
            world.scribble(&mut step);
            // A back end writes, and nobody else knows.
            if step == 40 {
                host(&world.here)
                    .with(world.domain, |domain| {
                        domain.pages.get_mut(&30).unwrap()[9] = 77
                    })
                    .unwrap();
                let mut tracked = world.here.site.devices.written.borrow_mut();
                tracked.insert(world.domain, std::vec![1 << 30]);
            }
            if let Ok(pages) = host(&world.here).with(world.domain, |domain| domain.pages.clone()) {
                before = pages;
            }
        })
        .unwrap();
    assert!(told.starts_with("moved domain 'n' to there: "), "{told}");
    assert!(step > 40, "{step}");
    assert!(world.only_one_runs("a move"));
    assert_eq!(World::memory(&world.there), before);
    assert_eq!(World::config(&world.there), config);
    let info = World::list(&world.there)[0];
    let id = names::id_of(&info);
    assert_eq!(*world.there.site.devices.announced.borrow(), [id]);
    let platform = host(&world.there).with(id, |domain| domain.platform.clone());
    let time = PlatformTime::decode(&platform.unwrap()).unwrap();
    let still_us = (time.platform_tsc - 5_000) / 1000;
    assert!(
        (1..200 * CLOCK_STEP_US).contains(&still_us),
        "{still_us} us"
    );
    let attached = world.there.site.devices.attached.borrow();
    let (_, state) = &attached[&(id, 4)];
    assert_eq!(state.as_deref(), Some(&b"state of disk vda"[..]));
}

#[test]
fn everything_that_is_in_the_way_is_said_at_once_and_nothing_happens() {
    let world = world();
    let clash = make(&world.there, &small()).unwrap();
    host(&world.there).state.borrow_mut().host.free_bytes = 1 << 20;
    let error = world.migrate(World::options(), |_| {}).unwrap_err();
    let error = error.to_string();
    for what in [
        "there is a domain 'n' already",
        "MiB are needed",
        "is in use",
        "this port",
    ] {
        assert!(error.contains(what), "{error}");
    }
    assert_eq!(World::list(&world.there).len(), 1);
    assert_eq!(names::id_of(&World::list(&world.there)[0]), clash);
    assert_eq!(
        host(&world.here).domain_info(world.domain).unwrap().pauses,
        0
    );
}

#[test]
fn a_domain_that_moves_is_left_alone_and_a_move_can_be_called_off() {
    let world = world();
    let mut refused = None;
    let error = world
        .migrate(World::options(), |world| {
            if refused.is_none()
                && host(&world.here).with(world.domain, |d| d.dirty.is_some()) == Ok(true)
            {
                refused = Some(block_on(world.here.destroy(world.domain)).unwrap_err());
                world.here.jobs.of(world.domain).unwrap().cancel();
            }
        })
        .unwrap_err();
    assert_eq!(error, OperateError::Other("it was called off".into()));
    let refused = refused.unwrap().to_string();
    assert!(refused.contains("is being moved to there"), "{refused}");
    assert!(!world.only_one_runs("called off"));
    // And again, with success.
    world.migrate(World::options(), |_| {}).unwrap();
    assert!(world.only_one_runs("the second time"));
}

#[test]
fn a_guest_that_ends_on_the_way_ends_here() {
    let world = world();
    let error = world
        .migrate(World::options(), |world| {
            let armed = host(&world.here).with(world.domain, |d| d.dirty.is_some());
            if armed == Ok(true) {
                host(&world.here).end(world.domain, ShutdownReason::PowerOff);
            }
        })
        .unwrap_err();
    assert_eq!(error, OperateError::Other("it has ended".into()));
    assert!(World::list(&world.there).is_empty());
    let info = host(&world.here).domain_info(world.domain).unwrap();
    assert_eq!(info.state, DomainState::Shutdown as u32);
}

#[test]
fn a_writer_that_never_rests_is_dealt_with_as_asked() {
    let options = |on_miss| MoveOptions {
        goals: Goals {
            downtime_us: 1,
            deadline_us: Some(3_000_000),
            on_miss,
        },
        ..World::options()
    };
    let (world, mut step) = (world_of(3), 0);
    let moved = world.migrate(options(OnMiss::Abort), |world| world.scribble(&mut step));
    let why = moved.unwrap_err().to_string();
    // No stop is as short as that.
    assert!(why.contains("stands still for"), "{why}");
    assert!(!world.only_one_runs("abort"));
    let (world, mut step) = (world_of(3), 0);
    let moved = world.migrate(options(OnMiss::Pause), |world| world.scribble(&mut step));
    moved.unwrap();
    assert!(world.only_one_runs("pause"));
    let (world, mut step) = (world_of(3), 0);
    let moved = world.migrate(options(OnMiss::PostCopy), |world| world.scribble(&mut step));
    moved.unwrap();
    assert!(world.only_one_runs("post-copy"));
    let stop = MoveOptions {
        stop_and_copy: true,
        ..World::options()
    };
    let (world, mut step) = (world_of(3), 0);
    world
        .migrate(stop, |world| world.scribble(&mut step))
        .unwrap();
    assert!(world.only_one_runs("stop and copy"));
}
