//! The common configuration (virtio 1.2, 4.1.4.3): a value that reads and writes change, which
//! says what is to be done about it. It touches neither queues nor interrupts.
//!
//! ```text
//!            features ok         FEATURES_OK, DRIVER_OK
//!   reset ----------------> negotiated -----------> running
//!     ^                                               |
//!     +---------- status 0 (once nothing is in flight)+
//! ```

use super::definition::COMMON_BYTES;
use crate::virtio::queue::{QUEUE_SIZE_MAX, Setup};
use godwit_records::{VIRTIO_NO_VECTOR, VIRTIO_QUEUES_MAX, VirtioQueueState, VirtioState};

/// Device status (2.1).
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const NEEDS_RESET: u8 = 64;
/// Interrupt status (4.1.4.5).
pub(super) const ISR_QUEUE: u8 = 1;
pub(super) const ISR_CONFIG: u8 = 2;

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing besides.
    None,
    /// The driver resets the device: [`Registers::reset`] when nothing is in flight any more.
    Reset,
    /// The driver proposes features: [`Registers::accept_features`] if they are consistent.
    Features,
    /// The driver is ready: enabled queues are to be used.
    Run,
    /// A queue was enabled.
    Enabled(usize),
}

/// Registers of a function.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    pub(super) offered: u64,
    pub(super) state: VirtioState,
    /// Sizes of the queues after a reset, their most.
    sizes: [u16; VIRTIO_QUEUES_MAX],
    queues: u16,
}

/// Offsets of the fields.
mod field {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub(super) const DRIVER_FEATURE: u64 = 0x0c;
    pub(super) const CONFIG_VECTOR: u64 = 0x10;
    pub(super) const STATUS: u64 = 0x14;
    pub(super) const QUEUE_SELECT: u64 = 0x16;
    pub(super) const QUEUE_SIZE: u64 = 0x18;
    pub(super) const QUEUE_VECTOR: u64 = 0x1a;
    pub(super) const QUEUE_ENABLE: u64 = 0x1c;
    pub(super) const QUEUE_DESCRIPTORS: u64 = 0x20;
    pub(super) const QUEUE_AVAILABLE: u64 = 0x28;
    pub(super) const QUEUE_USED: u64 = 0x30;
    pub(super) const QUEUE_END: u64 = 0x38;
}

impl Registers {
    /// Registers after power-on. `sizes` has at most [`VIRTIO_QUEUES_MAX`] powers of two.
    pub(super) fn new(device_id: u16, offered: u64, queue_sizes: &[u16]) -> Registers {
        let mut sizes = [0; VIRTIO_QUEUES_MAX];
        sizes[..queue_sizes.len()].copy_from_slice(queue_sizes);
        for size in queue_sizes {
            assert!(size.is_power_of_two() && *size <= QUEUE_SIZE_MAX, "{size}");
        }
        let mut registers = Registers {
            offered,
            state: VirtioState {
                device_id,
                ..VirtioState::reset()
            },
            sizes,
            queues: queue_sizes.len() as u16,
        };
        registers.reset();
        registers
    }

    /// As after power-on, but that the configuration's generation counts on.
    pub(super) fn reset(&mut self) {
        self.state = VirtioState {
            device_id: self.state.device_id,
            config_generation: self.state.config_generation,
            queues: self.sizes.map(VirtioQueueState::reset),
            ..VirtioState::reset()
        };
    }

    /// The features in use; none before both sides agree.
    pub(super) fn features(&self) -> u64 {
        if self.state.status & FEATURES_OK != 0 {
            self.state.driver_features
        } else {
            0
        }
    }

    /// Whether the driver uses the device.
    pub(super) fn running(&self) -> bool {
        self.state.status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK
    }

    /// The first queue of a saved state that this function does not have so.
    pub(super) fn misfit(&self, state: &VirtioState) -> Option<usize> {
        let vector = |vector: u16| vector == VIRTIO_NO_VECTOR || vector <= self.queues;
        if !vector(state.config_vector) {
            return Some(usize::from(self.queues));
        }
        (0..VIRTIO_QUEUES_MAX).find(|index| {
            let (queue, most) = (&state.queues[*index], self.sizes[*index]);
            let fits = if most == 0 {
                *queue == VirtioQueueState::reset(0)
            } else {
                queue.size.is_power_of_two() && queue.size <= most
            };
            !fits || !vector(queue.vector)
        })
    }

    /// Where an enabled queue is.
    pub(super) fn setup(&self, queue: usize) -> Option<Setup> {
        let queue = self.state.queues[queue];
        queue.enabled.then_some(Setup {
            size: queue.size,
            descriptors: queue.descriptors,
            available: queue.available,
            used: queue.used,
        })
    }

    /// Reads `width` bytes, at most 8; fields and parts of fields alike, 0 beyond the end.
    pub(super) fn read(&self, offset: u64, width: u8) -> u64 {
        part(&self.image(), offset, width)
    }

