//! Memory that devices and guests write to at any moment: never a Rust reference, always copies.
//!
//! dom0's addresses are host-physical addresses, for its own buffers and for guest pages it has
//! mapped alike, so a [`Span`] can be handed to a device as it is.

use crate::absent::AbsentPages;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

/// A page, the unit of guest memory.
pub const PAGE_BYTES: u64 = 4096;

/// A piece of memory by dom0's (host-physical) address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub address: u64,
    /// Length in bytes, not 0.
    pub bytes: u32,
}

/// All memory that dom0 may access. Implementations panic on an address that is neither dom0's nor
/// mapped: callers only use what [`GuestMemory`] or [`Memory::allocate`] gave them.
pub trait Memory {
    /// Copies out.
    fn read(&self, address: u64, out: &mut [u8]);
    /// Copies in.
    fn write(&self, address: u64, bytes: &[u8]);
    /// Reads a little-endian u16 at an even address, in one access, before everything that follows.
    fn load_u16(&self, address: u64) -> u16;
    /// Writes a little-endian u16 at an even address, in one access, after everything before it.
    fn store_u16(&self, address: u64, value: u16);
    /// Everything before is visible to others before anything after it is read (a full fence).
    fn fence(&self);
    /// Copies between two places that do not overlap.
    fn copy(&self, from: u64, to: u64, bytes: usize);
    /// Zeroed memory, page aligned and contiguous. `None`: there is none left.
    fn allocate(&self, bytes: usize) -> Option<u64>;
    /// Gives back what `allocate` gave; no device may still be using it.
    fn release(&self, address: u64, bytes: usize);
}

/// Memory of dom0's own that frees itself.
pub struct Buffer {
    memory: Rc<dyn Memory>,
    address: u64,
    bytes: usize,
}

impl Buffer {
    /// `bytes` of zeroes. `None`: there is no memory left.
    pub fn new(memory: &Rc<dyn Memory>, bytes: usize) -> Option<Buffer> {
        let address = memory.allocate(bytes)?;
        Some(Buffer {
            memory: Rc::clone(memory),
            address,
            bytes,
        })
    }

    /// Its address.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// All of it.
    pub fn span(&self) -> Span {
        Span {
            address: self.address,
            bytes: self.bytes as u32,
        }
    }

    /// Copies out from `offset` on. Panics beyond its end.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= self.bytes, "read beyond a buffer");
        self.memory.read(self.address + offset as u64, out);
    }

    /// Copies in at `offset`. Panics beyond its end.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes, "write beyond a buffer");
        self.memory.write(self.address + offset as u64, bytes);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.memory.release(self.address, self.bytes);
    }
}

/// A run of guest pages that dom0 has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// First guest page.
    pub page: u64,
    /// Pages.
    pub pages: u64,
    /// Address of the first in dom0.
    pub address: u64,
}

/// A guest-physical range is not (all) memory of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGuestMemory {
    /// First byte of the range.
    pub gpa: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

/// The memory of one guest: where its pages are in dom0, and which of them back ends have written.
pub struct GuestMemory {
    memory: Rc<dyn Memory>,
    runs: RefCell<Vec<Run>>,
    /// One bit a page, empty while nobody tracks.
    dirty: RefCell<Vec<u64>>,
    tracking: Cell<bool>,
    absent: AbsentPages,
    /// First and last page of what devices may be reading or writing now.
    held: RefCell<Vec<(u64, u64)>>,
}

impl GuestMemory {
    /// A guest whose pages are mapped so. Runs must not overlap.
    pub fn new(memory: Rc<dyn Memory>, mut runs: Vec<Run>) -> GuestMemory {
        runs.sort_unstable_by_key(|run| run.page);
        GuestMemory {
            memory,
            runs: RefCell::new(runs),
            dirty: RefCell::new(Vec::new()),
            tracking: Cell::new(false),
            absent: AbsentPages::default(),
            held: RefCell::new(Vec::new()),
        }
    }

    /// dom0's memory, for what `spans` gives.
    pub fn memory(&self) -> &Rc<dyn Memory> {
        &self.memory
    }

