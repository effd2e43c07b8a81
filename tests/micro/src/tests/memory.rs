//! `fault`: every page of RAM on first touch. `fault-beyond`: an address with nothing behind it.

use crate::command_line::Arguments;
use crate::cpu::{self, Host};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, fail, say, skip};

const PAGE_BYTES: u64 = 4096;
const WORDS_PER_PAGE: u64 = PAGE_BYTES / 8;

/// Reads a word of guest-physical memory.
fn load(address: u64) -> u64 {
    // SAFETY: callers give 8-aligned addresses in free RAM or (beyond_ram) where nothing is; entry.rs maps
    // both to themselves and no Rust object lies there.
    unsafe { (address as *const u64).read_volatile() }
}

/// Writes a word of guest-physical memory.
fn store(address: u64, value: u64) {
    // SAFETY: as for `load`.
    unsafe { (address as *mut u64).write_volatile(value) }
}

/// A value that names its place, so that a page mapped twice or swapped shows.
fn pattern(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5aa5_c33c_0ff0_9669
}

pub(crate) fn first_touch(info: &StartInfo, _: &Arguments) -> Verdict {
    check!(!info.ram().is_empty(), "the loader gave no memory map");
    let (mut pages, mut dirty_pages) = (0u64, 0u64);
    for region in info.free_ram() {
        say!("touching {:#x}-{:#x}", region.start, region.end);
        for page in (region.start..region.end).step_by(PAGE_BYTES as usize) {
            pages += 1;
            let dirty = (0..WORDS_PER_PAGE).any(|word| load(page + word * 8) != 0);
            dirty_pages += u64::from(dirty);
            // First and last word: the whole page must be there, not only its beginning.
            store(page, pattern(page));
            store(page + PAGE_BYTES - 8, !pattern(page));
        }
    }
    check!(pages > 0, "no RAM above the image");
    say!("touched {pages} pages, {dirty_pages} were not zero");
    // A machine's firmware leaves things in memory; a new domain's memory is clean.
    check!(
        dirty_pages == 0 || cpu::host() != Host::Godwit,
        "{dirty_pages} of {pages} pages were not zero"
    );
    for region in info.free_ram() {
        for page in (region.start..region.end).step_by(PAGE_BYTES as usize) {
            let (first, last) = (load(page), load(page + PAGE_BYTES - 8));
            check!(
                first == pattern(page) && last == !pattern(page),
                "page {page:#x} holds {first:#x} and {last:#x}"
            );
        }
    }
    Ok(())
}

/// An address far above this guest's RAM, below 4 GiB.
const BEYOND: u64 = 3 << 30;

pub(crate) fn beyond_ram(info: &StartInfo, _: &Arguments) -> Verdict {
    check!(
        info.ram().iter().all(|region| region.end <= BEYOND),
        "this guest has RAM at {BEYOND:#x}"
    );
    say!("MICRO fault-beyond EXPECT-CRASH gpa {BEYOND:#x}");
    let value = load(BEYOND);
    if cpu::host() != Host::Godwit {
        skip!("no hypervisor to stop us: read {value:#x}");
    }
    fail!("survived, read {value:#x}")
}
