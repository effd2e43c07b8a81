//! The hypervisor's own page tables: W^X, guard pages, nothing mapped that is not needed.
//!
//! They are made once, at boot, in memory set aside for them, and grow only by device registers
//! and stacks. Built with the x86_64 crate's mapper over the direct map.

use core::sync::atomic::{AtomicU64, Ordering};

use godwit_vmm::frames::Zone;
use spin::mutex::TicketMutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags as Flags,
    PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use super::layout::{
    DEVICE_BASE, DIRECT_BASE, IMAGE_BASE, ImageBorders, PHYSICAL_MAX, STACK_BASE, direct_map,
};
use super::{OutOfMemory, allocate};
use crate::boot::info::{BootInfo, Range};

/// Bytes of a hypervisor stack.
pub(crate) const STACK_BYTES: u64 = 64 << 10;
const GIB: u64 = 1 << 30;
const MIB2: u64 = 2 << 20;

static EDIT: TicketMutex<()> = TicketMutex::new(());
static NEXT_STACK: AtomicU64 = AtomicU64::new(STACK_BASE);
static ROOT: AtomicU64 = AtomicU64::new(0);

const DATA: Flags = Flags::PRESENT
    .union(Flags::WRITABLE)
    .union(Flags::NO_EXECUTE)
    .union(Flags::GLOBAL);
const TABLE: Flags = Flags::PRESENT.union(Flags::WRITABLE);

/// Frames from a range, one after the other: what tables are made from before the frame table is.
struct Early {
    next: u64,
    end: u64,
}

// SAFETY: every frame is given out once; the range is RAM set aside by `memory::init`.
unsafe impl FrameAllocator<Size4KiB> for Early {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        if self.next >= self.end {
            return None;
        }
        let frame = PhysFrame::containing_address(PhysAddr::new(self.next));
        self.next += 4096;
        Some(frame)
    }
}

/// Frames from the frame table.
struct Late;

// SAFETY: the frame table gives a frame to one owner only, and these are never freed.
unsafe impl FrameAllocator<Size4KiB> for Late {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let frame = allocate(0, Zone::Any).ok()?;
        Some(PhysFrame::containing_address(PhysAddr::new(
            frame.address().0,
        )))
    }
}

/// Memory to set aside for the first tables: one page directory for each GiB, one page table for
/// the ends of areas, and the levels above.
pub(crate) fn bytes_needed(memory_end: u64) -> u64 {
    let directories = memory_end.div_ceil(GIB);
    let ends = 2 * crate::boot::info::AREAS_MAX as u64;
    4096 * (directories + directories.div_ceil(512) + ends + 32)
}

/// Builds the final tables in `place` and switches to them.
pub(crate) fn switch(info: &BootInfo, place: Range) {
    let mut early = Early {
        next: place.start,
        end: place.end,
    };
    let root = early.allocate_frame().expect("room for the root");
    let pointer = direct_map(root.start_address().as_u64()).cast::<PageTable>();
    // SAFETY: the frame is ours and reached by the first direct map.
    let table = unsafe {
        pointer.write(PageTable::new());
        &mut *pointer
    };
    // SAFETY: every table frame comes from `place`, which both direct maps, old and new, cover.
    let mut mapper = unsafe { OffsetPageTable::new(table, VirtAddr::new(DIRECT_BASE)) };
    map_image(&mut mapper, &mut early);
    let image = ImageBorders::here();
    let image = Range {
        start: image.physical_start,
        end: image.physical_end(),
    };
    for area in &info.usable {
        let (start, end) = (
            area.start & !4095,
            area.end.next_multiple_of(4096).min(PHYSICAL_MAX),
        );
        // The image is not in the direct map: its text would be writable there.
        map_direct(&mut mapper, &mut early, start, end.min(image.start));
        map_direct(&mut mapper, &mut early, start.max(image.end), end);
    }
    // Boot information, modules and ACPI tables may lie in memory the map does not call usable;
    // `map_device` and `map_firmware` reach those.
    ROOT.store(root.start_address().as_u64(), Ordering::Relaxed);
    activate();
}