    /// Pages whose contents have yet to come. Devices ask before they begin what they were asked to do; rings are never among
    /// them.
    pub fn absent(&self) -> &AbsentPages {
        &self.absent
    }

    /// The mapping has changed (balloon, migration).
    pub fn set_runs(&self, mut runs: Vec<Run>) {
        runs.sort_unstable_by_key(|run| run.page);
        *self.runs.borrow_mut() = runs;
    }

    /// Where `bytes` from `gpa` on are, if all are memory and in one piece.
    pub fn contiguous(&self, gpa: u64, bytes: u64) -> Option<u64> {
        let page = gpa / PAGE_BYTES;
        let runs = self.runs.borrow();
        let next = runs.partition_point(|run| run.page <= page);
        let run = runs.get(next.checked_sub(1)?)?;
        let offset = gpa - run.page * PAGE_BYTES;
        let end = offset.checked_add(bytes)?;
        (offset < run.pages * PAGE_BYTES && end <= run.pages * PAGE_BYTES)
            .then(|| run.address + offset)
    }

    /// Notes that a device may access this until [`let_go`](GuestMemory::let_go): the pages must
    /// not go back to the host meanwhile, see [`is_held`](GuestMemory::is_held).
    pub fn hold(&self, gpa: u64, bytes: u64) {
        self.held.borrow_mut().push(Self::pages(gpa, bytes));
    }

    /// Takes one [`hold`](GuestMemory::hold) of the same range back.
    pub fn let_go(&self, gpa: u64, bytes: u64) {
        let pages = Self::pages(gpa, bytes);
        let mut held = self.held.borrow_mut();
        let index = held.iter().position(|range| *range == pages);
        held.swap_remove(index.expect("what is let go was held"));
    }

    /// Whether a device may be accessing the page now.
    pub fn is_held(&self, page: u64) -> bool {
        let held = self.held.borrow();
        held.iter()
            .any(|(first, last)| (*first..=*last).contains(&page))
    }

    fn pages(gpa: u64, bytes: u64) -> (u64, u64) {
        assert!(bytes > 0, "nothing is held");
        (gpa / PAGE_BYTES, (gpa + (bytes - 1)) / PAGE_BYTES)
    }

    /// A page goes back to the host: takes it out, and says where it was. It counts as written: whoever has a copy is to look again.
    pub fn remove_page(&self, page: u64) -> Option<u64> {
        self.absent.fill(page..page + 1);
        let mut runs = self.runs.borrow_mut();
        let at = runs
            .partition_point(|run| run.page <= page)
            .checked_sub(1)?;
        let run = runs[at];
        let before = page - run.page;
        if before >= run.pages {
            return None;
        }
        let after = Run {
            page: page + 1,
            pages: run.pages - before - 1,
            address: run.address + (before + 1) * PAGE_BYTES,
        };
        let first = Run {
            pages: before,
            ..run
        };
        let rest = [first, after].into_iter().filter(|run| run.pages > 0);
        runs.splice(at..=at, rest);
        self.mark_dirty(page * PAGE_BYTES, PAGE_BYTES);
        Some(run.address + before * PAGE_BYTES)
    }

    /// A run of pages was mapped that was not the guest's before.
    pub fn add_run(&self, run: Run) {
        let mut runs = self.runs.borrow_mut();
        let at = runs.partition_point(|other| other.page < run.page);
        let follows = |one: &Run, other: &Run| {
            one.page + one.pages == other.page
                && one.address + one.pages * PAGE_BYTES == other.address
        };
        let overlaps = |one: &Run, other: &Run| {
            one.page < other.page + other.pages && other.page < one.page + one.pages
        };
        let (left, right) = (at.checked_sub(1), runs.get(at));
        let clear = left.is_none_or(|left| !overlaps(&runs[left], &run))
            && right.is_none_or(|right| !overlaps(right, &run));
        assert!(clear, "a page is mapped twice");
        match left {
            Some(left) if follows(&runs[left], &run) => runs[left].pages += run.pages,
            Some(_) | None => runs.insert(at, run),
        }
    }

