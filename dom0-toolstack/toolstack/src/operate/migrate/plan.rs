//! What a move will take, from what was measured: bytes, rounds, duration and downtime, each as a range.
//!
//! The copying is played through twice, once with everything at its best and once at its worst: how a
//! page that is sent again is encoded, what the link carries, what stopping costs, whether encoding
//! and sending overlap. What is measured is never extrapolated beyond all memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::PAGE_SIZE_BYTES;
use godwit_migrate::precopy::Goals;

/// Rounds that are played through: more are "does not converge".
const ROUNDS_MAX: u64 = 30;
/// Rounds without getting nearer after which a move does not converge.
const STUCK_ROUNDS: u64 = 4;
/// Least time between two harvests.
const HARVEST_INTERVAL_US: u64 = 50_000;
/// A page that is sent again as a delta takes about this at best, bytes.
const DELTA_BYTES: u64 = 64;
/// States, digests and messages of a move, bytes.
const STATE_BYTES: u64 = 32 << 10;

/// From the least to the most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Spread {
    /// At best.
    pub least: u64,
    /// At worst.
    pub most: u64,
}

impl Spread {
    /// Of two, in any order.
    pub fn of(one: u64, other: u64) -> Self {
        Self {
            least: one.min(other),
            most: one.max(other),
        }
    }

    /// In larger units, rounded down and up.
    pub fn in_units(self, unit: u64) -> Self {
        Self {
            least: self.least / unit,
            most: self.most.div_ceil(unit),
        }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.least == self.most {
            true => f.pad(&format!("{}", self.least)),
            false => f.pad(&format!("{}-{}", self.least, self.most)),
        }
    }
}

/// Pages that were written to in some time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// How long it was, microseconds.
    pub us: u64,
    /// Different pages.
    pub pages: u64,
}

/// What was measured before a move.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Measured {
    /// Pages in use.
    pub pages: u64,
    /// Bytes of a page on the wire, on average, times 16.
    pub page_bytes_16: u64,
    /// What encoding a page takes, nanoseconds.
    pub encode_ns: u64,
    /// The shortest first.
    pub windows: Vec<Window>,
    /// Bytes a second.
    pub link_rate: Spread,
    /// What reading the notes of written pages took, microseconds.
    pub harvest_us: u64,
    /// What stopping costs besides pages, microseconds.
    pub fixed_us: Spread,
    /// Whether that is what an earlier move has taken.
    pub is_fixed_known: bool,
}

/// What a move is expected to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prediction {
    /// On the wire.
    pub bytes: Spread,
    /// Harvests of the dirty log.
    pub rounds: Spread,
    /// From the first word to the last, microseconds.
    pub duration_us: Spread,
    /// How long the domain stands still, microseconds.
    pub downtime_us: Spread,
    /// Whether the promised downtime can be kept, at best and at worst.
    pub converges: (bool, bool),
}

/// What a move has taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Actual {
    /// On the wire.
    pub bytes: u64,
    /// Harvests of the dirty log.
    pub rounds: u64,
    /// From the first word to the last, microseconds.
    pub duration_us: u64,
    /// How long the domain stood still, microseconds; `None`: the connection was lost meanwhile.
    pub downtime_us: Option<u64>,
}

/// One way of playing it through.
#[derive(Clone, Copy)]
struct Run {
    bytes: u64,
    rounds: u64,
    copy_us: u64,
    downtime_us: u64,
    converges: bool,
}

impl Measured {
    /// Different pages that are written to in so long.
    pub fn dirty_in(&self, us: u64) -> u64 {
        let mut before = Window { us: 0, pages: 0 };
        for window in &self.windows {
            if us <= window.us {
                let more = window.pages.saturating_sub(before.pages);
                let share = (us - before.us) * more / (window.us - before.us).max(1);
                return (before.pages.min(window.pages) + share).min(self.pages);
            }
            before = *window;
        }
        // Beyond the longest window, as fast as in it: at worst.
        let pages = u128::from(before.pages) * u128::from(us) / u128::from(before.us.max(1));
        u64::try_from(pages).unwrap_or(u64::MAX).min(self.pages)
    }

    /// Pages a second, in the longest window.
    pub fn dirty_rate(&self) -> u64 {
        let longest = self.windows.last();
        longest.map_or(0, |window| window.pages * 1_000_000 / window.us.max(1))
    }

