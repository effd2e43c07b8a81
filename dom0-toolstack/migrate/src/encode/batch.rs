//! The body of a BATCH frame: pages, each in its encoding.
//!
//! ```text
//!   0   entries (u32)
//!   4   entries, 8 octets each: page (40 bits), encoding (8 bits), length (16 bits), little endian
//!   ..  the bytes of the entries, one behind the other
//! ```
//!
//! For zero pages the length is how many more such pages follow this one. Encodings: 0 zero, 1 delta,
//! 2 LZ4, 3 raw.
//!
//! Entry point for bytes nobody vouches for: [`decode`].

use super::PAGE_BYTES;
use super::choice::Encoding;
use alloc::vec::Vec;

/// Most pages of a batch, a run of zero pages counting once.
pub const ENTRIES_MAX: usize = 256;
/// Guest pages have numbers below this.
const PAGE_NUMBER_END: u64 = 1 << 40;
/// Octets of an entry.
const ENTRY_BYTES: usize = 8;

/// A batch that is being put together.
#[derive(Default)]
pub struct Batch {
    entries: Vec<Entry>,
    data: Vec<u8>,
}

/// Pages of one encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    page: u64,
    encoding: Encoding,
    length: u16,
}

/// A page of a batch, or a run of zero pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Item<'a> {
    /// The first page.
    pub page: u64,
    /// Pages: 1 unless they are zero.
    pub pages: u64,
    /// How it was encoded.
    pub encoding: Encoding,
    /// The encoded page.
    pub bytes: &'a [u8],
}

/// A body that is no batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadBatch;

impl Batch {
    /// Where the bytes of the next page go.
    pub fn data(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Notes the page whose bytes, so many, were just appended.
    pub fn push(&mut self, page: u64, encoding: Encoding, bytes: usize) {
        assert!(page < PAGE_NUMBER_END && bytes <= PAGE_BYTES);
        if encoding == Encoding::Zero
            && let Some(last) = self.entries.last_mut()
            && last.encoding == Encoding::Zero
            && last.page + u64::from(last.length) + 1 == page
            && last.length < u16::MAX
        {
            last.length += 1;
            return;
        }
        self.entries.push(Entry {
            page,
            encoding,
            length: bytes as u16,
        });
    }

    /// Nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// No more should be put in.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= ENTRIES_MAX
    }

    /// Head and data of the body.
    pub fn finish(self) -> (Vec<u8>, Vec<u8>) {
        let mut head = Vec::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        head.extend((self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            let code = match entry.encoding {
                Encoding::Zero => 0u64,
                Encoding::Delta => 1,
                Encoding::Lz4 => 2,
                Encoding::Raw => 3,
            };
            let word = entry.page | code << 40 | u64::from(entry.length) << 48;
            head.extend(word.to_le_bytes());
        }
        (head, self.data)
    }
}

/// The pages of a body. All of it is checked before the first is given.
pub fn decode(body: &[u8]) -> Result<Vec<Item<'_>>, BadBatch> {
    let (count, rest) = body.split_first_chunk().ok_or(BadBatch)?;
    let count = u32::from_le_bytes(*count) as usize;
    if count > ENTRIES_MAX || rest.len() < count * ENTRY_BYTES {
        return Err(BadBatch);
    }
    let (entries, mut data) = rest.split_at(count * ENTRY_BYTES);
    let mut items = Vec::with_capacity(count);
    for entry in entries.as_chunks::<ENTRY_BYTES>().0 {
        let word = u64::from_le_bytes(*entry);
        let (page, length) = (word & (PAGE_NUMBER_END - 1), (word >> 48) as usize);
        let encoding = match word >> 40 & 0xff {
            0 => Encoding::Zero,
            1 => Encoding::Delta,
            2 => Encoding::Lz4,
            3 => Encoding::Raw,
            _ => return Err(BadBatch),
        };
        let (pages, bytes) = match encoding {
            Encoding::Zero => (length as u64 + 1, &data[..0]),
            Encoding::Delta | Encoding::Lz4 | Encoding::Raw => {
                let (bytes, rest) = data.split_at_checked(length).ok_or(BadBatch)?;
                data = rest;
                (1, bytes)
            }
        };
        if length > PAGE_BYTES && encoding != Encoding::Zero || pages > PAGE_NUMBER_END - page {
            return Err(BadBatch);
        }
        items.push(Item {
            page,
            pages,
            encoding,
            bytes,
        });
    }
    match data.is_empty() {
        true => Ok(items),
        false => Err(BadBatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pages_come_back_and_zero_pages_are_runs() {
        let mut batch = Batch::default();
        for page in 5..9 {
            batch.push(page, Encoding::Zero, 0);
        }
        batch.data().extend(b"abc");
        batch.push(9, Encoding::Lz4, 3);
        batch.push(10, Encoding::Zero, 0);
        let (head, data) = batch.finish();
        let body = [head, data].concat();
        let items = decode(&body).unwrap();
        let found: Vec<_> = items.iter().map(|i| (i.page, i.pages, i.bytes)).collect();
        assert_eq!(found, [(5, 4, &b""[..]), (9, 1, b"abc"), (10, 1, b"")]);
        for end in 0..body.len() {
            assert_eq!(decode(&body[..end]), Err(BadBatch), "cut at {end}");
        }
        assert_eq!(decode(&[&body[..], b"x"].concat()), Err(BadBatch));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_batch_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), count in 0u32..4) {
            let _ = decode(&bytes);
            let _ = decode(&[&count.to_le_bytes()[..], &bytes].concat());
        }
    }
}