    /// Takes the mapping away: from here on no address is the guest's.
    pub fn take_runs(&self) -> Vec<Run> {
        core::mem::take(&mut *self.runs.borrow_mut())
    }

    /// Appends where `bytes` from `gpa` on are. On an error nothing is appended.
    pub fn spans(&self, gpa: u64, bytes: u64, out: &mut Vec<Span>) -> Result<(), NotGuestMemory> {
        let refused = NotGuestMemory { gpa, bytes };
        let end = gpa.checked_add(bytes).ok_or(refused)?;
        let runs = self.runs.borrow();
        let kept = out.len();
        let mut at = gpa;
        while at < end {
            let page = at / PAGE_BYTES;
            let next = runs.partition_point(|run| run.page <= page);
            let found = next.checked_sub(1).and_then(|index| runs.get(index));
            let run = found.filter(|run| page - run.page < run.pages);
            let Some(run) = run else {
                out.truncate(kept);
                return Err(refused);
            };
            let offset = at - run.page * PAGE_BYTES;
            let left = (run.pages * PAGE_BYTES - offset).min(end - at);
            let bytes = left.min(1 << 30) as u32;
            let address = run.address + offset;
            match out.last_mut() {
                Some(last)
                    // Only what this call has appended may grow.
                    if at != gpa
                        && last.address + u64::from(last.bytes) == address
                        && last.bytes.checked_add(bytes).is_some() =>
                {
                    last.bytes += bytes;
                }
                _ => out.push(Span { address, bytes }),
            }
            at += u64::from(bytes);
        }
        Ok(())
    }

    /// Copies out of the guest.
    pub fn read(&self, gpa: u64, out: &mut [u8]) -> Result<(), NotGuestMemory> {
        if let Some(address) = self.contiguous(gpa, out.len() as u64) {
            self.memory.read(address, out);
            return Ok(());
        }
        let mut spans = Vec::new();
        self.spans(gpa, out.len() as u64, &mut spans)?;
        let mut at = 0;
        for span in spans {
            let end = at + span.bytes as usize;
            self.memory.read(span.address, &mut out[at..end]);
            at = end;
        }
        Ok(())
    }

    /// Copies into the guest and marks the pages dirty.
    pub fn write(&self, gpa: u64, bytes: &[u8]) -> Result<(), NotGuestMemory> {
        if let Some(address) = self.contiguous(gpa, bytes.len() as u64) {
            self.memory.write(address, bytes);
            self.mark_dirty(gpa, bytes.len() as u64);
            return Ok(());
        }
        let mut spans = Vec::new();
        self.spans(gpa, bytes.len() as u64, &mut spans)?;
        let mut at = 0;
        for span in spans {
            let end = at + span.bytes as usize;
            self.memory.write(span.address, &bytes[at..end]);
            at = end;
        }
        self.mark_dirty(gpa, bytes.len() as u64);
        Ok(())
    }

    /// Notes that a back end (or a device on its behalf) has written here. Call it after the write.
    pub fn mark_dirty(&self, gpa: u64, bytes: u64) {
        if !self.tracking.get() || bytes == 0 {
            return;
        }
        let mut dirty = self.dirty.borrow_mut();
        for page in gpa / PAGE_BYTES..=(gpa + (bytes - 1)) / PAGE_BYTES {
            let word = (page / 64) as usize;
            if dirty.len() <= word {
                dirty.resize(word + 1, 0);
            }
            dirty[word] |= 1 << (page % 64);
        }
    }

    /// Starts or ends the noting of writes. Starting again keeps what was noted, ending forgets it.
    pub fn track(&self, on: bool) {
        self.tracking.set(on);
        if !on {
            self.dirty.borrow_mut().clear();
        }
    }

