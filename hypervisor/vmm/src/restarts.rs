//! How often dom0 may be built anew: a fault that comes back at once is not cured by trying for ever.

use arrayvec::ArrayVec;

/// Restarts within [`RESTART_WINDOW_NS`] at most.
pub const RESTARTS_MAX: usize = 5;
/// See [`RESTARTS_MAX`]: ten minutes.
pub const RESTART_WINDOW_NS: u64 = 600 * 1_000_000_000;

/// The restarts of dom0 since power-on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restarts {
    total: u64,
    /// When the last ones were, oldest first.
    recent: ArrayVec<u64, RESTARTS_MAX>,
}

impl Restarts {
    /// None yet.
    pub const fn new() -> Restarts {
        Restarts {
            total: 0,
            recent: ArrayVec::new_const(),
        }
    }

    /// dom0 has ended. How many restarts there are with the one to be made now; `None`: there have been too many, stop.
    pub fn next(&mut self, now_ns: u64) -> Option<u64> {
        let begin = now_ns.saturating_sub(RESTART_WINDOW_NS);
        self.recent.retain(|at| *at > begin || begin == 0);
        self.recent.try_push(now_ns).ok()?;
        self.total += 1;
        Some(self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE_NS: u64 = 60_000_000_000;

    #[test]
    fn a_window_has_so_many_and_no_more() {
        let mut restarts = Restarts::new();
        for number in 1..=RESTARTS_MAX as u64 {
            assert_eq!(restarts.next(number * MINUTE_NS), Some(number));
        }
        assert_eq!(restarts.next(9 * MINUTE_NS), None);
        // The first is forgotten after ten minutes, the second is not yet.
        let first_forgotten = 11 * MINUTE_NS;
        assert_eq!(restarts.next(first_forgotten), Some(6));
        assert_eq!(restarts.next(first_forgotten), None);
    }

    #[test]
    fn seldom_is_for_ever() {
        let mut restarts = Restarts::new();
        for number in 1..100 {
            assert_eq!(restarts.next(number * 3 * MINUTE_NS), Some(number));
        }
    }
}
