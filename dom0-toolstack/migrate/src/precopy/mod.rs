//! Pre-copy: which pages to send next, and when to stop the guest.
//!
//! The caller repeats [`PreCopy::next`] and does what it says: sends pages and reports what they
//! cost, harvests the dirty log and reports what it found. Time is an argument.
//!
//! The stop rule is the *estimated downtime*: bytes left after encoding over the measured rate, plus
//! the measured fixed cost. It is never a count of rounds. Pages that were dirty in each of the last
//! harvests are hot: sending them is in vain while the guest runs, so they wait for the end (and
//! count in the estimate all the same).

mod estimate;
mod pages;
#[cfg(test)]
mod tests;

pub use estimate::{Estimator, Rate};
pub use pages::PageSet;

use alloc::vec;
use alloc::vec::Vec;

/// Pages given to send at a time: some milliseconds of link, so that the caller looks up often.
pub const BATCH_PAGES: usize = 256;
/// Harvests in a row after which a page that was dirty in each is hot.
const HOT_HARVESTS: u8 = 3;
/// Rounds without getting nearer after which the move does not converge.
const STUCK_ROUNDS: u32 = 4;
/// Nearer means at least this much, in 1/16ths of the best estimate so far.
const NEARER_16THS: u64 = 1;
/// Least time between two harvests: what is dirty over and over must have the time to become so, and
/// a harvest costs the guest something.
const HARVEST_INTERVAL_US: u64 = 50_000;
/// Each step of throttling leaves so many 1/8ths of the writes.
const THROTTLE_8THS: u64 = 5;
/// Steps of throttling before nothing more can be hoped for.
const THROTTLE_STEPS_MAX: u32 = 16;

/// What to do when the goals are missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMiss {
    /// Slow the writers down until it converges.
    Throttle,
    /// Run the guest there and fetch the rest as it is touched.
    PostCopy,
    /// Stop the guest all the same, however long it takes.
    Pause,
    /// Leave the guest where it is.
    Abort,
}

/// What was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goals {
    /// Longest downtime, microseconds.
    pub downtime_us: u64,
    /// When the guest is to be stopped at the latest, microseconds after the begin.
    pub deadline_us: Option<u64>,
    /// If that cannot be had.
    pub on_miss: OnMiss,
}

/// Why the goals are missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The guest writes faster than the link carries, and rounds get no nearer.
    NotConverging {
        /// The best estimate there was, microseconds.
        best_us: u64,
    },
    /// The deadline is over.
    Deadline,
    /// Stopping alone takes longer than the downtime that was asked for, however little is left to be sent.
    Fixed {
        /// What it takes without any page, microseconds.
        fixed_us: u64,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send these pages, then [`PreCopy::sent`].
    Send(Vec<u64>),
    /// Harvest the dirty log, then [`PreCopy::harvested`].
    Harvest,
    /// Only hot pages are left: ask again at this time.
    Wait {
        /// When, microseconds.
        until_us: u64,
    },
    /// Stop the guest, harvest once more, and send all of [`PreCopy::rest`].
    Stop {
        /// The estimate that allows it, microseconds.
        downtime_us: u64,
    },
    /// Set the guest's write quota, in pages a second, then go on.
    Throttle {
        /// What it may write.
        pages_per_s: u64,
    },
    /// Go over to post-copy, for this reason.
    PostCopy(Miss),
    /// Call it off, for this reason.
    Abort(Miss),
}

/// How far it is. `sent_bytes` and `round` never go back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Times the dirty log was harvested.
    pub round: u32,
    /// Pages still to be sent, hot ones included.
    pub pages_left: u64,
    /// Of these, pages that wait for the end.
    pub pages_hot: u64,
    /// Bytes sent, after encoding.
    pub sent_bytes: u64,
    /// Bytes a second on the link, measured.
    pub link_rate: Option<u64>,
    /// Pages a second that become dirty, measured.
    pub dirty_rate: Option<u64>,
    /// Downtime if the guest were stopped now, microseconds.
    pub downtime_us: Option<u64>,
    /// The write quota in force, pages a second.
    pub quota: Option<u64>,
}

/// One move of one guest's memory.
pub struct PreCopy {
    goals: Goals,
    begun_us: u64,
    /// To be sent in this round.
    todo: PageSet,
    /// Dirty again, or hot: to be sent in a later round.
    later: PageSet,
    /// Where in `todo` to go on.
    cursor: u64,
    /// Harvests in a row in which a page was dirty.
    heat: Vec<u8>,
    /// Pages whose heat is not 0: those of the last harvest.
    warm: PageSet,
    hot: u64,
    estimator: Estimator,
    sent_bytes: u64,
    round: u32,
    /// Lowest estimate so far, and the round it was found in.
    best: Option<(u64, u32)>,
    harvested_us: u64,
    throttled: u32,
    quota: Option<u64>,
    /// The next step is to look at the goals, not to begin a round.
    decides: bool,
}

impl PreCopy {
    /// All pages of `present` are to be sent. `fixed_us`: what stopping costs besides the pages.
    pub fn new(present: PageSet, goals: Goals, fixed_us: u64, now_us: u64) -> PreCopy {
        let pages = present.capacity();
        PreCopy {
            goals,
            begun_us: now_us,
            later: PageSet::new(pages),
            todo: present,
            cursor: 0,
            heat: vec![0; pages as usize],
            warm: PageSet::new(pages),
            hot: 0,
            estimator: Estimator::new(fixed_us),
            sent_bytes: 0,
            round: 0,
            best: None,
            harvested_us: now_us,
            throttled: 0,
            quota: None,
            decides: false,
        }
    }

