//! The dirty log of a domain as the toolstack uses it: armed step by step, read whole, and ended again. `xl dirty-rate` counts with
//! it, `xl dirty-log` examines it ([`check`]).
//!
//! A rate is the number of different pages written to in each second: a page written to a thousand times in a second counts
//! once, one that is written to in each of two seconds twice. That is what a copy round of a second would have to send.

pub mod check;

use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::site::DeviceHost;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES, Status};

/// Pages asked for at once: 8 KiB of bitmap.
const PIECE_PAGES: u64 = 1 << 16;
/// Steps of arming or disarming made between two looks at anything else: each is bounded by the hypervisor.
const STEPS: usize = 4;

/// A domain whose writes are being noted. Whoever made it ends it ([`DirtyLog::end_step`]).
#[derive(Debug)]
pub struct DirtyLog {
    domain: DomainId,
    /// Guest pages.
    ranges: Vec<Range<u64>>,
}

/// What `xl dirty-rate` has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirtyRate {
    /// Pages in each second that was looked at, and its length in nanoseconds.
    seconds: Vec<(u64, u64)>,
}

impl DirtyLog {
    /// The log of a domain: nothing has been asked of the hypervisor yet.
    pub fn new(hypervisor: &impl Hypervisor, domain: DomainId) -> Result<Self, Status> {
        let pages = hypervisor.domain_info(domain)?.memory_pages_max;
        let pages_of =
            |range: Range<u64>| range.start / PAGE_SIZE_BYTES..range.end / PAGE_SIZE_BYTES;
        Ok(Self {
            domain,
            ranges: memory_of(pages.saturating_mul(PAGE_SIZE_BYTES))
                .into_iter()
                .map(pages_of)
                .collect(),
        })
    }

    /// The domain.
    pub fn domain(&self) -> DomainId {
        self.domain
    }

    /// Some steps of arming. Whether all is armed.
    pub fn begin_step(
        &self,
        hypervisor: &impl Hypervisor,
        devices: &impl DeviceHost,
    ) -> Result<bool, Status> {
        devices.dirty_track(self.domain, true);
        steps(|| hypervisor.dirty_arm(self.domain))
    }

    /// Some steps of ending. Whether all is as before.
    pub fn end_step(
        &self,
        hypervisor: &impl Hypervisor,
        devices: &impl DeviceHost,
    ) -> Result<bool, Status> {
        devices.dirty_track(self.domain, false);
        steps(|| hypervisor.dirty_disarm(self.domain))
    }

    /// Takes what was written to since the last time, by the guest or by its devices in dom0: calls `found` with a first page and
    /// a bit for each page from there on. After an error the log is of no use any more, and is to be ended.
    pub fn harvest(
        &self,
        hypervisor: &impl Hypervisor,
        devices: &impl DeviceHost,
        mut found: impl FnMut(u64, &[u64]),
    ) -> Result<(), Status> {
        let written = devices.dirty_take(self.domain);
        let mut words = alloc::vec![0u64; (PIECE_PAGES / 64) as usize];
        for range in &self.ranges {
            let mut page = range.start;
            while page < range.end {
                let pages = (range.end - page).min(PIECE_PAGES);
                let words = &mut words[..pages.div_ceil(64) as usize];
                let done = hypervisor.dirty_harvest(self.domain, page, pages, words)?;
                if done == 0 || (done < pages && done % 64 != 0) {
                    return Err(Status::BadState);
                }
                let words = &mut words[..done.div_ceil(64) as usize];
                // Ranges begin at multiples of 64 pages, so words agree.
                let by_devices = written.iter().skip((page / 64) as usize);
                for (word, by_devices) in words.iter_mut().zip(by_devices) {
                    *word |= by_devices;
                }
                found(page, words);
                page += done;
            }
        }
        Ok(())
    }

    /// How many pages were written to since the last time.
    pub fn count(
        &self,
        hypervisor: &impl Hypervisor,
        devices: &impl DeviceHost,
    ) -> Result<u64, Status> {
        let mut pages = 0;
        self.harvest(hypervisor, devices, |_, words| {
            pages += words
                .iter()
                .map(|word| u64::from(word.count_ones()))
                .sum::<u64>();
        })?;
        Ok(pages)
    }
}

