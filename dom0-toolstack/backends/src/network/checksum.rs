//! The Internet checksum (RFC 1071) and its change when a field changes (RFC 1624).
//!
//! A *sum* here is the one's complement sum of 16-bit words; the *checksum* in a header is its
//! complement.

/// The sum of `bytes`; an odd last byte counts as if a zero followed.
pub fn sum(bytes: &[u8]) -> u16 {
    // One's complement addition does not care for the byte order, so long as the result is swapped
    // in the end (RFC 1071, 2(B)): words of the machine's order, four bytes at a time.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words
        .iter()
        .map(|word| u64::from(u32::from_ne_bytes(*word)))
        .sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be_bytes(fold(total).to_ne_bytes())
}

/// Two sums as one.
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// A sum in which the words `old` are replaced by `new`, both of the same even length.
pub fn replace(sum_before: u16, old: &[u8], new: &[u8]) -> u16 {
    debug_assert!(old.len() == new.len() && old.len().is_multiple_of(2));
    add(add(sum_before, !sum(old)), sum(new))
}

/// The sum of the pseudo header of IPv4 or IPv6 (RFC 793, 3.1; RFC 8200, 8.1): addresses, as they
/// lie in the header, protocol and length of what is transported.
pub fn pseudo(addresses: &[u8], protocol: u8, bytes: usize) -> u16 {
    let length = bytes as u32;
    let length = add((length >> 16) as u16, length as u16);
    add(add(sum(addresses), u16::from(protocol)), length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// Word by word, as RFC 1071 defines it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0u64;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total >> 16 != 0 {
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    proptest! {
        #[test]
        fn sums_follow_the_definition(bytes: Vec<u8>) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }

        #[test]
        fn a_replaced_field_is_as_if_summed_anew(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..64),
            new: [u8; 4],
        ) {
            let before = sum(&bytes);
            let old: [u8; 4] = bytes[2..6].try_into().unwrap();
            bytes[2..6].copy_from_slice(&new);
            let got = replace(before, &old, &new);
            // Zero has two forms.
            prop_assert_eq!(got % 0xffff, sum(&bytes) % 0xffff);
        }
    }

    #[test]
    fn a_known_header() {
        // RFC 1071, section 3.
        assert_eq!(sum(&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }
}
