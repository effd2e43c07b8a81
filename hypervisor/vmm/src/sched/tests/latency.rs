//! The control domain: never starved, and unable to starve others.

use super::super::*;
use super::sim::{Behaviour, Behaviour::Spin, Sim, assert_close};

const SECOND: u64 = 1_000_000_000;

#[test]
fn control_domain_runs_within_the_bound_whatever_the_load() {
    for seed in 0..60 {
        let cpus = 1 + seed as usize % 4;
        let mut sim = Sim::new(cpus, seed);
        let control = Behaviour::Interactive {
            burst_ns: 1 + sim.random(20_000_000),
            sleep_ns: 1 + sim.random(20_000_000),
        };
        let vcpus = 1 + sim.random(cpus as u64) as usize;
        let weight = 1 + sim.random(512) as u32;
        sim.domain(0, weight, 0, &[control; 4][..vcpus]);
        for number in 1..=1 + sim.random(12) as u16 {
            let (burst_ns, sleep_ns) = (1 + sim.random(8_000_000), 1 + sim.random(8_000_000));
            let behaviour = if sim.random(2) == 0 {
                Spin
            } else {
                Behaviour::Interactive { burst_ns, sleep_ns }
            };
            let (weight, cap, vcpus) = (
                1 + sim.random(65_535) as u32,
                sim.random(3) as u32 * 40,
                1 + sim.random(3) as usize,
            );
            sim.domain(number, weight, cap, &[behaviour; 4][..vcpus]);
        }
        sim.run_to(3 * SECOND);
        let worst_ns = sim.worst_wake_ns[0];
        assert!(
            worst_ns <= CONTROL_WAKE_NS_MAX,
            "seed {seed}: control domain waited {worst_ns} ns"
        );
        assert_eq!(sim.accounted_ns(), 3 * SECOND * cpus as u64);
    }
}

#[test]
fn control_domain_that_works_little_never_waits() {
    let mut sim = Sim::new(1, 5);
    sim.domain(
        0,
        256,
        0,
        &[Behaviour::Interactive {
            burst_ns: 300_000,
            sleep_ns: 2_000_000,
        }],
    );
    for number in 1..=10 {
        sim.domain(number, 65_535, 0, &[Spin]);
    }
    sim.run_to(10 * SECOND);
    assert_eq!(sim.worst_wake_ns[0], 0);
    assert!(sim.ran_ns(0) > SECOND, "it did work: {}", sim.ran_ns(0));
}

#[test]
fn wild_control_domain_gets_its_reserve_and_guests_the_rest() {
    let mut sim = Sim::new(1, 5);
    sim.domain(0, 1, 0, &[Spin]);
    for number in 1..=4 {
        sim.domain(number, 256, 0, &[Spin]);
    }
    sim.run_to(10 * SECOND);
    assert_close(sim.ran_ns(0), 5 * SECOND, 3, "reserve");
    for number in 1..=4 {
        assert_close(sim.ran_ns(number), SECOND * 5 / 4, 5, "guest");
    }
}

#[test]
fn control_domain_gets_its_weight_where_that_is_more_than_the_reserve() {
    let mut sim = Sim::new(1, 5);
    sim.domain(0, 900, 0, &[Spin]);
    sim.domain(1, 100, 0, &[Spin]);
    sim.run_to(10 * SECOND);
    assert!(sim.ran_ns(0) >= 85 * SECOND / 10, "{}", sim.ran_ns(0));
    assert!(sim.ran_ns(1) >= 3 * SECOND / 10, "{}", sim.ran_ns(1));
}

#[test]
fn long_solitude_of_the_control_domain_is_no_debt() {
    let mut sim = Sim::new(1, 5);
    sim.domain(0, 256, 0, &[Spin]);
    sim.run_to(60 * SECOND);
    sim.domain(1, 256, 0, &[Spin]);
    sim.run_to(61 * SECOND);
    assert_close(sim.ran_ns(0), 60 * SECOND + SECOND / 2, 1, "control domain");
    assert!(sim.ran_ns(1) > 4 * SECOND / 10);
}

#[test]
fn waking_guest_is_served_before_spinners() {
    let mut sim = Sim::new(1, 5);
    for number in 1..=4 {
        sim.domain(number, 256, 0, &[Spin]);
    }
    sim.domain(
        5,
        256,
        0,
        &[Behaviour::Interactive {
            burst_ns: 100_000,
            sleep_ns: 20_000_000,
        }],
    );
    // All begin alike; once they have run, the one that uses less than its share is behind.
    sim.run_to(SECOND / 10);
    sim.worst_wake_ns[5] = 0;
    sim.run_to(10 * SECOND);
    // One that uses less than its share waits for the shortest run of a spinner at most, or for a few others who are as far behind.
    assert!(
        sim.worst_wake_ns[5] <= 2 * SLICE_NS,
        "{}",
        sim.worst_wake_ns[5]
    );
}
