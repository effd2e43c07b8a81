//! Dirty tracking of a guest's memory, in steps short enough for a hypercall: arm, harvest, put back, disarm; and the writes that it
//! stops. What dirty means, and the tables' side, is in [`godwit_vmm::nested`].
//!
//! Rules:
//! * Whoever writes to a guest's memory in here does it under the lock of its tables and marks the page there
//!   ([`DomainMemory::write`]): a harvest sees the mark, or the page is read after the write.
//! * A step that takes rights away returns to dom0 after every CPU has dropped the translations: what dom0 reads of a harvested
//!   page then has all writes made before, and those made after it fault.
//! * Where processors log writes by themselves, vCPUs hand their logs over before a harvest: those that run are made to, the
//!   others did when they left their CPUs.
//! * Only dom0's one vCPU makes steps, one at a time. When dom0 dies, what it has armed begins to be disarmed: nothing more is
//!   withheld, and the next dom0 makes the steps.

use core::sync::atomic::Ordering;

use alloc::vec;
use godwit_abi::{Refusal, Status};
use godwit_vmm::nested::{
    Bitmap, Cursor, Flush, Format, GuestPhysical, MemoryType, Method, NestedError, Wanted,
};
use zerocopy::IntoBytes;

use super::caller::Caller;
use super::domain::Domain;
use super::mapping::{over, refused};
use super::memory::{DomainMemory, Tables};
use super::{Host, Hosted};

/// Leaves handled by one step of arming or disarming.
const SWEEP_BUDGET: usize = 8 * 512;
/// Pages looked at or made dirty by one `dirty_harvest` or `dirty_put_back`, but for those that a table says are clean.
const HARVEST_BUDGET: usize = 8 * 512;
/// Most pages of one `dirty_harvest` or `dirty_put_back`: 256 MiB, 8 KiB of bitmap.
pub(super) const BITMAP_PAGES_MAX: u64 = 1 << 16;
const PAGE_BYTES: u64 = 4096;

/// How far the tracking of a domain is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tracking {
    Off,
    /// The rest is still to be armed.
    Arming(Cursor),
    Armed,
    /// The rest is still to be given its rights and large pages back.
    Disarming(Cursor),
}

/// Pages of guest-physical space behind a cursor.
fn left(cursor: &Cursor) -> u64 {
    (cursor.end().0 - cursor.position().0) / PAGE_BYTES
}

/// Pages that a cursor has passed.
pub(super) fn pages_between(before: &Cursor, after: &Cursor) -> u64 {
    (after.position().0 - before.position().0) / PAGE_BYTES
}

impl<F: Format> DomainMemory<F> {
    /// A write of the guest's was refused where something is mapped: gives the access back that tracking withholds. Whether the
    /// write is to be tried again.
    pub(super) fn write_fault(&self, gpa: u64) -> bool {
        let mut guard = self.inner.lock();
        let Some(inner) = guard.as_mut() else {
            return false;
        };
        let page = GuestPhysical(gpa & !(PAGE_BYTES - 1));
        match inner.tables.translate(&Tables, page, Wanted::Write) {
            // Another vCPU was faster, or the translation was an old one.
            Ok(found) => found.memory_type == MemoryType::WriteBack,
            Err(NestedError::Withheld) => inner.tables.mark_dirty(&mut Tables, page).is_ok(),
            Err(_) => false,
        }
    }

    /// A step of arming (`arm`) or of disarming. Returns the pages left, and what is owed before dom0
    /// goes on.
    fn sweep_step(&self, arm: bool) -> Result<(u64, Flush), Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let mut cursor = match (arm, inner.tracking) {
            (true, Tracking::Armed) | (false, Tracking::Off) => return Ok((0, Flush::None)),
            (true, Tracking::Arming(cursor)) | (false, Tracking::Disarming(cursor)) => cursor,
            (true, Tracking::Off | Tracking::Disarming(_))
            | (false, Tracking::Armed | Tracking::Arming(_)) => self.all_memory(),
        };
        let tables = &mut inner.tables;
        let flush = match arm {
            true => tables.arm(&mut Tables, &mut cursor, SWEEP_BUDGET),
            false => tables.disarm(&mut Tables, &mut cursor, SWEEP_BUDGET),
        }
        .map_err(refused)?;
        inner.tracking = match (cursor.is_done(), arm) {
            (true, true) => Tracking::Armed,
            (true, false) => Tracking::Off,
            (false, true) => Tracking::Arming(cursor),
            (false, false) => Tracking::Disarming(cursor),
        };
        Ok((left(&cursor), flush))
    }

    /// Moves the cursor past what it has done.
    fn harvest(&self, cursor: &mut Cursor, words: &mut [u64]) -> Result<Flush, Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let mut bitmap = Bitmap::new(cursor.position(), words).map_err(refused)?;
        inner
            .tables
            .harvest(&mut Tables, cursor, &mut bitmap, HARVEST_BUDGET)
            .map_err(|_| Status::BadState)
    }

    /// As `harvest`.
    fn put_back(
        &self,
        cursor: &mut Cursor,
        words: &mut [u64],
        budget: usize,
    ) -> Result<(), Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let bitmap = Bitmap::new(cursor.position(), words).map_err(refused)?;
        // More rights need no flush.
        let _none = inner
            .tables
            .put_back(&mut Tables, cursor, &bitmap, budget)
            .map_err(refused)?;
        Ok(())
    }

    /// The processor has logged a write.
    pub(super) fn logged(&self, gpa: u64) {
        if let Some(inner) = self.inner.lock().as_mut() {
            inner.tables.logged(&mut Tables, GuestPhysical(gpa));
        }
    }

    /// Nobody will harvest any more: what is to be disarmed is left for later.
    pub(super) fn abandon_tracking(&self) {
        let mut guard = self.inner.lock();
        let Some(inner) = guard.as_mut() else {
            return;
        };
        match inner.tracking {
            Tracking::Off | Tracking::Disarming(_) => {}
            Tracking::Arming(_) | Tracking::Armed => {
                let mut nothing = Cursor::none();
                let flush = inner.tables.disarm(&mut Tables, &mut nothing, 1);
                assert_eq!(flush, Ok(Flush::None), "nothing was to be done");
                inner.tracking = Tracking::Disarming(self.all_memory());
            }
        }
    }

    pub(super) fn release_retired(&self) {
        if let Some(inner) = self.inner.lock().as_mut() {
            inner.tables.release_retired(&mut Tables);
        }
    }
}

