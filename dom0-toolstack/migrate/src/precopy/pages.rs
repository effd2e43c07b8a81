//! A set of guest pages, one bit each.
//!
//! Above the words of bits lie levels of summaries, each with a bit for every word below that is not 0. So what is done with a set costs
//! what is in it, not what could be: a guest of any size can be stopped for as long as the pages that are left take.

use alloc::vec;
use alloc::vec::Vec;

/// Pages `0..capacity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    /// The bits of pages, then the summaries, up to one of a single word.
    levels: Vec<Vec<u64>>,
    capacity: u64,
    count: u64,
}

impl PageSet {
    /// None of `capacity` pages.
    pub fn new(capacity: u64) -> PageSet {
        let mut words = capacity.div_ceil(64) as usize;
        let mut levels = vec![vec![0; words]];
        while words > 1 {
            words = words.div_ceil(64);
            levels.push(vec![0; words]);
        }
        PageSet {
            levels,
            capacity,
            count: 0,
        }
    }

    /// Pages there can be.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Pages there are.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a page is in it.
    pub fn contains(&self, page: u64) -> bool {
        let word = self.words().get((page / 64) as usize);
        word.is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// Adds a page. One beyond the capacity is the caller's mistake.
    pub fn insert(&mut self, page: u64) {
        assert!(page < self.capacity, "page {page} of {}", self.capacity);
        self.insert_word((page / 64) as usize, 1 << (page % 64));
    }

    /// Takes a page out.
    pub fn remove(&mut self, page: u64) {
        self.remove_word((page / 64) as usize, 1 << (page % 64));
    }

    /// Adds pages of one word.
    fn insert_word(&mut self, index: usize, bits: u64) {
        let word = &mut self.levels[0][index];
        self.count += u64::from((bits & !*word).count_ones());
        let was_empty = *word == 0;
        *word |= bits;
        if was_empty && bits != 0 {
            let mut at = index;
            for level in &mut self.levels[1..] {
                let word = &mut level[at / 64];
                let was_empty = *word == 0;
                *word |= 1 << (at % 64);
                if !was_empty {
                    break;
                }
                at /= 64;
            }
        }
    }

    /// Takes pages of one word out.
    fn remove_word(&mut self, index: usize, bits: u64) {
        let Some(word) = self.levels[0].get_mut(index).filter(|word| **word != 0) else {
            return;
        };
        self.count -= u64::from((bits & *word).count_ones());
        *word &= !bits;
        let (mut at, mut is_empty) = (index, *word == 0);
        for level in &mut self.levels[1..] {
            if !is_empty {
                break;
            }
            let word = &mut level[at / 64];
            *word &= !(1 << (at % 64));
            is_empty = *word == 0;
            at /= 64;
        }
    }

    /// The first page from `from` on.
    pub fn next(&self, from: u64) -> Option<u64> {
        let (mut at, mut level) = (from, 0);
        // Up until something is there, then down to the first of it.
        loop {
            let word = looked_at(self.levels.get(level)?.get((at / 64) as usize)?);
            let rest = word & (u64::MAX << (at % 64));
            if rest != 0 {
                at = at / 64 * 64 + u64::from(rest.trailing_zeros());
                break;
            }
            at = at / 64 + 1;
            level += 1;
        }
        while level > 0 {
            level -= 1;
            let word = looked_at(&self.levels[level][at as usize]);
            at = at * 64 + u64::from(word.trailing_zeros());
        }
        Some(at)
    }

    /// Adds the pages of a dirty log, one bit each; those beyond the capacity are not the guest's.
    pub fn insert_words(&mut self, words: &[u64]) {
        let tail = self.capacity % 64;
        let length = self.words().len();
        for (index, new) in words.iter().enumerate().take(length) {
            let mask = if index + 1 == length && tail != 0 {
                (1 << tail) - 1
            } else {
                u64::MAX
            };
            if new & mask != 0 {
                self.insert_word(index, new & mask);
            }
        }
    }

    /// One bit a page, from page 0 on.
    pub fn words(&self) -> &[u64] {
        &self.levels[0]
    }

    /// Moves everything of `other` here.
    pub fn append(&mut self, other: &mut PageSet) {
        let mut from = 0;
        while let Some(page) = other.next(from) {
            let index = (page / 64) as usize;
            self.insert_word(index, other.words()[index]);
            other.remove_word(index, u64::MAX);
            from = (index as u64 + 1) * 64;
        }
    }

    /// Takes up to `most` pages out, from `cursor` on, which goes on behind them.
    pub fn take_from(&mut self, cursor: &mut u64, most: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(page) = self.next(*cursor) else {
                *cursor = self.capacity;
                break;
            };
            self.remove(page);
            taken.push(page);
            *cursor = page + 1;
        }
        taken
    }

    /// All pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let mut from = 0;
        core::iter::from_fn(move || {
            let page = self.next(from)?;
            from = page + 1;
            Some(page)
        })
    }
}

#[cfg(not(test))]
fn looked_at(word: &u64) -> u64 {
    *word
}

/// In tests, words that are looked at are counted.
#[cfg(test)]
fn looked_at(word: &u64) -> u64 {
    tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
    *word
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    std::thread_local! {
        /// Words looked at.
        pub(super) static LOOKS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
    }

    /// What it takes to merge, list and take out 40 pages of so many.
    fn looks(capacity: u64) -> u64 {
        let pages = || (0..40).map(|nth| nth * (capacity / 40));
        let (mut set, mut other) = (PageSet::new(capacity), PageSet::new(capacity));
        pages().for_each(|page| other.insert(page));
        LOOKS.set(0);
        set.append(&mut other);
        assert!(other.is_empty() && set.iter().eq(pages()));
        assert_eq!(set.take_from(&mut 0, 100), pages().collect::<Vec<_>>());
        LOOKS.get()
    }

    #[test]
    fn a_set_costs_what_is_in_it_and_not_what_could_be() {
        // 256 MiB, 1 GiB, 16 GiB: 40 pages are found three times each, by going up and down some of the levels.
        for (capacity, levels) in [(1 << 16, 3), (1 << 18, 3), (1 << 22, 4)] {
            let most = 3 * 41 * (2 * levels - 1);
            assert!(looks(capacity) <= most, "{} of {most}", looks(capacity));
            // It can fail: the words of the smallest alone are more.
            assert!(most < (1 << 16) / 64);
        }
    }

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0u64..9000, any::<bool>()), 0..300), logs in proptest::collection::vec(any::<u64>(), 0..150)) {
            let mut set = PageSet::new(9000);
            let mut truth = BTreeSet::new();
            for (page, insert) in steps {
                if insert {
                    set.insert(page);
                    truth.insert(page);
                } else {
                    set.remove(page);
                    truth.remove(&page);
                }
            }
            set.insert_words(&logs);
            for (index, word) in logs.iter().enumerate() {
                truth.extend((0..64).filter(|bit| word >> bit & 1 != 0).map(|bit| index as u64 * 64 + bit).filter(|page| *page < 9000));
            }
            prop_assert_eq!(set.len(), truth.len() as u64);
            prop_assert!(set.iter().eq(truth.iter().copied()));
            let mut cursor = 0;
            let mut taken = Vec::new();
            loop {
                let some = set.take_from(&mut cursor, 7);
                if some.is_empty() {
                    break;
                }
                taken.extend(some);
            }
            prop_assert!(taken.iter().copied().eq(truth));
            prop_assert!(set.is_empty());
        }
    }
}
