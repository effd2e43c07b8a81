//! Shares: weights, caps, many vCPUs on few CPUs; measured in simulation.

use super::super::*;
use super::sim::{Behaviour, Behaviour::Spin, Sim, assert_close};
use godwit_abi::DomainId;

const SECOND: u64 = 1_000_000_000;

/// Runs spinning domains of (weight, vCPUs) for ten seconds and compares with the expected CPU time of each, in percent of one CPU.
fn shares(cpus: usize, domains: &[(u32, usize)], expected_percent: &[u64]) {
    let mut sim = Sim::new(cpus, 1);
    for (index, &(weight, vcpus)) in domains.iter().enumerate() {
        sim.domain(index as u16 + 1, weight, 0, &[Spin; 16][..vcpus]);
    }
    sim.run_to(10 * SECOND);
    assert_eq!(
        sim.accounted_ns(),
        10 * SECOND * cpus as u64,
        "time is conserved"
    );
    for (index, &percent) in expected_percent.iter().enumerate() {
        assert_close(
            sim.ran_ns(index as u16 + 1),
            SECOND / 10 * percent,
            3,
            "share",
        );
    }
}

#[test]
fn weights_divide_one_cpu() {
    shares(
        1,
        &[(256, 1), (512, 1), (1024, 1)],
        &[14, 29, 57].map(|p| p),
    );
    shares(1, &[(100, 1), (200, 1), (700, 1)], &[10, 20, 70]);
    shares(1, &[(65_535, 1), (6_553, 1)], &[91]);
}

#[test]
fn weights_divide_several_cpus() {
    shares(2, &[(100, 2), (200, 2), (500, 2)], &[25, 50, 125]);
    shares(4, &[(100, 4), (300, 4)], &[100, 300]);
}

#[test]
fn three_on_two_cpus_get_two_thirds_each() {
    shares(2, &[(256, 1), (256, 1), (256, 1)], &[67, 67, 67]);
    shares(3, &[(256, 1); 7], &[43; 7]);
}

#[test]
fn weight_is_of_the_domain_not_of_each_vcpu() {
    shares(1, &[(256, 4), (256, 1)], &[50, 50]);
    shares(2, &[(256, 3), (256, 1)], &[100, 100]);
}

#[test]
fn weight_beyond_one_cpu_leaves_the_rest_to_others_by_weight() {
    shares(2, &[(100, 1), (200, 1), (700, 1)], &[33, 67, 100]);
}

#[test]
fn pinned_vcpus_share_by_weight_beside_a_free_cpu() {
    let mut sim = Sim::new(2, 1);
    let keys = [(1, 100), (2, 300), (3, 10)]
        .map(|(number, weight)| sim.domain(number, weight, 0, &[Spin])[0]);
    for (key, cpu) in keys.into_iter().zip([0, 0, 1]) {
        let kick = sim
            .scheduler
            .set_affinity(key, CpuSet::only(CpuIndex(cpu)), 0)
            .unwrap();
        sim.kick(kick);
    }
    sim.run_to(10 * SECOND);
    assert_close(sim.ran_ns(1), SECOND / 4 * 10, 5, "light");
    assert_close(sim.ran_ns(2), SECOND / 4 * 30, 5, "heavy");
    assert_close(sim.ran_ns(3), 10 * SECOND, 1, "alone on its CPU");
}

#[test]
fn what_could_not_be_used_is_not_saved_up() {
    let mut sim = Sim::new(2, 1);
    sim.domain(1, 60_000, 0, &[Spin]);
    sim.domain(2, 1, 0, &[Spin]);
    sim.run_to(60 * SECOND);
    // Now three want two CPUs, and two of them are as heavy as the first.
    for number in 3..=5 {
        sim.domain(number, 60_000, 0, &[Spin]);
    }
    let before = sim.ran_ns(1);
    sim.run_to(70 * SECOND);
    for number in 3..=5 {
        assert_close(sim.ran_ns(number), 5 * SECOND, 5, "newcomer");
    }
    assert_close(sim.ran_ns(1) - before, 5 * SECOND, 5, "old domain");
}

#[test]
fn sleepers_do_not_lose_their_share_nor_gain_another() {
    let mut sim = Sim::new(1, 7);
    sim.domain(1, 256, 0, &[Spin]);
    // Wants more than half of the CPU, in small pieces.
    sim.domain(
        2,
        256,
        0,
        &[Behaviour::Interactive {
            burst_ns: 3_000_000,
            sleep_ns: 200_000,
        }],
    );
    sim.run_to(20 * SECOND);
    assert_close(sim.ran_ns(2), 10 * SECOND, 10, "sleeper");
    assert!(
        sim.ran_ns(2) < 10_300_000_000,
        "a sleeper gains nothing: {}",
        sim.ran_ns(2)
    );
}

#[test]
fn caps_hold_on_idle_and_busy_hosts() {
    for (cpus, cap, vcpus, rivals) in [
        (1, 30, 1, 0),
        (1, 30, 1, 2),
        (4, 150, 2, 0),
        (4, 150, 4, 3),
        (2, 5, 1, 1),
        (2, 1, 2, 0),
        (4, 250, 4, 0),
    ] {
        let mut sim = Sim::new(cpus, 3);
        // Heavy enough that only the cap limits it.
        sim.domain(1, 60_000, cap, &[Spin; 4][..vcpus]);
        for rival in 0..rivals {
            sim.domain(rival + 2, 256, 0, &[Spin]);
        }
        sim.run_to(10 * SECOND);
        assert_close(
            sim.ran_ns(1),
            SECOND / 10 * u64::from(cap),
            2,
            "capped domain",
        );
        assert_eq!(sim.accounted_ns(), 10 * SECOND * cpus as u64);
    }
}

#[test]
fn cap_can_be_lifted_and_set_while_it_holds() {
    let mut sim = Sim::new(1, 3);
    let id = DomainId::new(1, 0);
    sim.domain(1, 256, 10, &[Spin]);
    sim.run_to(SECOND);
    let kicks = sim.scheduler.set_cap(id, 0, SECOND).unwrap();
    sim.kick(kicks);
    sim.run_to(2 * SECOND);
    assert_close(sim.ran_ns(1), SECOND * 11 / 10, 2, "lifted");
    let kicks = sim.scheduler.set_cap(id, 20, 2 * SECOND).unwrap();
    sim.kick(kicks);
    sim.run_to(4 * SECOND);
    assert_close(sim.ran_ns(1), SECOND * 15 / 10, 2, "set again");
}

#[test]
fn idle_host_hardly_picks() {
    let mut sim = Sim::new(4, 3);
    sim.domain(1, 256, 0, &[Spin]);
    let before = sim.picks;
    sim.run_to(SECOND);
    assert!(
        sim.picks - before <= SECOND / SLICE_NS + 8,
        "{} picks for one vCPU alone",
        sim.picks - before
    );
}
