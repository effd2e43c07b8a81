//! Post-copy, at the destination: which of the missing pages to ask for next.
//!
//! The guest runs here, its missing pages are at the source, which gives what it is asked for and keeps everything until it is told
//! that all has come. So the destination alone knows what is missing, and a connection that is lost costs what was under way:
//! the next one begins with [`Fetch::new`] and what is missing then.
//!
//! Order: what somebody waits for, then what follows it (a guest that touches a page soon touches the next ones), then the rest in
//! ascending order. Answers come in the order of the questions.

use crate::precopy::PageSet;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

/// Pages of a question: few, because what is waited for is asked for behind those under way.
pub const FETCH_PAGES: usize = 32;
/// Questions under way: one is answered while the next one travels.
const WINDOW: usize = 2;
/// Pages behind one that was waited for that come before the rest.
const AHEAD_PAGES: u64 = 64;

/// How the fetching is going.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fetched {
    /// Pages that have not come.
    pub missing: u64,
    /// Pages that somebody waited for, and that have come.
    pub faults: u64,
    /// How long they were waited for from when that was seen, in all and at most, microseconds.
    pub waited_us: u64,
    /// The longest.
    pub waited_us_max: u64,
}

/// The fetching of one guest's missing pages over one connection.
pub struct Fetch {
    /// Not asked for.
    missing: PageSet,
    /// Asked for, question by question.
    asked: VecDeque<Vec<u64>>,
    under_way: u64,
    cursor: u64,
    /// Behind the page waited for last.
    ahead: Option<(u64, u64)>,
    /// Since when pages are waited for.
    waiting: BTreeMap<u64, u64>,
    fetched: Fetched,
}

impl Fetch {
    /// These are missing; `before`: how an earlier connection went.
    pub fn new(missing: PageSet, before: Fetched) -> Fetch {
        Fetch {
            missing,
            asked: VecDeque::new(),
            under_way: 0,
            cursor: 0,
            ahead: None,
            waiting: BTreeMap::new(),
            fetched: before,
        }
    }

    /// The next question, while `wanted` is waited for. `None`: none now.
    pub fn next(&mut self, wanted: &[u64], now_us: u64) -> Option<Vec<u64>> {
        let mut pages = Vec::new();
        for page in wanted {
            let is_asked = || self.asked.iter().any(|asked| asked.contains(page));
            if self.missing.contains(*page) || is_asked() {
                self.waiting.entry(*page).or_insert(now_us);
            }
        }
        if self.asked.len() >= WINDOW {
            return None;
        }
        for page in wanted {
            if pages.len() < FETCH_PAGES && self.missing.contains(*page) {
                self.missing.remove(*page);
                self.ahead = Some((page + 1, page + 1 + AHEAD_PAGES));
                pages.push(*page);
            }
        }
        if let Some((from, end)) = self.ahead {
            let mut page = from;
            while page < end && pages.len() < FETCH_PAGES {
                if self.missing.contains(page) {
                    self.missing.remove(page);
                    pages.push(page);
                }
                page += 1;
            }
            self.ahead = (page < end).then_some((page, end));
        }
        let room = FETCH_PAGES - pages.len();
        pages.extend(self.missing.take_from(&mut self.cursor, room));
        if pages.is_empty() {
            return None;
        }
        self.under_way += pages.len() as u64;
        self.asked.push_back(pages.clone());
        Some(pages)
    }

    /// The oldest question was answered: its pages are here, or are the guest's no more. `None`: nothing was asked.
    pub fn answered(&mut self, now_us: u64) -> Option<Vec<u64>> {
        let pages = self.asked.pop_front()?;
        self.under_way -= pages.len() as u64;
        for page in &pages {
            if let Some(since_us) = self.waiting.remove(page) {
                let waited_us = now_us.saturating_sub(since_us);
                self.fetched.faults += 1;
                self.fetched.waited_us += waited_us;
                self.fetched.waited_us_max = self.fetched.waited_us_max.max(waited_us);
            }
        }
        Some(pages)
    }

    /// The pages of the oldest question.
    pub fn oldest(&self) -> &[u64] {
        self.asked.front().map_or(&[], Vec::as_slice)
    }

    /// How it is going.
    pub fn fetched(&self) -> Fetched {
        Fetched {
            missing: self.missing.len() + self.under_way,
            ..self.fetched
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn set(pages: impl IntoIterator<Item = u64>) -> PageSet {
        let mut set = PageSet::new(1000);
        pages.into_iter().for_each(|page| set.insert(page));
        set
    }

    #[test]
    fn what_is_waited_for_comes_first_then_what_follows_then_the_rest() {
        let mut fetch = Fetch::new(set(0..200), Fetched::default());
        assert_eq!(fetch.next(&[], 0), Some((0..32).collect()));
        let second = fetch.next(&[150, 40, 5], 10).unwrap();
        assert_eq!(second[..2], [150, 40], "5 is under way");
        assert_eq!(second[2..], (41..71).collect::<Vec<u64>>());
        assert_eq!(fetch.next(&[], 10), None, "two are under way");
        fetch.answered(20);
        assert_eq!(fetch.fetched().faults, 1);
        assert_eq!(fetch.next(&[], 20).unwrap()[..2], [71, 72]);
        fetch.answered(110);
        let fetched = fetch.fetched();
        assert_eq!(
            (fetched.faults, fetched.waited_us, fetched.waited_us_max),
            (3, 210, 100)
        );
        assert_eq!(fetched.missing, 200 - 64);
    }

    proptest! {
        #[test]
        fn every_missing_page_is_asked_for_once(
            missing in proptest::collection::btree_set(0u64..1000, 0..300),
            wanted in proptest::collection::vec(0u64..1100, 0..40),
        ) {
            let mut fetch = Fetch::new(set(missing.iter().copied()), Fetched::default());
            let (mut asked, mut wanted) = (BTreeSet::new(), wanted.into_iter());
            loop {
                let now: Vec<u64> = wanted.by_ref().take(3).collect();
                match fetch.next(&now, 0) {
                    Some(pages) => {
                        prop_assert!(!pages.is_empty() && pages.len() <= FETCH_PAGES);
                        for page in pages {
                            prop_assert!(asked.insert(page), "{} twice", page);
                        }
                    }
                    None if fetch.answered(0).is_none() => break,
                    None => {}
                }
            }
            prop_assert_eq!(asked, missing);
            prop_assert_eq!(fetch.fetched().missing, 0);
        }
    }
}
