//! The local APIC timer (SDM 3A 11.5.4): counts down at the bus clock over a divisor, or fires at a TSC value.
//!
//! A countdown is kept as the instant it began, never as a count that is decremented: expiration `k` of a periodic
//! timer happens at `start + (first + k * initial) * divisor` bus ticks, so no error adds up however late anybody looks.

use super::super::TscRate;

/// The bus clock that guests are told of (CPUID leaf 0x15 where offered): nominal, independent of the host.
pub const BUS_HZ: u64 = 1_000_000_000;

/// LVT timer mode (LVT bits 18:17).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    /// Counts down once.
    OneShot,
    /// Counts down and begins again.
    Periodic,
    /// Fires when the TSC reaches IA32_TSC_DEADLINE.
    TscDeadline,
}

impl TimerMode {
    /// The mode in an LVT timer entry; `None` for the reserved encoding.
    pub fn of_lvt(lvt: u32) -> Option<TimerMode> {
        match lvt >> 17 & 3 {
            0 => Some(TimerMode::OneShot),
            1 => Some(TimerMode::Periodic),
            2 => Some(TimerMode::TscDeadline),
            _reserved => None,
        }
    }
}

/// A countdown under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Countdown {
    /// Guest TSC when it began.
    pub start_tsc: u64,
    /// Counts of the first period; later ones take the initial count. Differs from it after a change of divisor.
    pub first: u32,
    /// Expirations that have been seen.
    pub expired: u64,
}

/// Registers of the timer and what follows from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timer {
    pub(super) mode: TimerMode,
    pub(super) initial: u32,
    /// Divide configuration register, bits 3, 1 and 0.
    pub(super) divide: u32,
    pub(super) countdown: Option<Countdown>,
    /// IA32_TSC_DEADLINE; 0 is disarmed.
    pub(super) tsc_deadline: u64,
    /// Guest TSC of the next expiration, `u64::MAX` for none. Follows from the fields above.
    pub(super) due_tsc: u64,
}

impl Timer {
    pub(super) const RESET: Timer = Timer {
        mode: TimerMode::OneShot,
        initial: 0,
        divide: 0,
        countdown: None,
        tsc_deadline: 0,
        due_tsc: u64::MAX,
    };

    /// A timer with these registers; the caller has validated them.
    pub(super) fn restored(
        mode: TimerMode,
        initial: u32,
        divide: u32,
        countdown: Option<Countdown>,
        tsc_deadline: u64,
        rate: TscRate,
    ) -> Timer {
        let mut timer = Timer {
            mode,
            initial,
            divide,
            countdown,
            tsc_deadline,
            due_tsc: u64::MAX,
        };
        timer.schedule(rate);
        timer
    }

    /// Divisor that the divide configuration selects: 2, 4, 8, 16, 32, 64, 128, 1 (SDM figure 11-10).
    fn divisor(&self) -> u64 {
        let code = self.divide & 3 | self.divide >> 1 & 4;
        1 << ((code + 1) & 7)
    }

    #[inline]
    pub(super) fn due_tsc(&self) -> Option<u64> {
        (self.due_tsc != u64::MAX).then_some(self.due_tsc)
    }

    /// Recomputes when the timer expires next. To be called after any change.
    fn schedule(&mut self, rate: TscRate) {
        self.due_tsc = match (self.mode, self.countdown) {
            (TimerMode::TscDeadline, _) if self.tsc_deadline != 0 => self.tsc_deadline,
            (TimerMode::TscDeadline, _) | (_, None) => u64::MAX,
            (TimerMode::OneShot | TimerMode::Periodic, Some(countdown)) => {
                let counts = u128::from(countdown.first)
                    + u128::from(countdown.expired) * u128::from(self.initial);
                countdown
                    .start_tsc
                    .saturating_add(rate.tsc_until(counts * u128::from(self.divisor()), BUS_HZ))
            }
        };
    }

    /// Takes note of expirations up to `now_tsc`; true if there was one. Several missed periods are one, as the IRR holds one.
    #[inline]
    pub(super) fn expire(&mut self, now_tsc: u64, rate: TscRate) -> bool {
        if now_tsc < self.due_tsc || self.due_tsc == u64::MAX {
            return false;
        }
        self.advance(now_tsc, rate);
        true
    }