    /// What to do next.
    pub fn next(&mut self, now_us: u64) -> Next {
        if core::mem::take(&mut self.decides) {
            let decided = self.decide(now_us);
            if let Some(next) = decided {
                return next;
            }
        }
        let batch = self.todo.take_from(&mut self.cursor, BATCH_PAGES);
        if batch.is_empty() {
            let until_us = self.harvested_us + HARVEST_INTERVAL_US;
            return match self.round > 0 && now_us < until_us {
                true => Next::Wait { until_us },
                false => Next::Harvest,
            };
        }
        Next::Send(batch)
    }

    /// Pages were sent: what they took on the wire, and how long.
    pub fn sent(&mut self, pages: usize, bytes: u64, took_us: u64) {
        self.sent_bytes += bytes;
        self.estimator
            .sent(self.round > 0, pages as u64, bytes, took_us);
    }

    /// The dirty log was harvested: one bit a page. Begins the next round.
    pub fn harvested(&mut self, dirty: &[u64], now_us: u64) {
        let mut found = PageSet::new(self.warm.capacity());
        found.insert_words(dirty);
        let mut hot = 0;
        for page in self.warm.iter().filter(|page| !found.contains(*page)) {
            self.heat[page as usize] = 0;
        }
        for page in found.iter() {
            let heat = &mut self.heat[page as usize];
            *heat = heat.saturating_add(1);
        }
        let count = found.len();
        self.later.insert_words(found.words());
        self.warm = found;
        self.round += 1;
        let passed_us = now_us.saturating_sub(self.harvested_us);
        self.harvested_us = now_us;
        self.estimator.harvested(count, passed_us);
        // What was left of the round before is still to be sent.
        self.todo.append(&mut self.later);
        for page in self.todo.iter() {
            if self.heat[page as usize] >= HOT_HARVESTS {
                self.later.insert(page);
                hot += 1;
            }
        }
        for page in self.later.iter() {
            self.todo.remove(page);
        }
        self.hot = hot;
        self.cursor = 0;
        self.decides = true;
    }

    /// What the stop phase really cost besides pages, from an earlier attempt or a measurement.
    pub fn set_fixed_us(&mut self, fixed_us: u64) {
        self.estimator.set_fixed_us(fixed_us);
    }

    /// No more bytes a second are to be sent, however many the link carries.
    pub fn set_limit(&mut self, bytes_per_s: u64) {
        self.estimator.set_limit(bytes_per_s);
    }

    /// Everything that is still to be sent, for the stop phase or post-copy. Add the last harvest.
    pub fn rest(&mut self, last: &[u64]) -> PageSet {
        let mut rest = core::mem::replace(&mut self.todo, PageSet::new(0));
        rest.append(&mut self.later);
        rest.insert_words(last);
        rest
    }

    fn left(&self) -> u64 {
        self.todo.len() + self.later.len()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            round: self.round,
            pages_left: self.left(),
            pages_hot: self.hot,
            sent_bytes: self.sent_bytes,
            link_rate: self.estimator.link_rate(),
            dirty_rate: self.estimator.dirty_rate(),
            downtime_us: self.estimator.downtime_us(self.left()),
            quota: self.quota,
        }
    }

    /// After a harvest: stop, go on, or admit that it does not work. `None`: go on.
    fn decide(&mut self, now_us: u64) -> Option<Next> {
        let estimate = self.estimator.downtime_us(self.left())?;
        if estimate <= self.goals.downtime_us {
            return Some(Next::Stop {
                downtime_us: estimate,
            });
        }
        let fixed_us = self.estimator.fixed_us();
        let in_vain = matches!(self.goals.on_miss, OnMiss::Abort | OnMiss::Throttle);
        if in_vain && fixed_us > self.goals.downtime_us {
            // Neither more rounds nor a slower guest would help.
            return Some(Next::Abort(Miss::Fixed { fixed_us }));
        }
        let late = |deadline| now_us.saturating_sub(self.begun_us) >= deadline;
        if self.goals.deadline_us.is_some_and(late) {
            return Some(self.missed(Miss::Deadline, estimate));
        }
        let (best_us, best_round) = self.best.unwrap_or((u64::MAX, self.round));
        if estimate < best_us - best_us / 16 * NEARER_16THS {
            self.best = Some((estimate, self.round));
            return None;
        }
        if self.round - best_round < STUCK_ROUNDS {
            return None;
        }
        // Once more from here: each step gets its rounds.
        self.best = Some((best_us, self.round));
        let miss = Miss::NotConverging { best_us };
        Some(self.missed(miss, estimate))
    }

    fn missed(&mut self, miss: Miss, estimate: u64) -> Next {
        match self.goals.on_miss {
            OnMiss::PostCopy => Next::PostCopy(miss),
            OnMiss::Pause => Next::Stop {
                downtime_us: estimate,
            },
            OnMiss::Abort => Next::Abort(miss),
            OnMiss::Throttle => {
                let deadline = miss == Miss::Deadline;
                if deadline || self.throttled == THROTTLE_STEPS_MAX {
                    return Next::Abort(miss);
                }
                self.throttled += 1;
                let base = self.quota.or(self.estimator.dirty_rate()).unwrap_or(1);
                let pages_per_s = (base * THROTTLE_8THS / 8).max(1);
                self.quota = Some(pages_per_s);
                Next::Throttle { pages_per_s }
            }
        }
    }
}
