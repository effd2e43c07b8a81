//! The alarm of the clock: a time of day, of which any part may match always.

use super::CMOS_BYTES;
use super::registers::{B_BINARY, REGISTER_B, decode, decode_hour};

/// Registers: seconds, minutes, hours.
const SECONDS: usize = 1;
const MINUTES: usize = 3;
const HOURS: usize = 5;
/// A byte with both high bits set matches always.
const ANY: u8 = 0xC0;

/// The alarm: each of second, minute, hour, `None` where any matches.
pub(super) struct Alarm([Option<u8>; 3]);

impl Alarm {
    pub(super) fn of(cmos: &[u8; CMOS_BYTES]) -> Alarm {
        let control = cmos[REGISTER_B];
        let plain = |byte| decode(byte, control & B_BINARY != 0);
        let unless_any = |byte: u8, value: u8| (byte & ANY != ANY).then_some(value);
        Alarm([
            unless_any(cmos[SECONDS], plain(cmos[SECONDS])),
            unless_any(cmos[MINUTES], plain(cmos[MINUTES])),
            unless_any(cmos[HOURS], decode_hour(cmos[HOURS], control)),
        ])
    }

    /// Seconds from `now` (since 1970) to the next moment that matches, 1..=86400; `None` if no time of day does.
    pub(super) fn seconds_after(&self, now: i64) -> Option<u64> {
        let Alarm([second, minute, hour]) = *self;
        let within = |field: Option<u8>, limit: u8| field.is_none_or(|value| value < limit);
        if !(within(second, 60) && within(minute, 60) && within(hour, 24)) {
            return None;
        }
        // Go to the next hour, minute and second that fit, each from the start of the last; a carry begins anew. Ends within a few
        // rounds, because a round that carries has moved to the start of a fitting hour or of the next.
        let mut at = now + 1;
        loop {
            let of_day = at.rem_euclid(86_400);
            let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            let differs =
                |field: Option<u8>, value: i64| field.is_some_and(|f| i64::from(f) != value);
            if differs(hour, h) {
                at += 3600 - of_day % 3600;
            } else if differs(minute, m) {
                at += 60 - s;
            } else if differs(second, s) {
                at += 1;
            } else {
                return Some((at - now) as u64);
            }
        }
    }
}
