//! Numbers that others are not to guess.

use crate::clock::tsc;
use alloc::string::String;
use godwit_migrate::channel::entropy::{ENTROPY_BYTES, ENTROPY_WORDS, distil};
use x86_64::instructions::random::RdRand;

/// 64 bits: the CPU's random numbers where it has them, mixed with the time in any case, so that
/// without them two calls still differ (they can then be guessed by who knows the time).
pub(crate) fn bits() -> u64 {
    let time = tsc().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let random = RdRand::new().and_then(RdRand::get_u64).unwrap_or(0);
    (time ^ time >> 29) ^ random
}

/// How often a CPU is asked again for a number that it does not have yet; more is said to mean that it
/// is broken (Intel, Digital Random Number Generator guide, 5.2.1).
const TRIES_MAX: usize = 10;

/// Fills `out` with bytes for keys: only where the CPU has good random numbers.
pub(crate) fn fill_secret(out: &mut [u8]) -> Result<(), String> {
    let generator = RdRand::new();
    let generator = generator.ok_or("the CPU has no random numbers (RDRAND)")?;
    for piece in out.chunks_mut(ENTROPY_BYTES) {
        let (mut words, mut times) = ([0; ENTROPY_WORDS], [0; ENTROPY_WORDS]);
        for (word, time) in words.iter_mut().zip(&mut times) {
            let mut tries = (0..TRIES_MAX).filter_map(|_| generator.get_u64());
            *word = tries.next().ok_or("the CPU gives no random numbers")?;
            *time = tsc();
        }
        piece.copy_from_slice(&distil(&words, &times)?[..piece.len()]);
    }
    Ok(())
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
