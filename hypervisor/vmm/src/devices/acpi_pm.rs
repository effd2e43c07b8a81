//! ACPI fixed hardware (ACPI 6.5, 4.8.3): PM1a event and control registers and the power-management timer.
//!
//! The block is 12 bytes from [`PORT_FIRST`]: status (2), enable (2), control (2), reserved (2), timer (4). The timer follows from the
//! time alone and has no state: a 24-bit count at [`TIMER_HZ`] since guest TSC 0.

use super::{BadState, TscRate};

/// First port of the block: PM1a status.
pub const PORT_FIRST: u16 = 0x600;
/// Last port of the block.
pub const PORT_LAST: u16 = 0x60B;
/// Frequency of the power-management timer.
pub const TIMER_HZ: u64 = 3_579_545;

const TIMER_BITS: u32 = 24;
/// PM1 status bits: timer carry, power button.
const TIMER_STATUS: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
/// Enable bits that can be set: timer, global lock, power button, clock (whose alarm would wake a sleeper: there is no sleep).
const ENABLE_WRITABLE: u16 = TIMER_STATUS | 1 << 5 | POWER_BUTTON | 1 << 10;
/// Control: SCI_EN (always on: there is no SMM to leave ACPI mode for), bus-master reload, sleep type, sleep enable.
const SCI_ENABLED: u16 = 1 << 0;
const CONTROL_WRITABLE: u16 = 1 << 1 | 0b111 << 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// Sleep type of S5, as the DSDT's `\_S5` says.
const SLEEP_TYPE_S5: u16 = 0;

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum PmEffect {
    /// The SCI may have changed: see [`AcpiPm::sci`].
    None,
    /// The guest switched itself off (S5).
    PowerOff,
    /// The guest asked for a sleeping state that it was not offered.
    UnsupportedSleep {
        /// SLP_TYP it wrote.
        sleep_type: u8,
    },
}

/// The register block of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiPm {
    rate: TscRate,
    /// Status without the timer's bit.
    status: u16,
    enable: u16,
    control: u16,
    /// Half-periods of the timer when its status was cleared: status is set once there have been more.
    timer_carries_seen: u64,
}

/// Saved state of [`AcpiPm`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcpiPmState {
    /// PM1 status, without the timer's bit.
    pub status: u16,
    /// PM1 enable.
    pub enable: u16,
    /// PM1 control, what of it is stored.
    pub control: u16,
    /// Changes of the timer's highest bit up to the last time its status was cleared.
    pub timer_carries_seen: u64,
}

impl AcpiPm {
    /// The block after power-up.
    pub const fn new(rate: TscRate) -> AcpiPm {
        AcpiPm {
            rate,
            status: 0,
            enable: 0,
            control: 0,
            timer_carries_seen: 0,
        }
    }

    fn timer_ticks(&self, now_tsc: u64) -> u64 {
        self.rate.clock_ticks(now_tsc, TIMER_HZ)
    }

    /// The timer's 24-bit count.
    #[inline]
    pub fn timer(&self, now_tsc: u64) -> u32 {
        (self.timer_ticks(now_tsc) & ((1 << TIMER_BITS) - 1)) as u32
    }

    fn carries(&self, now_tsc: u64) -> u64 {
        self.timer_ticks(now_tsc) >> (TIMER_BITS - 1)
    }

    fn status(&self, now_tsc: u64) -> u16 {
        self.status
            | if self.carries(now_tsc) > self.timer_carries_seen {
                TIMER_STATUS
            } else {
                0
            }
    }

    /// Level of the system control interrupt.
    #[inline]
    pub fn sci(&self, now_tsc: u64) -> bool {
        self.enable != 0 && self.status(now_tsc) & self.enable != 0
    }

    /// Guest TSC at which the timer will assert the SCI; `None` while it cannot.
    pub fn next_deadline(&self, now_tsc: u64) -> Option<u64> {
        if self.enable & TIMER_STATUS == 0 || self.status(now_tsc) & TIMER_STATUS != 0 {
            return None;
        }
        let ticks = (u128::from(self.timer_carries_seen) + 1) << (TIMER_BITS - 1);
        Some(self.rate.tsc_until(ticks, TIMER_HZ))
    }

    /// Presses the power button: sets its status bit.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// Reads the byte at `port`, which lies in the block.
    pub fn read(&self, port: u16, now_tsc: u64) -> u8 {
        let [status_low, status_high] = self.status(now_tsc).to_le_bytes();
        let [enable_low, enable_high] = self.enable.to_le_bytes();
        let [control_low, control_high] = (self.control | SCI_ENABLED).to_le_bytes();
        match port - PORT_FIRST {
            0 => status_low,
            1 => status_high,
            2 => enable_low,
            3 => enable_high,
            4 => control_low,
            5 => control_high,
            offset @ 8..=11 => self.timer(now_tsc).to_le_bytes()[usize::from(offset - 8)],
            _reserved => 0,
        }
    }

