//! A digest of a guest's memory that can be kept up to date page by page.
//!
//! The sum, modulo 2^128, of the XXH3-128 hashes of all pages, each seeded with its page number: the
//! order does not matter, and a page that changes is taken out and put in again. It finds mistakes; it
//! is no defence against somebody who makes pages for it. While a domain moves, a page's hash is itself a
//! sum, over its blocks.

use crate::encode::PAGE_BYTES;
use core::fmt;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Octets of a digest in a frame: the sum (u128), then the number of pages (u64).
pub const DIGEST_BYTES: usize = 24;

/// Octets of a block.
pub const BLOCK_BYTES: usize = 128;
/// Blocks of a page.
const BLOCKS_PER_PAGE: u64 = (PAGE_BYTES / BLOCK_BYTES) as u64;

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

    /// Of one page by its blocks, so that a change in few places costs little: the hash of no octets,
    /// seeded with the page's number, and those of all blocks that are not zero.
    pub fn of_blocks(page: u64, contents: &[u8; PAGE_BYTES]) -> u128 {
        let (blocks, _) = contents.as_chunks();
        let hashes = (0..).zip(blocks);
        hashes.fold(Self::of_zero(page), |sum, (index, block)| {
            sum.wrapping_add(Self::of_block(page, index, block))
        })
    }

    /// What a block adds to its page's hash: 0 if it is zero, else its XXH3-128 hash, seeded with the
    /// block's number in all of memory.
    pub fn of_block(page: u64, index: u64, block: &[u8; BLOCK_BYTES]) -> u128 {
        let (words, _) = block.as_chunks();
        let any = words
            .iter()
            .fold(0, |any, word| any | u64::from_le_bytes(*word));
        match any {
            0 => 0,
            _ => xxh3_128_with_seed(block, page * BLOCKS_PER_PAGE + index),
        }
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