    fn advance(&mut self, now_tsc: u64, rate: TscRate) {
        let divisor = self.divisor();
        match (self.mode, &mut self.countdown) {
            (TimerMode::TscDeadline, _) => self.tsc_deadline = 0,
            (TimerMode::OneShot, countdown) => *countdown = None,
            (TimerMode::Periodic, None) => {}
            (TimerMode::Periodic, Some(countdown)) => {
                let elapsed = now_tsc.saturating_sub(countdown.start_tsc);
                let counts = rate.clock_ticks(elapsed, BUS_HZ) / divisor;
                countdown.expired = 1 + counts.saturating_sub(u64::from(countdown.first))
                    / u64::from(self.initial.max(1));
            }
        }
        self.schedule(rate);
    }

    /// Current-count register: counts left in this period; 0 when stopped.
    pub(super) fn current(&self, now_tsc: u64, rate: TscRate) -> u32 {
        let (countdown, periodic) = match (self.mode, self.countdown) {
            (TimerMode::TscDeadline, _) | (_, None) => return 0,
            (TimerMode::OneShot, Some(countdown)) => (countdown, false),
            (TimerMode::Periodic, Some(countdown)) => (countdown, true),
        };
        let counts =
            rate.clock_ticks(now_tsc.saturating_sub(countdown.start_tsc), BUS_HZ) / self.divisor();
        let first = u64::from(countdown.first);
        let left = if counts < first {
            first - counts
        } else if periodic && self.initial != 0 {
            u64::from(self.initial) - (counts - first) % u64::from(self.initial)
        } else {
            0
        };
        // At most a 32-bit count.
        left as u32
    }

    /// Write to the initial-count register: begins a countdown, 0 stops; ignored in TSC-deadline mode.
    pub(super) fn set_initial(&mut self, value: u32, now_tsc: u64, rate: TscRate) {
        if self.mode == TimerMode::TscDeadline {
            return;
        }
        self.initial = value;
        self.countdown = (value != 0).then_some(Countdown {
            start_tsc: now_tsc,
            first: value,
            expired: 0,
        });
        self.schedule(rate);
    }

    /// Write to the divide configuration: what is left of the running count goes on at the new pace.
    pub(super) fn set_divide(&mut self, value: u32, now_tsc: u64, rate: TscRate) {
        let left = self.current(now_tsc, rate);
        self.divide = value & 0b1011;
        self.countdown = (left != 0).then_some(Countdown {
            start_tsc: now_tsc,
            first: left,
            expired: 0,
        });
        self.schedule(rate);
    }

    /// The TSC jumps. A TSC deadline keeps its value; a countdown counts the bus clock, which does not jump.
    pub(super) fn tsc_moved(&mut self, old_tsc: u64, new_tsc: u64, rate: TscRate) {
        let left = self.current(old_tsc, rate);
        self.countdown = (left != 0).then_some(Countdown {
            start_tsc: new_tsc,
            first: left,
            expired: 0,
        });
        self.schedule(rate);
    }

    /// Change of mode by an LVT write. Entering or leaving TSC-deadline mode disarms (SDM 3A 11.5.4.1); a running count goes on
    /// between one-shot and periodic.
    pub(super) fn set_mode(&mut self, mode: TimerMode, now_tsc: u64, rate: TscRate) {
        if mode == self.mode {
            return;
        }
        if mode == TimerMode::TscDeadline || self.mode == TimerMode::TscDeadline {
            *self = Timer {
                mode,
                divide: self.divide,
                ..Timer::RESET
            };
        } else {
            let left = self.current(now_tsc, rate);
            self.mode = mode;
            self.countdown = (left != 0).then_some(Countdown {
                start_tsc: now_tsc,
                first: left,
                expired: 0,
            });
        }
        self.schedule(rate);
    }

    /// Write to IA32_TSC_DEADLINE; ignored in the other modes (SDM 3A 11.5.4.1).
    pub(super) fn set_tsc_deadline(&mut self, value: u64, rate: TscRate) {
        if self.mode == TimerMode::TscDeadline {
            self.tsc_deadline = value;
            self.schedule(rate);
        }
    }
}
