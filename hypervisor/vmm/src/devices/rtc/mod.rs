//! Real-time clock MC146818A with 128 bytes of CMOS memory, at ports 0x70 (index, NMI mask) and 0x71 (data).
//!
//! The time of day is `base + elapsed guest time`: nothing ticks. While the guest sets the clock (SET bit, or the divider held in
//! reset) the time registers are plain memory, and the base is computed anew when it lets go. The divider's phase outlives a set; out
//! of reset its first second is half a second long, as in the chip. The weekday follows from the date.
//!
//! Flags of register C are brought up to date by [`Rtc::advance`], over the time since the last call. The interrupt line is level,
//! held until register C is read.

mod alarm;
mod calendar;
mod host;
mod registers;
#[cfg(test)]
mod tests;

pub use calendar::DateTime;
pub use host::wall_clock_seconds;

use super::{BadState, TscRate};
use registers::{
    A_DIVIDER, A_DIVIDER_RUNS, A_RATE, A_UPDATING, A_WRITABLE, B_24_HOURS, B_ENABLES,
    B_RESET_CLEARS, B_SET, C_ALARM, C_PERIODIC, C_REQUEST, C_UPDATE, D_VALID, REGISTER_A,
    REGISTER_B, REGISTER_C, REGISTER_D,
};

/// Index port; bit 7 masks NMIs.
pub const INDEX_PORT: u16 = 0x70;
/// Data port.
pub const DATA_PORT: u16 = 0x71;
/// Registers and memory.
pub const CMOS_BYTES: usize = 128;

const SECOND_NS: u64 = 1_000_000_000;
const HALF_SECOND_NS: u64 = SECOND_NS / 2;
/// Update-in-progress precedes the update by this time (244 microseconds in the data sheet).
const UPDATE_WARNING_NS: u64 = 244_141;
/// Crystal from which periodic interrupts are divided.
const CRYSTAL_HZ: u64 = 32_768;
/// Seconds that base and elapsed time may reach together without overflow: far beyond year 9999.
const BASE_SECONDS_MAX: i64 = 1 << 40;

/// The clock of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    rate: TscRate,
    /// Bit 7 as written to [`INDEX_PORT`]: the guest masks NMIs. Kept, without effect.
    index: u8,
    cmos: [u8; CMOS_BYTES],
    /// Time of day at guest TSC 0: seconds since 1970, and nanoseconds below a second.
    base_seconds: i64,
    base_ns: u32,
    /// Guest TSC up to which flags have been brought up to date.
    seen_tsc: u64,
    /// Guest TSC at which the line may rise, `u64::MAX` for never. Follows from the fields above.
    due_tsc: u64,
}

/// Saved state of [`Rtc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcState {
    /// Index port as written.
    pub index: u8,
    /// Registers and memory. The time registers count only while the guest sets the clock.
    pub cmos: [u8; CMOS_BYTES],
    /// Time of day at guest TSC 0, seconds since 1970.
    pub base_seconds: i64,
    /// See `base_seconds`: nanoseconds, below a second.
    pub base_ns: u32,
    /// Guest TSC up to which flags have been brought up to date.
    pub seen_tsc: u64,
}

impl Rtc {
    /// A clock that runs from 1970 at guest TSC 0, BCD and 24 hours, with empty memory. Firmware sets it: [`Rtc::set_time`],
    /// [`Rtc::set_memory_size`].
    pub fn new(rate: TscRate) -> Rtc {
        let mut cmos = [0; CMOS_BYTES];
        cmos[REGISTER_A] = A_DIVIDER_RUNS | 6;
        cmos[REGISTER_B] = B_24_HOURS;
        Rtc {
            rate,
            index: 0,
            cmos,
            base_seconds: 0,
            base_ns: 0,
            seen_tsc: 0,
            due_tsc: u64::MAX,
        }
    }

    /// The domain resets: interrupts are disabled; time and memory are kept by the battery.
    pub fn reset(&mut self) {
        self.cmos[REGISTER_B] &= !B_RESET_CLEARS;
        self.cmos[REGISTER_C] = 0;
        self.index = 0;
        self.due_tsc = u64::MAX;
    }

    /// Sets the time of day, in nanoseconds since 1970, as the host does at the start and after a pause.
    pub fn set_time(&mut self, epoch_ns: u64, now_tsc: u64) {
        self.advance(now_tsc);
        let elapsed = self.elapsed_ns(now_tsc);
        let (seconds, ns) = (
            (epoch_ns / SECOND_NS) as i64 - (elapsed / SECOND_NS) as i64,
            (epoch_ns % SECOND_NS) as i64 - (elapsed % SECOND_NS) as i64,
        );
        let borrow = i64::from(ns < 0);
        self.base_seconds = seconds - borrow;
        self.base_ns = (ns + borrow * SECOND_NS as i64) as u32;
        if self.halted() {
            self.store_time(now_tsc);
        }
        self.schedule(now_tsc);
    }

