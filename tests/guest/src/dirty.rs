//! A load on memory that checks itself: pages carry their number and how often they were written.
//!
//! `mib=64` working set, `rate=1000` pages a second (0: none), `words=8` written in each page,
//! `heartbeat=20` ms between `H n` lines (0: none), `seconds=0` until the end (0: never). A page is
//! checked before it is written again, and a slow sweep reads the rest, so that a page that was
//! lost, torn or old is found. `D t=...` once a second; `D END` only when every page was right.

use crate::arguments::Arguments;
use crate::clock::{monotonic, ticks};
use crate::pattern;
use std::io::Write;
use std::time::Duration;

const PAGE_WORDS: usize = 512;
/// Pages between two looks at the clock.
const BATCH: u64 = 64;
/// Pages a second that the sweep reads.
const SWEEP_RATE: f64 = 512.0;
/// What is due is counted over this much time at most: after a pause the load does not catch up.
const CATCH_UP: Duration = Duration::from_millis(50);
const SECOND: Duration = Duration::from_secs(1);
/// Bad pages that are reported one by one.
const REPORTS_MAX: u64 = 20;
const SEED: u64 = 0xd1;

/// The working set.
struct Pages {
    words: Vec<u64>,
    /// How often each page has been written.
    rounds: Vec<u64>,
    /// Words written in each page, evenly spread.
    used: usize,
    bad: u64,
}

impl Pages {
    fn new(count: usize, used: usize) -> Pages {
        let mut pages = Pages {
            words: vec![0; count * PAGE_WORDS],
            rounds: vec![0; count],
            used,
            bad: 0,
        };
        (0..count).for_each(|page| pages.fill(page));
        pages
    }

    fn place(&self, page: usize, slot: usize) -> usize {
        page * PAGE_WORDS + slot * (PAGE_WORDS / self.used)
    }

    fn fill(&mut self, page: usize) {
        for slot in 0..self.used {
            let place = self.place(page, slot);
            self.words[place] = pattern::word(SEED, place as u64, self.rounds[page]);
        }
    }

    fn check(&mut self, page: usize) {
        for slot in 0..self.used {
            let place = self.place(page, slot);
            let (is, round) = (self.words[place], self.rounds[page]);
            let should = pattern::word(SEED, place as u64, round);
            if is != should {
                self.bad += 1;
                if self.bad <= REPORTS_MAX {
                    println!(
                        "D BAD page={page} round={round} slot={slot} is={is:016x} should={should:016x}"
                    );
                }
                return;
            }
        }
    }

    fn write(&mut self, page: usize) {
        self.check(page);
        self.rounds[page] += 1;
        self.fill(page);
    }
}

/// A scattered order that visits every page: a stride without a common divisor.
fn stride(count: usize) -> usize {
    let mut stride = 7919;
    while divisor(stride, count) != 1 {
        stride += 2;
    }
    stride
}

fn divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { divisor(b, a % b) }
}

/// Since the last report.
#[derive(Default)]
struct Second {
    written: u64,
    longest: Duration,
    longest_ticks: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let count = arguments.number("mib", 64usize)?.max(1) * 256;
    let rate: f64 = arguments.number("rate", 1000.0)?;
    let used = arguments.number("words", 8usize)?.clamp(1, PAGE_WORDS);
    let beat = Duration::from_millis(arguments.number("heartbeat", 20)?);
    let seconds = Duration::from_secs(arguments.number("seconds", 0)?);
    let mut pages = Pages::new(count, used);
    println!("D START pages={count} rate={rate} words={used}");
    let (stride, start) = (stride(count), monotonic());
    let (mut page, mut swept, mut beats, mut total) = (0, 0, 0u64, 0u64);
    let (mut due, mut sweep_due) = (0.0, 0.0);
    let (mut last, mut last_ticks) = (start, ticks());
    let (mut next_report, mut next_beat) = (start + SECOND, start);
    let mut second = Second::default();
    loop {
        let (now, now_ticks) = (monotonic(), ticks());
        let gap = now - last;
        second.longest = second.longest.max(gap);
        second.longest_ticks = second.longest_ticks.max(now_ticks - last_ticks);
        (last, last_ticks) = (now, now_ticks);
        let counted = gap.min(CATCH_UP).as_secs_f64();
        due = (due + counted * rate).min(rate.max(1.0));
        sweep_due = (sweep_due + counted * SWEEP_RATE).min(SWEEP_RATE);
        let todo = (due as u64).min(BATCH);
        for _ in 0..todo {
            pages.write(page);
            page = (page + stride) % count;
        }
        due -= todo as f64;
        second.written += todo;
        for _ in 0..(sweep_due as u64).min(BATCH) {
            pages.check(swept);
            swept = (swept + 1) % count;
            sweep_due -= 1.0;
        }
        if !beat.is_zero() && now >= next_beat {
            println!("H {beats}");
            beats += 1;
            next_beat = now + beat;
        }
        if now >= next_report {
            total += second.written;
            report(now - start, total, &second, pages.bad);
            second = Second::default();
            next_report = now + SECOND;
        }
        if !seconds.is_zero() && now - start >= seconds {
            break;
        }
        if due < 1.0 && sweep_due < 1.0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (0..count).for_each(|page| pages.check(page));
    match pages.bad {
        0 => {
            println!("D END total={} bad=0", total + second.written);
            Ok(())
        }
        bad => Err(format!("{bad} bad pages")),
    }
}

fn report(time: Duration, total: u64, second: &Second, bad: u64) {
    println!(
        "D t={:.1} total={total} written={} longest_us={} longest_ticks={} bad={bad}",
        time.as_secs_f64(),
        second.written,
        second.longest.as_micros(),
        second.longest_ticks,
    );
    // A console that is gone must not end the load.
    let _ = std::io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_visited_and_a_changed_word_is_found() {
        for count in [256, 7919, 16384] {
            let stride = stride(count);
            let mut seen = vec![false; count];
            (0..count).for_each(|step| seen[step * stride % count] = true);
            assert!(seen.iter().all(|&seen| seen), "{count}");
        }
        let mut pages = Pages::new(256, 8);
        pages.write(3);
        let place = pages.place(3, 7);
        pages.words[place] ^= 1;
        pages.check(3);
        assert_eq!(pages.bad, 1);
    }
}
