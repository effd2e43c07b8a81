//! Absent pages of a guest that has come before its memory (post-copy): making them absent, filling them, and the vCPUs that
//! wait for them. What absent means for the tables is in [`godwit_vmm::nested`], for a vCPU in [`godwit_vmm::vcpu`].
//!
//! Rules:
//! * A vCPU notes the page it stands at in its slot, then asks the tables once more before it sleeps; who fills a page makes it
//!   present first and then looks at the slots. So none sleeps for a page that is there.
//! * Which pages are absent and who waits is kept here alone: a dom0 that was restarted asks for both.
//! * Contents come from the past: pages of the guest's clock are written anew before the guest sees them.

use core::sync::atomic::Ordering;

use alloc::vec;
use godwit_abi::{Refusal, Status};
use godwit_vmm::devices::kvmclock;
use godwit_vmm::nested::{Bitmap, Flush, Format, GuestPhysical, NestedError, Wanted};
use godwit_vmm::vcpu::Contents;
use godwit_vmm::walk::GuestMemory;
use zerocopy::IntoBytes;

use super::caller::{Caller, PIECE};
use super::dirty::{BITMAP_PAGES_MAX, pages_between};
use super::domain::Domain;
use super::mapping::{over, refused};
use super::memory::{DomainMemory, Tables};
use super::world::Surroundings;
use super::{Host, Hosted};

/// Pages made absent, or leaves looked at, by one call.
const BUDGET: usize = 4 * 512;
/// Most pages filled by one call.
const FILL_PAGES_MAX: u64 = 64;
const PAGE_BYTES: u64 = 4096;

/// The frames of absent pages, which nobody but the filler sees.
struct Filling<'a, F: Format>(&'a DomainMemory<F>);

impl<F: Format> GuestMemory for Filling<'_, F> {
    fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.0.read_absent(gpa, out)
    }

    fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.0.write_absent(gpa, bytes)
    }
}

impl<F: Format> DomainMemory<F> {
    /// What is behind an address that could not be reached.
    fn contents(&self, gpa: u64) -> Contents {
        if !self.had_absent.load(Ordering::Acquire) {
            return Contents::Nothing;
        }
        let guard = self.inner.lock();
        let found = guard.as_ref().map(|inner| {
            inner
                .tables
                .translate(&Tables, GuestPhysical(gpa), Wanted::Read)
        });
        match found {
            Some(Ok(_)) => Contents::Here,
            Some(Err(NestedError::Absent)) => Contents::Absent,
            Some(Err(_)) | None => Contents::Nothing,
        }
    }

    pub(super) fn is_absent(&self, gpa: u64) -> bool {
        self.contents(gpa) == Contents::Absent
    }

    /// The first absent page that a range touches.
    fn first_absent(&self, gpa: u64, bytes: u64) -> Option<u64> {
        if !self.had_absent.load(Ordering::Acquire) {
            return None;
        }
        let last = gpa.checked_add(bytes.max(1) - 1)?;
        let pages = gpa / PAGE_BYTES..=last / PAGE_BYTES;
        pages
            .map(|page| page * PAGE_BYTES)
            .find(|page| self.is_absent(*page))
    }

    /// Why a range cannot be accessed by dom0.
    pub(super) fn why_not(&self, gpa: u64, bytes: u64) -> Status {
        match self.first_absent(gpa, bytes) {
            Some(_) => Status::BadState,
            None => Status::BadAddress,
        }
    }

    fn make_absent(&self, page: u64) -> Result<Flush, NestedError> {
        self.had_absent.store(true, Ordering::Release);
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(NestedError::NotMapped)?;
        inner
            .tables
            .make_absent(&mut Tables, GuestPhysical(page * PAGE_BYTES))
    }

    fn make_present(&self, page: u64) -> Result<Flush, NestedError> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(NestedError::NotMapped)?;
        inner
            .tables
            .make_present(&mut Tables, GuestPhysical(page * PAGE_BYTES))
    }
}

impl<B: Hosted> Surroundings<'_, B> {
    /// What is behind an address; an absent page is noted.
    pub(super) fn contents_at(&self, gpa: u64) -> Contents {
        let contents = self.domain.memory.contents(gpa);
        if contents == Contents::Absent {
            self.note_starved(gpa);
        }
        contents
    }

    fn note_starved(&self, gpa: u64) {
        let noted = gpa & !(PAGE_BYTES - 1) | 1;
        self.vcpu.starved.store(noted, Ordering::Release);
    }

    /// An access of ours has failed: notes the page if it is an absent one. It has failed all the same.
    #[cold]
    pub(super) fn note_missed(&self, gpa: u64, bytes: usize) -> bool {
        if let Some(page) = self.domain.memory.first_absent(gpa, bytes as u64) {
            self.note_starved(page);
            self.missed.set(true);
        }
        false
    }
}

