//! One counter of the 8254 (Intel data sheet 231164): modes 0 to 5, gate, latches.
//!
//! Time is the number of input clocks since guest TSC 0. A count is kept as the clock at which it began, never as a value that is
//! decremented; what OUT does between two looks follows from that. [`Channel::advance`] comes before every access and counts the rising
//! edges of OUT that it passes.
//!
//! ```text
//! control word -> Empty -- count (modes 0, 2-4) or trigger (1, 5) --> Running <- gate -> Held
//! ```

use crate::devices::BadState;

/// Which bytes of a count are accessed (RW field of the control word).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The low byte; the high one is 0.
    Low = 1,
    /// The high byte; the low one is 0.
    High = 2,
    /// Low byte, then high byte.
    Both = 3,
}

/// Where the counting element stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Nothing loaded since the control word.
    Empty,
    /// At clock `origin` it was `phase` clocks into its count.
    Running {
        /// Clock at which this stretch began; it may be the next one.
        origin: u64,
        /// Clocks counted before.
        phase: u64,
    },
    /// The gate stopped it.
    Held {
        /// Clocks counted before.
        elapsed: u64,
    },
}

/// Registers of one counter. These are also its saved state: nothing in it is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channel {
    /// Mode, 0..=5.
    pub mode: u8,
    /// Bytes accessed.
    pub access: Access,
    /// Counts in binary-coded decimal.
    pub bcd: bool,
    /// Count in effect, 1..=65536; 0 before the first.
    pub period: u32,
    /// Count written and not yet in effect.
    pub next_period: Option<u32>,
    /// First byte of a count whose second byte is to come.
    pub low_byte: Option<u8>,
    /// Counting element.
    pub count: Count,
    /// Level of the gate input.
    pub gate: bool,
    /// Latched count, as it is read.
    pub latch: Option<u16>,
    /// Latched status.
    pub status_latch: Option<u8>,
    /// The next byte read is the high one of two.
    pub reads_high: bool,
    /// Clock up to which edges have been counted.
    pub seen: u64,
    /// Rising edges of OUT that nobody has taken.
    pub edges: u64,
}

/// Closest events that a periodic mode asks to be woken for, in clocks (about 50 microseconds): edges between are counted, not waited
/// for, so that a guest cannot make the host chase a period of one clock.
pub const EVENT_SPACING: u64 = 60;

/// Clock count beyond which no guest lives; keeps sums of saved values within 64 bits.
pub(super) const CLOCK_MAX: u64 = u64::MAX / 4;

impl Channel {
    /// After power-up: undefined by the data sheet; here as after a control word of mode 3, which drives nothing.
    pub(super) const fn power_up(gate: bool) -> Channel {
        Channel {
            mode: 3,
            access: Access::Both,
            bcd: false,
            period: 0,
            next_period: None,
            low_byte: None,
            count: Count::Empty,
            gate,
            latch: None,
            status_latch: None,
            reads_high: false,
            seen: 0,
            edges: 0,
        }
    }

    pub(super) fn validate(&self) -> Result<(), BadState> {
        let period_max = self.modulus();
        BadState::unless(self.mode <= 5, "pit.mode")?;
        BadState::unless(self.period <= period_max, "pit.period")?;
        let next_valid = self
            .next_period
            .is_none_or(|next| (1..=period_max).contains(&next));
        BadState::unless(next_valid, "pit.next_period")?;
        let count_valid = match self.count {
            Count::Empty => true,
            Count::Running { origin, phase } => {
                self.period != 0 && origin <= CLOCK_MAX && phase <= CLOCK_MAX
            }
            Count::Held { elapsed } => self.period != 0 && elapsed <= CLOCK_MAX,
        };
        BadState::unless(count_valid, "pit.count")?;
        BadState::unless(
            self.low_byte.is_none() || self.access == Access::Both,
            "pit.low_byte",
        )?;
        BadState::unless(
            !self.reads_high || self.access == Access::Both,
            "pit.reads_high",
        )?;
        BadState::unless(self.seen <= CLOCK_MAX, "pit.seen")?;
        BadState::unless(self.edges <= CLOCK_MAX, "pit.edges")
    }

    fn modulus(&self) -> u32 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// Clocks that OUT is high in a period of mode 3.
    fn high_half(&self) -> u64 {
        u64::from(self.period.div_ceil(2))
    }

