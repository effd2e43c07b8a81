//! dom0 of either host dies at every moment of a move and is built anew: exactly one copy runs.

use super::*;

use core::pin::Pin;
use core::task::{Context, Waker};

type Serving<'a> = Vec<Pin<Box<dyn Future<Output = Result<(), OperateError>> + 'a>>>;

/// Polls between two deaths that are tried.
const STEP: usize = 3;
/// More than any settling takes.
const POLLS_MAX: usize = 2_000_000;

/// Lets time go on, and serves who has connected.
fn serve<'a>(there: &'a Toolstack<FakeSite>, wire: &Wire, serving: &mut Serving<'a>) {
    let mut context = Context::from_waker(Waker::noop());
    there.site.clock_us.set(there.site.clock_us.get() + 1);
    let arrived: Vec<End> = wire.arrived.take();
    for end in arrived {
        serving.push(Box::pin(there.receive(end, "here")));
    }
    serving.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
}

fn poll(future: &mut Pin<Box<dyn Future<Output = ()> + '_>>) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    future.as_mut().poll(&mut context).is_ready()
}

/// The same host with a new dom0: what the old one had in memory is gone.
pub(super) fn reborn(old: Toolstack<FakeSite>) -> Toolstack<FakeSite> {
    old.site.devices.quiesced.take();
    old.site.devices.prepared.take();
    old.site.devices.written.take();
    let new = Toolstack::new(old.site, Vec::new());
    block_on(new.recover()).unwrap();
    new
}

/// Whether the move had ended before dom0 of the source died.
pub(super) fn source_dies_after(polls: usize, options: MoveOptions) -> bool {
    let World {
        here,
        there,
        wire,
        domain,
    } = match options.postcopy {
        true => postcopy::dirty(world_of(40)),
        false => world_of(40),
    };
    let mut serving = Serving::new();
    let mut over = false;
    {
        let job = here.jobs.begin(Direction::Out, "n", "there", 0);
        let mut moving: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            let _ = here.migrate(&wire, &job, domain, options).await;
        });
        for _ in 0..polls {
            over = over || poll(&mut moving);
            serve(&there, &wire, &mut serving);
        }
    }
    let here = reborn(here);
    {
        let mut settling: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            for (domain, ..) in here.unsettled() {
                let _ = here.settle_move(&wire, domain).await;
            }
        });
        let mut settled = false;
        for _ in 0..POLLS_MAX {
            settled = settled || poll(&mut settling);
            serve(&there, &wire, &mut serving);
            // Time goes on for who waits, and for who does not.
            let clock = &there.site.clock_us;
            clock.set(clock.get() + 100);
            if settled && serving.is_empty() {
                break;
            }
        }
        assert!(settled && serving.is_empty(), "after {polls} polls");
    }
    drop(serving);
    let world = World {
        here,
        there,
        wire,
        domain,
    };
    world.only_one_runs(&std::format!("the source's dom0 died after {polls} polls"));
    over
}

/// The same of the destination's.
pub(super) fn destination_dies_after(polls: usize, options: MoveOptions) -> bool {
    let World {
        here,
        there,
        wire,
        domain,
    } = match options.postcopy {
        true => postcopy::dirty(world_of(40)),
        false => world_of(40),
    };
    let mut over = false;
    let job = here.jobs.begin(Direction::Out, "n", "there", 0);
    let there = {
        let mut moving: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async {
            let _ = here.migrate(&wire, &job, domain, options).await;
        });
        {
            let mut serving = Serving::new();
            for _ in 0..polls {
                over = over || poll(&mut moving);
                serve(&there, &wire, &mut serving);
            }
        }
        let there = reborn(there);
        let mut ended = over;
        let mut serving = Serving::new();
        for _ in 0..POLLS_MAX {
            ended = ended || poll(&mut moving);
            serve(&there, &wire, &mut serving);
            if ended && serving.is_empty() {
                break;
            }
        }
        assert!(ended && serving.is_empty(), "after {polls} polls");
        drop(serving);
        there
    };
    let world = World {
        here,
        there,
        wire,
        domain,
    };
    world.only_one_runs(&std::format!(
        "the destination's dom0 died after {polls} polls"
    ));
    over
}

#[test]
fn whenever_dom0_of_the_source_dies_one_copy_runs() {
    let mut polls = 0;
    while !source_dies_after(polls, MoveOptions::default()) {
        polls += STEP;
    }
    assert!(polls > 30, "{polls}");
}

#[test]
fn whenever_dom0_of_the_destination_dies_one_copy_runs() {
    let mut polls = 0;
    while !destination_dies_after(polls, MoveOptions::default()) {
        polls += STEP;
    }
    assert!(polls > 30, "{polls}");
}
