//! The operator decides for a host that never comes back: what he says is done, and found out if it is not so.

use super::*;
use crate::operate::migrate::{Claim, Stage};
use core::task::{Context, Waker};

/// Both futures, to their ends.
async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|context| {
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(context)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(context)
        {
            second = Some(value);
        }
        match first.is_some() && second.is_some() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    (first.unwrap(), second.unwrap())
}

/// Moves the domain, and cuts the link for good when it is given up: before the other host has heard of that, or
/// afterwards (`runs_there`). The operator then says that the other host is gone.
fn cut_and_resolve(runs_there: bool) -> (World, String, Vec<Claim>) {
    let whole = world_of(40);
    whole.migrate(MoveOptions::default(), |_| {}).unwrap();
    for cut in (0..whole.wire.weather.writes.get()).rev() {
        let world = world_of(40);
        world.wire.weather.left.set(Some(cut));
        let job = world.here.jobs.begin(Direction::Out, "n", "there", 0);
        let options = MoveOptions::default();
        let moving = world.here.migrate(&world.wire, &job, world.domain, options);
        let asks = || {
            job.lines(0)
                .iter()
                .any(|line| line.contains("stands still"))
        };
        let resolving = async {
            while job.stage() < Stage::Done && !asks() {
                yield_now().await;
            }
            match asks() {
                true => Some(world.here.resolve_move(&world.wire, "n").await.unwrap()),
                false => None,
            }
        };
        let (_, told) = world.drive(both(moving, resolving), &mut |_| {});
        let runs = World::list(&world.there).iter().any(|it| it.pauses == 0);
        if let Some(told) = told.filter(|_| runs == runs_there) {
            let outcome = job.outcome().unwrap().unwrap_err();
            assert!(outcome.contains("claimed"), "{outcome}");
            let claims = world.here.jobs.take_claims();
            return (world, told, claims);
        }
    }
    panic!("the link cannot be cut there");
}

fn heal(world: &World) {
    world.wire.weather.left.set(None);
    world.wire.weather.is_down.set(false);
}

fn pauses(toolstack: &Toolstack<FakeSite>) -> Vec<u32> {
    World::list(toolstack).iter().map(|it| it.pauses).collect()
}

#[test]
fn nothing_is_decided_while_the_other_host_answers_or_nothing_is_undecided() {
    let world = world_of(40);
    let why = world.here.explain_undecided("n").unwrap_err().to_string();
    assert!(why.contains("nothing is undecided"), "{why}");
    let job = world.here.jobs.begin(Direction::Out, "n", "there", 0);
    let options = MoveOptions::default();
    let moving = world.here.migrate(&world.wire, &job, world.domain, options);
    let asking = async {
        while job.stage() < Stage::HandOver {
            yield_now().await;
        }
        let text = world.here.explain_undecided("n").unwrap();
        assert!(text.contains("TWO COPIES RUN"), "{text}");
        world.here.resolve_move(&world.wire, "n").await.err()
    };
    let (_, answers) = world.drive(both(moving, asking), &mut |_| {});
    let why = answers.unwrap().to_string();
    assert!(why.contains("it is not gone"), "{why}");
    assert!(world.only_one_runs("a move that was not decided"));
}

#[test]
fn what_was_claimed_goes_on_here_and_a_host_that_comes_back_never_runs_it() {
    let (world, told, claims) = cut_and_resolve(false);
    assert!(told.contains("goes on here"), "{told}");
    assert_eq!(pauses(&world.here), [0]);
    assert!(matches!(&claims[..], [claim] if claim.of.peer == "there"));
    heal(&world);
    let pressed = world.drive(world.here.press_claim(&world.wire, &claims[0]), &mut |_| {});
    assert!(pressed.contains("knows that the domain"), "{pressed}");
    assert!(!world.only_one_runs("claimed"));
    let blob = host(&world.here).blob_read(world.domain, 3);
    assert_eq!(blob, Err(Status::NotFound));
    // It can move again.
    world.migrate(MoveOptions::default(), |_| {}).unwrap();
    assert!(world.only_one_runs("moved after a claim"));
}

