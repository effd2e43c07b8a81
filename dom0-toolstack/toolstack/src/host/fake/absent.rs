//! Absent pages of the fake's domains.

use super::FakeDomain;
use alloc::vec::Vec;
use godwit_abi::{DomainState, PAGE_SIZE_BYTES, Status};

impl FakeDomain {
    pub(super) fn arm_absent(
        &mut self,
        first: u64,
        count: u64,
        set: &[u64],
    ) -> Result<u64, Status> {
        if self.info.state == DomainState::Running as u32 {
            return Err(Status::BadState);
        }
        let is_set = |n: &u64| set[(*n / 64) as usize] >> (*n % 64) & 1 == 1;
        let pages: Vec<u64> = (0..count).filter(is_set).map(|n| first + n).collect();
        if pages.iter().any(|page| !self.pages.contains_key(page)) {
            return Err(Status::BadAddress);
        }
        self.absent.extend(pages);
        Ok(count)
    }

    pub(super) fn read_absent(&self, first: u64, count: u64, out: &mut [u64]) -> u64 {
        out.fill(0);
        for page in self.absent.range(first..first + count) {
            let n = page - first;
            out[(n / 64) as usize] |= 1 << (n % 64);
        }
        count
    }

    pub(super) fn fill_absent(&mut self, first: u64, contents: &[u8]) -> u64 {
        let pieces = contents.chunks_exact(PAGE_SIZE_BYTES as usize);
        let mut filled = 0;
        for (page, bytes) in (first..).zip(pieces) {
            self.wanted.remove(&page);
            if self.absent.remove(&page) {
                self.pages.insert(page, bytes.into());
                *self.fills.entry(page).or_default() += 1;
                filled += 1;
            }
        }
        filled
    }
}
