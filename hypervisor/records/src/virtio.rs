//! Virtio devices served by dom0: what the guest's driver programmed, and what it can read back.
//!
//! Where a device is in its rings is in none of them: requests complete in order, so a device goes
//! on at the used index in the guest's own memory. Section numbers are those of virtio 1.2.

use crate::kind::Kind;
use crate::{record, structure};

/// Queues that a record has room for.
pub const VIRTIO_QUEUES_MAX: usize = 8;
/// No MSI-X vector (4.1.5.1.2).
pub const VIRTIO_NO_VECTOR: u16 = 0xffff;

structure! {
    /// What the driver programmed for one queue (4.1.4.3).
    pub struct VirtioQueueState {
        /// Entries, a power of two.
        size: u16,
        /// MSI-X vector, 0xffff for none.
        vector: u16,
        /// Whether it may be used.
        enabled: bool,
        /// Guest-physical address of the descriptor table.
        descriptors: u64,
        /// Guest-physical address of the available ring.
        available: u64,
        /// Guest-physical address of the used ring.
        used: u64,
    }
}

impl VirtioQueueState {
    /// A queue of `size` entries after a reset.
    pub const fn reset(size: u16) -> Self {
        Self {
            size,
            vector: VIRTIO_NO_VECTOR,
            enabled: false,
            descriptors: 0,
            available: 0,
            used: 0,
        }
    }
}

/// A queue that the device does not have.
impl Default for VirtioQueueState {
    fn default() -> Self {
        Self::reset(0)
    }
}

record! {
    /// A virtio device on PCI, whatever its type: the common configuration.
    pub struct VirtioState = Kind::VIRTIO;
    version 1 {
        /// Virtio device id (5): 1 network, 2 block, ...
        device_id: u16 = 0;
        /// Features that the driver has written.
        driver_features: u64 = 0;
        /// Device status.
        status: u8 = 0;
        /// Interrupt status.
        isr: u8 = 0;
        /// Counts changes of the device configuration.
        config_generation: u8 = 0;
        /// MSI-X vector of configuration changes.
        config_vector: u16 = VIRTIO_NO_VECTOR;
        /// Which half of the offered features is read.
        device_feature_select: u32 = 0;
        /// Which half of the driver's features is written.
        driver_feature_select: u32 = 0;
        /// Which queue is programmed.
        queue_select: u16 = 0;
        /// Queues; those that the device does not have are of size 0.
        queues: [VirtioQueueState; VIRTIO_QUEUES_MAX] =
            [VirtioQueueState::reset(0); VIRTIO_QUEUES_MAX];
    }
}

record! {
    /// What a virtio block device keeps besides.
    pub struct VirtioBlockState = Kind::VIRTIO_BLOCK;
    version 1 {
        /// The driver's cache switch: writes may be completed before they last.
        write_back: bool = true;
    }
}

record! {
    /// What a virtio network device keeps besides.
    pub struct VirtioNetState = Kind::VIRTIO_NET;
    version 1 {
        /// Address of the card; the driver may change it.
        mac: [u8; 6] = [0; 6];
        /// Frames for any address are delivered: until the driver says otherwise.
        promiscuous: bool = true;
        /// The driver filters more addresses than its own, so it is given all unicast frames.
        more_addresses: bool = false;
        /// The guest was asked to announce itself and has not yet said that it did.
        announce: bool = false;
    }
}

record! {
    /// What a virtio balloon keeps besides.
    pub struct VirtioBalloonState = Kind::VIRTIO_BALLOON;
    version 1 {
        /// Pages that the guest is asked to have given away.
        target_pages: u32 = 0;
        /// Pages that the driver says it has given away.
        actual_pages: u32 = 0;
    }
}
