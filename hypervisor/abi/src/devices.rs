//! Structures for guest devices that dom0 serves, and for guest memory that it maps.

use crate::layouts::layout;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most bytes kept under one key by `blob_write`.
pub const BLOB_BYTES_MAX: u64 = 64 << 10;
/// Most keys a domain.
pub const BLOBS_MAX: usize = 32;
/// Most bytes that `platform_state_read` writes and `platform_state_set` takes.
pub const PLATFORM_STATE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of capabilities in a [`DeviceDefinition`].
pub const CAPABILITY_BYTES: usize = 192;
/// `DeviceBar::kind`: there is none, or it is the upper half of the one before.
pub const DEVICE_BAR_NONE: u32 = 0;
/// `DeviceBar::kind`: ports.
pub const DEVICE_BAR_PORTS: u32 = 1;
/// `DeviceBar::kind`: memory below 4 GiB.
pub const DEVICE_BAR_MEMORY32: u32 = 2;
/// `DeviceBar::kind`: memory anywhere, prefetchable.
pub const DEVICE_BAR_MEMORY64: u32 = 3;
/// `DeviceDefinition::slot`: any free PCI device number.
pub const DEVICE_SLOT_ANY: u32 = u32::MAX;
/// Most doorbells of a device: the bits of [`Doorbell::bits`].
pub const DOORBELLS_MAX: u32 = 64;

/// Most ports in [`Served`].
pub const SERVED_PORTS_MAX: usize = 16;
/// Added to the number of ports by `device_serve`: there is an access, too.
pub const SERVED_REQUEST: u64 = 1 << 32;

layout! {
    /// A BAR of a device that dom0 serves.
    pub struct DeviceBar = 16 {
        /// [`DEVICE_BAR_NONE`] and so on.
        pub kind: u32,
        /// 0.
        pub reserved: u32,
        /// Bytes or ports, a power of two.
        pub size: u64,
    }

    /// A PCI function of a guest that dom0 serves.
    pub struct DeviceDefinition = 336 {
        /// PCI device number it is to have, or [`DEVICE_SLOT_ANY`].
        pub slot: u32,
        /// Class (23:16), subclass (15:8), interface (7:0).
        pub class: u32,
        /// Vendor id.
        pub vendor: u16,
        /// Device id.
        pub device: u16,
        /// Subsystem vendor id.
        pub subsystem_vendor: u16,
        /// Subsystem id.
        pub subsystem: u16,
        /// Revision.
        pub revision: u8,
        /// Interrupt pin, 0 for none, 1 for INTA.
        pub interrupt_pin: u8,
        /// MSI-X vectors, 0 for none.
        pub msix_vectors: u16,
        /// BAR with the MSI-X tables, [`DEVICE_BAR_MEMORY32`] of 4096 bytes, kept by the hypervisor.
        pub msix_bar: u8,
        /// BAR with the doorbells.
        pub doorbell_bar: u8,
        /// Doorbells, at most [`DOORBELLS_MAX`], 0 for none.
        pub doorbells: u16,
        /// Offset of the first doorbell in its BAR.
        pub doorbell_offset: u32,
        /// Bytes from one doorbell to the next.
        pub doorbell_stride: u32,
        /// Bytes of `capabilities` in use.
        pub capability_bytes: u32,
        /// Messages of plain MSI, a power of two up to 32, 0 for none.
        pub msi_messages: u32,
        /// BARs.
        pub bars: [DeviceBar; 6],
        /// Capabilities but MSI and MSI-X, one behind the other: id (u8), length of the body (u8), body
        /// (what follows the link byte in configuration space).
        pub capabilities: [u8; CAPABILITY_BYTES],
        /// 0.
        pub reserved_end: u64,
    }

    /// An access of a guest to a device that dom0 serves. The vCPU waits for the answer.
    pub struct DeviceRequest = 40 {
        /// Raw id of the domain.
        pub domain: u32,
        /// vCPU.
        pub vcpu: u16,
        /// PCI device number.
        pub device: u16,
        /// BAR.
        pub bar: u8,
        /// Bytes accessed: 1, 2, 4 or 8.
        pub width: u8,
        /// 1: a write.
        pub write: u8,
        /// 0.
        pub reserved: u8,
        /// 0.
        pub reserved_word: u32,
        /// Offset in the BAR.
        pub offset: u64,
        /// What is written; 0 for a read.
        pub value: u64,
        /// 0.
        pub reserved_end: u64,
    }

    /// What `device_serve` brings.
    pub struct Served = 104 {
        /// An access, where there is one.
        pub request: DeviceRequest,
        /// Pending event ports.
        pub ports: [u32; SERVED_PORTS_MAX],
    }

    /// Doorbells that were rung.
    pub struct Doorbell = 16 {
        /// Raw id of the domain.
        pub domain: u32,
        /// PCI device number.
        pub device: u32,
        /// One bit a doorbell.
        pub bits: u64,
    }

    /// Guest pages that are mapped in dom0.
    pub struct MemoryRun = 24 {
        /// First guest page.
        pub page: u64,
        /// Pages.
        pub pages: u64,
        /// Address of the first in dom0: its host-physical address.
        pub address: u64,
    }
}
