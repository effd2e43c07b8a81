//! A bit for each region of a disk.

use super::REGION_BYTES;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

/// Bits of a word.
const BITS: u64 = 64;

/// Regions of a disk, each marked or not.
pub(super) struct RegionMap {
    words: Vec<u64>,
    regions: u64,
    /// How many are marked.
    count: u64,
    region_blocks: u64,
}

impl RegionMap {
    /// All regions of a disk, marked.
    pub(super) fn full(blocks: u64, block_bytes: u32) -> RegionMap {
        let region_blocks = u64::from(REGION_BYTES / block_bytes);
        let regions = blocks.div_ceil(region_blocks);
        let mut map = RegionMap {
            words: vec![0; regions.div_ceil(BITS) as usize],
            regions,
            count: 0,
            region_blocks,
        };
        map.mark(&(0..blocks));
        map
    }

    /// How many are marked.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn regions_of(&self, blocks: &Range<u64>) -> Range<u64> {
        blocks.start / self.region_blocks..blocks.end.div_ceil(self.region_blocks)
    }

    fn is_marked(&self, region: u64) -> bool {
        self.words[(region / BITS) as usize] >> (region % BITS) & 1 == 1
    }

    /// Marks every region that some of the blocks are in.
    pub(super) fn mark(&mut self, blocks: &Range<u64>) {
        for region in self.regions_of(blocks) {
            if !self.is_marked(region) {
                self.words[(region / BITS) as usize] |= 1 << (region % BITS);
                self.count += 1;
            }
        }
    }

    /// Takes the mark from a region.
    pub(super) fn clear(&mut self, region: u64) {
        if self.is_marked(region) {
            self.words[(region / BITS) as usize] &= !(1 << (region % BITS));
            self.count -= 1;
        }
    }

    /// Whether all regions that some of the blocks are in are marked.
    pub(super) fn all(&self, blocks: &Range<u64>) -> bool {
        self.regions_of(blocks).all(|region| self.is_marked(region))
    }

    /// The first marked region from `from` on.
    pub(super) fn next(&self, from: u64) -> Option<u64> {
        let mut at = from;
        while at < self.regions {
            let rest = self.words[(at / BITS) as usize] >> (at % BITS);
            if rest != 0 {
                return Some(at + u64::from(rest.trailing_zeros()));
            }
            at = (at / BITS + 1) * BITS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_and_counted() {
        // 130 regions and a bit, of 128 blocks each.
        let mut map = RegionMap::full(130 * 128 + 1, 512);
        assert_eq!(map.count(), 131);
        for region in 0..131 {
            map.clear(region);
            map.clear(region);
        }
        assert_eq!((map.count(), map.next(0)), (0, None));
        map.mark(&(127..129));
        map.mark(&(130 * 128..130 * 128 + 1));
        assert_eq!(map.count(), 3);
        let found = [0, 1, 2, 130, 131].map(|from| map.next(from));
        assert_eq!(found, [Some(0), Some(1), Some(130), Some(130), None]);
        assert!(map.all(&(0..256)) && !map.all(&(0..257)));
    }
}