    /// Clocks counted at `clock`; `None` before the count begins.
    fn elapsed(&self, clock: u64) -> Option<u64> {
        match self.count {
            Count::Empty => None,
            Count::Running { origin, phase } => Some(clock.checked_sub(origin)? + phase),
            Count::Held { elapsed } => Some(elapsed),
        }
    }

    /// Level of OUT.
    pub(super) fn out(&self, clock: u64) -> bool {
        let Some(elapsed) = self.elapsed(clock) else {
            return self.mode != 0;
        };
        let period = u64::from(self.period);
        let held = matches!(self.count, Count::Held { .. });
        match self.mode {
            0 | 1 => elapsed >= period,
            2 => held || elapsed % period != period - 1,
            3 => held || elapsed % period < self.high_half(),
            _strobe => elapsed != period,
        }
    }

    /// Rising edges of OUT after `from` and up to `to` clocks counted.
    fn edges_between(&self, from: u64, to: u64) -> u64 {
        let period = u64::from(self.period);
        let single = |at: u64| u64::from(from < at && at <= to);
        match self.mode {
            0 | 1 => single(period),
            2 | 3 => to / period - from / period,
            _strobe => single(period + 1),
        }
    }

    fn count_edges(&mut self, clock: u64) {
        if let (Count::Running { phase, .. }, Some(to)) = (self.count, self.elapsed(clock)) {
            let from = self.elapsed(self.seen).unwrap_or(phase);
            self.edges += self.edges_between(from, to);
        }
        self.seen = clock;
    }

    /// Clock at which a count that waits for the end of the period (mode 2) or half period (mode 3) takes effect.
    fn switch_clock(&self) -> Option<u64> {
        self.next_period?;
        let Count::Running { origin, phase } = self.count else {
            return None;
        };
        let elapsed = self.elapsed(self.seen).unwrap_or(phase);
        let period = u64::from(self.period);
        let into = elapsed % period;
        let end = match self.mode {
            2 => period,
            3 if into < self.high_half() => self.high_half(),
            3 => period,
            _waits_for_trigger => return None,
        };
        Some(origin + (elapsed - into + end - phase))
    }

    /// Lets time pass up to `clock`.
    pub(super) fn advance(&mut self, clock: u64) {
        if clock <= self.seen {
            return;
        }
        if let Some(switch) = self.switch_clock()
            && switch <= clock
            && let Some(next) = self.next_period.take()
        {
            self.count_edges(switch);
            let begins_low = !self.out(switch);
            self.period = next;
            let phase = if begins_low { self.high_half() } else { 0 };
            self.count = Count::Running {
                origin: switch,
                phase,
            };
        }
        self.count_edges(clock);
    }

    /// Clock at which OUT may next rise, or a new count take effect: the caller looks then.
    pub(super) fn next_event(&self) -> Option<u64> {
        let Count::Running { origin, phase } = self.count else {
            return None;
        };
        let elapsed = self.elapsed(self.seen).unwrap_or(phase);
        let period = u64::from(self.period);
        let at = match self.mode {
            0 | 1 if elapsed < period => period,
            2 | 3 if period < EVENT_SPACING => (elapsed + EVENT_SPACING).next_multiple_of(period),
            2 | 3 => (elapsed / period + 1) * period,
            4 | 5 if elapsed <= period => period + 1,
            _expired => return None,
        };
        let edge = origin + (at - phase);
        Some(self.switch_clock().map_or(edge, |switch| edge.min(switch)))
    }

    /// Makes a change that may move OUT at once; counts the edge if it rises.
    fn change(&mut self, clock: u64, action: impl FnOnce(&mut Channel)) {
        let before = self.out(clock);
        action(self);
        if !before && self.out(clock) {
            self.edges += 1;
        }
    }

    /// Control word: sets mode and access, forgets the count.
    pub(super) fn program(&mut self, mode: u8, access: Access, bcd: bool, clock: u64) {
        self.change(clock, |channel| {
            *channel = Channel {
                mode,
                access,
                bcd,
                seen: channel.seen,
                edges: channel.edges,
                ..Channel::power_up(channel.gate)
            };
        });
    }