    /// Time of day, in seconds since 1970, as the guest has set it.
    pub fn epoch_seconds(&self, now_tsc: u64) -> i64 {
        self.base_seconds + (self.divider_ns(now_tsc) / SECOND_NS) as i64
    }

    fn elapsed_ns(&self, now_tsc: u64) -> u64 {
        // Bounded so that adding the base cannot overflow.
        self.rate.clock_ticks(now_tsc, SECOND_NS).min(u64::MAX / 2)
    }

    /// Nanoseconds that the divider has counted: whole seconds are updates.
    fn divider_ns(&self, now_tsc: u64) -> u64 {
        u64::from(self.base_ns) + self.elapsed_ns(now_tsc)
    }

    /// Guest TSC at which the divider has counted so many nanoseconds.
    fn tsc_at(&self, divider_ns: u64) -> u64 {
        let elapsed = divider_ns.saturating_sub(self.base_ns.into());
        self.rate.tsc_until(elapsed.into(), SECOND_NS)
    }

    fn divider_runs(&self) -> bool {
        self.cmos[REGISTER_A] & A_DIVIDER == A_DIVIDER_RUNS
    }

    /// Are the time registers plain memory?
    fn halted(&self) -> bool {
        self.cmos[REGISTER_B] & B_SET != 0 || !self.divider_runs()
    }

    /// Writes the current time into the time registers.
    fn store_time(&mut self, now_tsc: u64) {
        let date = DateTime::from_epoch_seconds(self.epoch_seconds(now_tsc));
        registers::store(&mut self.cmos, &date);
    }

    /// Makes what the time registers say the current time.
    fn load_time(&mut self, now_tsc: u64) {
        let seconds = registers::load(&self.cmos).epoch_seconds();
        self.base_seconds = seconds - (self.divider_ns(now_tsc) / SECOND_NS) as i64;
    }

