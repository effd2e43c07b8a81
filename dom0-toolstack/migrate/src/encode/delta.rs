//! What has changed in a page since it was sent: runs of equal bytes skipped, changed bytes given.
//!
//! ```text
//! page   = *( skip take bytes )        skip, take: unsigned LEB128, at most 2 bytes; take > 0
//! bytes  = take bytes of the new page
//! ```
//!
//! What follows the last pair is equal. Canonical: `skip` is 0 only in the first pair, the sum of all
//! is at most a page, and a decoder refuses anything else.

use super::{PAGE_BYTES, Page};
use crate::stream::BLOCK_BYTES;
use alloc::vec::Vec;

/// Equal bytes between two changes that are cheaper to send than to skip.
const GAP_BYTES_MIN: usize = 3;

/// A delta that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadDelta {
    /// Where in the delta, in bytes.
    pub at: usize,
}

/// Appends the delta from `old` to `new` and gives the blocks that it touches, a bit each; `None` if it
/// would be longer than `bytes_max`: then `out` is as it was. Equal pages give nothing.
pub fn encode(old: &Page, new: &Page, bytes_max: usize, out: &mut Vec<u8>) -> Option<u32> {
    let begin = out.len();
    let (mut at, mut done, mut touched) = (0, 0, 0);
    while let Some(start) = next_difference(old, new, at) {
        let end = end_of_change(old, new, start);
        let take = end - start;
        if out.len() - begin + take + 4 > bytes_max {
            out.truncate(begin);
            return None;
        }
        push(start - done, out);
        push(take, out);
        out.extend_from_slice(&new[start..end]);
        (start / BLOCK_BYTES..=(end - 1) / BLOCK_BYTES).for_each(|block| touched |= 1 << block);
        (at, done) = (end, end);
    }
    Some(touched)
}

/// The first byte from `at` on that differs. Whole blocks first: most of a page is equal.
fn next_difference(old: &Page, new: &Page, mut at: usize) -> Option<usize> {
    while at < PAGE_BYTES {
        let block = at / BLOCK_BYTES;
        let end = (block + 1) * BLOCK_BYTES;
        let (olds, _) = old.as_chunks::<BLOCK_BYTES>();
        let (news, _) = new.as_chunks::<BLOCK_BYTES>();
        if are_different(&olds[block], &news[block])
            && let Some(found) = (at..end).find(|at| old[*at] != new[*at])
        {
            return Some(found);
        }
        at = end;
    }
    None
}

fn are_different(old: &[u8; BLOCK_BYTES], new: &[u8; BLOCK_BYTES]) -> bool {
    let words = old.as_chunks().0.iter().zip(new.as_chunks().0);
    words.fold(0, |any, (old, new)| {
        any | (u64::from_le_bytes(*old) ^ u64::from_le_bytes(*new))
    }) != 0
}

/// The end of the change that begins at `start`: behind it are equal bytes enough to be skipped.
fn end_of_change(old: &Page, new: &Page, start: usize) -> usize {
    let (mut end, mut at) = (start + 1, start + 1);
    while at < PAGE_BYTES && at - end < GAP_BYTES_MIN {
        if old[at] != new[at] {
            end = at + 1;
        }
        at += 1;
    }
    end
}

/// Makes the new page of the old one. A delta that is refused may have changed some of it.
pub fn decode(delta: &[u8], page: &mut Page) -> Result<(), BadDelta> {
    parse(delta, |place, bytes| {
        page[place..place + bytes.len()].copy_from_slice(bytes);
    })
}

/// The blocks that a delta touches, a bit each.
pub fn touched(delta: &[u8]) -> Result<u32, BadDelta> {
    let mut touched = 0;
    parse(delta, |place, bytes| {
        let last = (place + bytes.len() - 1) / BLOCK_BYTES;
        (place / BLOCK_BYTES..=last).for_each(|block| touched |= 1 << block);
    })?;
    Ok(touched)
}

/// Gives each change with its place; all are inside a page, and none is empty.
fn parse<'a>(delta: &'a [u8], mut change: impl FnMut(usize, &'a [u8])) -> Result<(), BadDelta> {
    let (mut at, mut place) = (0, 0);
    while at < delta.len() {
        let bad = BadDelta { at };
        let skip = take(delta, &mut at).ok_or(bad)?;
        let count = take(delta, &mut at).ok_or(bad)?;
        if count == 0 || skip == 0 && place != 0 {
            return Err(bad);
        }
        place += skip;
        let bytes = delta.get(at..at + count).ok_or(bad)?;
        if place + count > PAGE_BYTES {
            return Err(bad);
        }
        change(place, bytes);
        (at, place) = (at + count, place + count);
    }
    Ok(())
}

fn push(number: usize, out: &mut Vec<u8>) {
    if number < 0x80 {
        out.push(number as u8);
    } else {
        out.extend([number as u8 & 0x7f | 0x80, (number >> 7) as u8]);
    }
}

/// A number, in its shortest form.
fn take(delta: &[u8], at: &mut usize) -> Option<usize> {
    let low = usize::from(*delta.get(*at)?);
    *at += 1;
    if low < 0x80 {
        return Some(low);
    }
    let high = usize::from(*delta.get(*at)?);
    *at += 1;
    (1..0x80).contains(&high).then_some(low & 0x7f | high << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;

    fn page(seed: u8) -> Box<Page> {
        Box::new(core::array::from_fn(|at| {
            (at as u8).wrapping_mul(31) ^ seed
        }))
    }

    #[test]
    fn one_byte_costs_four_or_five() {
        let old = page(0);
        for at in [0, 127, 128, 4095] {
            let mut new = old.clone();
            new[at] ^= 1;
            let mut out = Vec::new();
            assert_eq!(
                encode(&old, &new, 4096, &mut out),
                Some(1 << (at / BLOCK_BYTES))
            );
            assert_eq!(out.len(), if at < 128 { 3 } else { 4 });
            let mut back = old.clone();
            decode(&out, &mut back).unwrap();
            assert_eq!(back, new);
        }
    }

    #[test]
    fn equal_pages_cost_nothing_and_a_limit_leaves_no_trace() {
        let mut out = std::vec![7];
        assert_eq!(encode(&page(0), &page(0), 0, &mut out), Some(0));
        assert_eq!(encode(&page(0), &page(0xff), 1000, &mut out), None);
        assert_eq!(out, [7]);
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for bad in [
            &[0][..],
            &[0, 0],
            &[0x80, 0, 1, 9],
            &[0, 1],
            &[0, 1, 9, 0, 1, 9],
            &[0xff, 0x1f, 2, 9, 9],
            &[0xff, 0xff, 1, 9],
        ] {
            assert!(decode(bad, &mut page(0)).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(changes in proptest::collection::vec((0..PAGE_BYTES, any::<u8>()), 0..200)) {
            let old = page(3);
            let mut new = old.clone();
            for (at, value) in changes {
                new[at] = value;
            }
            let mut out = Vec::new();
            let touched = encode(&old, &new, 2 * PAGE_BYTES, &mut out).unwrap();
            for (at, (old, new)) in old.iter().zip(new.iter()).enumerate() {
                prop_assert!(old == new || touched >> (at / BLOCK_BYTES) & 1 != 0);
            }
            prop_assert_eq!(super::touched(&out), Ok(touched));
            let mut back = old.clone();
            decode(&out, &mut back).unwrap();
            prop_assert_eq!(back, new);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut target = page(0);
            let _ = decode(&bytes, &mut target);
        }
    }
}
