//! Replays the fuzzing corpus of instructions on devices' memory and of CPUs that come with domains.

#[path = "../../../tests/fuzz/bodies/cpu_policy.rs"]
mod cpu_policy;
#[path = "../../../tests/fuzz/bodies/emulate.rs"]
mod emulate;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/replay_both_kinds.rs"]
mod replay_both_kinds;

#[test]
fn instructions() {
    let decoded = std::cell::Cell::new(0);
    let inputs = replay::replay("emulate", |input| {
        decoded.set(decoded.get() + u32::from(emulate::judge(input)));
    });
    // The empty one, the truncated one, the too long one and the SSE one are not.
    assert_eq!(decoded.get() as usize, inputs - 4);
}

#[test]
fn cpus_of_domains() {
    replay_both_kinds::replay_both_kinds("cpu_policy", cpu_policy::judge);
}
