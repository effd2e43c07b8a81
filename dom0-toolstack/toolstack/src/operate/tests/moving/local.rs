//! A domain moved to its own host: one of it runs, with its name, whatever fails and whenever dom0 dies; nothing is left
//! of the other.

use super::*;
use crate::host::fake::FakeDomain;
use crate::operate::migrate::{INCOMING, LOCALHOST, Stage};
use alloc::collections::BTreeSet;
use core::pin::Pin;
use core::task::{Context, Waker};
use godwit_migrate::pipe::{Pipe, pipe};

type Serving<'a> = Vec<Pin<Box<dyn Future<Output = Result<(), OperateError>> + 'a>>>;

/// Polls between two deaths that are tried.
const STEP: usize = 3;
/// Hypercalls between two failures that are tried: each of a move between two hosts fails in `faults`.
const CALL_STEP: usize = 7;
/// More than any move takes.
const POLLS_MAX: usize = 2_000_000;

/// Connects a host to itself.
#[derive(Default)]
struct Loop(RefCell<Vec<Pipe>>);

impl Peers for Loop {
    type Link = Pipe;
    async fn dial(&self, peer: &str) -> Result<Pipe, String> {
        assert_eq!(peer, LOCALHOST);
        yield_now().await;
        let (mine, other) = pipe();
        self.0.borrow_mut().push(other);
        Ok(mine)
    }
}

/// One host, and a domain on it whose disk is a volume of it.
fn alone(stride: usize) -> (Toolstack<FakeSite>, DomainId) {
    let World { here, domain, .. } = world_of(stride);
    block_on(here.destroy(domain)).unwrap();
    let mut settings = small();
    settings.push("disk=[\"main/data,raw,vda,rw\"]");
    let domain = make(&here, &settings).unwrap();
    host(&here)
        .with(domain, |domain| {
            domain.platform = platform();
            for page in (20..500).step_by(stride) {
                let pattern = |at: usize| ((page as usize * at) >> 3) as u8;
                *domain.pages.get_mut(&page).unwrap() = (0..4096).map(pattern).collect();
            }
            domain.blobs.insert(32, b"host-z".to_vec());
        })
        .unwrap();
    (here, domain)
}

/// Lets time go on, and polls what serves the host's connections to itself.
fn serve<'a>(here: &'a Toolstack<FakeSite>, wire: &Loop, serving: &mut Serving<'a>) {
    let mut context = Context::from_waker(Waker::noop());
    here.site.clock_us.set(here.site.clock_us.get() + 1);
    let arrived: Vec<Pipe> = wire.0.take();
    for end in arrived {
        serving.push(Box::pin(here.receive_local(end)));
    }
    serving.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
}

/// Moves a domain to its host, `meanwhile` being done over and over.
fn migrate(
    here: &Toolstack<FakeSite>,
    domain: DomainId,
    peer: &str,
    options: MoveOptions,
    mut meanwhile: impl FnMut(&Toolstack<FakeSite>),
) -> Result<String, OperateError> {
    let wire = Loop::default();
    let job = here.jobs.begin(Direction::Out, "n", peer, 0);
    let mut moving = pin!(here.migrate(&wire, &job, domain, options));
    let mut serving = Serving::new();
    let mut outcome = None;
    for _ in 0..POLLS_MAX {
        meanwhile(here);
        let mut context = Context::from_waker(Waker::noop());
        if outcome.is_none()
            && let Poll::Ready(value) = moving.as_mut().poll(&mut context)
        {
            outcome = Some(value);
        }
        serve(here, &wire, &mut serving);
        if outcome.is_some() && serving.is_empty() {
            break;
        }
    }
    assert!(serving.is_empty(), "the copy is still served");
    outcome.expect("it ends")
}

