//! Bus-master IDE (SFF-8038i): the table that tells a controller where a transfer's memory is.

use super::cut;
use crate::memory::Span;
use alloc::vec::Vec;

/// Regions of a table that fills a page.
pub const REGIONS_MAX: usize = 512;
/// No region crosses a multiple of it.
const BOUNDARY: u64 = 64 << 10;
/// Addresses have 32 bits.
const ADDRESS_END: u64 = 1 << 32;
/// Of the last region's second word.
const END_OF_TABLE: u32 = 1 << 31;

/// Whether a controller can reach spans: even addresses and lengths, below 4 GiB, in one table.
pub fn reaches(spans: &[Span]) -> bool {
    let reachable = |span: &Span| {
        let end = span.address.checked_add(span.bytes.into());
        span.address.is_multiple_of(2)
            && span.bytes.is_multiple_of(2)
            && end.is_some_and(|end| end <= ADDRESS_END)
    };
    spans.iter().all(reachable) && cut(spans, u32::MAX, BOUNDARY).len() <= REGIONS_MAX
}

/// The table for spans it [`reaches`].
pub fn table(spans: &[Span]) -> Vec<u8> {
    let regions = cut(spans, u32::MAX, BOUNDARY);
    assert!(regions.len() <= REGIONS_MAX, "asked `reaches` before");
    let mut out = Vec::with_capacity(8 * regions.len());
    for (at, region) in regions.iter().enumerate() {
        let end = if at + 1 == regions.len() {
            END_OF_TABLE
        } else {
            0
        };
        // A length of 64 KiB is 0.
        let length = region.bytes & 0xffff;
        out.extend((region.address as u32).to_le_bytes());
        out.extend((length | end).to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(address: u64, bytes: u32) -> Span {
        Span { address, bytes }
    }

    #[test]
    fn regions_end_at_64_kib_and_the_last_is_marked() {
        let table = table(&[span(0x1_fffe, 0x1_0004), span(0x8000, 512)]);
        let words: Vec<_> = table
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let expected = [
            0x1_fffe,
            2,
            0x2_0000,
            0, // 64 KiB
            0x3_0000,
            2,
            0x8000,
            0x8000_0200,
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn odd_and_far_memory_is_out_of_reach() {
        assert!(reaches(&[span(0xffff_fe00, 512)]));
        assert!(!reaches(&[span(0xffff_fe00, 514)]));
        assert!(!reaches(&[span(1 << 32, 512)]));
        assert!(!reaches(&[span(0x1001, 512)]));
        assert!(!reaches(&[span(0x1000, 511), span(0x2000, 1)]));
        assert!(!reaches(&[span(0x1000, 2); REGIONS_MAX + 1]));
    }
}
