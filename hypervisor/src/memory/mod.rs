//! The hypervisor's own memory: the frame table over all of RAM, its page tables, its heap.
//!
//! Order at boot: [`init`] takes the memory map, places the frame table and the final page tables
//! in it, and switches to them. Before that only the image and the boot loader's memory may be
//! touched; after it everything here works.

pub(crate) mod heap;
pub(crate) mod layout;
pub(crate) mod page;
pub(crate) mod tables;

use core::sync::atomic::{AtomicU64, Ordering};

use godwit_vmm::frames::{Frame, FrameError, FrameInfo, Frames, Owner, Zone};
use spin::mutex::TicketMutex;

use crate::boot::info::{BootInfo, Range};
use layout::{ImageBorders, direct_map};
pub(crate) use page::Page;

/// No host memory is left for what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutOfMemory;

/// The least memory, in bytes, that a host can have: hypervisor, dom0 and one small guest.
pub(crate) const MEMORY_MIN_BYTES: u64 = 96 << 20;

/// What stays free of guests, in bytes: what the hypervisor needs of its heap while guests live must
/// not fail, because nobody could be told.
pub(crate) const RESERVE_BYTES: u64 = 4 << 20;

type Table = Frames<&'static mut [FrameInfo]>;

static FRAMES: TicketMutex<Option<Table>> = TicketMutex::new(None);
static TOTAL_BYTES: AtomicU64 = AtomicU64::new(0);
static RESERVED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Uses the frame table. The lock is held: no allocation from the heap inside.
pub(crate) fn with_frames<R>(action: impl FnOnce(&mut Table) -> R) -> R {
    action(FRAMES.lock().as_mut().expect("memory::init has run"))
}

/// Usable memory of the machine, in bytes.
pub(crate) fn total_bytes() -> u64 {
    TOTAL_BYTES.load(Ordering::Relaxed)
}

/// Bytes nobody owns.
pub(crate) fn free_bytes() -> u64 {
    with_frames(|frames| frames.counts().free * 4096)
}

/// Bytes the hypervisor owns, its image and the boot modules included.
pub(crate) fn hypervisor_bytes() -> u64 {
    with_frames(|frames| frames.counts().hypervisor * 4096)
}

/// Bytes of boot modules, symbols and boot information that stay where the boot loader put them.
pub(crate) fn boot_bytes() -> u64 {
    RESERVED_BYTES.load(Ordering::Relaxed)
}

fn inner(range: Range) -> Option<(Frame, Frame)> {
    let start = range.start.div_ceil(4096).max(1);
    let end = range.end / 4096;
    (start < end).then_some((Frame(start), Frame(end)))
}

fn outer(range: Range) -> (Frame, Frame) {
    (Frame(range.start / 4096), Frame(range.end.div_ceil(4096)))
}

/// What lies in RAM already and must stay: image, boot information, modules, symbols.
fn taken(info: &BootInfo) -> impl Iterator<Item = Range> + '_ {
    let borders = ImageBorders::here();
    let image = Range {
        start: borders.physical_start,
        end: borders.physical_end(),
    };
    let symbols = info
        .symbols
        .iter()
        .flat_map(|(table, strings)| [*table, *strings]);
    [image, info.information]
        .into_iter()
        .chain(info.modules.iter().map(|module| module.range))
        .chain(symbols)
        .filter(|range| range.end > range.start)
}