    fn first_bytes(&self) -> u64 {
        self.pages.saturating_mul(self.page_bytes_16) / 16
    }

    /// Time for pages that take so many bytes.
    fn send_us(&self, pages: u64, bytes: u64, best: bool) -> u64 {
        let rate = match best {
            true => self.link_rate.most,
            false => self.link_rate.least,
        };
        let link_us = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
        let link_us = u64::try_from(link_us).unwrap_or(u64::MAX);
        let encode_us = pages.saturating_mul(self.encode_ns) / 1000;
        match best {
            true => link_us.max(encode_us),
            false => link_us.saturating_add(encode_us),
        }
    }

    fn again_bytes(&self, pages: u64, best: bool) -> u64 {
        let whole = (self.page_bytes_16 / 16).clamp(DELTA_BYTES, PAGE_SIZE_BYTES);
        pages.saturating_mul(if best { DELTA_BYTES } else { whole })
    }

    fn fixed(&self, best: bool) -> u64 {
        match best {
            true => self.fixed_us.least,
            false => self.fixed_us.most,
        }
    }

    fn live(&self, goals: &Goals, best: bool) -> Run {
        let bytes = self.first_bytes();
        let mut run = Run {
            bytes: bytes.saturating_add(STATE_BYTES),
            rounds: 0,
            copy_us: 0,
            downtime_us: u64::MAX,
            converges: false,
        };
        let (mut took_us, mut nearest) = (self.send_us(self.pages, bytes, best), 0);
        loop {
            run.copy_us = run.copy_us.saturating_add(took_us);
            run.rounds += 1;
            let left = self.dirty_in(took_us);
            let bytes = self.again_bytes(left, best);
            let send_us = self.send_us(left, bytes, best);
            let downtime_us = self.fixed(best).saturating_add(send_us);
            if downtime_us < run.downtime_us {
                (run.downtime_us, nearest) = (downtime_us, run.rounds);
            }
            run.bytes = run.bytes.saturating_add(bytes);
            run.converges = run.downtime_us <= goals.downtime_us;
            let is_stuck = run.rounds - nearest >= STUCK_ROUNDS || run.rounds == ROUNDS_MAX;
            if run.converges || is_stuck {
                return run;
            }
            took_us = send_us.max(HARVEST_INTERVAL_US);
        }
    }

    fn stopped(&self, goals: &Goals, best: bool) -> Run {
        let bytes = self.first_bytes();
        let send_us = self.send_us(self.pages, bytes, best);
        let downtime_us = send_us.saturating_add(self.fixed(best));
        Run {
            bytes: bytes.saturating_add(STATE_BYTES),
            rounds: 0,
            copy_us: 0,
            downtime_us,
            converges: downtime_us <= goals.downtime_us,
        }
    }

    /// What a move will take: live, or the domain paused first.
    pub fn predict(&self, goals: &Goals, stop_and_copy: bool) -> Prediction {
        let run = |best| match stop_and_copy {
            true => self.stopped(goals, best),
            false => self.live(goals, best),
        };
        let (best, worst) = (run(true), run(false));
        let duration = |run: &Run| run.copy_us.saturating_add(run.downtime_us);
        Prediction {
            bytes: Spread::of(best.bytes, worst.bytes),
            rounds: Spread::of(best.rounds, worst.rounds),
            duration_us: Spread::of(duration(&best), duration(&worst)),
            downtime_us: Spread::of(best.downtime_us, worst.downtime_us),
            converges: (best.converges, worst.converges),
        }
    }

    /// In words, lines.
    pub fn text(&self) -> String {
        let mut dirty = String::new();
        for window in &self.windows {
            dirty += &format!(" {} in {} ms,", window.pages, window.us / 1000);
        }
        let known = match self.is_fixed_known {
            true => "as in the last move there",
            false => "estimated: no move to there is known",
        };
        format!(
            "measured: {} pages in use, {} bytes each on the wire, {} us to encode one\n\
             measured: pages written to:{} {} pages/s\n\
             measured: link {} KiB/s; stopping costs {} ms besides pages ({known})\n",
            self.pages,
            self.page_bytes_16 / 16,
            self.encode_ns.div_ceil(1000),
            dirty,
            self.dirty_rate(),
            self.link_rate.in_units(1 << 10),
            self.fixed_us.in_units(1000),
        )
    }
}

