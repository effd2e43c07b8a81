//! Replays a corpus of good and bad inputs. Included by path beside `replay.rs`, by tests whose
//! `judge` says whether it accepted its input.

use super::replay::replay;
use std::cell::Cell;

/// Replays a corpus, some of which must be accepted and some refused.
pub(crate) fn replay_both_kinds(target: &str, judge: fn(&[u8]) -> bool) {
    let accepted = Cell::new(0);
    let count = |input: &[u8]| accepted.set(accepted.get() + usize::from(judge(input)));
    let inputs = replay(target, count);
    let accepted = accepted.get();
    assert!(
        (1..inputs).contains(&accepted),
        "{accepted} of {inputs} are accepted"
    );
}
