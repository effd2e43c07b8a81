//! A digest of a guest's memory that can be kept up to date page by page.
//!
//! The sum, modulo 2^128, of the XXH3-128 hashes of all pages, each seeded with its page number: the
//! order does not matter, and a page that changes is taken out and put in again. It finds mistakes; it
//! is no defence against somebody who makes pages for it.

use core::fmt;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Octets of a digest in a frame: the sum (u128), then the number of pages (u64).
pub const DIGEST_BYTES: usize = 24;

/// A digest. Two memories with equal digests have the same pages with the same contents.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MemoryDigest {
    sum: u128,
    pages: u64,
}

/// For people to compare: the sum alone.
impl fmt::Display for MemoryDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.sum)
    }
}

impl MemoryDigest {
    /// Of one page.
    pub fn of(page: u64, bytes: &[u8]) -> u128 {
        xxh3_128_with_seed(bytes, page)
    }

    /// Puts a page in.
    pub fn add(&mut self, page: u64, bytes: &[u8]) {
        self.put(Self::of(page, bytes));
    }

    /// Of a page of zeroes where those are told from others, cheaper than its bytes.
    pub fn of_zero(page: u64) -> u128 {
        xxh3_128_with_seed(&[], page)
    }

    /// Puts a page in whose hash is known.
    pub fn put(&mut self, hash: u128) {
        self.sum = self.sum.wrapping_add(hash);
        self.pages += 1;
    }

    /// Takes a page out whose hash, by [`MemoryDigest::of`], is known.
    pub fn remove(&mut self, hash: u128) {
        assert!(self.pages > 0, "a page that was not put in");
        self.sum = self.sum.wrapping_sub(hash);
        self.pages -= 1;
    }

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// As octets.
    pub fn encode(&self) -> [u8; DIGEST_BYTES] {
        let mut bytes = [0; DIGEST_BYTES];
        bytes[..16].copy_from_slice(&self.sum.to_le_bytes());
        bytes[16..].copy_from_slice(&self.pages.to_le_bytes());
        bytes
    }

    /// From octets; `None` for another number of them.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; DIGEST_BYTES] = bytes.try_into().ok()?;
        let (sum, pages) = bytes.split_at(16);
        Some(Self {
            sum: u128::from_le_bytes(sum.try_into().ok()?),
            pages: u64::from_le_bytes(pages.try_into().ok()?),
        })
    }
}
