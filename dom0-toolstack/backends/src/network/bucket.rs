//! A token bucket: how much a port may send.
//!
//! A frame goes when there is any credit at all and may leave a debt, so that a frame larger than
//! the burst still goes. Law: in any time `t` at most `rate * t + burst` bytes and one frame.

/// Microseconds a second: a byte is as many parts of credit.
const PARTS: i128 = 1_000_000;

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes a second, at least 1.
    pub bytes_per_second: u64,
    /// Bytes that may go at once after a rest, at least 1.
    pub burst_bytes: u64,
}

/// The credit of one port.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Rate,
    /// Credit in bytes times [`PARTS`]; negative after a debt.
    credit: i128,
    refilled_us: u64,
}

impl TokenBucket {
    /// A full bucket at time `now_us`.
    pub fn new(rate: Rate, now_us: u64) -> Self {
        let rate = Rate {
            bytes_per_second: rate.bytes_per_second.max(1),
            burst_bytes: rate.burst_bytes.max(1),
        };
        TokenBucket {
            rate,
            credit: i128::from(rate.burst_bytes) * PARTS,
            refilled_us: now_us,
        }
    }

    /// Whether a frame of `bytes` may go now; if so, it is paid for.
    pub fn take(&mut self, bytes: usize, now_us: u64) -> bool {
        self.refill(now_us);
        if self.credit <= 0 {
            return false;
        }
        self.credit -= bytes as i128 * PARTS;
        true
    }

    /// The first microsecond at which [`Self::take`] succeeds.
    pub fn ready_us(&self) -> u64 {
        if self.credit > 0 {
            return self.refilled_us;
        }
        let wanted = (1 - self.credit) as u128;
        let wait = wanted.div_ceil(u128::from(self.rate.bytes_per_second));
        let wait = u64::try_from(wait).unwrap_or(u64::MAX);
        self.refilled_us.saturating_add(wait)
    }

    fn refill(&mut self, now_us: u64) {
        let elapsed = now_us.saturating_sub(self.refilled_us);
        self.refilled_us = self.refilled_us.max(now_us);
        let gained = i128::from(elapsed) * i128::from(self.rate.bytes_per_second);
        let full = i128::from(self.rate.burst_bytes) * PARTS;
        self.credit = (self.credit + gained).min(full);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #[test]
        fn the_law_holds_and_a_wait_is_neither_too_short_nor_too_long(
            rate in 1u64..1 << 30,
            burst in 1u64..1 << 20,
            frames in proptest::collection::vec((1usize..65_536, 0u64..100_000), 1..200),
        ) {
            let mut bucket = TokenBucket::new(Rate { bytes_per_second: rate, burst_bytes: burst }, 5);
            let (mut now, mut sent): (u64, Vec<(u64, usize)>) = (5, Vec::new());
            for (bytes, pause) in frames {
                now += pause;
                if !bucket.take(bytes, now) {
                    let ready = bucket.ready_us();
                    prop_assert!(ready > now);
                    prop_assert!(!bucket.take(bytes, ready - 1));
                    now = ready;
                    prop_assert!(bucket.take(bytes, now));
                }
                sent.push((now, bytes));
            }
            for first in 0..sent.len() {
                let mut total = 0u128;
                for (at, bytes) in &sent[first..] {
                    // All but the last frame are within the allowance.
                    let allowed = u128::from(rate) * u128::from(at - sent[first].0) + u128::from(burst) * 1_000_000;
                    prop_assert!(total * 1_000_000 <= allowed);
                    total += *bytes as u128;
                }
            }
        }
    }

    #[test]
    fn after_a_rest_the_burst_and_no_more_is_there() {
        let rate = Rate {
            bytes_per_second: 1000,
            burst_bytes: 1500,
        };
        let mut bucket = TokenBucket::new(rate, 0);
        assert!(bucket.take(1500, 60_000_000));
        assert!(!bucket.take(1, 60_000_000));
        assert_eq!(bucket.ready_us(), 60_000_001);
        assert!(bucket.take(1000, 60_000_001));
        assert!(!bucket.take(1000, 60_900_000));
        assert!(bucket.take(1000, 61_001_000));
    }
}