/// One domain runs, whole and by its name; nothing else is there. Its id.
fn only_one(here: &Toolstack<FakeSite>, uuid: [u8; 16], what: &str) -> DomainId {
    let list = World::list(here);
    let [info] = &list[..] else {
        panic!("{what}: one domain: {list:?}");
    };
    assert_eq!(godwit_abi::text(&info.name), "n", "{what}");
    assert_eq!((info.uuid, info.pauses), (uuid, 0), "{what}");
    let id = names::id_of(info);
    let entry = here.registry.entry(id).unwrap();
    assert_eq!((entry.phase, entry.links.len()), (Phase::Live, 4), "{what}");
    assert_eq!(entry.config.name, "n", "{what}");
    assert_eq!(here.registry.all().len(), 1, "{what}");
    let devices = &here.site.devices;
    assert_eq!(devices.of(id).len(), 4, "{what}");
    assert_eq!(devices.attached.borrow().len(), 4, "{what}");
    assert!(devices.let_go.borrow().is_empty(), "{what}");
    assert!(devices.quiesced.borrow().is_empty(), "{what}");
    assert!(devices.written.borrow().is_empty(), "{what}");
    assert!(here.registry.reserve(id).is_some(), "{what}: still busy");
    assert!(here.jobs.of(id).is_none(), "{what}: still moving");
    let free = host(here).state.borrow().host.free_bytes;
    host(here)
        .with(id, |domain| {
            let own = domain.pages.len() as u64 * 4096;
            assert_eq!(free + own, 300 << 20, "{what}: memory");
            assert!(domain.dirty.is_none(), "{what}: still tracked");
            assert_eq!(domain.blobs.get(&32).unwrap(), b"host-z", "{what}");
            assert!(!domain.blobs.contains_key(&2), "{what}: still noted");
        })
        .unwrap();
    id
}

fn uuid(here: &Toolstack<FakeSite>) -> [u8; 16] {
    World::list(here)[0].uuid
}

/// Never more than one of them may run, and never both devices.
fn at_most_one_runs(here: &Toolstack<FakeSite>) {
    let running = |info: &&godwit_abi::DomainInfo| info.pauses == 0;
    // Without a call, which could be the one that fails.
    let state = host(here).state.borrow();
    let all = state.slots.iter().flatten().map(|domain| domain.info);
    let list: Vec<godwit_abi::DomainInfo> = all.skip(1).collect();
    assert!(list.iter().filter(running).count() <= 1, "{list:?}");
    for info in list.iter().filter(running) {
        assert_eq!(godwit_abi::text(&info.name), "n", "a copy runs");
    }
}

#[test]
fn a_copy_takes_the_place_of_the_domain() {
    for (peer, stop_and_copy) in [(LOCALHOST, false), ("here", true)] {
        let (here, domain) = alone(3);
        let options = MoveOptions {
            stop_and_copy,
            ..World::options()
        };
        let (uuid, before) = (uuid(&here), World::memory(&here));
        let mut seen = false;
        let told = migrate(&here, domain, peer, options, |here| {
            at_most_one_runs(here);
            let list = World::list(here);
            seen |= list.iter().any(|info| {
                let name = godwit_abi::text(&info.name);
                name == std::format!("n{INCOMING}") && info.uuid != uuid
            });
        });
        let told = told.unwrap();
        assert!(
            told.starts_with("moved domain 'n' to localhost: "),
            "{told}"
        );
        assert!(seen, "there was a copy");
        let id = only_one(&here, uuid, peer);
        assert_ne!(id, domain);
        assert_eq!(World::memory(&here), before);
        // And once more.
        migrate(&here, id, peer, options, at_most_one_runs).unwrap();
        only_one(&here, uuid, "again");
    }
}

/// Called off at some poll. Whether the move had ended before.
fn called_off_after(polls: usize, seen: &mut BTreeSet<Stage>) -> bool {
    let (here, domain) = alone(40);
    let uuid = uuid(&here);
    let mut count = 0;
    let mut stage = Stage::Done;
    let moved = migrate(&here, domain, LOCALHOST, World::options(), |here| {
        at_most_one_runs(here);
        if let Some(job) = here.jobs.of(domain)
            && count == polls
        {
            stage = job.stage();
            job.cancel();
        }
        count += 1;
    });
    let what = std::format!("called off after {polls} polls, at {stage}: {moved:?}");
    let id = only_one(&here, uuid, &what);
    // Either the original goes on, or it was too late for that.
    assert_eq!(moved.is_err(), id == domain, "{what}");
    if let Err(error) = moved {
        assert!(error.to_string().contains("called off"), "{what}");
        seen.insert(stage);
    }
    count <= polls
}

