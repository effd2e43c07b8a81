//! Seeds that must pass, and worlds that are broken on purpose and must be found out.

use godwit_sim::world::{Broken, PowerCut, Stats, run_cut, run_seed};

/// Seeds that CI runs.
const SEEDS: u64 = 300;
/// Seeds run side by side.
const THREADS: u64 = 2;
/// Within so many a broken world is found out.
const BROKEN_SEEDS: u64 = 400;

/// Seeds for each cut of the power.
const CUT_SEEDS: u64 = 12;

#[test]
fn seeds_pass() {
    let share = |first: u64| {
        let mut all = Stats::default();
        for seed in (first..SEEDS).step_by(THREADS as usize) {
            match run_seed(seed, Broken::Nothing) {
                Ok(stats) => all.add(stats),
                Err(what) => panic!("{what}\nagain: ./x test sim --seed {seed}"),
            }
        }
        all
    };
    let mut all = Stats::default();
    std::thread::scope(|scope| {
        let shares: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || share(first)))
            .collect();
        for share in shares {
            all.add(share.join().expect("a seed failed"));
        }
    });
    println!("{all:?}");
    // Both ends happen often: else the faults come at the wrong moments.
    assert!(all.moved > SEEDS / 2 && all.kept > SEEDS / 2, "{all:?}");
    assert!(all.returned > SEEDS / 20, "{all:?}");
    assert!(all.copied > SEEDS / 10, "{all:?}");
}

/// A destination of a post-copy that was asked for what it lacks just before it was ready to say so had all, it said.
const ASKED_TOO_EARLY: u64 = 21_503;
/// A destination without a journal lost its power after it had refused, and could not say so: the source took it that it ran there.
const COULD_NOT_KNOW: u64 = 21_867;
/// A stop under a bandwidth limit took four times what was expected.
const LIMITED: u64 = 20_074;

#[test]
fn seeds_that_failed_pass() {
    for seed in [ASKED_TOO_EARLY, COULD_NOT_KNOW, LIMITED] {
        run_seed(seed, Broken::Nothing).unwrap();
    }
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let run = |seed| format!("{:?}", run_seed(seed, Broken::Nothing));
    for seed in 0..12 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

/// Some seed ends with one of these complaints.
fn found_out(broken: Broken, wanted: &[&str]) {
    let is_found = |seed| {
        let complaint = run_seed(seed, broken).err().unwrap_or_default();
        let what = complaint.lines().next().unwrap_or_default();
        wanted.iter().any(|wanted| what.contains(wanted))
    };
    assert!(
        (0..BROKEN_SEEDS).any(is_found),
        "{broken:?} is not found out"
    );
}

#[test]
fn a_source_that_forgets_that_it_gave_a_domain_up_is_found_out() {
    found_out(Broken::NoteOfTheMove, &["runs twice", "there 2 times"]);
}

#[test]
fn a_destination_that_forgets_what_it_took_is_found_out() {
    found_out(
        Broken::NoteOfArrivals,
        &["is lost", "runs twice", "is not what it wrote", "clock"],
    );
}

#[test]
fn a_hypervisor_that_misses_writes_is_found_out() {
    found_out(
        Broken::DirtyPages,
        &["is not what it wrote", "it did not write"],
    );
}

#[test]
fn a_log_of_writes_that_is_told_nobody_is_found_out() {
    found_out(Broken::LogOfWrites, &["a harvest misses page"]);
}

#[test]
fn a_hypervisor_that_shows_what_has_not_come_is_found_out() {
    found_out(
        Broken::AbsentPages,
        &["is not what it wrote", "it did not write"],
    );
}

/// Cuts the power of a host at every write to its journal during a move; several times, because what a
/// disk loses is chance. How many writes there were.
fn cut_everywhere(host: usize, later: bool, broken: Broken) -> Result<u64, String> {
    let mut most = 0;
    for seed in 0..CUT_SEEDS {
        let mut writes = 0;
        let cut = |writes| PowerCut {
            host,
            writes,
            later,
        };
        while !run_cut(seed, cut(writes + 1), broken)? {
            writes += 1;
        }
        most = most.max(writes);
    }
    Ok(most)
}

#[test]
fn a_disk_that_does_not_flush_is_found_out() {
    let complaint = cut_everywhere(1, true, Broken::Disk).unwrap_err();
    let what = complaint.lines().next().unwrap_or_default();
    let wanted = [
        "runs twice",
        "is not what it wrote",
        "the clock of",
        "it did not write",
    ];
    assert!(wanted.iter().any(|wanted| what.contains(wanted)), "{what}");
}

#[test]
fn wherever_the_power_of_the_source_is_cut_both_sides_agree() {
    // Given up, flushed; settled, flushed.
    assert_eq!(cut_everywhere(0, false, Broken::Nothing), Ok(4));
    cut_everywhere(0, true, Broken::Nothing).unwrap();
}

#[test]
fn wherever_the_power_of_the_destination_is_cut_both_sides_agree() {
    // Committed, flushed.
    assert_eq!(cut_everywhere(1, false, Broken::Nothing), Ok(2));
    cut_everywhere(1, true, Broken::Nothing).unwrap();
}
