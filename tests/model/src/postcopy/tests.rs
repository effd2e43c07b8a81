//! The exploration, and what each broken variant breaks.

use super::*;
use stateright::Checker;

/// What holds always.
const SAFE: &str = "one guest runs, and nothing it lacks is freed";

fn explore(connections: usize, crashes: u8, broken: Broken) -> impl Checker<PostCopy> {
    let model = PostCopy {
        connections,
        crashes,
        broken,
    };
    model.checker().threads(2).spawn_bfs().join()
}

#[test]
fn nothing_is_freed_that_is_missing_and_it_ends() {
    let checker = explore(3, 2, Broken::Nothing);
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
}

#[test]
fn each_broken_variant_is_found_out() {
    for broken in [
        Broken::SaysAllBeforeRegistered,
        Broken::FreesWhenItRuns,
        Broken::RestForgotten,
        Broken::AbsentForgotten,
        Broken::LostLinkTakesBack,
    ] {
        let checker = explore(2, 1, broken);
        let found = checker.discovery(SAFE);
        assert!(found.is_some(), "{broken:?} was not found out");
    }
    // As it happened: no restart is needed, only a connection that is lost at the wrong moment.
    let checker = explore(2, 0, Broken::SaysAllBeforeRegistered);
    assert!(checker.discovery(SAFE).is_some());
}
