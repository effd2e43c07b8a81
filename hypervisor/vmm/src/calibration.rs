//! Which of several runs, that measure one counter against another, is to be believed.
//!
//! A run reads the counter at both borders of a known time. An SMI, or an emulator that is kept
//! waiting, may come between a border and the reading of the counter; it makes the run wrong by any
//! amount, and two runs can be wrong alike. But reading the counter also just before each border shows
//! by how much it can be at most: what comes between the borders does no harm. So the run with the
//! least doubt counts, and the first with hardly any ends the measuring.

/// Runs at most. One is enough on a quiet machine. An emulator that gets a tenth of a processor is away at nine borders of
/// ten.
pub const RUNS_MAX: u32 = 100;
/// One part in this many of doubt is hardly any.
const ENOUGH: u64 = 1000;
/// One part in this many is to be told.
const MUCH: u64 = 100;

/// A run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Counter ticks in the known time.
    pub ticks: u64,
    /// By how much `ticks` may be wrong at most.
    pub doubt_ticks: u64,
    /// What a second counter has counted in it.
    pub second: u32,
}

impl Run {
    /// Whether it may be so wrong that people should know.
    pub fn is_doubtful(&self) -> bool {
        self.doubt_ticks > self.ticks / MUCH
    }
}

/// Runs so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Runs {
    count: u32,
    best: Option<Run>,
}

impl Runs {
    /// Takes a run. Returns the run to believe as soon as there is one.
    pub fn take(&mut self, run: Run) -> Option<Run> {
        self.count += 1;
        let best = self
            .best
            .filter(|best| best.doubt_ticks <= run.doubt_ticks)
            .unwrap_or(run);
        self.best = Some(best);
        let enough = best.doubt_ticks <= best.ticks / ENOUGH || self.count >= RUNS_MAX;
        enough.then_some(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(ticks: u64, doubt_ticks: u64) -> Run {
        Run {
            ticks,
            doubt_ticks,
            second: ticks as u32,
        }
    }

    #[test]
    fn a_quiet_machine_is_measured_once() {
        let quiet = run(25_950_000, 25_950);
        assert_eq!(Runs::default().take(quiet), Some(quiet));
    }

    #[test]
    fn two_runs_that_are_wrong_alike_are_not_believed() {
        let mut runs = Runs::default();
        assert_eq!(runs.take(run(38_000_000, 13_000_000)), None);
        assert_eq!(runs.take(run(38_000_000, 13_000_000)), None);
        let right = run(25_950_000, 9_000);
        assert_eq!(runs.take(right), Some(right));
    }

    #[test]
    fn a_machine_that_is_never_quiet_gets_the_least_doubtful() {
        let mut runs = Runs::default();
        for number in 1..RUNS_MAX {
            let doubt = u64::from(number.abs_diff(3)) * 1_000 + 100_000;
            assert_eq!(runs.take(run(26_000_000 + doubt, doubt)), None);
        }
        let last = runs.take(run(39_000_000, 13_000_000));
        assert_eq!(last, Some(run(26_100_000, 100_000)));
        assert!(!run(26_100_000, 100_000).is_doubtful());
        assert!(run(38_000_000, 13_000_000).is_doubtful());
    }
}
