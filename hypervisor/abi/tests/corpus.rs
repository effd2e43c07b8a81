//! Replays the fuzzing corpus of hypercalls and notes.

#[path = "../../../tests/fuzz/bodies/abi_call.rs"]
mod abi_call;
#[path = "../../../tests/fuzz/bodies/abi_note.rs"]
mod abi_note;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn hypercalls() {
    let inputs = replay::replay("abi_call", abi_call::judge);
    assert!(
        inputs >= godwit_abi::TABLE.len(),
        "an input for every hypercall"
    );
}

#[test]
fn notes() {
    replay::replay("abi_note", abi_note::judge);
}
