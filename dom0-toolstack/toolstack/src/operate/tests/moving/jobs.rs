//! Jobs: how many work at a time, which wait, what their domains are kept from, what is shown.

use super::*;
use crate::operate::migrate::Stage;

/// Domains beside the first.
fn more(world: &World, count: usize) -> Vec<DomainId> {
    let mut all = std::vec![world.domain];
    for number in 0..count {
        let mut settings: Vec<String> = small().into_iter().map(String::from).collect();
        settings.retain(|setting| {
            !["name", "disk", "vif"]
                .iter()
                .any(|key| setting.starts_with(key))
        });
        settings.push(std::format!("name=n{number}"));
        let made = block_on(world.here.create("/dev/null", &settings, false)).unwrap();
        host(&world.here)
            .with(made.domain, |domain| domain.platform = platform())
            .unwrap();
        all.push(made.domain);
    }
    all
}

#[test]
fn two_leave_at_a_time_and_the_others_wait() {
    let world = world();
    let domains = more(&world, 4);
    let jobs: Vec<_> = domains
        .iter()
        .map(|_| world.here.jobs.begin(Direction::Out, "n", "there", 0))
        .collect();
    let (mut most, mut waited) = (0, 0);
    // The last is called off while it waits, the first but one ends there.
    jobs[4].cancel();
    let moving = async {
        let moves = domains.iter().zip(&jobs).map(|(domain, job)| {
            let options = MoveOptions::default();
            Box::pin(world.here.migrate(&world.wire, job, *domain, options))
        });
        let mut moves: Vec<_> = moves.collect();
        poll_fn(|context| {
            moves.retain_mut(|one| one.as_mut().poll(context).is_pending());
            match moves.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    };
    let mut last: Vec<Stage> = jobs.iter().map(|job| job.stage()).collect();
    world.drive(moving, &mut |world| {
        let stages: Vec<Stage> = jobs.iter().map(|job| job.stage()).collect();
        assert!(stages.iter().zip(&last).all(|(now, before)| now >= before));
        // One that hands over may wait for long, and counts no more.
        let working = |stage: &&Stage| (Stage::Check..Stage::HandOver).contains(*stage);
        most = most.max(stages.iter().filter(working).count());
        if stages[3] == Stage::Queue && stages[0] == Stage::Copy {
            waited += 1;
            // It is locked while it waits, too.
            let locked = block_on(world.here.destroy(domains[3])).unwrap_err();
            assert!(locked.to_string().contains("is being moved"), "{locked}");
            for domain in [domains[0], domains[3]] {
                let locked = world.here.domain_rename(domain, "new").unwrap_err();
                assert!(locked.to_string().contains("is being moved"), "{locked}");
            }
        }
        last = stages;
    });
    assert_eq!(most, 2);
    assert!(waited > 0);
    let outcomes: Vec<bool> = jobs
        .iter()
        .map(|job| job.outcome().unwrap().is_ok())
        .collect();
    assert_eq!(outcomes, [true, true, true, true, false]);
    let called_off = jobs[4].outcome().unwrap().unwrap_err();
    assert_eq!(called_off, "it was called off");
    assert_eq!(World::list(&world.there).len(), 4);
    assert_eq!(World::list(&world.here).len(), 1);
    // The lock died with the job.
    assert!(world.here.registry.reserve(domains[4]).is_some());
}

#[test]
fn the_limit_can_be_changed_and_a_guest_that_ends_leaves_the_queue() {
    let world = world();
    let domains = more(&world, 1);
    world.here.jobs.set_limit(1);
    let blocker = world.here.jobs.begin(Direction::Out, "x", "there", 0);
    let job = world.here.jobs.begin(Direction::Out, "n0", "there", 0);
    let mut polls = 0;
    let options = MoveOptions::default();
    let moving = world.here.migrate(&world.wire, &job, domains[1], options);
    let ended = world.drive(moving, &mut |world| {
        polls += 1;
        if polls == 50 {
            assert_eq!(job.stage(), Stage::Queue);
            host(&world.here).end(domains[1], ShutdownReason::PowerOff);
        }
    });
    assert_eq!(ended.unwrap_err().to_string(), "it has ended");
    blocker.give_up("over".into());
    world.migrate(MoveOptions::default(), |_| {}).unwrap();
}

#[test]
fn a_paused_domain_stays_paused_and_one_that_is_not_there_is_refused() {
    let world = world();
    host(&world.here).domain_pause(world.domain).unwrap();
    world.migrate(World::options(), |_| {}).unwrap();
    assert!(World::list(&world.here).is_empty());
    assert_eq!(World::list(&world.there)[0].pauses, 1);
    let error = world.migrate(World::options(), |_| {}).unwrap_err();
    assert_eq!(error, OperateError::Foreign(world.domain));
}
