//! Numbers that can be computed again where they are checked.

/// A well-mixed number for a place and a round (the finalizer of splitmix64).
pub(crate) fn word(seed: u64, place: u64, round: u64) -> u64 {
    let mut x = seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.rotate_left(32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Fills `bytes` for a place and a round.
pub(crate) fn fill(bytes: &mut [u8], seed: u64, place: u64, round: u64) {
    let start = word(seed, place, round);
    // Cheaper than `word`, and still different everywhere.
    let value = |index: usize| {
        let value = start.wrapping_add((index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        value.to_le_bytes()
    };
    let (chunks, rest) = bytes.as_chunks_mut();
    let whole = chunks.len();
    for (index, chunk) in chunks.iter_mut().enumerate() {
        *chunk = value(index);
    }
    rest.copy_from_slice(&value(whole)[..rest.len()]);
}

/// The offset of the first byte that is not what [`fill`] would have written.
pub(crate) fn difference(bytes: &[u8], seed: u64, place: u64, round: u64) -> Option<usize> {
    let mut wanted = vec![0; bytes.len()];
    fill(&mut wanted, seed, place, round);
    // All at once, which costs a fraction of an instruction a byte: checking is measured with the rest.
    if bytes == wanted {
        return None;
    }
    bytes
        .iter()
        .zip(&wanted)
        .position(|(is, should)| is != should)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let mut bytes = [0; 4099];
        fill(&mut bytes, 1, 2, 3);
        assert_eq!(difference(&bytes, 1, 2, 3), None);
        assert_eq!(difference(&bytes, 1, 2, 4), Some(0));
        bytes[4098] ^= 1;
        assert_eq!(difference(&bytes, 1, 2, 3), Some(4098));
    }
}
