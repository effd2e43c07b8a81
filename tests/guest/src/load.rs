//! The loads of `./x bench migrate`: memory written in a known way, while every turn of a loop looks
//! at the clocks, so that the longest pause of the guest is seen from inside.
//!
//! `kind=` idle (nothing), light (100 pages a second of 4 MiB), moderate (500 pages a second of 64 MiB),
//! heavy (128 MiB, without end),
//! delta (one byte in each of 25,000 pages, without end), random (whole pages of chance in 64 MiB,
//! without end). `LOAD t=...` once a second, with the longest gaps since the line before; a clock that
//! went back or a page that is wrong ends it with `load BAD`.

use crate::arguments::Arguments;
use crate::clock::{boottime, monotonic, ticks};
use crate::pattern;
use std::io::Write;
use std::time::Duration;

const PAGE_WORDS: usize = 512;
const SECOND: Duration = Duration::from_secs(1);
/// What is due is counted over this much time at most: after a pause the load does not catch up.
const CATCH_UP: Duration = Duration::from_millis(50);
/// How long it sleeps when nothing is due.
const NAP: Duration = Duration::from_millis(1);
const SEED: u64 = 0x10ad;

/// A load.
struct Kind {
    name: &'static str,
    /// Pages it writes to.
    pages: usize,
    /// Pages a second; `None`: as many as it can.
    rate: Option<f64>,
    /// Pages between two looks at the clocks.
    batch: usize,
    write: Fill,
}

/// What is written into a page.
#[derive(Clone, Copy)]
enum Fill {
    /// Its first byte.
    Byte,
    /// Words, evenly spread.
    Words(usize),
    /// All of it, with noise.
    Noise,
}

const KINDS: &[Kind] = &[
    kind("idle", 1, Some(0.0), 1, Fill::Words(8)),
    kind("light", 1_024, Some(100.0), 16, Fill::Words(8)),
    kind("moderate", 16_384, Some(500.0), 64, Fill::Words(8)),
    kind("heavy", 32_768, None, 16, Fill::Words(8)),
    kind("delta", 25_000, None, 64, Fill::Byte),
    kind("random", 16_384, None, 4, Fill::Noise),
];

const fn kind(
    name: &'static str,
    pages: usize,
    rate: Option<f64>,
    batch: usize,
    write: Fill,
) -> Kind {
    Kind {
        name,
        pages,
        rate,
        batch,
        write,
    }
}

/// The pages, and how often each was written.
struct Pages {
    words: Vec<u64>,
    rounds: Vec<u64>,
    write: Fill,
}

impl Pages {
    fn new(count: usize, write: Fill) -> Pages {
        let mut pages = Pages {
            words: vec![0; count * PAGE_WORDS],
            rounds: vec![0; count],
            write,
        };
        (0..count).for_each(|page| pages.fill(page));
        pages
    }

    /// What its first word is after so many rounds.
    fn first(&self, page: usize) -> u64 {
        match self.write {
            Fill::Byte => self.rounds[page] & 0xff,
            Fill::Words(_) | Fill::Noise => pattern::word(SEED, page as u64, self.rounds[page]) | 1,
        }
    }

    fn fill(&mut self, page: usize) {
        let mut word = self.first(page);
        let step = match self.write {
            Fill::Byte => PAGE_WORDS,
            Fill::Words(count) => PAGE_WORDS / count,
            Fill::Noise => 1,
        };
        let words = &mut self.words[page * PAGE_WORDS..][..PAGE_WORDS];
        for slot in words.iter_mut().step_by(step) {
            *slot = word;
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
        }
    }

    /// Checks it, then writes it again.
    fn write(&mut self, page: usize) -> Result<(), String> {
        let (is, should) = (self.words[page * PAGE_WORDS], self.first(page));
        if is != should {
            return Err(format!("page {page} holds {is:016x}, not {should:016x}"));
        }
        self.rounds[page] += 1;
        self.fill(page);
        Ok(())
    }
}

/// Three clocks at one moment.
#[derive(Clone, Copy)]
struct Clocks {
    monotonic: Duration,
    boottime: Duration,
    ticks: u64,
}

