//! `xl dirty-log`: the dirty log under examination. A digest of every page is kept beside it and renewed where the log says that
//! a page was written to. At the end, with the guest standing still, a page that differs from its digest was missed.
//!
//! A page that was reported and reads as before is no fault in itself: the guest may have written what was there, the processor
//! counts its walks of guests' page tables as writes, a write that was noted may have come about only after the harvest, and one
//! that came between the last harvest and the reading of the page was read then. Pausing the domain leaves the last one out.

use super::DirtyLog;
use crate::host::{COPY_BYTES_MAX, Hypervisor};
use crate::site::DeviceHost;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::ops::Range;
use godwit_abi::{PAGE_SIZE_BYTES, Status};

/// Pages read in one step.
const STEP_PAGES: u64 = 256;
const PAGE_BYTES: usize = PAGE_SIZE_BYTES as usize;
/// The digest of a page that the guest does not have.
const ABSENT: u64 = u64::MAX;

const _: () = assert!(STEP_PAGES * PAGE_SIZE_BYTES <= COPY_BYTES_MAX as u64);

/// A dirty log and what is known of the guest's memory.
#[derive(Debug)]
pub struct DirtyCheck {
    log: DirtyLog,
    /// Of the pages of the log's ranges, one range after the other.
    digests: Vec<u64>,
    /// How many of them have been read, or compared.
    done: usize,
    missed: Vec<u64>,
}

/// What one harvest has brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Pages reported.
    pub reported: Vec<u64>,
    /// Those of them that read as before.
    pub as_before: Vec<u64>,
    /// Ticks of the caller's clock that the harvest alone has taken.
    pub ticks: u64,
}

