//! Guest memory that dom0 maps, and guest memory that is given back while the guest runs.
//!
//! A guest's page appears in dom0 at its host-physical address, so that what dom0's drivers tell a device is
//! the address they use. dom0's own page tables cover all RAM ([`super::dom0`]); its nested tables, kept
//! here, decide what of it is there. The frame table counts each page that dom0 maps.
//!
//! Rules:
//! * A guest's tables are locked before dom0's.
//! * A frame is freed in this order: out of the guest's tables and dom0's, flush on every CPU that may have
//!   either translation, free. dom0's one vCPU drops its translations before its next entry, wherever that
//!   is; it is the one that asks, so it is in no guest mode meanwhile, and nothing waits for it.
//! * What devices still do to a page by DMA on dom0's behalf is dom0's to stop before it unmaps the page,
//!   gives it back, or destroys the domain: without an IOMMU nobody else can.

use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;
use godwit_abi::{MemoryRun, Refusal, Status};
use godwit_vmm::frames::{Frame, HostPhysical, Owner};
use godwit_vmm::nested::{Access, Cursor, Format, GuestPhysical, MemoryType, NestedError, Wanted};
use godwit_vmm::sched::VcpuState;
use godwit_vmm::vcpu::Message;
use zerocopy::IntoBytes;

use super::caller::Caller;
use super::domain::Domain;
use super::memory::{DomainMemory, Inner, Tables, UNMAP_BUDGET};
use super::{Host, Hosted};
use crate::memory::with_frames;
use crate::platform::clock;

/// Most pages mapped by one `memory_map`: 64 MiB.
const MAP_PAGES_MAX: u64 = 1 << 14;
/// Most pages looked at by one `memory_unmap`.
const UNMAP_PAGES_MAX: u64 = 1 << 16;
/// Most pages of one `memory_release`.
const RELEASE_PAGES_MAX: u64 = 4096;
/// Pages given back with one flush.
const RELEASE_PIECE: usize = 64;

/// Guest pages in a row whose frames are in a row, too.
#[derive(Clone, Copy)]
struct Run {
    page: u64,
    frame: Frame,
    pages: u64,
}

/// The next run of a domain's memory at or behind the cursor, which goes to its end.
fn next_run<F: Format>(inner: &Inner<F>, cursor: &mut Cursor, pages_max: u64) -> Option<Run> {
    let mut run: Option<Run> = None;
    while !cursor.is_done() && run.is_none_or(|run| run.pages < pages_max) {
        let start = cursor.position().0;
        let (mut probe, mut found) = (*cursor, None);
        inner
            .tables
            .leaves(&Tables, &mut probe, 1, |mapping| found = Some(mapping));
        let Some(mapping) = found.filter(|found| found.leaf.memory_type == MemoryType::WriteBack)
        else {
            *cursor = probe;
            if run.is_some() {
                break;
            }
            continue;
        };
        let inside = start - mapping.guest.0;
        let frame = HostPhysical(mapping.leaf.address.0 + inside).frame();
        let pages =
            ((probe.position().0 - start) / 4096).min(pages_max - run.map_or(0, |run| run.pages));
        match &mut run {
            None => {
                run = Some(Run {
                    page: start / 4096,
                    frame,
                    pages,
                });
            }
            Some(run) if run.frame.plus(run.pages) == frame => run.pages += pages,
            Some(_) => break,
        }
        *cursor = cursor.from(GuestPhysical(start + pages * 4096)).ok()?;
    }
    run
}

pub(super) fn over(page: u64, pages: u64) -> Result<Cursor, Status> {
    let start = page.checked_mul(4096).ok_or(Status::BadArgument)?;
    let bytes = pages.checked_mul(4096).ok_or(Status::BadArgument)?;
    Cursor::over(GuestPhysical(start), bytes).map_err(|_| Status::BadArgument)
}

pub(super) fn refused(error: NestedError) -> Status {
    match error {
        NestedError::NoMemory => Status::NoMemory,
        NestedError::Overlap => Status::Exists,
        NestedError::NotMapped
        | NestedError::Forbidden
        | NestedError::Withheld
        | NestedError::Absent
        | NestedError::Misaligned
        | NestedError::OutOfRange
        | NestedError::NotLarge
        | NestedError::Tracking
        | NestedError::NotTracking => Status::BadArgument,
    }
}

/// Looks at the one leaf or hole at the cursor and passes it. Whether it is a leaf.
fn pass<F: Format>(inner: &Inner<F>, cursor: &mut Cursor) -> bool {
    let mut is_leaf = false;
    inner.tables.leaves(&Tables, cursor, 1, |_| is_leaf = true);
    is_leaf
}

