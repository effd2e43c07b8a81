//! Time across hosts: how far apart their clocks are, and how long a domain stood still.
//!
//! Each host has a clock of its own that began with its boot. The source asks the destination for its
//! time, several times; the answer that came fastest is off by at most half of what it took. With it
//! the source says *in the destination's time* when it read the domain's clock, and the destination
//! adds what has passed since then: so the domain's clocks go on as if they had never stopped.

use alloc::vec::Vec;
use godwit_records::{Header, PlatformTime, Record};

/// A domain that stood still for longer is refused: some clock is wrong.
pub(super) const STILL_US_MAX: u64 = 600_000_000;

/// How far the other host's clock is ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Skew {
    ahead_us: i64,
    /// Wrong by at most this.
    pub(super) uncertainty_us: u64,
}

impl Skew {
    /// From one question: asked and answered by the own clock, and the answer.
    pub(super) fn of(asked_us: u64, answered_us: u64, there_us: u64) -> Skew {
        let took_us = answered_us.saturating_sub(asked_us);
        let middle_us = asked_us.saturating_add(took_us / 2);
        Skew {
            ahead_us: there_us.wrapping_sub(middle_us) as i64,
            uncertainty_us: took_us.div_ceil(2),
        }
    }

    /// The better of two.
    pub(super) fn or(self, other: Option<Skew>) -> Skew {
        match other {
            Some(other) if other.uncertainty_us < self.uncertainty_us => other,
            Some(_) | None => self,
        }
    }

    /// What the other clock shows when the own one shows `here_us`.
    pub(super) fn there_us(self, here_us: u64) -> u64 {
        here_us.wrapping_add_signed(self.ahead_us)
    }
}

/// Adds the time that a domain stood still to the time in its platform's records. `None`: they have no
/// time, or it is not one.
pub(super) fn add_still(records: &[u8], still_us: u64) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(records.len());
    let (mut rest, mut found) = (records, false);
    while !rest.is_empty() {
        let header = Header::peek(rest)?;
        let length = usize::try_from(header.record_bytes()).ok()?;
        let (record, behind) = rest.split_at_checked(length)?;
        rest = behind;
        if header.kind != PlatformTime::KIND {
            out.extend_from_slice(record);
            continue;
        }
        let mut time = PlatformTime::decode(record).ok()?;
        let ticks = u128::from(still_us) * u128::from(time.tsc_hz) / 1_000_000;
        time.platform_tsc = time.platform_tsc.wrapping_add(u64::try_from(ticks).ok()?);
        let mut encoded = [0; PlatformTime::MAX_BYTES];
        let length = time.encode(&mut encoded).ok()?;
        out.extend_from_slice(&encoded[..length]);
        found = true;
    }
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_compared_at_the_middle_and_the_fastest_answer_counts() {
        // The other clock is 1000 behind.
        let slow = Skew::of(5000, 5400, 4300);
        let fast = Skew::of(6000, 6100, 5050);
        assert_eq!((slow.uncertainty_us, fast.uncertainty_us), (200, 50));
        assert_eq!(slow.or(Some(fast)).there_us(7000), 6000);
        assert_eq!(fast.or(Some(slow)).there_us(7000), 6000);
        assert_eq!(slow.there_us(7000), 6100);
        assert_eq!(Skew::of(10, 10, u64::MAX).there_us(11), 0);
    }

    #[test]
    fn time_is_added_in_ticks_and_all_else_stays() {
        let time = |platform_tsc| {
            let record = PlatformTime {
                tsc_hz: 2_500_000_000,
                platform_tsc,
            };
            let mut bytes = std::vec![0; PlatformTime::MAX_BYTES];
            let length = record.encode(&mut bytes).unwrap();
            bytes.truncate(length);
            bytes
        };
        let other = [9u8, 9, 1, 0, 2, 0, 0, 0, 7, 7];
        let records = [&other[..], &time(u64::MAX), &other].concat();
        let moved = add_still(&records, 3).unwrap();
        assert_eq!(moved, [&other[..], &time(7499), &other].concat());
        assert_eq!(add_still(&other, 3), None);
        assert_eq!(add_still(&records[..5], 3), None);
        assert_eq!(add_still(&[], 3), None);
    }
}