/// Switches this CPU to the hypervisor's tables and the protections that go with them.
pub(crate) fn activate() {
    let frame = PhysFrame::containing_address(PhysAddr::new(ROOT.load(Ordering::Relaxed)));
    // SAFETY: the tables map this code, its stack (in the image, or a guarded stack) and all
    // that Rust refers to, at the addresses in use now.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Physical address of the root, for the start-up code of other CPUs.
pub(crate) fn root() -> u64 {
    ROOT.load(Ordering::Relaxed)
}

fn map_image(mapper: &mut OffsetPageTable<'_>, early: &mut Early) {
    let borders = ImageBorders::here();
    let sections = [
        (
            borders.text_start,
            borders.text_end,
            Flags::PRESENT | Flags::GLOBAL,
        ),
        (
            borders.text_end,
            borders.rodata_end,
            Flags::PRESENT | Flags::GLOBAL | Flags::NO_EXECUTE,
        ),
        (borders.rodata_end, borders.end, DATA),
    ];
    for (start, end, flags) in sections {
        for page in (start..end)
            .step_by(4096)
            .filter(|page| *page != borders.stack_guard)
        {
            map::<Size4KiB>(mapper, early, page, page - IMAGE_BASE, flags);
        }
    }
}

fn map_direct(mapper: &mut OffsetPageTable<'_>, early: &mut Early, start: u64, end: u64) {
    let gib_pages = has_gib_pages();
    let mut at = start;
    while at < end {
        let left = end - at;
        if gib_pages && at.is_multiple_of(GIB) && left >= GIB {
            map::<Size1GiB>(mapper, early, DIRECT_BASE + at, at, DATA);
            at += GIB;
        } else if at.is_multiple_of(MIB2) && left >= MIB2 {
            map::<Size2MiB>(mapper, early, DIRECT_BASE + at, at, DATA);
            at += MIB2;
        } else {
            map::<Size4KiB>(mapper, early, DIRECT_BASE + at, at, DATA);
            at += 4096;
        }
    }
}

fn has_gib_pages() -> bool {
    core::arch::x86_64::__cpuid(0x8000_0001).edx & 1 << 26 != 0
}

/// Maps one page; mapping what is mapped already changes nothing.
fn map<S: PageSize + core::fmt::Debug>(
    mapper: &mut OffsetPageTable<'_>,
    frames: &mut impl FrameAllocator<Size4KiB>,
    address: u64,
    physical: u64,
    flags: Flags,
) where
    for<'a> OffsetPageTable<'a>: Mapper<S>,
{
    let page = Page::<S>::containing_address(VirtAddr::new(address));
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new(physical));
    // SAFETY: only fresh mappings are made (an existing one is an error), in areas of the address
    // space that belong to this module; no reference points there yet.
    match unsafe { mapper.map_to_with_table_flags(page, frame, flags, TABLE, frames) } {
        Ok(flush) => flush.ignore(),
        Err(MapToError::PageAlreadyMapped(_) | MapToError::ParentEntryHugePage) => {}
        Err(MapToError::FrameAllocationFailed) => {
            panic!("no memory for the hypervisor's page tables")
        }
    }
}

