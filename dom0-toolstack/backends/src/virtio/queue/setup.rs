//! Where a queue is and how large: what the driver programs before it enables it (2.7).

use super::QueueError;
use crate::memory::{GuestMemory, PAGE_BYTES};

/// Most entries of a queue.
pub const QUEUE_SIZE_MAX: u16 = 256;
/// Bytes of a descriptor.
pub(super) const DESCRIPTOR_BYTES: u64 = 16;

/// Addresses are guest-physical. [`check`](Setup::check) holds for those of a [`super::Queue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Entries, a power of two.
    pub size: u16,
    /// Descriptor table: 16 bytes an entry.
    pub descriptors: u64,
    /// Available ring: flags, index, 2 bytes an entry, `used_event`.
    pub available: u64,
    /// Used ring: flags, index, 8 bytes an entry, `avail_event`.
    pub used: u64,
}

impl Setup {
    /// Whether a queue can be there: size, alignment, and all of it memory of the guest.
    pub fn check(&self, memory: &GuestMemory) -> Result<(), QueueError> {
        let size = u64::from(self.size);
        if !self.size.is_power_of_two() || self.size > QUEUE_SIZE_MAX {
            return Err(QueueError::Size(self.size));
        }
        let parts = [
            (self.descriptors, 16, DESCRIPTOR_BYTES * size),
            (self.available, 2, 6 + 2 * size),
            (self.used, 4, 6 + 8 * size),
        ];
        for (gpa, alignment, bytes) in parts {
            if !gpa.is_multiple_of(alignment) {
                return Err(QueueError::Misaligned(gpa));
            }
            memory.spans(gpa, bytes, &mut alloc::vec::Vec::new())?;
        }
        Ok(())
    }

    /// The first and last page of each part.
    pub fn pages(&self) -> [(u64, u64); 3] {
        let size = u64::from(self.size);
        let parts = [
            (self.descriptors, DESCRIPTOR_BYTES * size),
            (self.available, 6 + 2 * size),
            (self.used, 6 + 8 * size),
        ];
        parts.map(|(gpa, bytes)| (gpa / PAGE_BYTES, (gpa + bytes - 1) / PAGE_BYTES))
    }

    /// `avail.idx`.
    pub fn available_index(&self) -> u64 {
        self.available + 2
    }

    /// `avail.ring[position]`; positions count on and wrap.
    pub fn available_entry(&self, position: u16) -> u64 {
        self.available + 4 + 2 * u64::from(position % self.size)
    }

    /// `avail.used_event`: the driver wants an interrupt when the used index passes this.
    pub fn used_event(&self) -> u64 {
        self.available + 4 + 2 * u64::from(self.size)
    }

    /// `used.idx`.
    pub fn used_index(&self) -> u64 {
        self.used + 2
    }

    /// `used.ring[position]`.
    pub fn used_element(&self, position: u16) -> u64 {
        self.used + 4 + 8 * u64::from(position % self.size)
    }

    /// `used.avail_event`: the device wants a doorbell when the available index passes this.
    pub fn available_event(&self) -> u64 {
        self.used + 4 + 8 * u64::from(self.size)
    }
}
