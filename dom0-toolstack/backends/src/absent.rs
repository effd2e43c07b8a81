//! Pages of a guest whose contents have yet to come from another host (post-copy), as devices see them: which they are, and
//! which of them somebody waits for.
//!
//! What is in such a page is nobody's: a device asks [`is_here`](AbsentPages::is_here) about all pages of a request before it
//! begins, and leaves the request where it is while one is missing. A page that has come stays.

use crate::memory::PAGE_BYTES;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;

/// The absent pages of one guest.
#[derive(Default, Debug)]
pub struct AbsentPages {
    /// One bit a page, from page 0 on; empty when all are here.
    words: RefCell<Vec<u64>>,
    wanted: RefCell<BTreeSet<u64>>,
}

impl AbsentPages {
    /// These are absent: one bit a page, from page 0 on.
    pub fn set(&self, words: Vec<u64>) {
        *self.words.borrow_mut() = words;
        self.wanted.borrow_mut().clear();
    }

    /// Whether all of a range is here. What is not is wanted from now on.
    pub fn is_here(&self, gpa: u64, bytes: u64) -> bool {
        let words = self.words.borrow();
        if words.is_empty() || bytes == 0 {
            return true;
        }
        let last = gpa.saturating_add(bytes - 1) / PAGE_BYTES;
        let absent = |page: &u64| {
            let word = words.get((page / 64) as usize);
            word.is_some_and(|word| word >> (page % 64) & 1 != 0)
        };
        // Bounded by the bitmap: nothing is absent behind it.
        let end = (last + 1).min(words.len() as u64 * 64);
        let missing: Vec<u64> = (gpa / PAGE_BYTES..end).filter(absent).collect();
        let is_here = missing.is_empty();
        self.wanted.borrow_mut().extend(missing);
        is_here
    }

    /// The pages that are waited for.
    pub fn wanted(&self) -> Vec<u64> {
        self.wanted.borrow().iter().copied().collect()
    }

    /// Pages have come. Whether one of them was waited for.
    pub fn fill(&self, pages: Range<u64>) -> bool {
        let mut words = self.words.borrow_mut();
        for page in pages.clone() {
            if let Some(word) = words.get_mut((page / 64) as usize) {
                *word &= !(1 << (page % 64));
            }
        }
        let mut wanted = self.wanted.borrow_mut();
        let before = wanted.len();
        wanted.retain(|page| !pages.contains(page));
        wanted.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_wanted_until_it_comes() {
        let pages = AbsentPages::default();
        assert!(pages.is_here(0, u64::MAX));
        pages.set(std::vec![0b1100, 1]);
        assert!(pages.is_here(0, 2 * PAGE_BYTES));
        assert!(!pages.is_here(2 * PAGE_BYTES - 1, 2));
        assert!(!pages.is_here(3 * PAGE_BYTES, 70 * PAGE_BYTES));
        assert!(pages.is_here(65 * PAGE_BYTES, u64::MAX));
        assert_eq!(pages.wanted(), [2, 3, 64]);
        assert!(pages.fill(2..4));
        assert!(!pages.fill(2..4));
        assert!(pages.is_here(2 * PAGE_BYTES, 2 * PAGE_BYTES));
        assert_eq!(pages.wanted(), [64]);
    }
}
