//! The time of day of the machine itself, out of its CMOS clock.
//!
//! The registers change once a second, one after another. While the chip says that an update is near or under way nothing is
//! read, and what was read counts when a second reading agrees: an update that began in between shows as a difference, or as the
//! flag.

use super::DateTime;
use super::registers::{A_UPDATING, REGISTER_A, REGISTER_D, load};
use super::registers::{CENTURY, D_VALID, REGISTER_B, TIME};
use crate::devices::rtc::CMOS_BYTES;

/// Looks at the update flag before the clock is given up: an update takes 2 ms, a look at least a microsecond.
const LOOKS_MAX: u32 = 20_000;
/// Readings before the clock is given up.
const READINGS_MAX: u32 = 8;

/// Seconds since 1970 (UTC as far as the clock is set to it) that a CMOS clock shows. `read` reads a register; `century` is the
/// register that keeps the century, where firmware tables name one. `None`: there is no clock, it has lost its power, or it shows no
/// date.
pub fn wall_clock_seconds(century: Option<u8>, mut read: impl FnMut(u8) -> u8) -> Option<u64> {
    if read(REGISTER_D as u8) & D_VALID == 0 {
        return None;
    }
    let mut before = stable(century, &mut read)?;
    for _ in 0..READINGS_MAX {
        let after = stable(century, &mut read)?;
        if after == before {
            return seconds(&after);
        }
        before = after;
    }
    None
}

/// The registers, read while no update was announced.
fn stable(century: Option<u8>, read: &mut impl FnMut(u8) -> u8) -> Option<[u8; CMOS_BYTES]> {
    (0..LOOKS_MAX).find(|_| read(REGISTER_A as u8) & A_UPDATING == 0)?;
    let mut cmos = [0; CMOS_BYTES];
    for register in TIME.into_iter().chain([REGISTER_B]) {
        cmos[register] = read(register as u8);
    }
    // Twenty, in BCD, where nobody keeps it.
    const THIS_CENTURY: u8 = 0x20;
    let kept = century.map_or(0, &mut *read);
    cmos[CENTURY] = if matches!(kept, 0x19..=0x21) {
        kept
    } else {
        THIS_CENTURY
    };
    Some(cmos)
}

fn seconds(cmos: &[u8; CMOS_BYTES]) -> Option<u64> {
    let date = load(cmos);
    let possible = (1..=12).contains(&date.month)
        && (1..=31).contains(&date.day)
        && date.hour < 24
        && date.minute < 60
        && date.second < 60;
    // The calendar gives the same date back unless it does not exist.
    let seconds = date.epoch_seconds();
    let exists = possible && DateTime::from_epoch_seconds(seconds).day == date.day;
    exists.then(|| u64::try_from(seconds).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::TscRate;
    use crate::devices::rtc::{DATA_PORT, INDEX_PORT, Rtc};
    use proptest::prelude::*;

    const HZ: u64 = 1_000_000_000;
    /// Ticks of one register access.
    const ACCESS_TICKS: u64 = 40_000;

    /// A clock of our own, with time that goes on as it is read.
    struct Chip {
        rtc: Rtc,
        now: u64,
    }

    impl Chip {
        fn new(epoch_ns: u64, register_b: u8) -> Self {
            let mut rtc = Rtc::new(TscRate::from_hz(HZ).unwrap());
            rtc.write(INDEX_PORT, 0xb, 0);
            rtc.write(DATA_PORT, register_b, 0);
            rtc.set_time(epoch_ns, 0);
            Chip { rtc, now: 0 }
        }

        fn read(&mut self, register: u8) -> u8 {
            self.rtc.write(INDEX_PORT, register, self.now);
            self.now += ACCESS_TICKS;
            self.rtc.read(DATA_PORT, self.now)
        }
    }

    proptest! {
        /// Whatever the format and wherever in a second one begins to look, the time shown is the time when it was read.
        #[test]
        fn the_time_is_a_time_it_was(second in 0u64..4_000_000_000, ns in 0u64..1_000_000_000, format in 0u8..4) {
            let start = second * 1_000_000_000 + ns;
            let mut chip = Chip::new(start, format << 1);
            let seconds = wall_clock_seconds(Some(0x32), |register| chip.read(register)).unwrap();
            let end = (start + chip.now) / 1_000_000_000;
            prop_assert!((second..=end).contains(&seconds), "{seconds} is not in {second}..={end}");
        }
    }

    #[test]
    fn a_clock_that_cannot_be_right_is_none() {
        assert_eq!(wall_clock_seconds(None, |_| 0xff), None, "nothing there");
        assert_eq!(wall_clock_seconds(None, |_| 0), None, "without power");
        let registers = |month: u8, day: u8| {
            move |register: u8| match register {
                7 => day,
                8 => month,
                9 => 0x26,
                0xb => 2,
                0xd => 0x80,
                _ => 0,
            }
        };
        assert_eq!(wall_clock_seconds(None, registers(0x13, 1)), None);
        assert_eq!(wall_clock_seconds(None, registers(2, 0x30)), None);
        // 2026-02-28; the register 0x32 holds no century.
        assert_eq!(
            wall_clock_seconds(Some(0x32), registers(2, 0x28)),
            Some(1_772_236_800)
        );
    }

    #[test]
    fn a_clock_that_never_stands_still_is_given_up() {
        let mut count = 0u8;
        let restless = |register: u8| match register {
            0xa => 0x26,
            0xd => 0x80,
            _ => {
                count = count.wrapping_add(1);
                count
            }
        };
        assert_eq!(wall_clock_seconds(None, restless), None);
    }
}