fn steps(mut step: impl FnMut() -> Result<u64, Status>) -> Result<bool, Status> {
    for _ in 0..STEPS {
        if step()? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DirtyRate {
    /// Notes that so many pages were found after so many nanoseconds.
    pub fn add(&mut self, pages: u64, elapsed_ns: u64) {
        self.seconds.push((pages, elapsed_ns));
    }

    /// Pages a second.
    pub fn pages_per_s(&self) -> u64 {
        let pages: u64 = self.seconds.iter().map(|(pages, _)| pages).sum();
        let elapsed_ns: u64 = self.seconds.iter().map(|(_, elapsed)| elapsed).sum();
        let rate = u128::from(pages) * 1_000_000_000 / u128::from(elapsed_ns.max(1));
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    /// What the command prints.
    pub fn text(&self) -> String {
        let rate = self.pages_per_s();
        let tenths = (u128::from(rate) * u128::from(PAGE_SIZE_BYTES) * 10) >> 20;
        let samples = self.seconds.len();
        let most = self.seconds.iter().map(|(pages, _)| pages).max();
        format!(
            "dirty rate: {rate} pages/s, {}.{} MiB/s ({samples} samples, at most {} pages in one)\n",
            tenths / 10,
            tenths % 10,
            most.copied().unwrap_or(0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;
    use crate::site::fake::FakeDevices;

    fn pages(log: &DirtyLog, host: &FakeHypervisor, devices: &FakeDevices) -> Vec<u64> {
        let mut found = Vec::new();
        log.harvest(host, devices, |first, words| {
            let set = |page: &u64| words[(*page / 64) as usize] >> (*page % 64) & 1 == 1;
            found.extend(
                (0..words.len() as u64 * 64)
                    .filter(set)
                    .map(|page| first + page),
            );
        })
        .unwrap();
        found
    }

    #[test]
    fn pages_written_to_are_found_once_and_after_the_end_none_are() {
        let host = FakeHypervisor::new();
        let domain = host.add_domain("n", 8);
        host.with(domain, |domain| domain.info.memory_pages = 0)
            .unwrap();
        let mut populated = 0;
        while populated < 2048 {
            populated += host
                .memory_populate(domain, populated, 2048 - populated)
                .unwrap();
        }
        let devices = FakeDevices::default();
        let log = DirtyLog::new(&host, domain).unwrap();
        assert_eq!(log.count(&host, &devices), Err(Status::BadState));
        while !log.begin_step(&host, &devices).unwrap() {}
        assert_eq!(log.count(&host, &devices), Ok(0));
        for page in [0u64, 63, 64, 1000, 2047, 1000] {
            host.memory_write(domain, page * 4096 + 17, &[1]).unwrap();
        }
        assert_eq!(pages(&log, &host, &devices), [0, 63, 64, 1000, 2047]);
        assert_eq!(log.count(&host, &devices), Ok(0));
        host.dirty_put_back(domain, 64, 64, &[1 << 2]).unwrap();
        devices
            .written
            .borrow_mut()
            .insert(domain, [1 << 5, 1 << 2 | 1].into());
        assert_eq!(pages(&log, &host, &devices), [5, 64, 66]);
        assert_eq!(log.count(&host, &devices), Ok(0));
        while !log.end_step(&host, &devices).unwrap() {}
        assert!(devices.written.borrow().is_empty());
        assert_eq!(log.count(&host, &devices), Err(Status::BadState));
    }

    #[test]
    fn a_rate_is_of_the_time_that_passed() {
        let mut rate = DirtyRate::default();
        rate.add(5120, 1_000_000_000);
        rate.add(10240, 2_000_000_000);
        assert_eq!(
            rate.text(),
            "dirty rate: 5120 pages/s, 20.0 MiB/s (2 samples, at most 10240 pages in one)\n"
        );
        assert_eq!(DirtyRate::default().pages_per_s(), 0);
    }
}
