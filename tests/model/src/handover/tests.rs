//! The explorations: what holds, and what each broken variant breaks.

use super::*;
use stateright::Checker;

fn explore(attempts: u64, crashes: u8, broken: Broken) -> impl Checker<Handover> {
    claimed(attempts, crashes, Claims::Never, broken)
}

fn claimed(attempts: u64, crashes: u8, claims: Claims, broken: Broken) -> impl Checker<Handover> {
    let model = Handover {
        attempts,
        crashes,
        claims,
        has_journal: true,
        broken,
    };
    model.checker().threads(2).spawn_bfs().join()
}

#[test]
fn one_attempt_with_two_crashes() {
    let checker = explore(1, 2, Broken::Nothing);
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

#[test]
fn two_attempts_with_a_crash() {
    let checker = explore(2, 1, Broken::Nothing);
    for name in [
        "one guest runs, and none that is stale",
        "it settles when everybody goes on",
        "it settles when everybody gives up",
    ] {
        checker.assert_no_discovery(name);
    }
    println!("{} states", checker.unique_state_count());
}

#[test]
fn each_rule_is_needed() {
    for broken in [
        Broken::TimeOutTakesBack,
        Broken::RepliesOfAnyAttempt,
        Broken::RefusalsForgotten,
        Broken::RequestsOfAnyBoot,
        Broken::RunsBeforeJournal,
        Broken::CommitsBeforeJournal,
    ] {
        let checker = explore(2, 1, broken);
        let found = checker.discovery("one guest runs, and none that is stale");
        assert!(found.is_some(), "{broken:?} was not found out");
    }
}

/// What holds whenever the operator claims a guest.
const ALWAYS: [&str; 3] = [
    "one guest runs, and none that is stale",
    "it settles when everybody goes on",
    "it settles when everybody gives up",
];

#[test]
fn a_claim_that_is_true_never_makes_two_copies_run() {
    let checker = claimed(1, 2, Claims::Truly, Broken::Nothing);
    for name in ALWAYS {
        checker.assert_no_discovery(name);
    }
    assert!(checker.discovery("a claim is kept").is_some());
    println!("{} states", checker.unique_state_count());
}

#[test]
fn after_a_claim_that_is_not_true_one_copy_stands_still_once_they_have_talked() {
    let checker = claimed(1, 1, Claims::Anyhow, Broken::Nothing);
    for name in ALWAYS {
        checker.assert_no_discovery(name);
    }
    assert!(checker.discovery("a claim is disputed").is_some());
    println!("{} states", checker.unique_state_count());
    let broken = claimed(1, 1, Claims::Anyhow, Broken::ClaimIsTheEnd);
    assert!(ALWAYS.iter().any(|name| broken.discovery(name).is_some()));
}

/// The destination has no disk for its journal.
fn without_journal(claims: Claims, broken: Broken) -> impl Checker<Handover> {
    let model = Handover {
        attempts: 1,
        crashes: 2,
        claims,
        has_journal: false,
        broken,
    };
    model.checker().threads(2).spawn_bfs().join()
}

#[test]
fn a_destination_without_a_journal_never_loses_what_never_ran_there() {
    for claims in [Claims::Never, Claims::Truly] {
        let checker = without_journal(claims, Broken::Nothing);
        for name in ALWAYS {
            checker.assert_no_discovery(name);
        }
        println!("{} states", checker.unique_state_count());
    }
    let broken = without_journal(Claims::Never, Broken::UnsureIsCommitted);
    assert!(broken.discovery(ALWAYS[0]).is_some());
}
