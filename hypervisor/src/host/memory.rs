//! A domain's memory: its nested tables, and copies in and out of it.
//!
//! Guest memory is never a Rust reference: what is read is copied first and the copy is parsed,
//! because the guest may change it at any moment.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use godwit_abi::{DomainId, Status};
use godwit_vmm::frames::{Frame, HostPhysical, ORDER_2M, Owner, Zone};
use godwit_vmm::nested::{
    Access, Cursor, Flush, Format, GuestPhysical, MemoryType, Method, NestedError, NestedTables,
    PageSize, TableMemory, Translation, Wanted,
};
use spin::mutex::TicketMutex;
use spin::once::Once;

use super::dirty::Tracking;
use crate::boot::info::Range;
use crate::memory::layout::direct_map;
use crate::memory::{OutOfMemory, RESERVE_BYTES, allocate, free, with_frames};

/// Leaves handled between two looks at anything else, when memory is given back.
pub(super) const UNMAP_BUDGET: usize = 512;

/// Nested tables live in the direct map; frames come from the frame table.
pub(super) struct Tables;

impl Tables {
    fn entry(table: Frame, index: usize) -> &'static AtomicU64 {
        debug_assert!(index < 512);
        let pointer = direct_map(table.address().0).cast::<u64>();
        // SAFETY: `table` is a page `allocate_table` gave and `free_table` has not taken back (the
        // contract of `TableMemory`), so the word is ours; all access, the CPU's too, is atomic.
        unsafe { AtomicU64::from_ptr(pointer.add(index)) }
    }
}

impl TableMemory for Tables {
    fn read(&self, table: Frame, index: usize) -> u64 {
        Self::entry(table, index).load(Ordering::Relaxed)
    }

    fn write(&mut self, table: Frame, index: usize, entry: u64) {
        Self::entry(table, index).store(entry, Ordering::Release);
    }

    fn compare_exchange(
        &mut self,
        table: Frame,
        index: usize,
        current: u64,
        new: u64,
    ) -> Result<(), u64> {
        Self::entry(table, index)
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Relaxed)
            .map(|_| ())
    }

    fn allocate_table(&mut self) -> Option<Frame> {
        let frame = allocate(0, Zone::Any).ok()?;
        zero(frame, 1);
        Some(frame)
    }

    fn free_table(&mut self, table: Frame) {
        free(table, 0);
    }
}

/// Writes zeroes to frames that nobody else can reach yet.
fn zero(frame: Frame, pages: u64) {
    let pointer = direct_map(frame.address().0);
    // SAFETY: the caller has just been given the frames; the direct map covers all RAM.
    unsafe { core::ptr::write_bytes(pointer, 0, (pages * 4096) as usize) };
}

pub(super) struct Inner<F: Format> {
    pub(super) tables: NestedTables<F>,
    pub(super) pages: u64,
    pub(super) tracking: Tracking,
}

/// Why somebody goes over a range.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Read,
    Write,
    /// Only to see whether it may.
    Check(Wanted),
    /// Of absent pages alone: what is in their frames, to read or write.
    Fill,
}

/// The memory of one domain.
pub(super) struct DomainMemory<F: Format> {
    pub(super) inner: TicketMutex<Option<Inner<F>>>,
    root: u64,
    owner: Owner,
    pages_max: u64,
    method: Method,
    /// Memory at equal addresses that stays mapped for as long as the domain lives: dom0's own. It need not be looked
    /// up, and is not tracked.
    fixed: Once<Range>,
    /// Whether dom0 may map any of it: cleared when it certainly does not.
    pub(super) is_shared: AtomicBool,
    /// Pages of it have been absent: not every fault where nothing is mapped is a device's.
    pub(super) had_absent: AtomicBool,
}

impl<F: Format> DomainMemory<F> {
    pub(super) fn new(
        domain: DomainId,
        pages_max: u64,
        largest: PageSize,
        method: Method,
    ) -> Result<Self, OutOfMemory> {
        let tables = NestedTables::new(&mut Tables, largest, method).map_err(|_| OutOfMemory)?;
        Ok(Self {
            method,
            root: tables.root().address().0,
            inner: TicketMutex::new(Some(Inner {
                tables,
                pages: 0,
                tracking: Tracking::Off,
            })),
            owner: Owner::Domain(domain),
            pages_max,
            fixed: Once::new(),
            is_shared: AtomicBool::new(false),
            had_absent: AtomicBool::new(false),
        })
    }

    /// Host-physical address of the root table.
    pub(super) fn root(&self) -> u64 {
        self.root
    }

    /// How its writes are noticed.
    pub(super) fn method(&self) -> Method {
        self.method
    }

    /// Who owns its frames.
    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// Where its memory may be: below 4 GiB, and what does not fit there from 4 GiB on.
    pub(super) fn all_memory(&self) -> Cursor {
        const SPLIT_BYTES: u64 = 1 << 32;
        let bytes = self
            .pages_max
            .saturating_mul(4096)
            .saturating_add(SPLIT_BYTES);
        Cursor::over(GuestPhysical(0), bytes).unwrap_or(Cursor::all())
    }

