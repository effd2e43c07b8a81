//! Chance that one seed decides: SplitMix64 (Steele, Lea, Flood, 2014).

use std::cell::Cell;

/// A source of numbers.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// One that always gives the same numbers for a seed.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// Another source, whose numbers do not depend on how many this one still gives.
    pub fn fork(&self) -> Self {
        Self::new(self.next())
    }

    /// Any number.
    pub fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        assert!(end > 0, "there is none");
        self.next() % end
    }

    /// One from `first` to `last`, both included.
    pub fn between(&self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    /// True in so many of 1000 cases.
    pub fn one_in_thousand(&self, cases: u64) -> bool {
        self.below(1000) < cases
    }

    /// One of several.
    pub fn pick<T: Copy>(&self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    /// Fills `out`.
    pub fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
    }
}
