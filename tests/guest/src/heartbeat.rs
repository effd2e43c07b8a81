//! A line every so often with the longest gaps that the guest's own clocks showed.
//!
//! `period=100` ms, `seconds=0` until the end (0: never). A pause of the guest shows in BOOTTIME or,
//! where all its clocks stand still, only to who watches the console.

use crate::arguments::Arguments;
use crate::clock::{boottime, monotonic, ticks};
use std::time::Duration;

/// Between two looks at the clocks.
const STEP: Duration = Duration::from_millis(5);

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let period = Duration::from_millis(arguments.number("period", 100)?);
    let seconds = Duration::from_secs(arguments.number("seconds", 0)?);
    let start = monotonic();
    let mut number = 0u64;
    while seconds.is_zero() || monotonic() - start < seconds {
        let (mut monotonic_gap, mut boottime_gap, mut ticks_gap) =
            (Duration::ZERO, Duration::ZERO, 0);
        let end = monotonic() + period;
        let mut last = (monotonic(), boottime(), ticks());
        while last.0 < end {
            std::thread::sleep(STEP);
            let now = (monotonic(), boottime(), ticks());
            monotonic_gap = monotonic_gap.max(now.0 - last.0);
            boottime_gap = boottime_gap.max(now.1 - last.1);
            ticks_gap = ticks_gap.max(now.2 - last.2);
            last = now;
        }
        println!(
            "HEARTBEAT {number} monotonic_us={} boottime_us={} ticks={ticks_gap}",
            monotonic_gap.as_micros(),
            boottime_gap.as_micros()
        );
        number += 1;
    }
    Ok(())
}
