//! Memory that devices read and write. dom0's addresses are host addresses, so a device is told
//! plain pointers; with an IOMMU the hypervisor maps exactly dom0's memory, one to one.
//!
//! Nothing here is ever freed: a device may still be writing to what it was once told.

use alloc::alloc::alloc_zeroed;
use alloc::vec::Vec;
use core::alloc::Layout;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// Bytes of a frame buffer: the receive buffer size of the e1000, and more than a virtio header and
/// an Ethernet frame of 1514 bytes. Buffers are aligned to it, so none crosses a page.
pub(crate) const BUFFER_BYTES: usize = 2048;

const PAGE_BYTES: usize = 4096;

/// Zeroed memory from the heap, aligned to a page.
fn pages(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes.max(1), PAGE_BYTES).expect("a size of ours");
    // SAFETY: the layout's size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    NonNull::new(memory).unwrap_or_else(|| alloc::alloc::handle_alloc_error(layout))
}

/// Memory shared with a device, such as a descriptor ring: only ever accessed word by word, never
/// through a reference.
pub(crate) struct SharedMemory {
    memory: NonNull<u8>,
    bytes: usize,
}

impl SharedMemory {
    /// `bytes` of zeroes, page aligned.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            memory: pages(bytes),
            bytes,
        }
    }

    /// The address to tell the device.
    pub(crate) fn address(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    /// Reads a value that the device may write meanwhile.
    pub(crate) fn read<T: SharedWord>(&self, offset: usize) -> T {
        // SAFETY: `at` gives an aligned address inside the allocation, which is never freed.
        unsafe { self.at::<T>(offset).read_volatile() }
    }

    /// Writes a value that the device may read meanwhile.
    pub(crate) fn write<T: SharedWord>(&self, offset: usize, value: T) {
        // SAFETY: as in `read`; no reference into the memory exists.
        unsafe { self.at::<T>(offset).write_volatile(value) }
    }

    fn at<T: SharedWord>(&self, offset: usize) -> *mut T {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.bytes) && offset.is_multiple_of(size_of::<T>()),
            "offset {offset:#x} in {:#x} bytes of shared memory",
            self.bytes
        );
        // SAFETY: the offset is inside the allocation.
        unsafe { self.memory.as_ptr().add(offset).cast() }
    }
}

/// What can be read and written in one access, whatever its bits are.
pub(crate) trait SharedWord: Copy {}
impl SharedWord for u16 {}
impl SharedWord for u32 {}
impl SharedWord for u64 {}

/// A frame buffer. Whoever owns it may access it; a driver that tells a device its address keeps it
/// unaccessed until the device is done with it.
pub(crate) struct DmaBuffer(NonNull<[u8; BUFFER_BYTES]>);

impl DmaBuffer {
    /// `count` buffers, zeroed.
    pub(crate) fn allocate(count: usize) -> Vec<Self> {
        let memory = pages(count * BUFFER_BYTES).cast::<[u8; BUFFER_BYTES]>();
        // SAFETY: the allocation has room for `count` of them, and each is given away once.
        (0..count)
            .map(|index| Self(unsafe { memory.add(index) }))
            .collect()
    }

    /// The address to tell the device.
    pub(crate) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl Deref for DmaBuffer {
    type Target = [u8; BUFFER_BYTES];

    fn deref(&self) -> &Self::Target {
        // SAFETY: initialised, never freed, and by the rule of the type no device writes to it
        // while its owner accesses it.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for DmaBuffer {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as in `deref`, and `self` is the only way to it.
        unsafe { self.0.as_mut() }
    }
}
