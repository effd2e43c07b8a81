//! Seconds since 1970 and the date and time of day they are (Gregorian, no leap seconds).

const DAY_SECONDS: i64 = 86_400;
/// 0000-01-01 and 9999-12-31 23:59:59, which is what four decimal digits of a year can say.
const FIRST: i64 = -62_167_219_200;
const LAST: i64 = 253_402_300_799;

/// Days before each month in a year that begins in March.
const MONTH_STARTS: [i64; 12] = [0, 31, 61, 92, 122, 153, 184, 214, 245, 275, 306, 337];
const DAYS_400_YEARS: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    /// 0..=9999.
    pub year: u16,
    /// 1..=12.
    pub month: u8,
    /// 1..=31.
    pub day: u8,
    /// 1..=7, Sunday first. Follows from the date.
    pub weekday: u8,
    /// 0..=23.
    pub hour: u8,
    /// 0..=59.
    pub minute: u8,
    /// 0..=59.
    pub second: u8,
}

impl DateTime {
    /// The date and time so many seconds after the beginning of 1970; clamped to the years 0 to 9999.
    pub fn from_epoch_seconds(seconds: i64) -> DateTime {
        let seconds = seconds.clamp(FIRST, LAST);
        let (days, of_day) = (
            seconds.div_euclid(DAY_SECONDS),
            seconds.rem_euclid(DAY_SECONDS),
        );
        // Years begin in March here, so that the leap day is the last of its year.
        let since = days + EPOCH_DAYS;
        let (era, of_era) = (
            since.div_euclid(DAYS_400_YEARS),
            since.rem_euclid(DAYS_400_YEARS),
        );
        // The last day of 4 and of 400 years belongs to a longer year; the last of 100 years does not exist.
        let year_of_era =
            (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (DAYS_400_YEARS - 1)) / 365;
        let of_year = of_era - days_of_years(year_of_era);
        let month = MONTH_STARTS.partition_point(|&start| start <= of_year) - 1;
        let turned = month >= 10;
        DateTime {
            year: (era * 400 + year_of_era + i64::from(turned)) as u16,
            month: (if turned { month - 9 } else { month + 3 }) as u8,
            day: (of_year - MONTH_STARTS[month] + 1) as u8,
            weekday: ((days + 4).rem_euclid(7) + 1) as u8,
            hour: (of_day / 3600) as u8,
            minute: (of_day / 60 % 60) as u8,
            second: (of_day % 60) as u8,
        }
    }

    /// Inverse of [`DateTime::from_epoch_seconds`]. Fields beyond their range count as what they are: the 31st of June is the 1st of
    /// July. The weekday does not count.
    pub fn epoch_seconds(&self) -> i64 {
        let month = (i64::from(self.month) + 9).rem_euclid(12);
        let year = i64::from(self.year) - i64::from(month >= 10);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let days = era * DAYS_400_YEARS
            + days_of_years(of_era)
            + MONTH_STARTS[month as usize]
            + i64::from(self.day)
            - 1
            - EPOCH_DAYS;
        days * DAY_SECONDS
            + i64::from(self.hour) * 3600
            + i64::from(self.minute) * 60
            + i64::from(self.second)
    }
}

/// Days of the first `years` years of an era.
fn days_of_years(years: i64) -> i64 {
    years * 365 + years / 4 - years / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days() {
        let day = |seconds| {
            let d = DateTime::from_epoch_seconds(seconds);
            (
                d.year, d.month, d.day, d.weekday, d.hour, d.minute, d.second,
            )
        };
        assert_eq!(day(0), (1970, 1, 1, 5, 0, 0, 0));
        assert_eq!(day(951_782_400), (2000, 2, 29, 3, 0, 0, 0));
        assert_eq!(day(1_763_797_762), (2025, 11, 22, 7, 7, 49, 22));
        assert_eq!(day(4_107_542_399), (2100, 2, 28, 1, 23, 59, 59));
        assert_eq!(day(4_107_542_400), (2100, 3, 1, 2, 0, 0, 0));
        assert_eq!(day(i64::MIN), (0, 1, 1, 7, 0, 0, 0));
        assert_eq!(day(i64::MAX), (9999, 12, 31, 6, 23, 59, 59));
    }

    proptest! {
        #[test]
        fn seconds_come_back(seconds in FIRST..=LAST) {
            let date = DateTime::from_epoch_seconds(seconds);
            prop_assert_eq!(date.epoch_seconds(), seconds);
            prop_assert!((1..=12).contains(&date.month) && (1..=31).contains(&date.day));
            let next = DateTime::from_epoch_seconds(seconds + DAY_SECONDS);
            prop_assert!(next.day == date.day + 1 || next.day == 1 || seconds + DAY_SECONDS > LAST);
        }
    }
}
