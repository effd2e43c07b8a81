//! Conversion between TSC ticks and microseconds.
//!
//! Laws: time never goes back (`microseconds` is monotone), and a deadline is never early:
//! `microseconds(ticks(us)) >= us`.

/// Bits after the binary point of the factor.
const FRACTION_BITS: u32 = 56;
/// Microseconds a second.
const MICROSECONDS: u64 = 1_000_000;

/// The slowest TSC there can be: below it the factor does not fit.
pub const TSC_HZ_MIN: u64 = 100_000;

/// The rate of one TSC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscRate {
    /// Microseconds a tick, with [`FRACTION_BITS`].
    factor: u64,
    tsc_hz: u64,
}

impl TscRate {
    /// The rate of a TSC with `tsc_hz` ticks a second; `None` below [`TSC_HZ_MIN`].
    pub const fn new(tsc_hz: u64) -> Option<Self> {
        if tsc_hz < TSC_HZ_MIN {
            return None;
        }
        let factor = ((MICROSECONDS as u128) << FRACTION_BITS) / tsc_hz as u128;
        Some(Self {
            factor: factor as u64,
            tsc_hz,
        })
    }

    /// Whole microseconds in `ticks`.
    #[inline]
    pub const fn microseconds(self, ticks: u64) -> u64 {
        ((ticks as u128 * self.factor as u128) >> FRACTION_BITS) as u64
    }

    /// Ticks after which at least `microseconds` have gone by; all ones when that is beyond 64 bits.
    pub const fn ticks(self, microseconds: u64) -> u64 {
        // The factor is rounded down, so ticks convert to slightly less time than they last:
        // divide by the factor itself, rounding up, and both directions agree.
        let scaled = (microseconds as u128) << FRACTION_BITS;
        let ticks = scaled.div_ceil(self.factor as u128);
        if ticks > u64::MAX as u128 {
            u64::MAX
        } else {
            ticks as u64
        }
    }

    /// Ticks a second.
    pub const fn hz(self) -> u64 {
        self.tsc_hz
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; 6] = [
        TSC_HZ_MIN,
        1_000_000,
        5_000_000,
        1_000_000_000,
        2_599_999_437,
        6_000_000_000,
    ];

    #[test]
    fn deadlines_are_never_early_and_at_most_a_microsecond_late() {
        for hz in RATES {
            let rate = TscRate::new(hz).unwrap();
            for us in [0, 1, 2, 9, 999, 1_000_000, 86_400_000_000, 1 << 50] {
                let back = rate.microseconds(rate.ticks(us));
                assert!(back >= us, "{hz} {us}");
                let tick_us = MICROSECONDS.div_ceil(hz);
                assert!(back <= us + tick_us, "{hz} {us} {back}");
            }
        }
    }

    #[test]
    fn a_year_drifts_by_less_than_a_millisecond() {
        for hz in RATES {
            let rate = TscRate::new(hz).unwrap();
            let seconds = 365 * 86_400;
            let got = rate.microseconds(hz * seconds);
            assert!(seconds * MICROSECONDS - got < 1000, "{hz}");
        }
    }

    #[test]
    fn impossible_rates_are_refused() {
        assert_eq!(TscRate::new(0), None);
        assert_eq!(TscRate::new(TSC_HZ_MIN - 1), None);
        assert_eq!(TscRate::new(1_000_000).unwrap().ticks(u64::MAX), u64::MAX);
    }
}
