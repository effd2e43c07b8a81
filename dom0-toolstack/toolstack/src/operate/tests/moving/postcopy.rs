//! A domain that goes before its memory: it has all of it in the end, each page once, whoever dies meanwhile.

use super::*;
use crate::operate::migrate::Stage;
use godwit_migrate::postcopy::Fetched;

fn options() -> MoveOptions {
    MoveOptions {
        postcopy: true,
        ..MoveOptions::default()
    }
}

/// The guest and a device touch pages that are missing: the last ones, which would come last. Returns how many are missing.
fn touch(world: &World) -> usize {
    let there = World::list(&world.there);
    let Some(info) = there.iter().find(|info| info.pauses == 0) else {
        return 0;
    };
    let touched = host(&world.there).with(names::id_of(info), |domain| {
        let mut last = domain.absent.iter().rev();
        domain.wanted.extend(last.next());
        let device = last.next();
        world.there.site.devices.wanted.borrow_mut().extend(device);
        domain.absent.len()
    });
    touched.unwrap()
}

#[test]
fn it_runs_there_before_its_memory_and_has_all_of_it_in_the_end() {
    let world = dirty(world());
    let (mut step, mut before, mut missing) = (0, Memory::new(), 0);
    let (mut refused, mut shown) = (None, String::new());
    let told = world.migrate(options(), |world| {
        world.scribble(&mut step);
        if let Ok(pages) = host(&world.here).with(world.domain, |domain| domain.pages.clone()) {
            before = pages;
        }
        let now = touch(world);
        missing = missing.max(now);
        let job = world.there.jobs.all().into_iter().next();
        if let Some(job) = job.filter(|job| job.stage() == Stage::Fetch && now > 0) {
            let id = names::id_of(&World::list(&world.there)[0]);
            refused = refused.take().or_else(|| world.there.reserve(id).err());
            if job.fetched().faults > 0 {
                shown = crate::show::moves(&[job], 2, 0);
            }
        }
    });
    let told = told.unwrap();
    assert!(told.starts_with("moved domain 'n' to there: "), "{told}");
    assert!(missing > 10, "{missing} were missing");
    assert!(world.only_one_runs("post-copy"));
    assert_eq!(World::memory(&world.there), before);
    assert!(shown.contains("faults served"), "{shown}");
    let refused = refused.expect("it is left alone").to_string();
    assert!(refused.contains("being moved here from"), "{refused}");
    let jobs = [world.here.jobs.all(), world.there.jobs.all()];
    let [out, into] = jobs.map(|jobs| jobs.into_iter().next().unwrap());
    let lines = out.lines(0).join("\n");
    assert!(lines.contains("their digests are equal"), "{lines}");
    let Fetched {
        missing, faults, ..
    } = into.fetched();
    assert!(missing == 0 && faults > 1, "{:?}", into.fetched());
}

/// A device writes to pages again and again: they will be missing.
pub(super) fn dirty(world: World) -> World {
    let mut words = std::vec![0u64; 8];
    for page in 60..180 {
        words[page / 64] |= 1 << (page % 64);
    }
    let written = Some((world.domain, words));
    world.here.site.devices.still_written.replace(written);
    world
}

#[test]
fn wherever_the_link_is_cut_all_memory_comes() {
    faults::cut_everywhere(|| dirty(world_of(40)), options());
}

#[test]
fn whenever_dom0_of_the_source_dies_all_memory_comes() {
    let mut polls = 0;
    while !crash::source_dies_after(polls, options()) {
        polls += 31;
    }
    assert!(polls > 60, "{polls}");
}

#[test]
fn whenever_dom0_of_the_destination_dies_all_memory_comes() {
    let mut polls = 0;
    while !crash::destination_dies_after(polls, options()) {
        polls += 31;
    }
    assert!(polls > 60, "{polls}");
}

#[test]
fn a_guest_that_ends_before_its_memory_has_come_ends_there() {
    let world = world();
    let mut step = 0;
    let moved = world.migrate(options(), |world| {
        world.scribble(&mut step);
        if touch(world) > 0 {
            let id = names::id_of(&World::list(&world.there)[0]);
            host(&world.there).end(id, ShutdownReason::PowerOff);
        }
    });
    moved.unwrap();
    assert!(World::list(&world.here).is_empty());
    let info = World::list(&world.there)[0];
    assert_eq!(info.state, DomainState::Shutdown as u32);
    assert!(!world.there.fetches.has(names::id_of(&info)));
}
