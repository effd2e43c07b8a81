//! A set of guest pages, one bit each.

use alloc::vec;
use alloc::vec::Vec;

/// Pages `0..capacity`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
    capacity: u64,
    count: u64,
}

impl PageSet {
    /// None of `capacity` pages.
    pub fn new(capacity: u64) -> PageSet {
        PageSet {
            words: vec![0; capacity.div_ceil(64) as usize],
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
        let word = self.words.get((page / 64) as usize);
        word.is_some_and(|word| word >> (page % 64) & 1 != 0)
    }

    /// Adds a page. One beyond the capacity is the caller's mistake.
    pub fn insert(&mut self, page: u64) {
        assert!(page < self.capacity, "page {page} of {}", self.capacity);
        let word = &mut self.words[(page / 64) as usize];
        self.count += u64::from(*word >> (page % 64) & 1 == 0);
        *word |= 1 << (page % 64);
    }

    /// Takes a page out.
    pub fn remove(&mut self, page: u64) {
        if let Some(word) = self.words.get_mut((page / 64) as usize) {
            self.count -= *word >> (page % 64) & 1;
            *word &= !(1 << (page % 64));
        }
    }

    /// Adds the pages of a dirty log, one bit each; those beyond the capacity are not the guest's.
    pub fn insert_words(&mut self, words: &[u64]) {
        let tail = self.capacity % 64;
        let last = self.words.len().wrapping_sub(1);
        for (index, (own, new)) in self.words.iter_mut().zip(words).enumerate() {
            let mask = if index == last && tail != 0 {
                (1 << tail) - 1
            } else {
                u64::MAX
            };
            let added = new & mask & !*own;
            self.count += u64::from(added.count_ones());
            *own |= added;
        }
    }

    /// One bit a page, from page 0 on.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// Moves everything of `other` here.
    pub fn append(&mut self, other: &mut PageSet) {
        self.insert_words(&other.words);
        other.words.fill(0);
        other.count = 0;
    }

    /// Takes up to `most` pages out, from `cursor` on, which goes on behind them.
    pub fn take_from(&mut self, cursor: &mut u64, most: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        while taken.len() < most && *cursor < self.capacity {
            let index = (*cursor / 64) as usize;
            let rest = self.words[index] & (u64::MAX << (*cursor % 64));
            if rest == 0 {
                *cursor = (index as u64 + 1) * 64;
                continue;
            }
            let page = index as u64 * 64 + u64::from(rest.trailing_zeros());
            self.remove(page);
            taken.push(page);
            *cursor = page + 1;
        }
        taken
    }

    /// All pages, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        let words = self.words.iter().enumerate();
        words.flat_map(|(index, word)| {
            let mut left = *word;
            core::iter::from_fn(move || {
                let bit = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some(index as u64 * 64 + u64::from(bit))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_a_set(steps in proptest::collection::vec((0u64..150, any::<bool>()), 0..300), logs in proptest::collection::vec(any::<u64>(), 0..4)) {
            let mut set = PageSet::new(150);
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
                truth.extend((0..64).filter(|bit| word >> bit & 1 != 0).map(|bit| index as u64 * 64 + bit).filter(|page| *page < 150));
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