#[test]
fn called_off_before_the_commit_the_domain_goes_on_with_all_it_had() {
    let (mut polls, mut seen) = (0, BTreeSet::new());
    while !called_off_after(polls, &mut seen) {
        polls += STEP;
    }
    assert!(
        seen.contains(&Stage::Copy) && seen.contains(&Stage::Stop),
        "{seen:?}"
    );
}

#[test]
fn several_are_copied_at_once_as_many_as_may_leave() {
    let (here, first) = alone(40);
    let mut domains = std::vec![first];
    for number in 0..3 {
        let mut settings: Vec<String> = small().into_iter().map(String::from).collect();
        settings.retain(|setting| {
            !["name", "disk", "vif"]
                .iter()
                .any(|key| setting.starts_with(key))
        });
        settings.push(std::format!("name=n{number}"));
        let made = block_on(here.create("/dev/null", &settings, false)).unwrap();
        let set = |domain: &mut FakeDomain| domain.platform = platform();
        host(&here).with(made.domain, set).unwrap();
        domains.push(made.domain);
    }
    let names = |here: &Toolstack<FakeSite>| -> BTreeSet<(String, [u8; 16])> {
        let all = World::list(here).into_iter();
        all.map(|info| (godwit_abi::text(&info.name).into(), info.uuid))
            .collect()
    };
    let (before, free) = (names(&here), host(&here).state.borrow().host.free_bytes);
    let wire = Loop::default();
    let jobs: Vec<_> = domains
        .iter()
        .map(|_| here.jobs.begin(Direction::Out, "n", LOCALHOST, 0))
        .collect();
    let mut moves: Vec<_> = domains
        .iter()
        .zip(&jobs)
        .map(|(domain, job)| Box::pin(here.migrate(&wire, job, *domain, World::options())))
        .collect();
    let (mut serving, mut most) = (Serving::new(), 0);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..POLLS_MAX {
        moves.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
        serve(&here, &wire, &mut serving);
        let copies = World::list(&here).len() - domains.len();
        most = most.max(copies);
        if moves.is_empty() && serving.is_empty() {
            break;
        }
    }
    for job in &jobs {
        assert!(job.outcome().unwrap().is_ok(), "{:?}", job.outcome());
    }
    assert!((2..=4).contains(&most), "{most} copies at a time");
    assert_eq!(names(&here), before);
    let ids: Vec<DomainId> = World::list(&here).iter().map(names::id_of).collect();
    assert!(
        ids.iter().all(|id| !domains.contains(id)),
        "each is another"
    );
    assert_eq!(host(&here).state.borrow().host.free_bytes, free);
}

