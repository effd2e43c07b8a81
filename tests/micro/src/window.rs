//! Sixteen 4 KiB pages at 512 GiB whose page table entries a test sets as it likes.
//!
//! Everything else is mapped by 2 MiB pages that the program itself lives in; faults are provoked here.

use crate::cpu;
use core::sync::atomic::{AtomicU64, Ordering};

/// First address of the window: the second entry of the top level table.
pub(crate) const WINDOW: u64 = 1 << 39;
/// Pages in the window that are backed by memory of ours.
pub(crate) const WINDOW_PAGES: usize = 16;

/// Page table entry bits (SDM 3A table 4-20).
pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;

#[repr(C, align(4096))]
struct Table([AtomicU64; 512]);

impl Table {
    const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 512])
    }

    fn address(&self) -> u64 {
        core::ptr::from_ref(self) as u64
    }
}

static DIRECTORY_POINTERS: Table = Table::new();
static DIRECTORY: Table = Table::new();
static PAGES: Table = Table::new();
static MEMORY: [Table; WINDOW_PAGES] = [const { Table::new() }; WINDOW_PAGES];

unsafe extern "C" {
    #[link_name = "pml4"]
    static PML4: Table;
}

/// Address of a page in the window.
pub(crate) fn address(page: usize) -> u64 {
    WINDOW + page as u64 * 4096
}

/// Guest-physical address of the memory behind a page of the window.
pub(crate) fn memory(page: usize) -> u64 {
    MEMORY[page].address()
}

/// Reads the word at the start of a page's memory, by its other mapping.
pub(crate) fn word(page: usize) -> u64 {
    MEMORY[page].0[0].load(Ordering::SeqCst)
}

/// Maps a page of the window to its memory with these bits (0: not present).
pub(crate) fn map(page: usize, bits: u64) {
    let open = PRESENT | WRITABLE | USER;
    // SAFETY: `pml4` is the live top level table of entry.rs, 512 entries long; its second entry is ours alone.
    let top = unsafe { &PML4 };
    top.0[1].store(DIRECTORY_POINTERS.address() | open, Ordering::SeqCst);
    DIRECTORY_POINTERS.0[0].store(DIRECTORY.address() | open, Ordering::SeqCst);
    DIRECTORY.0[0].store(PAGES.address() | open, Ordering::SeqCst);
    PAGES.0[page].store(
        if bits == 0 { 0 } else { memory(page) | bits },
        Ordering::SeqCst,
    );
    // SAFETY: the same value again, to flush the TLB: everything in use stays mapped as it was.
    unsafe { cpu::write_cr3(cpu::cr3()) }
}

/// A page's entry as it stands, with what the CPU set.
pub(crate) fn entry(page: usize) -> u64 {
    PAGES.0[page].load(Ordering::SeqCst)
}