impl Clocks {
    fn now() -> Clocks {
        Clocks {
            monotonic: monotonic(),
            boottime: boottime(),
            ticks: ticks(),
        }
    }
}

/// The longest gaps since the last report.
#[derive(Default)]
struct Gaps {
    monotonic: Duration,
    boottime: Duration,
    ticks: u64,
}

impl Gaps {
    fn note(&mut self, last: Clocks, now: Clocks) -> Result<(), String> {
        if now.monotonic < last.monotonic || now.boottime < last.boottime || now.ticks < last.ticks
        {
            return Err(format!(
                "a clock went back: {:?} {:?} {} to {:?} {:?} {}",
                last.monotonic, last.boottime, last.ticks, now.monotonic, now.boottime, now.ticks
            ));
        }
        self.monotonic = self.monotonic.max(now.monotonic - last.monotonic);
        self.boottime = self.boottime.max(now.boottime - last.boottime);
        self.ticks = self.ticks.max(now.ticks - last.ticks);
        Ok(())
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let name = arguments.text("kind").unwrap_or("idle");
    let kind = KINDS.iter().find(|kind| kind.name == name);
    let kind = kind.ok_or_else(|| format!("no load is called {name:?}"))?;
    let mut pages = Pages::new(kind.pages, kind.write);
    println!("LOAD START kind={name} pages={}", kind.pages);
    let start = Clocks::now();
    let (mut page, mut total, mut due) = (0, 0u64, 0.0);
    let mut last = start;
    let mut next_report = start.monotonic + SECOND;
    let mut gaps = Gaps::default();
    loop {
        let now = Clocks::now();
        gaps.note(last, now)?;
        let passed = (now.monotonic - last.monotonic).min(CATCH_UP);
        last = now;
        let todo = match kind.rate {
            Some(rate) => {
                due += passed.as_secs_f64() * rate;
                (due as usize).min(kind.batch)
            }
            None => kind.batch,
        };
        for _ in 0..todo {
            pages.write(page)?;
            page = (page + 1) % kind.pages;
        }
        due -= if kind.rate.is_some() {
            todo as f64
        } else {
            0.0
        };
        total += todo as u64;
        if now.monotonic >= next_report {
            println!(
                "LOAD t={:.1} total={total} gap_us={} boot_gap_us={} gap_ticks={} .",
                (now.monotonic - start.monotonic).as_secs_f64(),
                gaps.monotonic.as_micros(),
                gaps.boottime.as_micros(),
                gaps.ticks,
            );
            // A console that is gone must not end the load.
            let _ = std::io::stdout().flush();
            gaps = Gaps::default();
            // What printing takes is no pause.
            last = Clocks::now();
            next_report = now.monotonic + SECOND;
        }
        if todo == 0 {
            std::thread::sleep(NAP);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_is_old_or_changed_is_found() {
        for write in [Fill::Byte, Fill::Words(8), Fill::Noise] {
            let mut pages = Pages::new(3, write);
            for _ in 0..300 {
                pages.write(1).unwrap();
            }
            let (words, rounds) = (pages.words.clone(), pages.rounds[1]);
            pages.write(1).unwrap();
            assert_ne!(pages.words, words);
            assert_eq!(pages.rounds[1], rounds + 1);
            pages.words = words;
            assert!(pages.write(1).is_err());
        }
    }

    #[test]
    fn the_longest_gap_counts_and_going_back_is_told() {
        let at = |ms| Clocks {
            monotonic: Duration::from_millis(ms),
            boottime: Duration::from_millis(2 * ms),
            ticks: ms,
        };
        let mut gaps = Gaps::default();
        for (last, now) in [(1, 2), (2, 9), (9, 10)] {
            gaps.note(at(last), at(now)).unwrap();
        }
        assert_eq!(gaps.monotonic, Duration::from_millis(7));
        assert_eq!(gaps.boottime, Duration::from_millis(14));
        assert_eq!(gaps.ticks, 7);
        assert!(gaps.note(at(10), at(9)).is_err());
    }
}
