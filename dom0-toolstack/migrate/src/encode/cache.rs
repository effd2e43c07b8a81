//! What the other side has of the pages that were sent: the base of deltas, bounded.
//!
//! The sender keeps the pages that were sent more than once, because those will be sent again; the
//! receiver has everything in the guest's memory anyway. A page that is not here goes whole.

use super::Page;
use alloc::boxed::Box;
use alloc::vec::Vec;

struct Entry {
    page: u64,
    contents: Box<Page>,
    /// Used since the hand came by.
    used: bool,
}

/// The place of a page that is not kept.
const NOWHERE: u32 = u32::MAX;

/// Contents by guest page.
pub struct Cache {
    entries: Vec<Entry>,
    /// By page, as far as there are any: its entry, or `NOWHERE`.
    places: Vec<u32>,
    /// Where the search for an entry to give up goes on (the clock algorithm).
    hand: usize,
    pages_max: usize,
}

impl Cache {
    /// Room for `pages_max` pages; memory is taken as it is used.
    pub fn new(pages_max: usize) -> Cache {
        Cache {
            entries: Vec::new(),
            places: Vec::new(),
            hand: 0,
            pages_max: pages_max.min(NOWHERE as usize),
        }
    }

    fn place(&self, page: u64) -> Option<usize> {
        let place = *self.places.get(usize::try_from(page).ok()?)?;
        (place != NOWHERE).then_some(place as usize)
    }

    fn set_place(&mut self, page: u64, place: u32) {
        let page = page as usize;
        if page >= self.places.len() {
            self.places.resize(page + 1, NOWHERE);
        }
        self.places[page] = place;
    }

    /// What the other side has of a page. Whoever sends something else changes it accordingly.
    pub fn base(&mut self, page: u64) -> Option<&mut Page> {
        let place = self.place(page)?;
        let entry = &mut self.entries[place];
        entry.used = true;
        Some(&mut entry.contents)
    }

    /// A page was sent: this is what the other side has now. A page not seen before only takes room
    /// when there is some, or takes it from one that was not used for a whole round of the hand.
    pub fn sent(&mut self, page: u64, contents: &Page) {
        if let Some(place) = self.place(page) {
            *self.entries[place].contents = *contents;
        } else if self.entries.len() < self.pages_max {
            self.set_place(page, self.entries.len() as u32);
            self.entries.push(Entry {
                page,
                contents: Box::new(*contents),
                // Else a working set a little larger than the cache would turn it over and never hit.
                used: true,
            });
        } else if let Some(place) = self.unused() {
            self.set_place(self.entries[place].page, NOWHERE);
            self.set_place(page, place as u32);
            let entry = &mut self.entries[place];
            entry.page = page;
            entry.used = true;
            *entry.contents = *contents;
        }
    }

    /// What the other side has of a page is not known any more.
    pub fn forget(&mut self, page: u64) {
        let Some(place) = self.place(page) else {
            return;
        };
        self.set_place(page, NOWHERE);
        self.entries.swap_remove(place);
        if let Some(moved) = self.entries.get(place) {
            self.set_place(moved.page, place as u32);
        }
        self.hand = 0;
    }

    /// Pages kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One step of the hand: an entry that was used is passed over once. One step a call, so that
    /// a round of new pages does not push out all that is used.
    fn unused(&mut self) -> Option<usize> {
        if self.entries.is_empty() {
            return None;
        }
        let place = self.hand % self.entries.len();
        self.hand = place + 1;
        let entry = &mut self.entries[place];
        (!core::mem::take(&mut entry.used)).then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::PAGE_BYTES;
    use proptest::prelude::*;

    #[test]
    fn used_pages_stay_when_others_come() {
        let mut cache = Cache::new(2);
        cache.sent(1, &[1; PAGE_BYTES]);
        cache.sent(2, &[2; PAGE_BYTES]);
        for other in 10..20 {
            assert!(cache.base(1).is_some(), "{other}");
            cache.sent(other, &[9; PAGE_BYTES]);
        }
        assert_eq!(cache.len(), 2);
        assert!(cache.base(2).is_none());
    }

    proptest! {
        /// Whatever is kept is what was sent last.
        #[test]
        fn bases_are_true(steps in proptest::collection::vec((0u64..12, 0u8..4), 0..200)) {
            let mut cache = Cache::new(5);
            let mut truth = std::collections::BTreeMap::new();
            for (number, (page, kind)) in steps.into_iter().enumerate() {
                match kind {
                    0 => {
                        cache.forget(page);
                        truth.remove(&page);
                    }
                    1 => {
                        if let Some(base) = cache.base(page) {
                            prop_assert_eq!(Some(&base[0]), truth.get(&page));
                        }
                    }
                    _ => {
                        cache.sent(page, &[number as u8; PAGE_BYTES]);
                        truth.insert(page, number as u8);
                    }
                }
                prop_assert!(cache.len() <= 5);
                prop_assert_eq!(cache.len(), cache.places.iter().filter(|place| **place != NOWHERE).count());
            }
        }
    }
}
