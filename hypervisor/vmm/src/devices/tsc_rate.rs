//! Rate of a guest's TSC, and exact conversion between its ticks and those of slower or faster clocks.
//!
//! Conversions start from one fixed instant and use 128-bit products, so they neither drift nor overflow: a clock of `f` Hz has
//! made `floor(elapsed * f / rate)` ticks, whatever the intervals at which somebody looked.

/// Ticks per second of a guest's TSC. Never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscRate {
    hz: u64,
}

impl TscRate {
    /// Slowest and fastest rates accepted: what no x86-64 CPU leaves, and what keeps products within 128 bits by far.
    pub const HZ_MIN: u64 = 1_000_000;
    /// See [`TscRate::HZ_MIN`].
    pub const HZ_MAX: u64 = 1_000_000_000_000;

    /// A rate in Hz; `None` outside [`TscRate::HZ_MIN`]`..=`[`TscRate::HZ_MAX`].
    pub const fn from_hz(hz: u64) -> Option<TscRate> {
        if hz >= Self::HZ_MIN && hz <= Self::HZ_MAX {
            Some(TscRate { hz })
        } else {
            None
        }
    }

    /// A rate in kHz, as CPUID and calibration give it.
    pub const fn from_khz(khz: u64) -> Option<TscRate> {
        match khz.checked_mul(1000) {
            Some(hz) => Self::from_hz(hz),
            None => None,
        }
    }

    /// Ticks per second.
    pub const fn hz(self) -> u64 {
        self.hz
    }

    /// Whole ticks that a clock of `clock_hz` makes in `elapsed_tsc`; saturates.
    pub fn clock_ticks(self, elapsed_tsc: u64, clock_hz: u64) -> u64 {
        let ticks = u128::from(elapsed_tsc) * u128::from(clock_hz) / u128::from(self.hz);
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    /// Least elapsed TSC after which a clock of `clock_hz` has made `ticks` ticks; saturates.
    /// Inverse of [`TscRate::clock_ticks`]: `clock_ticks(tsc_until(n)) >= n` and one TSC tick earlier it is less.
    pub fn tsc_until(self, ticks: u128, clock_hz: u64) -> u64 {
        let Some(product) = ticks.checked_mul(u128::from(self.hz)) else {
            return u64::MAX;
        };
        u64::try_from(product.div_ceil(u128::from(clock_hz))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::TscRate;
    use proptest::prelude::*;

    proptest! {
        /// The deadline of a tick is the first instant at which that tick has been made.
        #[test]
        fn deadline_is_the_first_instant(hz in TscRate::HZ_MIN..10_000_000_000u64, clock in 1_000u64..2_000_000_000, n in 1u64..1 << 40) {
            let rate = TscRate::from_hz(hz).unwrap();
            let tsc = rate.tsc_until(u128::from(n), clock);
            prop_assume!(tsc != u64::MAX);
            prop_assert!(rate.clock_ticks(tsc, clock) >= n);
            prop_assert!(rate.clock_ticks(tsc - 1, clock) < n);
        }
    }

    #[test]
    fn extremes_saturate() {
        let slow = TscRate::from_hz(TscRate::HZ_MIN).unwrap();
        assert_eq!(slow.clock_ticks(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(slow.tsc_until(u128::MAX, 1), u64::MAX);
        assert_eq!(TscRate::from_hz(0), None);
        assert_eq!(TscRate::from_khz(u64::MAX), None);
        assert_eq!(TscRate::from_khz(2_000_000).unwrap().hz(), 2_000_000_000);
    }
}
