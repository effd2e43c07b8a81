//! dom0's view of memory for back ends and drivers: what it has allocated for them, and the guest
//! pages it has mapped.
//!
//! Why unsafe: devices and guests write to this memory at any moment, so it is never a Rust
//! reference; it is copied by string instructions, which the compiler takes for what they are.
//! Invariant: every access lies in a region of `regions`, which are allocations that `release` has
//! not taken back, and mapped guest pages; no Rust object lives in either.

use alloc::alloc::{alloc_zeroed, dealloc};
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use core::alloc::Layout;
use core::cell::RefCell;
use core::sync::atomic::{Ordering, fence};
use godwit_backends::memory::{Memory, PAGE_BYTES};

/// All memory that back ends and drivers may use.
pub(crate) struct HostMemory {
    /// First byte and end of each region. They do not overlap.
    regions: RefCell<BTreeMap<u64, u64>>,
}

impl HostMemory {
    /// None yet.
    pub(crate) fn new() -> Rc<HostMemory> {
        Rc::new(HostMemory {
            regions: RefCell::new(BTreeMap::new()),
        })
    }

    /// Lets guest pages be accessed that the hypervisor has mapped into dom0.
    ///
    /// # Safety
    /// The range is mapped in dom0's nested and own page tables, is no memory of dom0's own, and
    /// stays so until [`Self::withdraw`].
    pub(crate) unsafe fn admit(&self, address: u64, bytes: u64) {
        let before = self.regions.borrow_mut().insert(address, address + bytes);
        assert!(before.is_none(), "{address:#x} admitted twice");
    }

    /// Takes back what `admit` let in, before it is unmapped; a range may be of several calls.
    pub(crate) fn withdraw(&self, address: u64, bytes: u64) {
        let mut regions = self.regions.borrow_mut();
        let mut at = address;
        while at < address + bytes {
            let end = regions.remove(&at);
            at = end.unwrap_or_else(|| panic!("{at:#x} was not admitted"));
        }
        assert_eq!(at, address + bytes, "admitted as another range");
    }

    /// Takes back a page of what `admit` let in, before it is unmapped.
    pub(crate) fn exclude(&self, page_address: u64) {
        let mut regions = self.regions.borrow_mut();
        let found = regions.range(..=page_address).next_back();
        let (start, end) = found.map_or((0, 0), |(start, end)| (*start, *end));
        assert!(end > page_address, "{page_address:#x} was not admitted");
        regions.remove(&start);
        let after = page_address + PAGE_BYTES;
        for (start, end) in [(start, page_address), (after, end)] {
            if start < end {
                regions.insert(start, end);
            }
        }
    }

    /// Panics unless all of a range may be accessed.
    fn check(&self, address: u64, bytes: usize) {
        let regions = self.regions.borrow();
        let end = address.checked_add(bytes as u64);
        let mut at = address;
        while end.is_some_and(|end| at < end) {
            // Neighbours are one to the caller: its spans join them.
            match regions.range(..=at).next_back() {
                Some((_, region_end)) if *region_end > at => at = *region_end,
                Some(_) | None => break,
            }
        }
        assert!(
            end.is_some_and(|end| at >= end),
            "access to {address:#x}, {bytes:#x} bytes: neither allocated nor mapped"
        );
    }

    fn layout(bytes: usize) -> Layout {
        let bytes = bytes.max(1);
        Layout::from_size_align(bytes, PAGE_BYTES as usize).expect("a size below isize::MAX")
    }
}

/// Copies bytes between places that do not overlap.
///
/// # Safety
/// `from` can be read and `to` written for `bytes` bytes. Others may access either meanwhile, but
/// no Rust reference may say that they do not.
unsafe fn copy_bytes(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise; the direction flag is clear by the calling convention. Seen from
    // Rust this is a device's access, which may race with others.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) bytes % 8,
            inout("rcx") bytes / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

impl Memory for HostMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        self.check(address, out.len());
        // SAFETY: checked to be a region; `out` is ours alone and lies in none.
        unsafe { copy_bytes(address as *const u8, out.as_mut_ptr(), out.len()) }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.check(address, bytes.len());
        // SAFETY: checked to be a region, to which no reference exists.
        unsafe { copy_bytes(bytes.as_ptr(), address as *mut u8, bytes.len()) }
    }

    fn load_u16(&self, address: u64) -> u16 {
        self.check(address, 2);
        assert!(address.is_multiple_of(2), "an odd address");
        // SAFETY: checked to be a region, and aligned.
        let value = unsafe { (address as *const u16).read_volatile() };
        fence(Ordering::Acquire);
        u16::from_le(value)
    }

    fn store_u16(&self, address: u64, value: u16) {
        self.check(address, 2);
        assert!(address.is_multiple_of(2), "an odd address");
        fence(Ordering::Release);
        // SAFETY: checked to be a region, and aligned.
        unsafe { (address as *mut u16).write_volatile(value.to_le()) }
    }

    fn fence(&self) {
        fence(Ordering::SeqCst);
    }

    fn copy(&self, from: u64, to: u64, bytes: usize) {
        self.check(from, bytes);
        self.check(to, bytes);
        let length = bytes as u64;
        assert!(
            from + length <= to || to + length <= from,
            "overlapping copy"
        );
        // SAFETY: both checked to be regions.
        unsafe { copy_bytes(from as *const u8, to as *mut u8, bytes) }
    }

    fn allocate(&self, bytes: usize) -> Option<u64> {
        let layout = Self::layout(bytes);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            return None;
        }
        let address = memory as u64;
        let mut regions = self.regions.borrow_mut();
        regions.insert(address, address + layout.size() as u64);
        Some(address)
    }

    fn release(&self, address: u64, bytes: usize) {
        let layout = Self::layout(bytes);
        let end = self.regions.borrow_mut().remove(&address);
        assert_eq!(
            end,
            Some(address + layout.size() as u64),
            "{address:#x} released and not allocated so"
        );
        // SAFETY: `allocate` gave it with the same layout (asserted; only it inserts regions of
        // dom0's own), nobody can access it any more, and by the trait's contract no device does.
        unsafe { dealloc(address as *mut u8, layout) }
    }
}