impl<B: Hosted> Host<B> {
    /// Pages were filled: whoever waits for one of them goes on.
    fn wake_starved(&self, domain: &Domain<B>, pages: core::ops::Range<u64>) {
        for vcpu in domain.vcpus() {
            let noted = vcpu.starved.load(Ordering::Acquire);
            if noted & 1 != 0 && pages.contains(&(noted / PAGE_BYTES)) {
                self.wake(vcpu.key);
            }
        }
    }
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn make_absent(
        &self,
        domain: &Domain<B>,
        first: u64,
        pages: u64,
        address: u64,
    ) -> Result<u64, Refusal> {
        if domain.life.lock().may_run() {
            return Err(Status::BadState.into());
        }
        let pages = pages.min(BITMAP_PAGES_MAX);
        over(first, pages)?;
        let mut words = vec![0u64; pages.div_ceil(64) as usize];
        if !self.domain.memory.read(address, words.as_mut_bytes()) {
            return Err(Status::BadAddress.into());
        }
        let (mut done, mut made) = (0, 0);
        let mut outcome = Ok(());
        while done < pages && made < BUDGET && outcome.is_ok() {
            if words[(done / 64) as usize] >> (done % 64) & 1 != 0 {
                outcome = domain.memory.make_absent(first + done).map(drop);
                made += 1;
            }
            done += 1;
        }
        // dom0's own mapping of the frames stays: its back ends ask before they look.
        self.host.flush_domain(domain);
        domain.memory.release_retired();
        match outcome {
            // Whole words, so that the caller goes on with the next one.
            Ok(()) if done < pages => Ok(done / 64 * 64),
            Ok(()) => Ok(pages),
            Err(NestedError::NoMemory) => Err(Status::NoMemory.into()),
            Err(_) => Err(Status::BadAddress.into()),
        }
    }

    pub(super) fn read_absent(
        &self,
        domain: &Domain<B>,
        first: u64,
        pages: u64,
        address: u64,
    ) -> Result<u64, Refusal> {
        let pages = pages.min(BITMAP_PAGES_MAX);
        let all = over(first, pages)?;
        let mut words = vec![0u64; pages.div_ceil(64) as usize];
        let mut done = pages;
        if domain.memory.had_absent.load(Ordering::Acquire) {
            let (mut rest, start) = (all, GuestPhysical(first * PAGE_BYTES));
            let mut bitmap = Bitmap::new(start, &mut words).map_err(refused)?;
            if let Some(inner) = domain.memory.inner.lock().as_mut() {
                inner.tables.leaves(&Tables, &mut rest, BUDGET, |mapping| {
                    if mapping.leaf.absent {
                        bitmap.mark(mapping.guest);
                    }
                });
            }
            if !rest.is_done() {
                done = pages_between(&all, &rest) / 64 * 64;
            }
        }
        let bytes = words[..done.div_ceil(64) as usize].as_bytes();
        self.put(address, bytes.len() as u64, bytes)?;
        Ok(done)
    }

    pub(super) fn wanted(
        &self,
        domain: &Domain<B>,
        address: u64,
        capacity: u64,
    ) -> Result<u64, Refusal> {
        let mut count = 0;
        for vcpu in domain.vcpus() {
            let noted = vcpu.starved.load(Ordering::Acquire);
            if count < capacity && noted & 1 != 0 && domain.memory.is_absent(noted) {
                let at = address.checked_add(count * 8).ok_or(Status::BadAddress)?;
                self.put(at, 8, &(noted / PAGE_BYTES).to_le_bytes())?;
                count += 1;
            }
        }
        Ok(count)
    }

    pub(super) fn fill_absent(
        &self,
        domain: &Domain<B>,
        first: u64,
        pages: u64,
        address: u64,
    ) -> Result<u64, Refusal> {
        let pages = pages.min(FILL_PAGES_MAX);
        over(first, pages)?;
        self.check(address, pages * PAGE_BYTES, Wanted::Read)?;
        let clocks = domain.platform.lock().kvmclock.pages(true);
        let (mut filled, mut piece) = (0, [0; PIECE]);
        let mut flush = Flush::None;
        for number in 0..pages {
            let (page, from) = (first + number, address + number * PAGE_BYTES);
            let gpa = page * PAGE_BYTES;
            let mut at = 0;
            while at < PAGE_BYTES
                && self.domain.memory.read(from + at, &mut piece)
                && domain.memory.write_absent(gpa + at, &piece)
            {
                at += PIECE as u64;
            }
            if at < PAGE_BYTES {
                continue;
            }
            for (clock, body) in clocks.iter().filter(|(at, _)| at / PAGE_BYTES == page) {
                // One that reaches into the next page is written when the guest's clock is next.
                let _written = kvmclock::publish(&Filling(&domain.memory), *clock, body);
            }
            if let Ok(owed) = domain.memory.make_present(page) {
                flush = flush.and(owed);
                filled += 1;
            }
        }
        self.host.settle(domain, flush);
        self.host.wake_starved(domain, first..first + pages);
        Ok(filled)
    }
}
