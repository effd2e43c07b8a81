//! Replays the fuzzing corpus of records.

use std::cell::Cell;

#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/vcpu_record.rs"]
mod vcpu_record;
#[path = "../../../tests/fuzz/bodies/xsave_record.rs"]
mod xsave_record;

/// Replays a corpus, which must hold both records and what only looks like one.
fn replay_both_kinds(target: &str, judge: fn(&[u8]) -> bool) {
    let records = Cell::new(0);
    let inputs = replay::replay(target, |input| {
        records.set(records.get() + usize::from(judge(input)))
    });
    assert!(
        (1..inputs).contains(&records.get()),
        "{} of {inputs} are records",
        records.get()
    );
}

#[test]
fn vcpu_records() {
    replay_both_kinds("vcpu_record", vcpu_record::judge);
}

#[test]
fn xsave_records() {
    replay_both_kinds("xsave_record", xsave_record::judge);
}
