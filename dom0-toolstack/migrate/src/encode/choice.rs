//! Which encoding a page gets: the cost model.
//!
//! A page's cost is the time it takes: processor time to encode it and link time for its bytes. The
//! encodings that would only be tried in vain (compressing noise, deltas of pages rewritten whole)
//! are found out by trying now and then, and left alone otherwise.

use super::cache::Cache;
use super::{PAGE_BYTES, Page, delta, is_zero};
use crate::stream::{BLOCK_BYTES, MemoryDigest};
use alloc::vec::Vec;

/// How a page is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Encoding {
    /// All zeroes: no bytes.
    Zero,
    /// [`delta`] to what the other side has.
    Delta,
    /// LZ4 block of 4096 bytes.
    Lz4,
    /// As it is.
    Raw,
}

/// What a page costs. Instructions or cycles a page, and the same a byte on the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// To try LZ4.
    pub lz4: u64,
    /// To try a delta.
    pub delta: u64,
    /// A byte on the link, with what encrypting it costs.
    pub byte: u64,
}

/// Measured on the way: how well an encoding has done lately.
#[derive(Clone, Copy, Debug)]
struct Record {
    /// Bytes it made of a page, on average, times 16.
    bytes_16: u32,
    /// Pages since it was tried.
    untried: u32,
}

impl Record {
    /// Optimistic: it is tried first.
    const NEW: Record = Record {
        bytes_16: 0,
        untried: 0,
    };

    fn note(&mut self, bytes: usize) {
        self.bytes_16 = self.bytes_16 - self.bytes_16 / 16 + bytes as u32;
        self.untried = 0;
    }

    /// Whether trying it is likely to pay, or due again.
    fn pays(&mut self, cost: u64, byte_cost: u64) -> bool {
        /// Pages between two trials of what did not pay.
        const TRIAL_PAGES: u32 = 32;
        let saved = (PAGE_BYTES as u64).saturating_sub(u64::from(self.bytes_16 / 16));
        let pays = saved * byte_cost > cost;
        self.untried += 1;
        pays || self.untried > TRIAL_PAGES
    }
}

/// Counts by encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Pages of zeroes.
    pub zero: u64,
    /// Pages sent as deltas.
    pub delta: u64,
    /// Bytes of them.
    pub delta_bytes: u64,
    /// Pages compressed.
    pub lz4: u64,
    /// Bytes of them.
    pub lz4_bytes: u64,
    /// Pages sent whole.
    pub raw: u64,
}

impl Sent {
    /// Pages in all.
    pub fn pages(&self) -> u64 {
        self.zero + self.delta + self.lz4 + self.raw
    }

    /// Bytes of contents in all.
    pub fn bytes(&self) -> u64 {
        self.delta_bytes + self.lz4_bytes + self.raw * PAGE_BYTES as u64
    }
}

/// Encodes the pages of one guest.
pub struct Encoder {
    cache: Cache,
    costs: Costs,
    lz4: Record,
    delta: Record,
    table: lz4_flex::block::CompressTable,
    scratch: Vec<u8>,
    sent: Sent,
}

impl Encoder {
    /// Nothing was sent yet; deltas against at most `cache_pages` pages.
    pub fn new(cache_pages: usize, costs: Costs) -> Encoder {
        Encoder {
            cache: Cache::new(cache_pages),
            costs,
            lz4: Record::NEW,
            delta: Record::NEW,
            table: lz4_flex::block::CompressTable::default(),
            scratch: alloc::vec![0; lz4_flex::block::get_maximum_output_size(PAGE_BYTES)],
            sent: Sent::default(),
        }
    }

    /// The link has become slower or faster.
    pub fn set_costs(&mut self, costs: Costs) {
        self.costs = costs;
    }

    /// The other side does not have what it was sent of a page any more.
    pub fn forget(&mut self, page: u64) {
        self.cache.forget(page);
    }