    /// Pages it has.
    pub(super) fn pages(&self) -> u64 {
        self.inner.lock().as_ref().map_or(0, |inner| inner.pages)
    }

    /// Host pages of its nested tables.
    pub(super) fn table_pages(&self) -> u64 {
        self.inner
            .lock()
            .as_ref()
            .map_or(0, |inner| inner.tables.table_count())
    }

    /// Maps host memory that the domain owns (dom0's own, in one piece and for ever), or device registers, at equal
    /// addresses. The domain does not run yet, so no flush is owed.
    pub(super) fn map_identity(
        &self,
        start: u64,
        bytes: u64,
        access: Access,
        kind: MemoryType,
    ) -> Result<(), NestedError> {
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(NestedError::NotMapped)?;
        let flush = inner.tables.map(
            &mut Tables,
            GuestPhysical(start),
            HostPhysical(start),
            bytes,
            access,
            kind,
        )?;
        debug_assert!(matches!(flush, Flush::None | Flush::Range { .. }));
        if kind == MemoryType::WriteBack {
            inner.pages += bytes / 4096;
            let end = start + bytes;
            let fixed = *self.fixed.call_once(|| Range { start, end });
            assert!(
                fixed == Range { start, end },
                "dom0's memory is in one piece"
            );
        }
        Ok(())
    }

    /// Adds up to `pages` zeroed pages from guest page `first` on, in 2 MiB blocks where they fit.
    /// Returns the pages added.
    pub(super) fn populate(&self, first: u64, pages: u64) -> Result<u64, Status> {
        let mut done = 0;
        while done < pages {
            let page = first + done;
            let large = page.is_multiple_of(1 << ORDER_2M) && pages - done >= 1 << ORDER_2M;
            let step = match large {
                true => self
                    .add_block(page, ORDER_2M)
                    .or_else(|_| self.add_block(page, 0)),
                false => self.add_block(page, 0),
            };
            match step {
                Ok(count) => done += count,
                Err(_) if done > 0 => break,
                Err(status) => return Err(status),
            }
        }
        Ok(done)
    }

    fn add_block(&self, page: u64, order: u8) -> Result<u64, Status> {
        let count = 1u64 << order;
        let mut guard = self.inner.lock();
        let inner = guard.as_mut().ok_or(Status::BadState)?;
        if inner.pages + count > self.pages_max {
            return Err(Status::BadArgument);
        }
        let owner = self.owner;
        let guest = GuestPhysical(page.checked_mul(4096).ok_or(Status::BadArgument)?);
        let frame = with_frames(|frames| {
            let spare = frames.counts().free.saturating_sub(RESERVE_BYTES / 4096);
            match spare >= count {
                true => frames.allocate(order, owner, Zone::Any).ok(),
                false => None,
            }
        })
        .ok_or(Status::NoMemory)?;
        zero(frame, count);
        let mapped = inner.tables.map(
            &mut Tables,
            guest,
            frame.address(),
            count * 4096,
            Access::ALL,
            MemoryType::WriteBack,
        );
        match mapped {
            // Fresh mappings: nothing can have cached their absence (SDM 3C 29.4.3.3, APM 2 15.25.9).
            Ok(_flush) => {
                inner.pages += count;
                Ok(count)
            }
            Err(error) => {
                let freed = with_frames(|frames| frames.free(frame, order, owner));
                assert!(
                    freed.is_ok(),
                    "a frame just allocated cannot be freed: {freed:?}"
                );
                Err(match error {
                    NestedError::Overlap => Status::Exists,
                    NestedError::NoMemory => Status::NoMemory,
                    _ => Status::BadArgument,
                })
            }
        }
    }

    /// Gives everything back; dom0 maps none of it any more. The domain runs nowhere and never will again; translations under its
    /// vCPUs' tags die with the vCPUs.
    pub(super) fn release(&self) {
        let Some(mut inner) = self.inner.lock().take() else {
            return;
        };
        let mut cursor = Cursor::all();
        let owner = self.owner;
        while !cursor.is_done() {
            let unmapped = inner
                .tables
                .unmap(&mut Tables, &mut cursor, UNMAP_BUDGET, |mapping| {
                    if mapping.leaf.memory_type == MemoryType::WriteBack {
                        let frame = mapping.leaf.address.frame();
                        let freed =
                            with_frames(|frames| frames.free(frame, mapping.size.order(), owner));
                        assert!(
                            freed.is_ok(),
                            "a frame of {owner:?} cannot be freed: {freed:?}"
                        );
                    }
                });
            assert!(
                unmapped.is_ok(),
                "unmapping whole leaves needs no memory: {unmapped:?}"
            );
        }
        inner.tables.destroy(&mut Tables);
    }