    /// Period of the periodic interrupt in crystal ticks; `None` if it is off.
    fn periodic_ticks(&self) -> Option<u64> {
        match self.cmos[REGISTER_A] & A_RATE {
            0 => None,
            // Rates 1 and 2 are those of 8 and 9 (data sheet table 5).
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// Brings the flags up to date; they stay until register C is read.
    pub fn advance(&mut self, now_tsc: u64) {
        if now_tsc <= self.seen_tsc {
            return;
        }
        let (from, to) = (self.divider_ns(self.seen_tsc), self.divider_ns(now_tsc));
        self.seen_tsc = now_tsc;
        if self.divider_runs() {
            let crystal =
                |ns: u64| (u128::from(ns) * u128::from(CRYSTAL_HZ) / u128::from(SECOND_NS)) as u64;
            if let Some(period) = self.periodic_ticks()
                && crystal(from) / period != crystal(to) / period
            {
                self.cmos[REGISTER_C] |= C_PERIODIC;
            }
        }
        let (first, last) = (from / SECOND_NS, to / SECOND_NS);
        if !self.halted() && first != last {
            self.cmos[REGISTER_C] |= C_UPDATE;
            if self
                .seconds_to_alarm(first)
                .is_some_and(|wait| first + wait <= last)
            {
                self.cmos[REGISTER_C] |= C_ALARM;
            }
        }
        self.schedule(now_tsc);
    }

    /// Seconds from divider second `second` to the next one that the alarm matches, at least one.
    fn seconds_to_alarm(&self, second: u64) -> Option<u64> {
        let now = self.base_seconds + second as i64;
        alarm::Alarm::of(&self.cmos).seconds_after(now)
    }

    /// Computes when an enabled flag will be set, if none is.
    fn schedule(&mut self, now_tsc: u64) {
        self.due_tsc = u64::MAX;
        let enabled = self.cmos[REGISTER_B] & B_ENABLES;
        if enabled == 0 || self.irq() || !self.divider_runs() {
            return;
        }
        let now_ns = self.divider_ns(now_tsc);
        if let (true, Some(period)) = (enabled & C_PERIODIC != 0, self.periodic_ticks()) {
            let ticks = u128::from(now_ns) * u128::from(CRYSTAL_HZ) / u128::from(SECOND_NS);
            let next = (ticks / u128::from(period) + 1) * u128::from(period);
            let ns = (next * u128::from(SECOND_NS)).div_ceil(u128::from(CRYSTAL_HZ));
            self.due_tsc = self.tsc_at(u64::try_from(ns).unwrap_or(u64::MAX));
        }
        if self.halted() {
            return;
        }
        let second = now_ns / SECOND_NS;
        let update = (enabled & C_UPDATE != 0).then_some(1);
        let alarm = (enabled & C_ALARM != 0)
            .then(|| self.seconds_to_alarm(second))
            .flatten();
        for wait in update.into_iter().chain(alarm) {
            let due = self.tsc_at((second + wait).saturating_mul(SECOND_NS));
            self.due_tsc = self.due_tsc.min(due);
        }
    }

    /// Level of the interrupt line, IRQ 8, as of the last [`Rtc::advance`].
    #[inline]
    pub fn irq(&self) -> bool {
        self.cmos[REGISTER_B] & self.cmos[REGISTER_C] & B_ENABLES != 0
    }

    /// Guest TSC at which [`Rtc::advance`] will raise the line; `None` if it cannot or has.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        (self.due_tsc != u64::MAX).then_some(self.due_tsc)
    }

    /// Reads [`INDEX_PORT`] (all ones: it is write-only) or [`DATA_PORT`].
    pub fn read(&mut self, port: u16, now_tsc: u64) -> u8 {
        if port != DATA_PORT {
            return 0xFF;
        }
        let register = usize::from(self.index) % CMOS_BYTES;
        match register {
            REGISTER_A => self.cmos[REGISTER_A] | self.updating(now_tsc),
            REGISTER_C => {
                self.advance(now_tsc);
                let flags = self.cmos[REGISTER_C];
                let request = if self.irq() { C_REQUEST } else { 0 };
                self.cmos[REGISTER_C] = 0;
                self.schedule(now_tsc);
                flags | request
            }
            REGISTER_D => D_VALID,
            _time_or_memory => {
                if registers::is_time(register) && !self.halted() {
                    self.store_time(now_tsc);
                }
                self.cmos[register]
            }
        }
    }

    fn updating(&self, now_tsc: u64) -> u8 {
        let soon = self.divider_ns(now_tsc) % SECOND_NS >= SECOND_NS - UPDATE_WARNING_NS;
        if soon && !self.halted() {
            A_UPDATING
        } else {
            0
        }
    }

    /// Writes [`INDEX_PORT`] or [`DATA_PORT`].
    pub fn write(&mut self, port: u16, value: u8, now_tsc: u64) {
        if port != DATA_PORT {
            self.index = value;
            return;
        }
        self.advance(now_tsc);
        let register = usize::from(self.index) % CMOS_BYTES;
        let was_halted = self.halted();
        match register {
            REGISTER_A | REGISTER_B => {
                if !was_halted {
                    self.store_time(now_tsc);
                }
                self.write_control(register, value, now_tsc);
                if !self.halted() {
                    // Also after a change of format: the registers keep their bits and mean something else.
                    self.load_time(now_tsc);
                }
            }
            REGISTER_C | REGISTER_D => {}
            _time_or_memory if registers::is_time(register) && !was_halted => {
                self.store_time(now_tsc);
                self.cmos[register] = value;
                self.load_time(now_tsc);
            }
            _memory => self.cmos[register] = value,
        }
        self.schedule(now_tsc);
    }

    fn write_control(&mut self, register: usize, value: u8, now_tsc: u64) {
        if register == REGISTER_A {
            let ran = self.divider_runs();
            self.cmos[REGISTER_A] = value & A_WRITABLE;
            if !ran && self.divider_runs() {
                let elapsed = self.elapsed_ns(now_tsc) % SECOND_NS;
                self.base_ns = ((HALF_SECOND_NS + SECOND_NS - elapsed) % SECOND_NS) as u32;
            }
        } else {
            // SET clears the update interrupt enable.
            let cleared = if value & B_SET != 0 { C_UPDATE } else { 0 };
            self.cmos[REGISTER_B] = value & !cleared;
        }
    }

    /// Describes the domain's memory as firmware does: base, extended, above 16 MiB and above 4 GiB, with the checksum.
    pub fn set_memory_size(&mut self, below_4g_bytes: u64, above_4g_bytes: u64) {
        registers::store_memory_size(&mut self.cmos, below_4g_bytes, above_4g_bytes);
    }

    /// The state to move.
    pub fn save(&self) -> RtcState {
        let &Rtc {
            rate: _,
            index,
            cmos,
            base_seconds,
            base_ns,
            seen_tsc,
            due_tsc: _,
        } = self;
        RtcState {
            index,
            cmos,
            base_seconds,
            base_ns,
            seen_tsc,
        }
    }

    /// The clock with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &RtcState, rate: TscRate) -> Result<Rtc, BadState> {
        let &RtcState {
            index,
            cmos,
            base_seconds,
            base_ns,
            seen_tsc,
        } = state;
        BadState::unless(cmos[REGISTER_A] & !A_WRITABLE == 0, "rtc.register_a")?;
        BadState::unless(cmos[REGISTER_C] & !B_ENABLES == 0, "rtc.register_c")?;
        BadState::unless(cmos[REGISTER_D] == 0, "rtc.register_d")?;
        BadState::unless(
            (-BASE_SECONDS_MAX..=BASE_SECONDS_MAX).contains(&base_seconds),
            "rtc.base_seconds",
        )?;
        BadState::unless(u64::from(base_ns) < SECOND_NS, "rtc.base_ns")?;
        let mut rtc = Rtc {
            rate,
            index,
            cmos,
            base_seconds,
            base_ns,
            seen_tsc,
            due_tsc: u64::MAX,
        };
        rtc.schedule(seen_tsc);
        Ok(rtc)
    }
}
