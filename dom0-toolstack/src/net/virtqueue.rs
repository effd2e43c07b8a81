//! A split virtqueue whose every descriptor is one buffer, but for commands, which have two (Virtio
//! 1.2, 2.7).
//!
//! The device sees a descriptor only after the available index says so, and we believe a used
//! element only after the used index says so: one fence on either side.

use crate::dma::{DmaBuffer, SharedMemory};
use crate::mmio::Mmio;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use godwit_toolstack::net::virtqueue::{Descriptors, QueueLayout};

/// Descriptor flag: another one follows.
const DESCRIPTOR_NEXT: u64 = 1;
/// Descriptor flag: the device writes.
const DESCRIPTOR_WRITE: u64 = 2;
/// Available ring flag: do not interrupt.
const NO_INTERRUPT: u16 = 1;
/// Used ring flag: do not notify.
const NO_NOTIFY: u16 = 1;

/// A queue.
pub(crate) struct Virtqueue {
    index: u16,
    size: u16,
    layout: QueueLayout,
    memory: SharedMemory,
    descriptors: Descriptors,
    /// Buffers that are the device's, by descriptor.
    buffers: Vec<Option<DmaBuffer>>,
    available_index: u16,
    used_index: u16,
    /// The second descriptor of a command under way.
    second: Option<u16>,
    notify: Mmio,
    bell: usize,
}

impl Virtqueue {
    /// An empty queue of `size` descriptors, a power of two. Its notification is at offset `bell`.
    pub(super) fn new(index: u16, size: u16, notify: Mmio, bell: usize) -> Self {
        let layout = QueueLayout::new(size);
        Self {
            index,
            size,
            layout,
            memory: SharedMemory::new(layout.bytes),
            descriptors: Descriptors::new(size),
            buffers: (0..size).map(|_| None).collect(),
            available_index: 0,
            used_index: 0,
            second: None,
            notify,
            bell,
        }
    }

    /// Descriptors in all.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    pub(super) fn descriptors_address(&self) -> u64 {
        self.memory.address()
    }

    pub(super) fn available_address(&self) -> u64 {
        self.memory.address() + self.layout.available as u64
    }

    pub(super) fn used_address(&self) -> u64 {
        self.memory.address() + self.layout.used as u64
    }

    /// Whether a buffer can be given to the device.
    pub(crate) fn has_room(&self) -> bool {
        self.descriptors.is_any_free()
    }

    /// Gives the device the first `length` bytes of a buffer, to write or to read. There must be
    /// room. The device need not look before [`Self::ring`].
    pub(crate) fn post(&mut self, buffer: DmaBuffer, length: u32, device_writes: bool) {
        let id = self.descriptors.post().expect("the caller saw room");
        let flags = if device_writes { DESCRIPTOR_WRITE } else { 0 };
        let offset = 16 * usize::from(id);
        self.memory.write(offset, buffer.address());
        let second = u64::from(length) | flags << 32;
        self.memory.write(offset + 8, second);
        self.buffers[usize::from(id)] = Some(buffer);
        self.publish(id);
    }

    /// Gives the device a command: a chain of a buffer to read and one to write, each with its
    /// bytes. The queue is empty before and is used for nothing else until [`Self::take_pair`].
    pub(crate) fn post_pair(&mut self, read: (DmaBuffer, u32), write: (DmaBuffer, u32)) {
        let second = self.descriptors.post().expect("the queue is empty");
        let first = self.descriptors.post().expect("it has two descriptors");
        let chained = DESCRIPTOR_NEXT << 32 | u64::from(second) << 48;
        for (id, (buffer, length), flags) in [
            (second, write, DESCRIPTOR_WRITE << 32),
            (first, read, chained),
        ] {
            let offset = 16 * usize::from(id);
            self.memory.write(offset, buffer.address());
            self.memory.write(offset + 8, u64::from(length) | flags);
            self.buffers[usize::from(id)] = Some(buffer);
        }
        self.second = Some(second);
        self.publish(first);
    }

    /// Takes back the buffer that the device wrote for the command.
    pub(crate) fn take_pair(&mut self) -> Option<DmaBuffer> {
        self.take(&mut 0)?;
        let second = self.second.take()?;
        let id = self.descriptors.used(second.into())?;
        self.buffers[usize::from(id)].take()
    }

    fn publish(&mut self, id: u16) {
        let place = usize::from(self.available_index & (self.size - 1));
        self.memory.write(self.layout.available + 4 + 2 * place, id);
        self.available_index = self.available_index.wrapping_add(1);
        fence(Ordering::Release);
        self.memory
            .write(self.layout.available + 2, self.available_index);
    }

    /// Tells the device that there is something new, unless it does not want to be told.
    pub(crate) fn ring(&self) {
        // The index is visible before the flag is read (2.7.13.3).
        fence(Ordering::SeqCst);
        if self.memory.read::<u16>(self.layout.used) & NO_NOTIFY == 0 {
            self.notify.write(self.bell, self.index);
        }
    }

    /// Whether the device has used something that [`Self::take`] has not taken.
    pub(crate) fn is_any_used(&self) -> bool {
        self.memory.read::<u16>(self.layout.used + 2) != self.used_index
    }

    /// Takes the next buffer the device is done with, and how many bytes it wrote. An element that
    /// names a buffer the device does not have is counted in `bad` and skipped.
    pub(crate) fn take(&mut self, bad: &mut u64) -> Option<(DmaBuffer, u32)> {
        // Bounded: one turn for each element that the device claims to have used.
        for _ in 0..self.size {
            if !self.is_any_used() {
                return None;
            }
            fence(Ordering::Acquire);
            let place = usize::from(self.used_index & (self.size - 1));
            let element: u64 = self.element(self.layout.used + 4 + 8 * place);
            self.used_index = self.used_index.wrapping_add(1);
            let buffer = self
                .descriptors
                .used(element as u32)
                .and_then(|id| self.buffers[usize::from(id)].take());
            match buffer {
                Some(buffer) => return Some((buffer, (element >> 32) as u32)),
                None => *bad += 1,
            }
        }
        None
    }

    /// Id and length of a used element; the ring is aligned to 4 bytes only.
    fn element(&self, offset: usize) -> u64 {
        let id = self.memory.read::<u32>(offset);
        let length = self.memory.read::<u32>(offset + 4);
        u64::from(id) | u64::from(length) << 32
    }

    /// Whether the device is to interrupt when it has used something. It may do so anyway. After
    /// switching on, look again: what it used before causes no interrupt.
    pub(crate) fn interrupt(&self, on: bool) {
        let flags = if on { 0 } else { NO_INTERRUPT };
        self.memory.write(self.layout.available, flags);
        fence(Ordering::SeqCst);
    }
}
