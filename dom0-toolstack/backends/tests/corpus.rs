//! Replays the fuzzing corpus of virtio rings, and of what guests send to the gateway.

#[path = "../../../tests/fuzz/bodies/dhcp.rs"]
mod dhcp;
#[path = "../../../tests/fuzz/bodies/nat.rs"]
mod nat;
#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/virtio_ring.rs"]
mod virtio_ring;

use proptest::prelude::*;
use std::cell::Cell;

/// Replays a corpus, some of which must keep the rules and some break them.
fn replay_both_kinds(target: &str, judge: fn(&[u8]) -> bool) {
    let kept = Cell::new(0);
    let count = |input: &[u8]| kept.set(kept.get() + usize::from(judge(input)));
    let inputs = replay::replay(target, count);
    let kept = kept.get();
    assert!(
        (1..inputs).contains(&kept),
        "{kept} of {inputs} keep the rules"
    );
}

#[test]
fn virtio_rings() {
    replay_both_kinds("virtio_ring", virtio_ring::judge);
}

#[test]
fn dhcp_messages() {
    replay_both_kinds("dhcp", dhcp::judge);
}

#[test]
fn routed_frames() {
    replay_both_kinds("nat", nat::judge);
}

proptest! {
    #[test]
    fn dhcp_and_frames_of_anything(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        dhcp::judge(&input);
        nat::judge(&input);
    }

    /// A little fuzzing in every run.
    #[test]
    fn virtio_rings_of_anything(input in proptest::collection::vec(any::<u8>(), 0..400)) {
        virtio_ring::judge(&input);
    }

    /// Mostly well-formed: descriptors and ring entries rather than bytes.
    #[test]
    fn virtio_rings_of_steps(
        kind: u8,
        features: u8,
        steps in proptest::collection::vec((0u8..9, 0u8..3, 0u16..24, any::<u64>()), 0..60),
    ) {
        let mut input = vec![kind, features];
        for (what, queue, place, value) in steps {
            let what = [1, 1, 2, 2, 7, 6, 4, 3, 5][usize::from(what)];
            let step = u64::from(what | queue << 4) | u64::from(place) << 8 | value << 24;
            input.extend(step.to_le_bytes());
        }
        virtio_ring::judge(&input);
    }
}