impl<B: Hosted> Host<B> {
    fn set_write_quota(&self, domain: &Domain<B>, pages_per_s: u64) {
        domain.write_quota.store(pages_per_s, Ordering::Release);
        if domain.memory.method() == Method::DirtyLog {
            // Logs are as long as the quota allows.
            self.flush_domain(domain);
        }
        // Those that sleep for the old one look at the new one.
        for vcpu in domain.vcpus() {
            self.notify(vcpu);
        }
    }

    /// dom0 is no more: lets its guests write as they like.
    pub(super) fn abandon_tracking(&self, domain: &Domain<B>) {
        domain.memory.abandon_tracking();
        self.set_write_quota(domain, 0);
    }

    /// Does what a step owes.
    pub(super) fn settle(&self, domain: &Domain<B>, flush: Flush) {
        if !flush.is_none() {
            self.flush_domain(domain);
            domain.memory.release_retired();
        }
    }
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn arm_dirty(&self, domain: &Domain<B>) -> Result<u64, Refusal> {
        let (left, flush) = domain.memory.sweep_step(true)?;
        self.host.settle(domain, flush);
        Ok(left)
    }

    pub(super) fn disarm_dirty(&self, domain: &Domain<B>) -> Result<u64, Refusal> {
        let (left, flush) = domain.memory.sweep_step(false)?;
        self.host.settle(domain, flush);
        Ok(left)
    }

    pub(super) fn harvest_dirty(
        &self,
        domain: &Domain<B>,
        first: u64,
        pages: u64,
        address: u64,
    ) -> Result<u64, Refusal> {
        let pages = pages.min(BITMAP_PAGES_MAX);
        let all = over(first, pages)?;
        let mut words = vec![0u64; pages.div_ceil(64) as usize];
        // Before anything is cleared: what has been is told nobody else.
        self.check(address, words.len() as u64 * 8, Wanted::Write)?;
        if domain.memory.method() == Method::DirtyLog {
            self.host.flush_domain(domain);
        }
        let mut rest = all;
        let flush = domain.memory.harvest(&mut rest, &mut words)?;
        self.host.settle(domain, flush);
        let done = pages_between(&all, &rest);
        let bytes = words[..done.div_ceil(64) as usize].as_bytes();
        if let Err(refusal) = self.put(address, bytes.len() as u64, bytes) {
            let mut again = all;
            domain.memory.put_back(&mut again, &mut words, usize::MAX)?;
            return Err(refusal);
        }
        Ok(done)
    }

    pub(super) fn put_back_dirty(
        &self,
        domain: &Domain<B>,
        first: u64,
        pages: u64,
        address: u64,
    ) -> Result<u64, Refusal> {
        let pages = pages.min(BITMAP_PAGES_MAX);
        let all = over(first, pages)?;
        let mut words = vec![0u64; pages.div_ceil(64) as usize];
        if !self.domain.memory.read(address, words.as_mut_bytes()) {
            return Err(Status::BadAddress.into());
        }
        let mut rest = all;
        let budget = HARVEST_BUDGET;
        domain.memory.put_back(&mut rest, &mut words, budget)?;
        // Whole words, so that the caller goes on with the next one.
        Ok(match rest.is_done() {
            true => pages,
            false => pages_between(&all, &rest) / 64 * 64,
        })
    }

    pub(super) fn limit_writes(&self, domain: &Domain<B>, pages_per_s: u64) {
        self.host.set_write_quota(domain, pages_per_s);
    }
}