    /// Writes the byte at `port`, which lies in the block. Status bits are cleared by ones; the timer is read-only.
    pub fn write(&mut self, port: u16, value: u8, now_tsc: u64) -> PmEffect {
        let (low, high) = (u16::from(value), u16::from(value) << 8);
        match port - PORT_FIRST {
            0 => {
                self.status &= !low;
                if low & TIMER_STATUS != 0 {
                    self.timer_carries_seen = self.carries(now_tsc);
                }
            }
            1 => self.status &= !high,
            2 => self.enable = (self.enable & 0xFF00 | low) & ENABLE_WRITABLE,
            3 => self.enable = (self.enable & 0x00FF | high) & ENABLE_WRITABLE,
            4 => self.control = (self.control & 0xFF00 | low) & CONTROL_WRITABLE,
            5 => {
                self.control = (self.control & 0x00FF | high) & CONTROL_WRITABLE;
                if high & SLEEP_ENABLE != 0 {
                    return self.sleep();
                }
            }
            _reserved_or_read_only => {}
        }
        PmEffect::None
    }

    fn sleep(&self) -> PmEffect {
        match self.control >> 10 & 7 {
            SLEEP_TYPE_S5 => PmEffect::PowerOff,
            other => PmEffect::UnsupportedSleep {
                sleep_type: other as u8,
            },
        }
    }

    /// The state to move.
    pub fn save(&self) -> AcpiPmState {
        let &AcpiPm {
            rate: _,
            status,
            enable,
            control,
            timer_carries_seen,
        } = self;
        AcpiPmState {
            status,
            enable,
            control,
            timer_carries_seen,
        }
    }

    /// The block with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &AcpiPmState, rate: TscRate) -> Result<AcpiPm, BadState> {
        let &AcpiPmState {
            status,
            enable,
            control,
            timer_carries_seen,
        } = state;
        BadState::unless(status & !POWER_BUTTON == 0, "acpi_pm.status")?;
        BadState::unless(enable & !ENABLE_WRITABLE == 0, "acpi_pm.enable")?;
        BadState::unless(control & !CONTROL_WRITABLE == 0, "acpi_pm.control")?;
        Ok(AcpiPm {
            rate,
            status,
            enable,
            control,
            timer_carries_seen,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: TscRate = TscRate::from_hz(2_000_000_000).unwrap();

    #[test]
    fn timer_counts_and_wraps() {
        let pm = AcpiPm::new(RATE);
        assert_eq!(pm.timer(2_000_000_000), 3_579_545);
        assert_eq!(pm.timer(20_000_000_000), 35_795_450 % (1 << 24));
        let bytes: [u8; 4] = core::array::from_fn(|i| pm.read(0x608 + i as u16, 2_000_000_000));
        assert_eq!(u32::from_le_bytes(bytes), 3_579_545);
        assert!(pm.timer(u64::MAX) < 1 << 24);
    }

    #[test]
    fn carry_sets_status_and_sci_at_the_deadline() {
        let mut pm = AcpiPm::new(RATE);
        assert_eq!(pm.next_deadline(0), None);
        assert_eq!(pm.write(0x602, 1, 0), PmEffect::None);
        let due = pm.next_deadline(0).unwrap();
        assert!(!pm.sci(due - 1));
        assert!(pm.sci(due));
        assert_eq!(pm.timer(due), 1 << 23);
        assert_eq!(pm.write(0x600, 1, due), PmEffect::None);
        assert!(!pm.sci(due));
        assert!(pm.next_deadline(due).unwrap() > due);
    }

    #[test]
    fn power_button_is_seen_and_cleared_by_writing_one() {
        let mut pm = AcpiPm::new(RATE);
        pm.press_power_button();
        assert!(!pm.sci(0));
        assert_eq!(pm.write(0x603, 1, 0), PmEffect::None);
        assert!(pm.sci(0));
        assert_eq!(pm.read(0x601, 0), 1);
        assert_eq!(pm.write(0x601, 0, 0), PmEffect::None);
        assert!(pm.sci(0));
        assert_eq!(pm.write(0x601, 1, 0), PmEffect::None);
        assert!(!pm.sci(0));
    }

    #[test]
    fn only_sleep_enable_with_type_five_powers_off() {
        let mut pm = AcpiPm::new(RATE);
        assert_eq!(pm.write(0x605, 0x00, 0), PmEffect::None);
        assert_eq!(
            pm.write(0x605, 0x20 | 3 << 2, 0),
            PmEffect::UnsupportedSleep { sleep_type: 3 }
        );
        assert_eq!(pm.read(0x605, 0), 3 << 2);
        assert_eq!(pm.write(0x605, 0x20, 0), PmEffect::PowerOff);
        assert_eq!(pm.read(0x604, 0), 1);
    }

    #[test]
    fn saved_state_is_checked_and_has_the_same_future() {
        let mut pm = AcpiPm::new(RATE);
        assert_eq!(pm.write(0x602, 1, 0), PmEffect::None);
        pm.press_power_button();
        let state = pm.save();
        assert_eq!(AcpiPm::restore(&state, RATE), Ok(pm));
        assert!(AcpiPm::restore(&AcpiPmState { status: 1, ..state }, RATE).is_err());
        assert!(
            AcpiPm::restore(
                &AcpiPmState {
                    control: 1 << 13,
                    ..state
                },
                RATE
            )
            .is_err()
        );
    }
}