    /// Takes what was noted: one bit a guest page, from page 0 on.
    pub fn harvest(&self) -> Vec<u64> {
        core::mem::take(&mut *self.dirty.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Arena;

    fn guest() -> GuestMemory {
        let base = Arena::BASE;
        let run = |page, pages, address| Run {
            page,
            pages,
            address,
        };
        // Pages 0 and 1 lie in the wrong order, page 2 is a hole, 3 and 4 are one run.
        let runs = std::vec![
            run(3, 2, base + 0x4000),
            run(0, 1, base + 0x1000),
            run(1, 1, base)
        ];
        GuestMemory::new(Arena::new(0x6000), runs)
    }

    #[test]
    fn ranges_are_cut_where_memory_is() {
        let guest = guest();
        let mut spans = Vec::new();
        guest.spans(0xff0, 0x20, &mut spans).unwrap();
        guest.spans(0x3ff0, 0x20, &mut spans).unwrap();
        let base = Arena::BASE;
        let expected = [(base + 0x1ff0, 0x10), (base, 0x10), (base + 0x4ff0, 0x20)];
        let found: Vec<_> = spans.iter().map(|s| (s.address, s.bytes)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn pages_go_and_come_back() {
        let guest = guest();
        let base = Arena::BASE;
        assert_eq!(guest.remove_page(2), None);
        assert_eq!(guest.remove_page(4), Some(base + 0x5000));
        assert_eq!(guest.remove_page(4), None);
        assert_eq!(guest.remove_page(0), Some(base + 0x1000));
        assert!(guest.read(0x4000, &mut [0]).is_err());
        assert!(guest.read(0x3000, &mut [0]).is_ok());
        guest.add_run(Run {
            page: 4,
            pages: 1,
            address: base + 0x5000,
        });
        assert_eq!(guest.contiguous(0x3ff0, 0x20), Some(base + 0x4ff0));
        assert_eq!(guest.take_runs().len(), 2);
    }

    #[test]
    fn holes_and_overflows_are_refused_whole() {
        let guest = guest();
        for (gpa, bytes) in [(0x1ff0, 0x20), (0x2000, 1), (0x4ff0, 0x20), (u64::MAX, 2)] {
            let mut spans = Vec::new();
            assert!(guest.spans(gpa, bytes, &mut spans).is_err(), "{gpa:#x}");
            assert!(spans.is_empty(), "{gpa:#x}");
        }
    }

    #[test]
    fn one_piece_is_found_where_it_is_one() {
        let guest = guest();
        let base = Arena::BASE;
        assert_eq!(guest.contiguous(0x10, 0x10), Some(base + 0x1010));
        assert_eq!(guest.contiguous(0x3ff0, 0x20), Some(base + 0x4ff0));
        for (gpa, bytes) in [(0xff0, 0x20), (0x2000, 1), (0x5000, 0), (u64::MAX, 2)] {
            assert_eq!(guest.contiguous(gpa, bytes), None, "{gpa:#x}");
        }
    }

    #[test]
    fn held_pages_are_held_until_all_let_go() {
        let guest = guest();
        guest.hold(0xff0, 0x20);
        guest.hold(0x1000, 1);
        assert!(guest.is_held(0) && guest.is_held(1) && !guest.is_held(2));
        guest.let_go(0xff0, 0x20);
        assert!(!guest.is_held(0) && guest.is_held(1));
        guest.let_go(0x1000, 1);
        assert!(!guest.is_held(1));
    }

    #[test]
    fn writes_arrive_and_are_noted_only_while_tracked() {
        let guest = guest();
        guest.write(0xffe, b"abcd").unwrap();
        let mut out = [0; 4];
        guest.read(0xffe, &mut out).unwrap();
        assert_eq!(&out, b"abcd");
        assert!(guest.harvest().is_empty());
        guest.track(true);
        guest.write(0xffe, b"abcd").unwrap();
        guest.track(true);
        assert_eq!(guest.harvest(), [0b11]);
        assert!(guest.harvest().is_empty());
        assert!(guest.remove_page(4).is_some() && guest.remove_page(4).is_none());
        assert_eq!(guest.harvest(), [1 << 4]);
        guest.mark_dirty(0x4000, 0);
        assert!(guest.harvest().is_empty());
        guest.mark_dirty(0x4000, 1);
        guest.track(false);
        assert!(guest.harvest().is_empty());
    }
}