#[test]
fn what_is_in_the_way_is_said_and_nothing_happens() {
    let (here, domain) = alone(3);
    let uuid = uuid(&here);
    let refused = |options| {
        let error = migrate(&here, domain, LOCALHOST, options, at_most_one_runs);
        assert_eq!(only_one(&here, uuid, "refused"), domain);
        error.unwrap_err().to_string()
    };
    let postcopy = MoveOptions {
        postcopy: true,
        ..World::options()
    };
    let why = refused(postcopy);
    assert!(why.contains("itself: post-copy to localhost"), "{why}");
    let free = host(&here).state.borrow().host.free_bytes;
    host(&here).state.borrow_mut().host.free_bytes = 1 << 20;
    let error = migrate(&here, domain, LOCALHOST, World::options(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("MiB are free"), "{error}");
    host(&here).state.borrow_mut().host.free_bytes = free;
    only_one(&here, uuid, "too little memory");
    // Whoever comes from elsewhere with its name brings no copy of it.
    let wire = Loop::default();
    let job = here.jobs.begin(Direction::Out, "n", LOCALHOST, 0);
    let mut moving = pin!(here.migrate(&wire, &job, domain, World::options()));
    let mut context = Context::from_waker(Waker::noop());
    let mut serving = Serving::new();
    let mut outcome = None;
    while outcome.is_none() {
        let ends: Vec<Pipe> = wire.0.take();
        for end in ends {
            serving.push(Box::pin(here.receive(end, "elsewhere")));
        }
        serving.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
        if let Poll::Ready(value) = moving.as_mut().poll(&mut context) {
            outcome = Some(value);
        }
    }
    let error = outcome.unwrap().unwrap_err().to_string();
    assert!(error.contains("there is a domain 'n' already"), "{error}");
    drop(serving);
    let offline = block_on(here.migrate_offline(&wire, LOCALHOST, "a.cfg"));
    let why = offline.unwrap_err().to_string();
    assert!(why.contains("itself: localhost is this host"), "{why}");
}

#[test]
fn whatever_device_fails_the_domain_goes_on_with_all_it_had() {
    let mut fine = false;
    for nth in 0.. {
        let (here, domain) = alone(40);
        let uuid = uuid(&here);
        let devices = &here.site.devices;
        devices.fail.set(Some(devices.calls.get() + nth));
        let moved = migrate(&here, domain, LOCALHOST, World::options(), at_most_one_runs);
        only_one(&here, uuid, &std::format!("device call {nth}"));
        if moved.is_ok() && devices.fail.get() >= Some(devices.calls.get()) {
            fine = nth > 8;
            break;
        }
    }
    assert!(fine, "each device is called");
}

#[test]
fn whatever_hypercall_fails_one_copy_runs() {
    for nth in (0..).step_by(CALL_STEP) {
        let (here, domain) = alone(40);
        let uuid = uuid(&here);
        host(&here).fail_call(nth, Status::NoMemory);
        let before = host(&here).state.borrow().calls;
        let moved = migrate(&here, domain, LOCALHOST, World::options(), at_most_one_runs);
        let made = host(&here).state.borrow().calls - before;
        host(&here).state.borrow_mut().fail = None;
        only_one(&here, uuid, &std::format!("hypercall {nth}: {moved:?}"));
        if made <= nth {
            assert!(nth > 100 && moved.is_ok());
            break;
        }
    }
}

/// Lets dom0 die after some polls. Whether the move had ended.
fn dies_after(polls: usize) -> bool {
    let (here, domain) = alone(40);
    let uuid = uuid(&here);
    let mut context = Context::from_waker(Waker::noop());
    let mut over = false;
    {
        let wire = Loop::default();
        let job = here.jobs.begin(Direction::Out, "n", LOCALHOST, 0);
        let mut moving: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            let _ = here
                .migrate(&wire, &job, domain, MoveOptions::default())
                .await;
        });
        let mut serving = Serving::new();
        for _ in 0..polls {
            over = over || moving.as_mut().poll(&mut context).is_ready();
            serve(&here, &wire, &mut serving);
            at_most_one_runs(&here);
        }
    }
    let here = crash::reborn(here);
    at_most_one_runs(&here);
    {
        let wire = Loop::default();
        let mut settling: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            for (domain, ..) in here.unsettled() {
                let _ = here.settle_move(&wire, domain).await;
            }
        });
        let (mut settled, mut serving) = (false, Serving::new());
        for _ in 0..POLLS_MAX {
            settled = settled || settling.as_mut().poll(&mut context).is_ready();
            serve(&here, &wire, &mut serving);
            at_most_one_runs(&here);
            if settled && serving.is_empty() {
                break;
            }
        }
        assert!(settled && serving.is_empty(), "after {polls} polls");
    }
    only_one(&here, uuid, &std::format!("dom0 died after {polls} polls"));
    over
}

#[test]
fn whenever_dom0_dies_one_copy_runs() {
    let mut polls = 0;
    while !dies_after(polls) {
        polls += STEP;
    }
    assert!(polls > 30, "{polls}");
}