/// Takes back the count of mappings of frames.
fn uncount(start: Frame, pages: u64) {
    let unmapped = with_frames(|frames| frames.unmap_run(start, pages));
    assert!(
        unmapped.is_ok(),
        "a mapping that was not counted: {unmapped:?}"
    );
}

/// dom0's side.
impl<F: Format> DomainMemory<F> {
    /// Maps another domain's frames, those that are not mapped yet.
    fn map_foreign(&self, start: Frame, pages: u64, owner: Owner) -> Result<(), Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let mut cursor = over(start.0, pages)?;
        let mut hole = None;
        loop {
            let at = cursor.position().0;
            let is_over = cursor.is_done();
            let is_leaf = is_over || pass(inner, &mut cursor);
            match hole {
                None if !is_leaf => hole = Some(at),
                Some(begin) if is_leaf => {
                    map_hole(inner, begin, at, owner)?;
                    hole = None;
                }
                None | Some(_) => {}
            }
            if is_over {
                return Ok(());
            }
        }
    }

    /// Unmaps frames, those that are mapped. Its vCPU owes a flush.
    fn unmap_foreign(&self, start: Frame, pages: u64) -> Result<(), Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let mut cursor = over(start.0, pages)?;
        while !cursor.is_done() {
            let unmapped = inner
                .tables
                .unmap(&mut Tables, &mut cursor, UNMAP_BUDGET, |mapping| {
                    uncount(mapping.leaf.address.frame(), 1 << mapping.size.order());
                });
            // Whatever is owed is done before its vCPU is in guest mode again.
            let _flush = unmapped.map_err(refused)?;
        }
        inner.tables.release_retired(&mut Tables);
        Ok(())
    }
}

fn map_hole<F: Format>(
    inner: &mut Inner<F>,
    begin: u64,
    end: u64,
    owner: Owner,
) -> Result<(), Status> {
    let (start, pages) = (HostPhysical(begin).frame(), (end - begin) / 4096);
    with_frames(|frames| frames.map_run(start, pages, owner)).map_err(|_| Status::BadState)?;
    let mapped = inner.tables.map(
        &mut Tables,
        GuestPhysical(begin),
        HostPhysical(begin),
        end - begin,
        Access::READ_WRITE,
        MemoryType::WriteBack,
    );
    match mapped {
        // What is new needs no flush.
        Ok(_) => Ok(()),
        Err(error) => {
            uncount(start, pages);
            Err(refused(error))
        }
    }
}

/// The guest's side.
impl<F: Format> DomainMemory<F> {
    /// The next run of memory at or behind the cursor, which goes to its end.
    fn next_run(&self, cursor: &mut Cursor, pages_max: u64) -> Option<Run> {
        next_run(self.inner.lock().as_ref()?, cursor, pages_max)
    }

    /// Takes pages out of the guest; their frames are freed by the caller after the flush.
    fn take_out(&self, pages: &[u64]) -> Result<ArrayVec<Frame, RELEASE_PIECE>, Status> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        let mut frames = ArrayVec::new();
        for page in pages {
            let Ok(mut cursor) = over(*page, 1) else {
                continue;
            };
            let done = inner
                .tables
                .unmap(&mut Tables, &mut cursor, UNMAP_BUDGET, |mapping| {
                    frames.push(mapping.leaf.address.frame());
                });
            // A split that used up the budget: once more.
            let done = done.and_then(|_| {
                inner
                    .tables
                    .unmap(&mut Tables, &mut cursor, UNMAP_BUDGET, |mapping| {
                        frames.push(mapping.leaf.address.frame());
                    })
            });
            match done {
                Ok(_) => {}
                Err(_) if !frames.is_empty() => break,
                Err(error) => return Err(refused(error)),
            }
        }
        inner.pages -= frames.len() as u64;
        Ok(frames)
    }

    /// Frees what was taken out, after the flush.
    fn give_back(&self, frames: &[Frame]) {
        let owner = self.owner();
        for frame in frames {
            let freed = with_frames(|table| table.free(*frame, 0, owner));
            assert!(
                freed.is_ok(),
                "a frame of {owner:?} cannot be freed: {freed:?}"
            );
        }
        if let Some(inner) = self.inner.lock().as_mut() {
            inner.tables.release_retired(&mut Tables);
        }
    }
}

