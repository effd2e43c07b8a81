//! Numbers that others are not to guess.

use crate::clock::tsc;
use x86_64::instructions::random::RdRand;

/// 64 bits: the CPU's random numbers where it has them, mixed with the time in any case, so that
/// without them two calls still differ (they can then be guessed by who knows the time).
pub(crate) fn bits() -> u64 {
    let time = tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let random = RdRand::new().and_then(RdRand::get_u64).unwrap_or(0);
    (time ^ time >> 29) ^ random
}

/// Fills `out` with random bytes.
pub(crate) fn fill(out: &mut [u8]) {
    for piece in out.chunks_mut(16) {
        piece.copy_from_slice(&bytes()[..piece.len()]);
    }
}

/// 16 random bytes.
pub(crate) fn bytes() -> [u8; 16] {
    (u128::from(bits()) << 64 | u128::from(bits())).to_le_bytes()
}
