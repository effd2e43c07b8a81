//! Replays the fuzzing corpus of configurations, command lines and saved domains.

#[path = "../../../tests/fuzz/bodies/command_line.rs"]
mod command_line;
#[path = "../../../tests/fuzz/bodies/config.rs"]
mod config;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/saved_stream.rs"]
mod saved_stream;

use std::cell::Cell;

/// Replays a corpus, some of which must be accepted and some refused.
fn replay_both_kinds(target: &str, judge: fn(&[u8]) -> bool) {
    let accepted = Cell::new(0);
    let count = |input: &[u8]| accepted.set(accepted.get() + usize::from(judge(input)));
    let inputs = replay::replay(target, count);
    let accepted = accepted.get();
    assert!(
        (1..inputs).contains(&accepted),
        "{accepted} of {inputs} are accepted"
    );
}

#[test]
fn configurations() {
    replay_both_kinds("config", config::judge);
}

#[test]
fn command_lines() {
    replay_both_kinds("command_line", command_line::judge);
}

#[test]
fn saved_domains() {
    replay_both_kinds("saved_stream", saved_stream::judge);
}
