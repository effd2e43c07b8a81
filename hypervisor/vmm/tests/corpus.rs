//! Replays the fuzzing corpus of instructions on devices' memory.

#[path = "../../../tests/fuzz/bodies/emulate.rs"]
mod emulate;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;

#[test]
fn instructions() {
    let decoded = std::cell::Cell::new(0);
    let inputs = replay::replay("emulate", |input| {
        decoded.set(decoded.get() + u32::from(emulate::judge(input)));
    });
    // The empty one, the truncated one, the too long one and the SSE one are not.
    assert_eq!(decoded.get() as usize, inputs - 4);
}
