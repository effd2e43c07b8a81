//! Ticks and nanoseconds, both ways: a switch between vCPUs needs each several times, so nothing is divided.

/// How many ticks a nanosecond has. At most 15.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeScale {
    /// Nanoseconds a tick, times 2^32, rounded down: what defines the scale.
    multiplier: u64,
    /// Ticks a nanosecond by `multiplier`, times 2^[`RECIPROCAL_SHIFT`], rounded down.
    reciprocal: u64,
}

const RECIPROCAL_SHIFT: u32 = 60;

impl TimeScale {
    /// For a clock of so many ticks a second; `None` unless it has 1 MHz to 15 GHz.
    pub fn new(hz: u64) -> Option<TimeScale> {
        if !(1_000_000..15_000_000_000).contains(&hz) {
            return None;
        }
        let multiplier = (1_000_000_000u128 << 32) / u128::from(hz);
        let reciprocal = (1u128 << (32 + RECIPROCAL_SHIFT)) / multiplier;
        Some(TimeScale {
            multiplier: u64::try_from(multiplier).ok()?,
            reciprocal: u64::try_from(reciprocal).ok()?,
        })
    }

    /// The two words of the scale, to be kept in atomics, and back by [`TimeScale::from_words`].
    pub fn words(self) -> [u64; 2] {
        [self.multiplier, self.reciprocal]
    }

    /// See [`TimeScale::words`].
    pub fn from_words([multiplier, reciprocal]: [u64; 2]) -> TimeScale {
        TimeScale {
            multiplier,
            reciprocal,
        }
    }

    /// Ticks as nanoseconds, rounded down.
    #[inline]
    pub fn nanoseconds(self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.multiplier)) >> 32) as u64
    }

    /// Nanoseconds as ticks: the fewest that [`TimeScale::nanoseconds`] makes at least `ns`, by the same factor. A timer set
    /// for a time would otherwise come before that time by the factor's error, which grows with the uptime, and would be
    /// set again and again until then. All ones from 2^60 ns on (36 years), or when it does not fit.
    #[inline]
    pub fn ticks(self, ns: u64) -> u64 {
        if ns >> RECIPROCAL_SHIFT != 0 {
            return u64::MAX;
        }
        // The reciprocal is less than one too small, so the product is less than ns / 2^60 too small, and its
        // whole part is the quotient's or one less.
        let mut ticks = (u128::from(ns) * u128::from(self.reciprocal)) >> RECIPROCAL_SHIFT;
        let (wanted, multiplier) = (u128::from(ns) << 32, u128::from(self.multiplier));
        // Rounded up: one more.
        for _ in 0..2 {
            ticks += u128::from(ticks * multiplier < wanted);
        }
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ticks_are_the_fewest_that_reach(
            hz in prop_oneof![1_000_000u64..15_000_000_000, Just(1_000_000_000)],
            ns in prop_oneof![0u64..10_000, any::<u64>(), 0u64..1 << 50],
        ) {
            let scale = TimeScale::new(hz).unwrap();
            let multiplier = u128::from(scale.words()[0]);
            let exact = (u128::from(ns) << 32).div_ceil(multiplier);
            let expected = match ns < 1 << 60 {
                true => u64::try_from(exact).unwrap_or(u64::MAX),
                false => u64::MAX,
            };
            prop_assert_eq!(scale.ticks(ns), expected);
            if expected != u64::MAX {
                prop_assert!(scale.nanoseconds(expected) >= ns);
                prop_assert!(expected == 0 || scale.nanoseconds(expected - 1) < ns);
            }
            prop_assert_eq!(TimeScale::from_words(scale.words()), scale);
        }
    }

    #[test]
    fn impossible_clocks_are_refused() {
        assert_eq!(TimeScale::new(999_999), None);
        assert_eq!(TimeScale::new(15_000_000_000), None);
        assert_eq!(
            TimeScale::new(1_000_000_000).map(|scale| scale.ticks(5)),
            Some(5)
        );
    }
}