/// Places the frame table and switches to the final page tables. Fails when the machine has too
/// little memory.
pub(crate) fn init(info: &BootInfo) -> Result<(), OutOfMemory> {
    let total: u64 = info.usable.iter().map(Range::bytes).sum();
    TOTAL_BYTES.store(total, Ordering::Relaxed);
    if total < MEMORY_MIN_BYTES {
        return Err(OutOfMemory);
    }
    let frames = info.memory_end.div_ceil(4096);
    let table_bytes = frames * size_of::<FrameInfo>() as u64;
    let tables_bytes = tables::bytes_needed(info.memory_end);
    let place =
        place_early(info, table_bytes.next_multiple_of(4096) + tables_bytes).ok_or(OutOfMemory)?;
    let table_pointer = direct_map(place.start);
    // SAFETY: `place` is RAM that the memory map calls usable, that no boot object overlaps, and
    // that is below 4 GiB, where the first direct map reaches. It is used by nothing else: it is
    // marked as the hypervisor's below, before the first allocation.
    let table = unsafe {
        core::ptr::write_bytes(table_pointer, 0, table_bytes as usize);
        core::slice::from_raw_parts_mut(table_pointer.cast::<FrameInfo>(), frames as usize)
    };
    let tables_start = place.start + table_bytes.next_multiple_of(4096);
    tables::switch(
        info,
        Range {
            start: tables_start,
            end: place.end,
        },
    );

    let mut frames = Frames::new(table);
    let mut boot_bytes = 0;
    for area in &info.usable {
        let Some((start, end)) = inner(*area) else {
            continue;
        };
        // An overlapping entry of a sloppy firmware map is left out whole: less memory, not shared memory.
        if frames.add_region(start, end).is_err() {
            log::warn!(
                "memory map entry {:#x}-{:#x} overlaps another: not used",
                area.start,
                area.end
            );
        }
    }
    for range in taken(info).chain([place]) {
        let (start, end) = outer(range);
        boot_bytes += range.bytes();
        claim(&mut frames, start, end);
    }
    RESERVED_BYTES.store(boot_bytes - place.bytes(), Ordering::Relaxed);
    *FRAMES.lock() = Some(frames);
    Ok(())
}

/// Marks frames as the hypervisor's, page by page where the run is not all free (two boot objects
/// may share a page, or lie outside what the map calls usable).
fn claim(frames: &mut Table, start: Frame, end: Frame) {
    if frames.allocate_at(start, end, Owner::Hypervisor).is_ok() {
        return;
    }
    for frame in start.0..end.0 {
        match frames.allocate_at(Frame(frame), Frame(frame + 1), Owner::Hypervisor) {
            Ok(()) | Err(FrameError::NotFree | FrameError::OutOfTable) => {}
            Err(error) => panic!("cannot claim boot memory: {error:?}"),
        }
    }
}

/// A page-aligned range of `bytes` in usable memory below 4 GiB and above 16 MiB if possible,
/// clear of everything in [`taken`]: the last that fits.
fn place_early(info: &BootInfo, bytes: u64) -> Option<Range> {
    const FOUR_GIB: u64 = 4 << 30;
    const ONE_MIB: u64 = 1 << 20;
    let mut best: Option<Range> = None;
    for area in &info.usable {
        let (low, high) = (area.start.max(ONE_MIB), area.end.min(FOUR_GIB));
        let mut end = high & !4095;
        while let Some(start) = end.checked_sub(bytes.next_multiple_of(4096)) {
            if start < low {
                break;
            }
            match taken(info).find(|range| range.start < end && start < range.end) {
                Some(obstacle) => end = obstacle.start & !4095,
                None => {
                    if best.is_none_or(|found| found.start < start) {
                        best = Some(Range { start, end });
                    }
                    break;
                }
            }
        }
    }
    best
}

/// 2^order contiguous frames for the hypervisor, contents undefined.
pub(crate) fn allocate(order: u8, zone: Zone) -> Result<Frame, OutOfMemory> {
    with_frames(|frames| frames.allocate(order, Owner::Hypervisor, zone)).map_err(|_| OutOfMemory)
}

/// Gives back what [`allocate`] gave.
pub(crate) fn free(frame: Frame, order: u8) {
    let freed = with_frames(|frames| frames.free(frame, order, Owner::Hypervisor));
    assert!(
        freed.is_ok(),
        "hypervisor frame {:#x} freed twice: {freed:?}",
        frame.0
    );
}
