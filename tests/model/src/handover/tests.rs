//! The explorations: what holds, and what each broken variant breaks.

use super::*;
use stateright::Checker;

fn explore(attempts: u64, crashes: u8, broken: Broken) -> impl Checker<Handover> {
    let model = Handover {
        attempts,
        crashes,
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