impl<B: Hosted> Host<B> {
    /// Makes every vCPU of a domain drop its translations, and returns when none can use an old one.
    /// The vCPU that is at work in a hypercall on this CPU does it before its next entry.
    pub(super) fn flush_domain(&self, domain: &Domain<B>) {
        for vcpu in domain.vcpus() {
            vcpu.inbox.post(Message::FlushTranslations);
        }
        let here = self.here();
        for vcpu in domain.vcpus() {
            let state = || {
                let now = clock::now_ns();
                let view = self.scheduler.lock().vcpu_view(vcpu.key, now)?;
                Some(view.state)
            };
            let mut kicked = None;
            // Off its CPU it collects the message before it enters; on one, it is kicked to.
            while vcpu.inbox.flush_pending()
                && let Some(VcpuState::Running(cpu) | VcpuState::Leaving(cpu)) = state()
                && cpu != here
            {
                if kicked != Some(cpu) {
                    kicked = Some(cpu);
                    self.kick_one(cpu);
                }
                core::hint::spin_loop();
            }
        }
    }

    /// Takes all of a domain's memory out of dom0.
    pub(super) fn unmap_from_control(&self, domain: &Domain<B>) -> Result<(), Status> {
        let Some(control) = self.control.get() else {
            return Ok(());
        };
        if !domain.memory.is_shared.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut cursor = Cursor::all();
        while let Some(run) = domain.memory.next_run(&mut cursor, u64::MAX) {
            control.memory.unmap_foreign(run.frame, run.pages)?;
        }
        self.flush_domain(control);
        Ok(())
    }
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn map_guest(
        &self,
        domain: &Domain<B>,
        page: u64,
        pages: u64,
        address: u64,
        capacity: u64,
    ) -> Result<u64, Refusal> {
        if domain.is_control() || capacity == 0 {
            return Err(Status::BadArgument.into());
        }
        let mut cursor = over(page, pages)?;
        let (mut runs, mut left) = (0, MAP_PAGES_MAX);
        domain.memory.is_shared.store(true, Ordering::Relaxed);
        while runs < capacity
            && left > 0
            && let Some(run) = domain.memory.next_run(&mut cursor, left)
        {
            let mapped =
                self.domain
                    .memory
                    .map_foreign(run.frame, run.pages, domain.memory.owner());
            match mapped {
                Ok(()) => {}
                Err(_) if runs > 0 => break,
                Err(status) => return Err(status.into()),
            }
            let told = MemoryRun {
                page: run.page,
                pages: run.pages,
                address: run.frame.address().0,
            };
            let at = runs * MemoryRun::SIZE_BYTES as u64;
            self.put(
                address.checked_add(at).ok_or(Status::BadAddress)?,
                MemoryRun::SIZE_BYTES as u64,
                told.as_bytes(),
            )?;
            runs += 1;
            left -= run.pages;
        }
        Ok(runs)
    }

    pub(super) fn unmap_guest(
        &self,
        domain: &Domain<B>,
        page: u64,
        pages: u64,
    ) -> Result<u64, Refusal> {
        if domain.is_control() {
            return Err(Status::BadArgument.into());
        }
        let pages = pages.min(UNMAP_PAGES_MAX);
        let mut cursor = over(page, pages)?;
        while let Some(run) = domain.memory.next_run(&mut cursor, UNMAP_PAGES_MAX) {
            self.domain.memory.unmap_foreign(run.frame, run.pages)?;
        }
        self.host.flush_domain(self.domain);
        Ok(pages)
    }

    pub(super) fn release_guest(
        &self,
        domain: &Domain<B>,
        address: u64,
        count: u64,
    ) -> Result<u64, Refusal> {
        if domain.is_control() || count > RELEASE_PAGES_MAX {
            return Err(Status::BadArgument.into());
        }
        self.check(address, count * 8, Wanted::Read)?;
        let mut pages = [0u64; RELEASE_PIECE];
        let (mut done, mut released) = (0, 0);
        while done < count {
            let piece = &mut pages[..(count - done).min(RELEASE_PIECE as u64) as usize];
            if !self
                .domain
                .memory
                .read(address + done * 8, piece.as_mut_bytes())
            {
                return Err(Status::BadAddress.into());
            }
            done += piece.len() as u64;
            let frames = match domain.memory.take_out(piece) {
                Ok(frames) => frames,
                Err(_) if released > 0 => break,
                Err(status) => return Err(status.into()),
            };
            for frame in &frames {
                self.domain.memory.unmap_foreign(*frame, 1)?;
            }
            self.host.flush_domain(domain);
            self.host.flush_domain(self.domain);
            domain.memory.give_back(&frames);
            released += frames.len() as u64;
        }
        Ok(released)
    }
}
