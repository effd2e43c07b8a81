//! Seeds that must pass, and worlds that are broken on purpose and must be found out.

use godwit_sim::world::{Broken, Stats, run_seed};

/// Seeds that CI runs.
const SEEDS: u64 = 300;
/// Within so many a broken world is found out.
const BROKEN_SEEDS: u64 = 400;

#[test]
fn seeds_pass() {
    let mut all = Stats::default();
    for seed in 0..SEEDS {
        match run_seed(seed, Broken::Nothing) {
            Ok(stats) => all.add(stats),
            Err(what) => panic!("{what}\nagain: ./x test sim --seed {seed}"),
        }
    }
    println!("{all:?}");
    // Both ends happen often: else the faults come at the wrong moments.
    assert!(all.moved > SEEDS / 2 && all.kept > SEEDS / 2, "{all:?}");
}

#[test]
fn a_seed_always_gives_the_same_run() {
    let run = |seed| format!("{:?}", run_seed(seed, Broken::Nothing));
    for seed in 0..12 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

fn found_out(broken: Broken, wanted: &[&str]) {
    let found = (0..BROKEN_SEEDS).find_map(|seed| run_seed(seed, broken).err());
    let found = found.unwrap_or_else(|| panic!("{broken:?} is not found out"));
    let what = found.lines().next().unwrap_or_default();
    assert!(wanted.iter().any(|wanted| what.contains(wanted)), "{found}");
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
