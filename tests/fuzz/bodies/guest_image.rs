//! A guest's kernel, whatever it says of itself: planning is total, and what it plans keeps the promises
//! of `LoadPlan`.

use godwit_toolstack::loader::{Guest, plan};

/// Physical address bits of the smallest CPU that guests are told of.
const ADDRESS_BITS: u8 = 36;

/// One input: bit 0 of the first byte gives the guest a ramdisk, bits 7:1 are its memory in MiB less 2; the
/// rest is the image. Returns whether it was planned.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some((&shape, kernel)) = input.split_first() else {
        return false;
    };
    let guest = Guest {
        kernel,
        ramdisk: (shape & 1 != 0).then_some(&[0x5a; 5000]),
        cmdline: "console=ttyS0",
        memory_bytes: (u64::from(shape >> 1) + 2) << 20,
        vcpus: 2,
    };
    match plan(&guest) {
        Ok(plan) => {
            let mut pieces: Vec<_> = plan
                .pieces
                .iter()
                .map(|piece| piece.address..piece.address + piece.bytes())
                .collect();
            pieces.sort_by_key(|range| range.start);
            assert!(pieces.iter().all(|range| !range.is_empty()));
            assert!(pieces.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for piece in &pieces {
                let inside = |range: &std::ops::Range<u64>| {
                    range.start <= piece.start && piece.end <= range.end
                };
                assert!(plan.memory.iter().any(inside), "{piece:x?}");
            }
            let loaded = |range: &std::ops::Range<u64>| range.contains(&plan.state.rip);
            assert!(pieces.iter().any(loaded), "nothing is at the entry");
            assert_eq!(plan.state.check(ADDRESS_BITS), Ok(()));
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}