fn edit<R>(action: impl FnOnce(&mut OffsetPageTable<'_>) -> R) -> R {
    let _guard = EDIT.lock();
    let pointer = direct_map(root()).cast::<PageTable>();
    // SAFETY: EDIT is held, so this is the only reference to the root; all tables below it are in
    // the direct map.
    let mut mapper = unsafe { OffsetPageTable::new(&mut *pointer, VirtAddr::new(DIRECT_BASE)) };
    action(&mut mapper)
}

/// Maps device registers uncached and returns their address. Idempotent.
pub(crate) fn map_device(physical: u64, bytes: u64) -> *mut u8 {
    assert!(
        physical + bytes < PHYSICAL_MAX,
        "device at {physical:#x} beyond the device map"
    );
    let flags = DATA | Flags::NO_CACHE | Flags::WRITE_THROUGH;
    edit(|mapper| {
        for page in ((physical & !4095)..physical + bytes).step_by(4096) {
            map::<Size4KiB>(mapper, &mut Late, DEVICE_BASE + page, page, flags);
        }
    });
    (DEVICE_BASE + physical) as *mut u8
}

/// Makes sure that a range of firmware memory (ACPI tables, boot modules) is in the direct map.
pub(crate) fn map_firmware(physical: u64, bytes: u64) -> *mut u8 {
    let flags = DATA - Flags::WRITABLE;
    edit(|mapper| {
        for page in ((physical & !4095)..physical + bytes).step_by(4096) {
            map::<Size4KiB>(mapper, &mut Late, DIRECT_BASE + page, page, flags);
        }
    });
    direct_map(physical)
}

/// A new stack with an unmapped page below it; returns its top.
pub(crate) fn new_stack() -> Result<u64, OutOfMemory> {
    let base = NEXT_STACK.fetch_add(STACK_BYTES + 4096, Ordering::Relaxed) + 4096;
    for page in (base..base + STACK_BYTES).step_by(4096) {
        let frame = allocate(0, Zone::Any)?;
        edit(|mapper| map::<Size4KiB>(mapper, &mut Late, page, frame.address().0, DATA));
    }
    Ok(base + STACK_BYTES)
}

/// Maps the page of the start-up code of other CPUs at its physical address, executable: the one
/// exception to W^X, gone again with `unmap_trampoline`.
pub(crate) fn map_trampoline(physical: u64) {
    edit(|mapper| map::<Size4KiB>(mapper, &mut Late, physical, physical, Flags::PRESENT));
}

/// Takes the start-up page away.
pub(crate) fn unmap_trampoline(physical: u64) {
    edit(|mapper| {
        let page = Page::<Size4KiB>::containing_address(VirtAddr::new(physical));
        if let Ok((_, flush)) = mapper.unmap(page) {
            flush.flush();
        }
    });
}

/// Identity page tables for dom0, made in its own memory.
pub(crate) struct Identity {
    frames: Early,
    root: u64,
}

impl Identity {
    /// Empty tables; every table page comes from `place`.
    pub(crate) fn new(place: Range) -> Self {
        let mut frames = Early {
            next: place.start,
            end: place.end,
        };
        let root = frames
            .allocate_frame()
            .expect("room for the root")
            .start_address()
            .as_u64();
        // SAFETY: `place` is RAM that the caller owns, in the direct map.
        unsafe { direct_map(root).cast::<PageTable>().write(PageTable::new()) };
        Self { frames, root }
    }

    /// Physical address of the root.
    pub(crate) fn root(&self) -> u64 {
        self.root
    }

    /// Bytes of tables that [`Identity::map_all`] takes at most for memory up to `memory_end`.
    pub(crate) fn bytes_needed(memory_end: u64) -> u64 {
        bytes_needed(memory_end)
    }

    /// Maps `[start, end)` at equal addresses, in pages as large as fit; what is mapped already stays as it is.
    pub(crate) fn map_all(&mut self, start: u64, end: u64, flags: Flags) {
        let gib_pages = has_gib_pages();
        let mut at = start;
        while at < end {
            let gib_end = ((at | (GIB - 1)) + 1).min(end);
            if gib_pages && gib_end - at == GIB {
                let mut mapper = self.mapper();
                map::<Size1GiB>(&mut mapper, &mut self.frames, at, at, flags);
            } else {
                self.map(at, gib_end, flags);
            }
            at = gib_end;
        }
    }

    /// Maps `[start, end)` at equal addresses, in 2 MiB pages where they fit.
    pub(crate) fn map(&mut self, start: u64, end: u64, flags: Flags) {
        let mut mapper = self.mapper();
        let mut at = start;
        while at < end {
            if at.is_multiple_of(MIB2) && end - at >= MIB2 {
                map::<Size2MiB>(&mut mapper, &mut self.frames, at, at, flags);
                at += MIB2;
            } else {
                map::<Size4KiB>(&mut mapper, &mut self.frames, at, at, flags);
                at += 4096;
            }
        }
    }

    fn mapper(&self) -> OffsetPageTable<'static> {
        // SAFETY: the root and all tables below it are in the direct map, and only `self` uses them, one mapper at a
        // time: each caller drops its own before it returns.
        unsafe {
            OffsetPageTable::new(
                &mut *direct_map(self.root).cast::<PageTable>(),
                VirtAddr::new(DIRECT_BASE),
            )
        }
    }
}
