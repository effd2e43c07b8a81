//! Replays the fuzzing corpus of virtio rings.

#[path = "../../../tests/fuzz/bodies/replay.rs"]
mod replay;
#[path = "../../../tests/fuzz/bodies/virtio_ring.rs"]
mod virtio_ring;

use proptest::prelude::*;
use std::cell::Cell;

#[test]
fn virtio_rings() {
    let survived = Cell::new(0);
    let judge =
        |input: &[u8]| survived.set(survived.get() + usize::from(virtio_ring::judge(input)));
    let inputs = replay::replay("virtio_ring", judge);
    let survived = survived.get();
    assert!(
        (1..inputs).contains(&survived),
        "{survived} of {inputs} keep the rules"
    );
}

proptest! {
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