#[test]
fn when_the_other_host_had_it_after_all_the_claimed_copy_is_paused_and_both_are_told() {
    let (world, _, claims) = cut_and_resolve(true);
    // The operator was wrong.
    assert_eq!(
        (pauses(&world.here), pauses(&world.there)),
        (std::vec![0], std::vec![0])
    );
    heal(&world);
    let World {
        here,
        there,
        wire,
        domain,
    } = world;
    // dom0 forgets nothing of it.
    let here = crash::reborn(here);
    assert_eq!(here.jobs.take_claims(), claims);
    let world = World {
        here,
        there,
        wire,
        domain,
    };
    let pressed = world.drive(world.here.press_claim(&world.wire, &claims[0]), &mut |_| {});
    assert!(pressed.contains("DISPUTED"), "{pressed}");
    assert_eq!(
        (pauses(&world.here), pauses(&world.there)),
        (std::vec![1], std::vec![0])
    );
    for jobs in [world.here.jobs.all(), world.there.jobs.all()] {
        let shown = crate::show::history(&jobs);
        assert!(shown.contains("DISPUTED"), "{shown}");
    }
}

#[test]
fn a_domain_that_is_given_up_and_that_nobody_settles_is_left_alone() {
    let world = world_of(40);
    let note = "godwit-move 1\nattempt 7\nboot 9\nstate committing\npauses 0\npeer there\n";
    host(&world.here)
        .blob_write(world.domain, 2, note.as_bytes())
        .unwrap();
    let why = world.here.given_up(world.domain).unwrap().unwrap();
    assert!(why.to_string().contains("given up to there"), "{why}");
    let refused = block_on(world.here.destroy(world.domain)).unwrap_err();
    assert!(
        refused.to_string().contains("given up to there"),
        "{refused}"
    );
}

#[test]
fn a_domain_whose_host_is_gone_with_part_of_its_memory_is_lost_by_the_operators_word() {
    let world = postcopy::dirty(world_of(40));
    let options = MoveOptions {
        postcopy: true,
        ..MoveOptions::default()
    };
    let job = world.here.jobs.begin(Direction::Out, "n", "there", 0);
    {
        let mut moving = pin!(world.here.migrate(&world.wire, &job, world.domain, options));
        let mut serving = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while job.stage() < Stage::Fetch {
            assert!(moving.as_mut().poll(&mut context).is_pending());
            for end in world.wire.arrived.take() {
                serving.push(Box::pin(world.there.receive(end, "here")));
            }
            serving.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
        }
        // Nothing gets through any more.
        world.wire.weather.left.set(Some(0));
        let resolving = async {
            while !world.wire.weather.is_down.get() {
                yield_now().await;
            }
            world.here.resolve_move(&world.wire, "n").await.unwrap()
        };
        let mut resolving = pin!(resolving);
        let (mut told, mut moved) = (None, false);
        while !moved || told.is_none() || !serving.is_empty() {
            serving.retain_mut(|one| one.as_mut().poll(&mut context).is_pending());
            moved = moved || moving.as_mut().poll(&mut context).is_ready();
            if told.is_none()
                && let Poll::Ready(resolved) = resolving.as_mut().poll(&mut context)
            {
                told = Some(resolved);
            }
        }
        let told = told.unwrap();
        assert!(told.contains("is lost"), "{told}");
    }
    assert!(World::list(&world.here).is_empty());
    // There, the operator sees what to do.
    let why = world.there.explain_undecided("n").unwrap_err().to_string();
    assert!(why.contains("xl destroy n"), "{why}");
    let shown = crate::show::moves(&world.there.jobs.all(), 2, 0);
    assert!(shown.contains("xl migrate-resolve"), "{shown}");
}
