//! Every objection to a move has its name, all are told at once, and nothing has been touched.

use super::*;
use crate::host::fake::{SLOTS_MAX, cpu_with};
use crate::operate::migrate::ARRIVALS_MAX;

/// Refuses, with exactly these objections; afterwards both hosts are as before.
fn objects(world: &World, names: &[&str]) -> String {
    let domains = World::list(&world.there).len();
    let error = world.migrate(World::options(), |_| {}).unwrap_err();
    let error = error.to_string();
    let lines = error.lines().map(|line| {
        let line = line.strip_prefix("there refuses it: ").unwrap_or(line);
        let line = line.strip_prefix("there: ").unwrap_or(line);
        line.split(": ").next().unwrap()
    });
    let mut found: Vec<&str> = lines.collect();
    found.sort();
    found.dedup();
    assert_eq!(found, names, "{error}");
    assert_eq!(World::list(&world.there).len(), domains, "{error}");
    let tracked = host(&world.here).with(world.domain, |domain| {
        (domain.info.pauses, domain.dirty.is_some())
    });
    assert_eq!(tracked, Ok((0, false)), "{error}");
    error
}

#[test]
fn everything_is_told_at_once() {
    let world = world();
    let uuid = World::config(&world.here).uuid.unwrap();
    make(&world.there, &small()).unwrap();
    host(&world.there).add_domain("other", 1);
    {
        let mut state = host(&world.there).state.borrow_mut();
        let last = state.slots.iter_mut().flatten().last().unwrap();
        last.info.uuid = uuid;
        state.host.free_bytes = 1 << 20;
        state.wall_clock = Ok(1_700_003_600_000_000_000);
        state.cpu = cpu_with(0);
    }
    host(&world.here)
        .with(world.domain, |domain| domain.cpu_policy = cpu_with(1))
        .unwrap();
    let now = world.there.site.devices.calls.get();
    // The last device that is looked at.
    world.there.site.devices.fail.set(Some(now + 3));
    let all = [
        "clock", "cpu", "device", "disk", "memory", "name", "network", "uuid",
    ];
    let error = objects(&world, &all);
    assert!(error.contains("3600 s apart"), "{error}");
    assert!(error.contains("this host lacks"), "{error}");
}

#[test]
fn what_both_sides_object_to_is_told_together() {
    let world = world();
    let there = |clock| host(&world.there).state.borrow_mut().wall_clock = Ok(clock);
    there(1);
    let entry = world.here.registry.entry(world.domain).unwrap();
    let mut local = entry.clone();
    for link in &mut local.links {
        if let crate::site::Device::Disk(disk) = &mut link.device {
            disk.target = crate::config::DiskTarget::parse("main/web").unwrap();
        }
    }
    let set = |entry| {
        world
            .here
            .registry
            .set(host(&world.here), world.domain, entry)
    };
    set(local).unwrap();
    let error = objects(&world, &["clock", "disk"]);
    assert!(error.contains("a volume of this host"), "{error}");
    set(entry).unwrap();
    let busy = world.here.registry.reserve(world.domain).unwrap();
    objects(&world, &["busy", "clock"]);
    drop(busy);
    // A host without a clock cannot object.
    host(&world.there).state.borrow_mut().wall_clock = Err(Status::NotSupported);
    world.migrate(World::options(), |_| {}).unwrap();
    assert!(world.only_one_runs("a host without a clock"));
}

#[test]
fn a_full_host_says_what_is_full() {
    let world = world();
    for slot in 0..SLOTS_MAX - 1 {
        host(&world.there).add_domain(&std::format!("other{slot}"), 1);
    }
    objects(&world, &["host"]);
    let world = self::world();
    let jobs: Vec<_> = (0..ARRIVALS_MAX)
        .map(|_| world.there.jobs.begin(Direction::In, "other", "x", 0))
        .collect();
    objects(&world, &["jobs"]);
    jobs[0].give_up("over".into());
    world.migrate(World::options(), |_| {}).unwrap();
    assert!(world.only_one_runs("one job less"));
}

#[test]
fn a_host_does_not_give_a_domain_to_itself() {
    let world = world();
    block_on(async {
        // The same boot.
        let boot = 77u64.to_le_bytes();
        for toolstack in [&world.here, &world.there] {
            let noted = host(toolstack).blob_write(DomainId::CONTROL, 2, &boot);
            noted.unwrap();
        }
    });
    objects(&world, &["itself"]);
}

#[test]
fn pinned_processors_must_be_there() {
    let world = world();
    host(&world.here).state.borrow_mut().host.cpus = 4;
    let pinned = |entry: &mut crate::registry::Entry| entry.config.cpus = std::vec![1 << 3];
    let changed = world
        .here
        .registry
        .change(host(&world.here), world.domain, pinned);
    changed.unwrap();
    host(&world.there).state.borrow_mut().host.cpus = 2;
    objects(&world, &["cpus"]);
}