    /// What was sent so far.
    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Appends the page to `out`, says how, and what its hash is now. `before`: its hash when it was sent
    /// in this attempt, if it was; what is sent again is worth remembering.
    pub fn encode(
        &mut self,
        page: u64,
        contents: &Page,
        before: Option<u128>,
        out: &mut Vec<u8>,
    ) -> (Encoding, u128) {
        let begin = out.len();
        let (encoding, hash) = if is_zero(contents) {
            (Encoding::Zero, MemoryDigest::of_zero(page))
        } else if let Some(hash) = self.encode_delta(page, contents, before, out) {
            (Encoding::Delta, hash)
        } else {
            let hash = MemoryDigest::of_blocks(page, contents);
            (self.encode_whole(contents, out), hash)
        };
        match encoding {
            Encoding::Zero => self.sent.zero += 1,
            Encoding::Delta => {
                self.sent.delta += 1;
                self.sent.delta_bytes += (out.len() - begin) as u64;
            }
            Encoding::Lz4 => {
                self.sent.lz4 += 1;
                self.sent.lz4_bytes += (out.len() - begin) as u64;
            }
            Encoding::Raw => self.sent.raw += 1,
        }
        // A delta has brought the cache up to date.
        if before.is_some() && encoding != Encoding::Delta {
            self.cache.sent(page, contents);
        }
        (encoding, hash)
    }

    /// The delta to what was sent before, if that is known and it pays. Gives the new hash.
    fn encode_delta(
        &mut self,
        page: u64,
        contents: &Page,
        before: Option<u128>,
        out: &mut Vec<u8>,
    ) -> Option<u128> {
        let before = before?;
        let base = self.cache.base(page)?;
        if !self.delta.pays(self.costs.delta, self.costs.byte) {
            return None;
        }
        let begin = out.len();
        // A delta of more than half a page saves little and may compress worse.
        let Some(touched) = delta::encode(base, contents, PAGE_BYTES / 2, out) else {
            self.delta.note(PAGE_BYTES);
            return None;
        };
        self.delta.note(out.len() - begin);
        let (olds, _) = base.as_chunks_mut::<BLOCK_BYTES>();
        let (news, _) = contents.as_chunks::<BLOCK_BYTES>();
        let mut hash = before;
        for (index, (old, new)) in (0..).zip(olds.iter_mut().zip(news)) {
            if touched >> index & 1 != 0 {
                hash = hash.wrapping_sub(MemoryDigest::of_block(page, index, old));
                hash = hash.wrapping_add(MemoryDigest::of_block(page, index, new));
                *old = *new;
            }
        }
        Some(hash)
    }

    fn encode_whole(&mut self, contents: &Page, out: &mut Vec<u8>) -> Encoding {
        if self.lz4.pays(self.costs.lz4, self.costs.byte) {
            let packed = lz4_flex::block::compress_into_with_table(
                contents,
                &mut self.scratch,
                &mut self.table,
            );
            let packed = packed.expect("room for the most it can make");
            self.lz4.note(packed.min(PAGE_BYTES));
            if packed < PAGE_BYTES - PAGE_BYTES / 16 {
                out.extend_from_slice(&self.scratch[..packed]);
                return Encoding::Lz4;
            }
        }
        out.extend_from_slice(contents);
        Encoding::Raw
    }
}

/// Why a page cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPage {
    /// A page of zeroes with bytes, or a whole page of another length.
    Length(usize),
    /// A delta that is none.
    Delta(delta::BadDelta),
    /// Not an LZ4 block of one page.
    Lz4,
}

/// Decodes a delta over what was there before, a page of hash `before`. Gives its hash now.
pub fn decode_delta(
    number: u64,
    before: u128,
    bytes: &[u8],
    page: &mut Page,
) -> Result<u128, BadPage> {
    let touched = delta::touched(bytes).map_err(BadPage::Delta)?;
    let hashes = |page: &Page| {
        let (blocks, _) = page.as_chunks::<BLOCK_BYTES>();
        let changed = (0..)
            .zip(blocks)
            .filter(|(index, _)| touched >> index & 1 != 0);
        changed.fold(0u128, |sum, (index, block)| {
            sum.wrapping_add(MemoryDigest::of_block(number, index, block))
        })
    };
    let old = hashes(page);
    delta::decode(bytes, page).map_err(BadPage::Delta)?;
    Ok(before.wrapping_sub(old).wrapping_add(hashes(page)))
}

