//! The PCI function as the hypervisor shows it: identity, BARs, capabilities, doorbells.
//!
//! ```text
//! BAR 0, 16 KiB   0x0000 common configuration   0x1000 ISR   0x2000 device configuration
//!                 0x3000 doorbells, 4 bytes a queue
//! BAR 2, 4 KiB    MSI-X table, kept by the hypervisor
//! BAR 3, 64 ports device configuration once more
//! ```
//!
//! There is no PCI configuration access capability (4.1.4.9), though 4.1.4.9.1 asks for one: its
//! window would have to be in configuration space, which the hypervisor keeps. Only firmware
//! that cannot reach BARs uses it.

use crate::virtio::Device;
use godwit_abi::{
    CAPABILITY_BYTES, DEVICE_BAR_MEMORY32, DEVICE_BAR_MEMORY64, DEVICE_BAR_NONE, DEVICE_BAR_PORTS,
    DEVICE_SLOT_ANY, DeviceBar, DeviceDefinition,
};

/// Most bytes of a device configuration: what BAR 3 has ports for.
pub const CONFIG_BYTES_MAX: usize = 64;

/// BAR of all structures.
pub(super) const MEMORY_BAR: u8 = 0;
/// BAR of the MSI-X table.
const MSIX_BAR: u8 = 2;
/// BAR of the second view of the device configuration.
pub(super) const PORT_BAR: u8 = 3;
const MEMORY_BAR_BYTES: u64 = 0x4000;
const MSIX_BAR_BYTES: u64 = 0x1000;
/// Where the structures are in [`MEMORY_BAR`].
pub(super) const COMMON: u64 = 0;
pub(super) const ISR: u64 = 0x1000;
pub(super) const DEVICE: u64 = 0x2000;
pub(super) const DOORBELLS: u64 = 0x3000;
pub(super) const DOORBELL_STRIDE: u64 = 4;
/// Bytes of the common configuration (4.1.4.3).
pub(super) const COMMON_BYTES: usize = 60;

const VENDOR: u16 = 0x1af4;
const DEVICE_ID_FIRST: u16 = 0x1040;
const INTERRUPT_PIN_A: u8 = 1;

/// Vendor-specific capability.
const CAPABILITY_ID: u8 = 9;
/// `cfg_type` of 4.1.4.
const COMMON_TYPE: u8 = 1;
const NOTIFY_TYPE: u8 = 2;
const ISR_TYPE: u8 = 3;
const DEVICE_TYPE: u8 = 4;

/// What the hypervisor is told of a device: `device_add` takes it.
pub fn definition(device: &dyn Device) -> DeviceDefinition {
    let identity = device.identity();
    let queues = device.queue_sizes().len();
    let bar = |kind, size| DeviceBar {
        kind,
        reserved: 0,
        size,
    };
    let none = bar(DEVICE_BAR_NONE, 0);
    let mut capabilities = Capabilities {
        bytes: [0; CAPABILITY_BYTES],
        length: 0,
    };
    let config = CONFIG_BYTES_MAX as u64;
    let doorbells = queues as u64 * DOORBELL_STRIDE;
    capabilities.push(COMMON_TYPE, MEMORY_BAR, COMMON, COMMON_BYTES as u64, &[]);
    let stride = (DOORBELL_STRIDE as u32).to_le_bytes();
    capabilities.push(NOTIFY_TYPE, MEMORY_BAR, DOORBELLS, doorbells, &stride);
    capabilities.push(ISR_TYPE, MEMORY_BAR, ISR, 1, &[]);
    // Drivers use the first that they find, so the one in memory (4.1.4).
    capabilities.push(DEVICE_TYPE, MEMORY_BAR, DEVICE, config, &[]);
    capabilities.push(DEVICE_TYPE, PORT_BAR, 0, config, &[]);
    DeviceDefinition {
        slot: DEVICE_SLOT_ANY,
        class: identity.pci_class,
        vendor: VENDOR,
        device: DEVICE_ID_FIRST + identity.device_id,
        subsystem_vendor: VENDOR,
        // 0x40 and more tells drivers that this is not a transitional device (4.1.2.1).
        subsystem: 0x40 + identity.device_id,
        revision: 1,
        interrupt_pin: INTERRUPT_PIN_A,
        // One a queue and one for configuration changes.
        msix_vectors: queues as u16 + 1,
        msix_bar: MSIX_BAR,
        doorbell_bar: MEMORY_BAR,
        doorbells: queues as u16,
        doorbell_offset: DOORBELLS as u32,
        doorbell_stride: DOORBELL_STRIDE as u32,
        capability_bytes: capabilities.length as u32,
        // For drivers that use it as MSI-X, with the same vectors.
        msi_messages: (queues as u32 + 1).next_power_of_two(),
        bars: [
            bar(DEVICE_BAR_MEMORY64, MEMORY_BAR_BYTES),
            none,
            bar(DEVICE_BAR_MEMORY32, MSIX_BAR_BYTES),
            bar(DEVICE_BAR_PORTS, config),
            none,
            none,
        ],
        capabilities: capabilities.bytes,
        reserved_end: 0,
    }
}

/// Capabilities in the form of `DeviceDefinition`: id, length of the body, body.
struct Capabilities {
    bytes: [u8; CAPABILITY_BYTES],
    length: usize,
}

impl Capabilities {
    /// Appends a `virtio_pci_cap` (4.1.4) with what follows it.
    fn push(&mut self, kind: u8, bar: u8, offset: u64, bytes: u64, more: &[u8]) {
        const CAPABILITY_LENGTH: usize = 16;
        const ID_AND_LINK: usize = 2;
        let whole = CAPABILITY_LENGTH + more.len();
        let head = [CAPABILITY_ID, (whole - ID_AND_LINK) as u8];
        let body = [whole as u8, kind, bar, 0, 0, 0];
        let parts: [&[u8]; 5] = [
            &head,
            &body,
            &(offset as u32).to_le_bytes(),
            &(bytes as u32).to_le_bytes(),
            more,
        ];
        for part in parts {
            self.bytes[self.length..][..part.len()].copy_from_slice(part);
            self.length += part.len();
        }
    }
}