    /// A byte of a count is written.
    pub(super) fn write(&mut self, value: u8, clock: u64) {
        let count = match (self.access, self.low_byte) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::Both, None) => {
                self.low_byte = Some(value);
                if self.mode == 0 {
                    // The first byte stops mode 0.
                    self.count = Count::Empty;
                }
                return;
            }
        };
        self.low_byte = None;
        let count = match count {
            0 => self.modulus(),
            count if self.bcd => from_bcd(count),
            count => count.into(),
        };
        self.change(clock, |channel| channel.load(count, clock));
    }

    fn load(&mut self, count: u32, clock: u64) {
        let waits = match self.mode {
            0 | 4 => false,
            2 | 3 => self.count != Count::Empty,
            _triggered => true,
        };
        if waits {
            self.next_period = Some(count);
            return;
        }
        self.period = count;
        self.count = if self.gate {
            Count::Running {
                origin: clock + 1,
                phase: 0,
            }
        } else {
            Count::Held { elapsed: 0 }
        };
    }

    /// Sets the gate input. A rise triggers modes 1 and 5 and begins modes 2 and 3 anew; a low gate holds modes 0, 2, 3 and 4.
    pub(super) fn set_gate(&mut self, high: bool, clock: u64) {
        if self.gate == high {
            return;
        }
        self.change(clock, |channel| {
            channel.gate = high;
            match (channel.mode, channel.count) {
                (1 | 5, _) if high => channel.restart(clock),
                (1 | 5, _) => {}
                (_, Count::Running { phase, .. }) => {
                    channel.count = Count::Held {
                        elapsed: channel.elapsed(clock).unwrap_or(phase),
                    };
                }
                (2 | 3, Count::Held { .. }) => channel.restart(clock + 1),
                (_, Count::Held { elapsed }) => {
                    channel.count = Count::Running {
                        origin: clock,
                        phase: elapsed,
                    };
                }
                (_, Count::Empty) => {}
            }
        });
    }

    fn restart(&mut self, origin: u64) {
        if let Some(next) = self.next_period.take() {
            self.period = next;
        }
        if self.period != 0 {
            self.count = Count::Running { origin, phase: 0 };
        }
    }

    /// The count as the counter's latch holds it.
    fn value(&self, clock: u64) -> u16 {
        let (period, modulus) = (u64::from(self.period), u64::from(self.modulus()));
        let elapsed = self.elapsed(clock).unwrap_or(0);
        let value = match self.mode {
            _ if period == 0 => 0,
            2 => period - elapsed % period,
            3 => {
                let into = elapsed % period;
                let half = into.checked_sub(self.high_half()).unwrap_or(into);
                (period & !1).saturating_sub(2 * half)
            }
            _once => period + modulus - elapsed % modulus,
        } % modulus;
        // Below the modulus, which is at most 65536.
        if self.bcd {
            to_bcd(value as u16)
        } else {
            value as u16
        }
    }

    /// Counter latch command; ignored until the last latch has been read.
    pub(super) fn latch_count(&mut self, clock: u64) {
        if self.latch.is_none() {
            self.latch = Some(self.value(clock));
        }
    }

    /// Status latch of the read-back command; ignored until the last one has been read.
    pub(super) fn latch_status(&mut self, clock: u64) {
        if self.status_latch.is_some() {
            return;
        }
        let not_loaded = self.next_period.is_some() || self.elapsed(clock).is_none();
        self.status_latch = Some(
            u8::from(self.out(clock)) << 7
                | u8::from(not_loaded) << 6
                | (self.access as u8) << 4
                | self.mode << 1
                | u8::from(self.bcd),
        );
    }

    /// Reads a byte: latched status, latched count, or the count as it is.
    pub(super) fn read(&mut self, clock: u64) -> u8 {
        if let Some(status) = self.status_latch.take() {
            return status;
        }
        let [low, high] = self
            .latch
            .unwrap_or_else(|| self.value(clock))
            .to_le_bytes();
        let is_high = match self.access {
            Access::Low => false,
            Access::High => true,
            Access::Both => {
                self.reads_high = !self.reads_high;
                !self.reads_high
            }
        };
        if is_high || self.access == Access::Low {
            self.latch = None;
        }
        if is_high { high } else { low }
    }
}

/// Value of four decimal digits. A digit above 9 counts as what it is, within the counter's range.
fn from_bcd(digits: u16) -> u32 {
    let digit = |place: u32| u32::from(digits >> (4 * place) & 0xF);
    (digit(3) * 1000 + digit(2) * 100 + digit(1) * 10 + digit(0)).min(10_000)
}

fn to_bcd(value: u16) -> u16 {
    let digit = |unit: u16| value / unit % 10;
    digit(1000) << 12 | digit(100) << 8 | digit(10) << 4 | digit(1)
}
