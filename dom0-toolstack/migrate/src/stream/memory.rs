//! The bodies of frames that carry memory.

use super::BODY_BYTES_MAX;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::PAGE_SIZE_BYTES;

/// Most pages of a PAGES frame.
pub const PAGES_PER_FRAME_MAX: usize = (BODY_BYTES_MAX - 8) / PAGE_SIZE_BYTES as usize;
/// Guest pages have numbers below this: 2^52 bytes of address.
const PAGE_NUMBER_END: u64 = 1 << 40;

/// A body that says nothing sensible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadPages;

/// The pages of a PAGES frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages<'a> {
    /// Number of the first.
    pub first: u64,
    /// Their contents, whole pages, at least one.
    pub bytes: &'a [u8],
}

/// The head of a PAGES body; the pages follow as another piece.
pub fn encode_pages(first: u64) -> [u8; 8] {
    first.to_le_bytes()
}

impl<'a> Pages<'a> {
    /// From a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, BadPages> {
        let (head, bytes) = body.split_first_chunk().ok_or(BadPages)?;
        let first = u64::from_le_bytes(*head);
        let pages = (bytes.len() as u64).div_ceil(PAGE_SIZE_BYTES);
        let whole = (bytes.len() as u64).is_multiple_of(PAGE_SIZE_BYTES);
        if !whole || pages == 0 || first >= PAGE_NUMBER_END - pages {
            return Err(BadPages);
        }
        Ok(Self { first, bytes })
    }
}

/// The runs of a ZEROES frame.
pub struct Zeroes;

/// The body of a ZEROES frame: runs, at most `BODY_BYTES_MAX / 16`.
pub fn encode_zeroes(runs: &[Range<u64>]) -> Vec<u8> {
    let words = runs.iter().flat_map(|run| [run.start, run.end - run.start]);
    words.flat_map(u64::to_le_bytes).collect()
}

impl Zeroes {
    /// From a body: runs, none empty.
    pub fn decode(body: &[u8]) -> Result<Vec<Range<u64>>, BadPages> {
        let (runs, rest) = body.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(BadPages);
        }
        let run = |bytes: &[u8; 16]| {
            let (first, count) = bytes.split_at(8);
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight octets"));
            let (first, count) = (number(first), number(count));
            let fits = count > 0 && count < PAGE_NUMBER_END && first < PAGE_NUMBER_END - count;
            fits.then(|| first..first + count).ok_or(BadPages)
        };
        runs.iter().map(run).collect()
    }
}