/// Decodes a page over what was there before.
pub fn decode(encoding: Encoding, bytes: &[u8], page: &mut Page) -> Result<(), BadPage> {
    match encoding {
        Encoding::Zero if bytes.is_empty() => page.fill(0),
        Encoding::Zero => return Err(BadPage::Length(bytes.len())),
        Encoding::Delta => delta::decode(bytes, page).map_err(BadPage::Delta)?,
        Encoding::Lz4 => match lz4_flex::block::decompress_into(bytes, page) {
            Ok(PAGE_BYTES) => {}
            Ok(_) | Err(_) => return Err(BadPage::Lz4),
        },
        Encoding::Raw => {
            let whole = bytes.try_into();
            *page = whole.map_err(|_| BadPage::Length(bytes.len()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::boxed::Box;
    use std::collections::BTreeMap;

    const COSTS: Costs = Costs {
        lz4: 16_000,
        delta: 3_000,
        byte: 20,
    };

    fn noise(seed: u64) -> Box<Page> {
        let mut state = seed | 1;
        Box::new(core::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        }))
    }

    fn text(seed: u8) -> Box<Page> {
        Box::new(core::array::from_fn(|at| {
            b"the godwit flies "[(at / 3 + seed as usize) % 17]
        }))
    }

    #[test]
    fn the_other_side_always_has_the_same() {
        let mut encoder = Encoder::new(4, COSTS);
        let mut there: BTreeMap<u64, Box<Page>> = BTreeMap::new();
        let mut hashes: BTreeMap<u64, u128> = BTreeMap::new();
        for round in 0..40u64 {
            for page in 0..8u64 {
                let mut contents = match page % 4 {
                    0 => Box::new([0; PAGE_BYTES]),
                    1 => text(page as u8),
                    2 => noise(page),
                    _ => noise(page + round * 100),
                };
                contents[100] = (round * (page % 3)) as u8;
                let mut out = Vec::new();
                let before = hashes.get(&page).copied();
                let (encoding, hash) = encoder.encode(page, &contents, before, &mut out);
                assert_eq!(hash, MemoryDigest::of_blocks(page, &contents));
                hashes.insert(page, hash);
                let target = there
                    .entry(page)
                    .or_insert_with(|| Box::new([0; PAGE_BYTES]));
                if encoding == Encoding::Delta {
                    let mut target = target.clone();
                    let found = decode_delta(page, before.unwrap(), &out, &mut target);
                    assert_eq!(found, Ok(hash));
                }
                decode(encoding, &out, target).unwrap();
                assert_eq!(*target, contents, "page {page} in round {round}");
            }
        }
        let sent = encoder.sent();
        assert!(
            sent.zero > 0 && sent.delta > 0 && sent.lz4 > 0 && sent.raw > 0,
            "{sent:?}"
        );
        assert_eq!(sent.pages(), 320);
    }

    #[test]
    fn noise_is_not_compressed_in_vain() {
        let mut encoder = Encoder::new(0, COSTS);
        let mut trials = 0;
        for page in 0..1000 {
            let untried = encoder.lz4.untried;
            let mut out = Vec::new();
            let (encoding, _) = encoder.encode(page, &noise(page + 1), None, &mut out);
            assert_eq!(encoding, Encoding::Raw);
            trials += u32::from(encoder.lz4.untried <= untried);
        }
        // The first ones until it is found out, then one in 33.
        assert!(trials < 150, "{trials} trials");
    }

    #[test]
    fn text_after_noise_is_found_again() {
        let mut encoder = Encoder::new(0, COSTS);
        let mut out = Vec::new();
        for page in 0..500 {
            encoder.encode(page, &noise(page + 1), None, &mut out);
        }
        let before = encoder.sent().lz4;
        for page in 0..500 {
            encoder.encode(page, &text(page as u8), None, &mut out);
        }
        assert!(encoder.sent().lz4 - before > 100, "{:?}", encoder.sent());
    }

    #[test]
    fn rubbish_is_refused() {
        let mut page = [0; PAGE_BYTES];
        assert!(decode(Encoding::Zero, &[1], &mut page).is_err());
        assert!(decode(Encoding::Raw, &[1; 4095], &mut page).is_err());
        assert!(decode(Encoding::Lz4, &[0xff; 30], &mut page).is_err());
        assert!(decode(Encoding::Delta, &[0], &mut page).is_err());
    }
}