    /// Copies `out.len()` bytes from guest-physical `gpa`. `false`: not all of it is memory.
    pub(super) fn read(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.copy_out(gpa, out, Purpose::Read)
    }

    /// An aligned word at guest-physical `gpa`, a page table's entry mostly: a walk reads four or five of them for one exit.
    /// `None`: `read` has to say why.
    pub(super) fn read_word(&self, gpa: u64) -> Option<u64> {
        if gpa & 7 != 0 {
            return None;
        }
        let guard = self.inner.lock();
        let found = guard
            .as_ref()?
            .tables
            .translate(&Tables, GuestPhysical(gpa), Wanted::Read)
            .ok()
            .filter(|found| found.memory_type == MemoryType::WriteBack)?;
        let word = direct_map(found.address.0).cast::<u64>();
        // SAFETY: `word` is aligned and in a page of the domain's own RAM, which the lock keeps its own, in the direct map; the
        // guest may write to it meanwhile, so it is read once and as volatile.
        Some(unsafe { word.read_volatile() })
    }

    fn copy_out(&self, gpa: u64, out: &mut [u8], purpose: Purpose) -> bool {
        self.each_piece(gpa, out.len(), purpose, |pointer, at, count| {
            // SAFETY: `pointer` is `count` bytes of the domain's own RAM in the direct map; the
            // guest may write to it meanwhile, which at worst mixes old and new bytes.
            unsafe { core::ptr::copy_nonoverlapping(pointer, out.as_mut_ptr().add(at), count) };
        })
    }

    /// Copies to guest-physical `gpa`; the pages are dirty. `false`: not all of it is writable memory, and part may have
    /// been written.
    pub(super) fn write(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.copy_in(gpa, bytes, Purpose::Write)
    }

    fn copy_in(&self, gpa: u64, bytes: &[u8], purpose: Purpose) -> bool {
        self.each_piece(gpa, bytes.len(), purpose, |pointer, at, count| {
            // SAFETY: as in `read`; the hypervisor keeps no references into guest memory.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr().add(at), pointer, count) };
        })
    }

    /// Reads the frames of absent pages. `false`: not all are absent.
    pub(super) fn read_absent(&self, gpa: u64, out: &mut [u8]) -> bool {
        self.copy_out(gpa, out, Purpose::Fill)
    }

    /// Writes to the frames of absent pages. `false`: not all are absent; those that are present are as before.
    pub(super) fn write_absent(&self, gpa: u64, bytes: &[u8]) -> bool {
        self.copy_in(gpa, bytes, Purpose::Fill)
    }

    /// Whether all of a range is memory the domain may access so.
    pub(super) fn check(&self, gpa: u64, bytes: usize, wanted: Wanted) -> bool {
        self.each_piece(gpa, bytes, Purpose::Check(wanted), |_, _, _| {})
    }

    fn each_piece(
        &self,
        gpa: u64,
        bytes: usize,
        purpose: Purpose,
        mut action: impl FnMut(*mut u8, usize, usize),
    ) -> bool {
        let Some(end) = gpa.checked_add(bytes as u64) else {
            return false;
        };
        if let Some(fixed) = self.fixed.get()
            && (fixed.start..=end).contains(&gpa)
            && end <= fixed.end
        {
            action(direct_map(gpa), 0, bytes);
            return true;
        }
        let wanted = match purpose {
            Purpose::Read | Purpose::Fill => Wanted::Read,
            Purpose::Write => Wanted::Write,
            Purpose::Check(wanted) => wanted,
        };
        let mut guard = self.inner.lock();
        let Some(inner) = guard.as_mut() else {
            return false;
        };
        let mut at = 0;
        while at < bytes {
            let address = GuestPhysical(gpa + at as u64);
            let found = match inner.tables.translate(&Tables, address, wanted) {
                // Writable, only not unnoticed.
                Err(NestedError::Withheld) => {
                    inner.tables.translate(&Tables, address, Wanted::Read)
                }
                found => found,
            };
            let found = match (found, purpose) {
                (Err(NestedError::Absent), Purpose::Fill) => {
                    let frame = inner.tables.absent_frame(&Tables, address);
                    frame.map(|address| Translation {
                        address,
                        memory_type: MemoryType::WriteBack,
                        size: PageSize::Small4K,
                    })
                }
                (Ok(found), Purpose::Read | Purpose::Write | Purpose::Check(_)) => Some(found),
                (_, _) => None,
            };
            let Some(found) = found else {
                return false;
            };
            if found.memory_type != MemoryType::WriteBack {
                return false;
            }
            let notes = purpose == Purpose::Write && inner.tables.is_tracking();
            let size = if notes { PageSize::Small4K } else { found.size }.bytes();
            let count = ((size - (address.0 & (size - 1))) as usize).min(bytes - at);
            if notes {
                let marked = inner.tables.mark_dirty(&mut Tables, address);
                assert!(marked.is_ok(), "a page just found is gone: {marked:?}");
            }
            action(direct_map(found.address.0), at, count);
            at += count;
        }
        true
    }
}
