//! A host is emptied, and gets its domains back; nobody else gets them.

use super::*;
use crate::operate::migrate::unwatched;

/// The other way: what `there` was asked for goes back.
fn send_back(world: &World) -> usize {
    let wanted = world.there.jobs.take_wanted();
    for it in &wanted {
        let job = world.there.jobs.begin(Direction::Out, &it.name, "there", 0);
        let moving = world
            .there
            .migrate(&world.wire, &job, it.domain, unwatched());
        let mut moving = pin!(moving);
        let mut serving: Vec<core::pin::Pin<Box<dyn Future<Output = _> + '_>>> = Vec::new();
        let mut outcome = None;
        block_on(poll_fn(|context| {
            if outcome.is_none()
                && let Poll::Ready(value) = moving.as_mut().poll(context)
            {
                outcome = Some(value);
            }
            for end in world.wire.arrived.take() {
                serving.push(Box::pin(world.here.receive(end, "there")));
            }
            serving.retain_mut(|one| one.as_mut().poll(context).is_pending());
            match outcome.is_some() && serving.is_empty() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
        outcome.unwrap().unwrap();
    }
    wanted.len()
}

#[test]
fn what_was_moved_away_comes_back() {
    let world = world();
    let none = world.drive(world.here.recall(&world.wire, "there"), &mut |_| {});
    assert!(
        none.unwrap_err()
            .to_string()
            .contains("no domain is remembered")
    );
    let (domains, remembered): (Vec<_>, Vec<_>) =
        world.here.to_evacuate("there").into_iter().unzip();
    assert_eq!(domains, [world.domain]);
    world.migrate(MoveOptions::default(), |_| {}).unwrap();
    block_on(world.here.remember_evacuated(remembered)).unwrap();
    // Another dom0 finds it in the file.
    let World {
        here,
        mut there,
        wire,
        domain,
    } = world;
    let here = Toolstack::new(here.site, Vec::new());
    // By its own name a host moves to itself.
    there.site.name = "other".into();
    let world = World {
        here,
        there,
        wire,
        domain,
    };
    let told = world.drive(world.here.recall(&world.wire, "there"), &mut |_| {});
    assert_eq!(told.unwrap(), "n: it comes\n");
    assert_eq!(send_back(&world), 1);
    assert_eq!(World::list(&world.here).len(), 1);
    assert!(World::list(&world.there).is_empty());
    let again = world.drive(world.here.recall(&world.wire, "there"), &mut |_| {});
    assert!(
        again
            .unwrap_err()
            .to_string()
            .contains("no domain is remembered")
    );
}

#[test]
fn a_host_gets_only_what_was_its_own() {
    let world = world();
    let foreign = make(&world.there, &small()).unwrap();
    let mut all: Vec<_> = world.there.to_evacuate("there").into_iter().collect();
    assert_eq!(all.len(), 1);
    let (id, mut asked) = all.remove(0);
    assert_eq!(id, foreign);
    let recall = |world: &World| {
        world
            .drive(world.here.recall(&world.wire, "there"), &mut |_| {})
            .unwrap()
    };
    block_on(world.here.remember_evacuated(std::vec![asked.clone()])).unwrap();
    assert_eq!(recall(&world), "n: it did not come from here\n");
    asked.uuid = "0".repeat(32);
    block_on(world.here.remember_evacuated(std::vec![asked])).unwrap();
    assert_eq!(
        recall(&world).lines().last(),
        Some("n: it is not here any more")
    );
    assert!(world.there.jobs.take_wanted().is_empty());
}

#[test]
fn jobs_are_shown_as_tables_and_as_json() {
    let world = world();
    world.migrate(MoveOptions::default(), |_| {}).unwrap();
    world.migrate(MoveOptions::default(), |_| {}).unwrap_err();
    let jobs = world.here.jobs.all();
    let lines = crate::show::moves_json(&jobs, false);
    let jobs_json: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(jobs_json[0]["outcome"], "moved");
    assert_eq!(jobs_json[1]["outcome"], "failed");
    let actual = &jobs_json[0]["actual"];
    assert!(actual["bytes"].as_u64().unwrap() > 0 && actual["rounds"] == 1);
    assert!(
        jobs_json[0]["predicted"]["downtime_us"][1]
            .as_u64()
            .is_some()
    );
    assert_eq!(crate::show::history(&jobs).lines().count(), 4);
    assert_eq!(crate::show::moves(&jobs, 2, 0).lines().count(), 4);
}
