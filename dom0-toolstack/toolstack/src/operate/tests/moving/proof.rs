//! The comparison of digests: what it costs while the domain stands still, and what it says when they differ.

use super::*;
use crate::operate::migrate::HASHES_LOOKED_FOR;

/// Calls of both hypervisors and hashes looked for while a domain of so much memory stood still, which had 40 pages left.
fn in_the_stop(memory_mib: u64) -> (usize, u64) {
    let world = world_with(3, memory_mib);
    // Holes all over, as a balloon leaves them.
    let holes: Vec<u64> = (0..memory_mib * 256 - 3).step_by(200).collect();
    let holes: Vec<u64> = holes.into_iter().filter(|page| *page > 500).collect();
    host(&world.here)
        .memory_release(world.domain, &holes)
        .unwrap();
    let counted = |world: &World| {
        let calls = [&world.here, &world.there].map(|side| host(side).state.borrow().calls);
        (calls[0] + calls[1], HASHES_LOOKED_FOR.get())
    };
    let (mut last, mut begin, mut spent, mut written) = ((0, 0), None, None, false);
    let moved = world.migrate(MoveOptions::default(), |world| {
        let all_there = World::list(&world.there)
            .first()
            .is_some_and(|info| info.memory_pages >= memory_mib * 200);
        let stands = host(&world.here).with(world.domain, |domain| {
            if let Some(dirty) = domain.dirty.as_mut().filter(|_| all_there && !written) {
                written = true;
                for page in 20..60 {
                    domain.pages.get_mut(&page).unwrap()[7] ^= 1;
                    dirty.insert(page);
                }
            }
            domain.info.pauses > 0
        });
        let runs = World::list(&world.there)
            .iter()
            .any(|info| info.pauses == 0);
        match stands == Ok(true) {
            true if !runs => {
                begin.get_or_insert(last);
            }
            _ if begin.is_some() => {
                spent.get_or_insert(counted(world));
            }
            _ => {}
        }
        // It was paused by the step before this.
        last = counted(world);
    });
    moved.unwrap();
    assert!(world.only_one_runs("a move") && written);
    let (begin, end) = (begin.unwrap(), spent.unwrap());
    (end.0 - begin.0, end.1 - begin.1)
}

#[test]
fn a_stop_costs_what_is_sent_in_it_and_not_what_the_domain_has() {
    let (small, large) = (in_the_stop(16), in_the_stop(64));
    // How large the rest is does not matter.
    assert!(
        large.0 <= small.0 + small.0 / 8 && large.1 <= small.1 + small.1 / 8,
        "{small:?} {large:?}"
    );
    assert!(
        small.0 > 10 && small.1 >= 40,
        "{small:?}: nothing was counted"
    );
    assert!(small.1 < 1000, "{small:?}");
}

#[test]
fn a_difference_is_named_and_the_domain_goes_on_where_it_was() {
    let world = world();
    let options = MoveOptions {
        goals: Goals {
            downtime_us: 1,
            deadline_us: None,
            on_miss: OnMiss::Pause,
        },
        ..MoveOptions::default()
    };
    let good = host(&world.here).with(world.domain, |domain| domain.pages[&41][4000]);
    let mut steps = 0u8;
    let error = world.migrate(options, |world| {
        // The guest changes a byte over and over: in the end only the change is sent. A bit beside it is wrong there.
        let _ = host(&world.here).with(world.domain, |domain| {
            if let Some(dirty) = domain.dirty.as_mut().filter(|_| domain.info.pauses == 0) {
                steps = steps.wrapping_add(1);
                domain.pages.get_mut(&41).unwrap()[4001] = steps;
                dirty.insert(41);
            }
        });
        for info in World::list(&world.there) {
            let _ = host(&world.there).with(names::id_of(&info), |domain| {
                if let Some(page) = domain.pages.get_mut(&41).filter(|page| page[9] != 0) {
                    page[4000] = good.unwrap() ^ 1;
                }
            });
        }
    });
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("its digest differs, in pages [29]"),
        "{error}"
    );
    assert!(!world.only_one_runs("a difference"));
}