/// Not against anybody: chance changes it.
fn digest(page: &[u8]) -> u64 {
    let words = page.chunks_exact(8).map(|word| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        u64::from_le_bytes(bytes)
    });
    words.fold(PAGE_SIZE_BYTES, |digest, word| {
        (digest.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

impl DirtyCheck {
    /// Over a log that is armed. Nothing has been read yet.
    pub fn new(log: DirtyLog) -> Self {
        let pages: u64 = log.ranges.iter().map(|range| range.end - range.start).sum();
        Self {
            log,
            digests: alloc::vec![ABSENT; pages as usize],
            done: 0,
            missed: Vec::new(),
        }
    }

    /// Pages looked after.
    pub fn pages(&self) -> u64 {
        self.digests.len() as u64
    }

    /// The log.
    pub fn log(&self) -> &DirtyLog {
        &self.log
    }

    fn index_of(&self, page: u64) -> Option<usize> {
        let mut before = 0;
        for range in &self.log.ranges {
            if range.contains(&page) {
                return Some((before + page - range.start) as usize);
            }
            before += range.end - range.start;
        }
        None
    }

    /// The next pages to be read in a row.
    fn next(&self) -> Option<Range<u64>> {
        let mut before = 0;
        for range in &self.log.ranges {
            let pages = range.end - range.start;
            let done = self.done as u64;
            if done < before + pages {
                let first = range.start + done - before;
                return Some(first..range.end.min(first + STEP_PAGES));
            }
            before += pages;
        }
        None
    }

    /// The digests of pages in a row.
    fn read(&self, hypervisor: &impl Hypervisor, pages: Range<u64>) -> Result<Vec<u64>, Status> {
        let mut bytes = alloc::vec![0; (pages.end - pages.start) as usize * PAGE_BYTES];
        let domain = self.log.domain;
        match hypervisor.memory_read(domain, pages.start * PAGE_SIZE_BYTES, &mut bytes) {
            Ok(()) => return Ok(bytes.chunks_exact(PAGE_BYTES).map(digest).collect()),
            Err(Status::BadAddress) => {}
            Err(status) => return Err(status),
        }
        // A balloon has taken some.
        let one = &mut bytes[..PAGE_BYTES];
        pages
            .map(
                |page| match hypervisor.memory_read(domain, page * PAGE_SIZE_BYTES, one) {
                    Ok(()) => Ok(digest(one)),
                    Err(Status::BadAddress) => Ok(ABSENT),
                    Err(status) => Err(status),
                },
            )
            .collect()
    }

    /// Reads some pages for the first time. Whether all have been read.
    pub fn read_step(&mut self, hypervisor: &impl Hypervisor) -> Result<bool, Status> {
        let Some(pages) = self.next() else {
            self.done = 0;
            return Ok(true);
        };
        let digests = self.read(hypervisor, pages)?;
        let end = self.done + digests.len();
        self.digests[self.done..end].copy_from_slice(&digests);
        self.done = end;
        Ok(false)
    }

    /// Harvests, as `harvest` does it, and reads what was reported.
    pub fn round(
        &mut self,
        hypervisor: &impl Hypervisor,
        devices: &impl DeviceHost,
        clock: impl Fn() -> u64,
    ) -> Result<Round, Status> {
        let mut round = Round::default();
        let begin = clock();
        self.log.harvest(hypervisor, devices, |first, words| {
            for (index, word) in words.iter().enumerate() {
                let mut left = *word;
                while left != 0 {
                    let page = first + index as u64 * 64 + u64::from(left.trailing_zeros());
                    round.reported.push(page);
                    left &= left - 1;
                }
            }
        })?;
        round.ticks = clock() - begin;
        for &page in &round.reported {
            let Some(index) = self.index_of(page) else {
                return Err(Status::BadRecord);
            };
            let now = self.read(hypervisor, page..page + 1)?[0];
            if core::mem::replace(&mut self.digests[index], now) == now {
                round.as_before.push(page);
            }
        }
        Ok(round)
    }

    /// Compares some pages of a guest that stands still and has been harvested since. Whether all have been compared.
    pub fn compare_step(&mut self, hypervisor: &impl Hypervisor) -> Result<bool, Status> {
        let Some(pages) = self.next() else {
            self.done = 0;
            return Ok(true);
        };
        let digests = self.read(hypervisor, pages.clone())?;
        let known = &self.digests[self.done..];
        let differs = pages.zip(digests.iter().zip(known));
        let differs = differs.filter(|(_, (now, known))| now != known);
        self.missed.extend(differs.map(|(page, _)| page));
        self.done += digests.len();
        Ok(false)
    }

    /// Pages that were written to and never reported.
    pub fn missed(&self) -> &[u64] {
        &self.missed
    }
}

/// Pages in ascending order as `3-5,9`.
pub fn ranges(pages: &[u64]) -> String {
    let mut text = String::new();
    let mut pages = pages.iter().copied().peekable();
    while let Some(first) = pages.next() {
        let mut last = first;
        while let Some(next) = pages.next_if(|page| *page == last + 1) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        let written = match first == last {
            true => write!(text, "{comma}{first}"),
            false => write!(text, "{comma}{first}-{last}"),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
    text
}

impl Round {
    /// What the command prints of round `number`, so long after the one before. `all`: every page.
    pub fn text(&self, number: u32, elapsed_ms: u64, all: bool) -> String {
        let mut text = format!(
            "round {number}: {} pages, {} as before, after {elapsed_ms} ms, harvested in {} ticks\n",
            self.reported.len(),
            self.as_before.len(),
            self.ticks,
        );
        if all {
            text += &format!("  reported: {}\n", ranges(&self.reported));
            text += &format!("  as before: {}\n", ranges(&self.as_before));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;
    use crate::site::fake::FakeDevices;

    #[test]
    fn what_was_missed_and_what_did_not_change_is_found() {
        let host = FakeHypervisor::new();
        let domain = host.add_domain("n", 4);
        host.with(domain, |domain| domain.info.memory_pages = 0)
            .unwrap();
        let mut populated = 0;
        while populated < 1024 {
            populated += host
                .memory_populate(domain, populated, 1024 - populated)
                .unwrap();
        }
        let devices = FakeDevices::default();
        let log = DirtyLog::new(&host, domain).unwrap();
        while !log.begin_step(&host, &devices).unwrap() {}
        let mut check = DirtyCheck::new(log);
        while !check.read_step(&host).unwrap() {}
        let write = |page: u64, byte: u8| {
            host.memory_write(domain, page * 4096 + 9, &[byte]).unwrap();
        };
        [3, 4, 1023].into_iter().for_each(|page| write(page, 7));
        write(500, 0);
        let round = check.round(&host, &devices, || 0).unwrap();
        assert_eq!(round.reported, [3, 4, 500, 1023]);
        assert_eq!(round.as_before, [500]);
        assert_eq!(
            round.text(2, 17, true),
            "round 2: 4 pages, 1 as before, after 17 ms, harvested in 0 ticks\n  \
             reported: 3-4,500,1023\n  as before: 500\n"
        );
        // A harvest that nobody looks at: two pages are lost.
        [4, 600].into_iter().for_each(|page| write(page, 8));
        assert_eq!(check.log().count(&host, &devices), Ok(2));
        write(5, 1);
        check.round(&host, &devices, || 0).unwrap();
        while !check.compare_step(&host).unwrap() {}
        assert_eq!(check.missed(), [4, 600]);
    }
}