    fn image(&self) -> [u8; COMMON_BYTES] {
        let state = &self.state;
        let half = |features: u64, select: u32| match select {
            0 => features as u32,
            1 => (features >> 32) as u32,
            _beyond => 0,
        };
        let selected = self.selected().copied();
        let queue = selected.unwrap_or(VirtioQueueState::reset(0));
        // The doorbell of a queue has the queue's number.
        let doorbell = if selected.is_some() {
            state.queue_select
        } else {
            0
        };
        let mut image = [0; COMMON_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            image[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&state.device_feature_select.to_le_bytes());
        put(&half(self.offered, state.device_feature_select).to_le_bytes());
        put(&state.driver_feature_select.to_le_bytes());
        put(&half(state.driver_features, state.driver_feature_select).to_le_bytes());
        put(&state.config_vector.to_le_bytes());
        put(&self.queues.to_le_bytes());
        put(&[state.status, state.config_generation]);
        put(&state.queue_select.to_le_bytes());
        put(&queue.size.to_le_bytes());
        put(&queue.vector.to_le_bytes());
        put(&u16::from(queue.enabled).to_le_bytes());
        put(&doorbell.to_le_bytes());
        put(&queue.descriptors.to_le_bytes());
        put(&queue.available.to_le_bytes());
        put(&queue.used.to_le_bytes());
        // queue_notify_data and queue_reset: their features are not offered.
        image
    }

    fn selected(&self) -> Option<&VirtioQueueState> {
        let index = self.state.queue_select;
        (index < self.queues).then(|| &self.state.queues[usize::from(index)])
    }

    /// Writes a field in its own width, or half of a 64-bit field; all else is ignored (4.1.3.1).
    pub(super) fn write(&mut self, offset: u64, width: u8, value: u64) -> Effect {
        let vector = self.vector(value);
        let state = &mut self.state;
        match (offset, width) {
            (field::DEVICE_FEATURE_SELECT, 4) => state.device_feature_select = value as u32,
            (field::DRIVER_FEATURE_SELECT, 4) => state.driver_feature_select = value as u32,
            (field::DRIVER_FEATURE, 4) => self.write_features(value as u32),
            (field::CONFIG_VECTOR, 2) => state.config_vector = vector,
            (field::STATUS, 1) => return self.write_status(value as u8),
            (field::QUEUE_SELECT, 2) => state.queue_select = value as u16,
            (field::QUEUE_SIZE..field::QUEUE_END, 2 | 4 | 8) => {
                return self.write_queue(offset, width, value);
            }
            _not_a_field => {}
        }
        Effect::None
    }

    /// A vector that the function has, or none.
    fn vector(&self, value: u64) -> u16 {
        if value <= u64::from(self.queues) {
            value as u16
        } else {
            VIRTIO_NO_VECTOR
        }
    }

    fn write_features(&mut self, value: u32) {
        let state = &mut self.state;
        if state.status & FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match state.driver_feature_select {
            0 => state.driver_features = state.driver_features & !0xffff_ffff | value,
            1 => state.driver_features = state.driver_features & 0xffff_ffff | value << 32,
            _beyond => {}
        }
    }

    /// Bits can only be added; what the device decides on, it decides (2.1.1).
    fn write_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let before = self.state.status;
        let asked = value & !before & !NEEDS_RESET;
        self.state.status |= asked & !(FEATURES_OK | DRIVER_OK);
        if asked & FEATURES_OK != 0 {
            return Effect::Features;
        }
        if asked & DRIVER_OK != 0 && before & FEATURES_OK != 0 {
            self.state.status |= DRIVER_OK;
            return Effect::Run;
        }
        Effect::None
    }

    /// Both sides agree on the driver's features.
    pub(super) fn accept_features(&mut self) {
        self.state.status |= FEATURES_OK;
    }

    fn write_queue(&mut self, offset: u64, width: u8, value: u64) -> Effect {
        let index = usize::from(self.state.queue_select);
        if self.selected().is_none() {
            return Effect::None;
        }
        let vector = self.vector(value);
        let most = self.sizes[index];
        let queue = &mut self.state.queues[index];
        match (offset, width) {
            // A vector may be changed at any time.
            (field::QUEUE_VECTOR, 2) => queue.vector = vector,
            // All else only before the queue is in use (4.1.4.3.2).
            _other if queue.enabled => {}
            (field::QUEUE_SIZE, 2) => {
                let size = value as u16;
                if size.is_power_of_two() && size <= most {
                    queue.size = size;
                }
            }
            (field::QUEUE_ENABLE, 2) if value == 1 => {
                queue.enabled = true;
                return Effect::Enabled(index);
            }
            (field::QUEUE_DESCRIPTORS.., 4 | 8) => {
                let target = match offset & !7 {
                    field::QUEUE_DESCRIPTORS => &mut queue.descriptors,
                    field::QUEUE_AVAILABLE => &mut queue.available,
                    field::QUEUE_USED => &mut queue.used,
                    _not_a_field => return Effect::None,
                };
                match (offset & 7, width) {
                    (0, 8) => *target = value,
                    (0, 4) => *target = *target & !0xffff_ffff | value & 0xffff_ffff,
                    (4, 4) => *target = *target & 0xffff_ffff | value << 32,
                    _askew => {}
                }
            }
            _not_a_field => {}
        }
        Effect::None
    }
}

/// `width` bytes of `image` as a little-endian number, 0 beyond its end.
pub(super) fn part(image: &[u8], offset: u64, width: u8) -> u64 {
    (0..u64::from(width)).rev().fold(0, |value, index| {
        let index = offset.checked_add(index).map(usize::try_from);
        let byte = index.and_then(|index| image.get(index.ok()?).copied());
        value << 8 | u64::from(byte.unwrap_or(0))
    })
}