impl Prediction {
    /// What was sent and what passed before it was made.
    pub(super) fn add(&mut self, bytes: u64, us: u64) {
        for (spread, more) in [(&mut self.bytes, bytes), (&mut self.duration_us, us)] {
            spread.least = spread.least.saturating_add(more);
            spread.most = spread.most.saturating_add(more);
        }
    }

    /// Predicted against actual, a line.
    pub fn against(&self, actual: &Actual) -> String {
        let downtime = match actual.downtime_us {
            Some(us) => format!("{}", us / 1000),
            None => "unknown".into(),
        };
        format!(
            "predicted and actual: {} and {} KiB, {} and {} rounds, {} and {} ms, downtime {} and {downtime} ms",
            self.bytes.in_units(1 << 10),
            actual.bytes >> 10,
            self.rounds,
            actual.rounds,
            self.duration_us.in_units(1000),
            actual.duration_us / 1000,
            self.downtime_us.in_units(1000),
        )
    }

    /// Whether the downtime that was promised can be kept.
    pub fn converges_text(&self) -> &'static str {
        match self.converges {
            (true, true) => "yes",
            (true, false) | (false, true) => "perhaps",
            (false, false) => "no",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_migrate::precopy::OnMiss;

    const GOALS: Goals = Goals {
        downtime_us: 300_000,
        deadline_us: None,
        on_miss: OnMiss::Throttle,
    };

    fn measured(pages_in_100_ms: u64, pages_in_400_ms: u64) -> Measured {
        Measured {
            pages: 65_536,
            page_bytes_16: 1000 * 16,
            encode_ns: 2_000,
            windows: alloc::vec![
                Window {
                    us: 100_000,
                    pages: pages_in_100_ms
                },
                Window {
                    us: 400_000,
                    pages: pages_in_400_ms
                },
            ],
            link_rate: Spread::of(90 << 20, 110 << 20),
            harvest_us: 0,
            fixed_us: Spread::of(20_000, 60_000),
            is_fixed_known: false,
        }
    }

    #[test]
    fn dirty_pages_follow_the_windows_and_never_exceed_memory() {
        let it = measured(100, 250);
        let all: Vec<u64> = [0, 50_000, 100_000, 250_000, 400_000, 800_000]
            .map(|us| it.dirty_in(us))
            .into();
        assert_eq!(all, [0, 50, 100, 175, 250, 500]);
        assert_eq!(it.dirty_in(u64::MAX), it.pages);
        // A later window with fewer pages than an earlier one.
        assert_eq!(measured(100, 40).dirty_in(200_000), 40);
        assert_eq!(Measured::default().dirty_in(7), 0);
    }

    #[test]
    fn an_idle_domain_takes_one_round_and_a_writer_does_not_converge() {
        let idle = measured(2, 5).predict(&GOALS, false);
        assert_eq!(idle.converges, (true, true));
        assert_eq!(idle.rounds, Spread::of(1, 1));
        let all = 65_536 * 1000;
        assert!(idle.bytes.least > all && idle.bytes.most < all + all / 10);
        assert!(idle.downtime_us.least >= 20_000 && idle.downtime_us.most < 100_000);
        // 65 MB at about 100 MB/s.
        assert!(idle.duration_us.least > 500_000 && idle.duration_us.most < 1_200_000);
        let busy = measured(20_000, 60_000).predict(&GOALS, false);
        assert!(!busy.converges.1, "{busy:?}");
        assert!(busy.downtime_us.most > 300_000 && busy.bytes.most > idle.bytes.most);
        assert!(busy.rounds.most >= STUCK_ROUNDS);
        let stopped = measured(2, 5).predict(&GOALS, true);
        assert_eq!(stopped.duration_us, stopped.downtime_us);
        assert_eq!(
            (stopped.converges, stopped.rounds.most),
            ((false, false), 0)
        );
    }

    #[test]
    fn absurd_measurements_are_survived() {
        let mut it = measured(u64::MAX / 2_000_000, u64::MAX / 2_000_000);
        (it.pages, it.encode_ns) = (1 << 40, 1 << 40);
        it.link_rate = Spread::default();
        it.predict(&GOALS, false);
        it.predict(&GOALS, true);
        Measured::default().predict(&GOALS, false);
    }
}
