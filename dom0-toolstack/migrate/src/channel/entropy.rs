//! Numbers of the CPU's generator into bytes for keys, or a refusal.
//!
//! The generator is asked for four times as many bits as are given out and all are hashed, so that a
//! weak one is diluted; times of reading go in beside them, counted as nothing. What a generator does
//! when it is broken is known (it gives the same word for ever, all ones on some CPUs after sleep),
//! and that is refused: the repetition count test of NIST SP 800-90B, section 4.4.1.

use super::noise;
use alloc::string::String;
use alloc::vec::Vec;

/// Words of the generator for one piece of bytes.
pub const ENTROPY_WORDS: usize = 16;
/// Bytes of a piece.
pub const ENTROPY_BYTES: usize = 32;
/// What is hashed first, so that the hash means nothing else.
const LABEL: &[u8] = b"Godwit entropy 1";

/// Makes a piece of what the CPU's generator gave and when it did.
pub fn distil(
    words: &[u64; ENTROPY_WORDS],
    times: &[u64; ENTROPY_WORDS],
) -> Result<[u8; ENTROPY_BYTES], String> {
    let dead = |word: &u64| *word == 0 || *word == u64::MAX;
    // By chance once in 2^64 words.
    if words.windows(2).any(|pair| pair[0] == pair[1]) || words.iter().any(dead) {
        return Err("the CPU's random numbers repeat: it is broken or not emulated well".into());
    }
    let all: Vec<u8> = words
        .iter()
        .chain(times)
        .flat_map(|word| word.to_le_bytes())
        .collect();
    Ok(noise::blake2s(&[LABEL, &all]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_generator_is_refused() {
        let good: [u64; ENTROPY_WORDS] = core::array::from_fn(|at| 0x9e37_79b9 * (at as u64 + 1));
        let times = [7; ENTROPY_WORDS];
        let first = distil(&good, &times).unwrap();
        assert_eq!(distil(&good, &times).unwrap(), first);
        assert_ne!(distil(&good, &[8; ENTROPY_WORDS]).unwrap(), first);
        for (at, value) in [(0, 0), (3, u64::MAX), (5, good[4]), (15, good[14])] {
            let mut bad = good;
            bad[at] = value;
            assert!(distil(&bad, &times).is_err(), "{at}");
            bad[at] = 12345;
            assert_ne!(distil(&bad, &times).unwrap(), first);
        }
    }
}
