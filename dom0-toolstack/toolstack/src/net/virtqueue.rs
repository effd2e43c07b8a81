//! Which descriptors of a split virtqueue are in use, and which used elements are believed
//! (Virtio 1.2, 2.7). One descriptor is one buffer: no chains.
//!
//! Invariant: a descriptor is either in `free` or the device's (`posted`), never both, and only the
//! device's answer brings it back.

use alloc::vec::Vec;

/// The most descriptors a queue of ours has; devices may offer fewer.
pub const QUEUE_DESCRIPTORS_MAX: u16 = 256;

/// The queue size to use with a device that offers up to `offered`: a power of two (2.7), `None`
/// when the device has no such queue.
pub fn queue_size(offered: u16) -> Option<u16> {
    if offered == 0 {
        return None;
    }
    Some(1 << offered.min(QUEUE_DESCRIPTORS_MAX).ilog2())
}

/// Offsets of the parts of a queue in one page-aligned piece of memory (2.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueLayout {
    /// Offset of the available ring; the descriptor table is at 0.
    pub available: usize,
    /// Offset of the used ring.
    pub used: usize,
    /// Bytes in all.
    pub bytes: usize,
}

impl QueueLayout {
    /// For a queue of `size` descriptors.
    pub const fn new(size: u16) -> Self {
        let size = size as usize;
        let available = 16 * size;
        let used = (available + 6 + 2 * size).next_multiple_of(4);
        Self {
            available,
            used,
            bytes: used + 6 + 8 * size,
        }
    }
}

/// Who has which descriptor.
pub struct Descriptors {
    free: Vec<u16>,
    posted: Vec<bool>,
}

impl Descriptors {
    /// For a queue of `size`, all free.
    pub fn new(size: u16) -> Self {
        Self {
            free: (0..size).rev().collect(),
            posted: (0..size).map(|_| false).collect(),
        }
    }

    /// Whether one is free.
    pub fn is_any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Takes a free descriptor for the device.
    pub fn post(&mut self) -> Option<u16> {
        let id = self.free.pop()?;
        self.posted[usize::from(id)] = true;
        Some(id)
    }

    /// The device says it has used `id`. `None`: it never had it, the answer is not believed.
    pub fn used(&mut self, id: u32) -> Option<u16> {
        let id = u16::try_from(id).ok()?;
        let posted = self.posted.get_mut(usize::from(id))?;
        if !core::mem::replace(posted, false) {
            return None;
        }
        self.free.push(id);
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_two_within_the_limit() {
        assert_eq!(queue_size(0), None);
        assert_eq!(queue_size(1), Some(1));
        assert_eq!(queue_size(100), Some(64));
        assert_eq!(queue_size(256), Some(256));
        assert_eq!(queue_size(u16::MAX), Some(256));
    }

    #[test]
    fn parts_do_not_overlap_and_are_aligned() {
        for shift in 0..=8 {
            let size = 1u16 << shift;
            let layout = QueueLayout::new(size);
            let n = usize::from(size);
            assert!(layout.available >= 16 * n && layout.available.is_multiple_of(2));
            assert!(layout.used >= layout.available + 6 + 2 * n && layout.used.is_multiple_of(4));
            assert!(layout.bytes >= layout.used + 6 + 8 * n);
        }
    }

    #[test]
    fn only_posted_descriptors_come_back_and_only_once() {
        let mut all = Descriptors::new(4);
        let ids: Vec<_> = core::iter::from_fn(|| all.post()).collect();
        assert_eq!(ids.len(), 4);
        assert!(!all.is_any_free());
        assert_eq!(all.used(4), None);
        assert_eq!(all.used(u32::MAX), None);
        assert_eq!(all.used(1 << 16 | 2), None);
        assert_eq!(all.used(2), Some(2));
        assert_eq!(all.used(2), None);
        assert_eq!(all.post(), Some(2));
    }
}
