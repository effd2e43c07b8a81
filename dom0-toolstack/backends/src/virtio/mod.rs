//! Virtio 1.2 devices for guests, the device's side, over PCI. Section numbers in here are those
//! of that specification.
//!
//! # How dom0 uses this
//!
//! 1. Make the device ([`block::Block`], [`net::Net`], [`console::Console`], [`entropy::Entropy`],
//!    [`balloon::Balloon`]) in an `Rc`, and a [`VirtioFunction`] around a clone of it, the guest's
//!    memory and an [`Interrupts`] that makes `device_interrupt` calls. Give
//!    [`VirtioFunction::definition`] to `device_add`.
//! 2. Spawn a task that awaits [`VirtioFunction::run`]; it ends only when dropped.
//! 3. For each `DeviceRequest` call [`VirtioFunction::read`] or [`VirtioFunction::write`], then, if
//!    [`VirtioFunction::take_changed`] says so, keep [`VirtioFunction::save`] as a blob, and only
//!    then `device_request_complete`. For each doorbell word call [`VirtioFunction::doorbell`].
//! 4. After a restart of dom0 make the same device again, [`VirtioFunction::restore`] the blob,
//!    [`VirtioFunction::resume`] and run. To save or migrate: [`VirtioFunction::quiesce`], then
//!    `save`; after a migration that failed, `resume`.
//! 5. What changes in the device's configuration (size of a disk, link, balloon target) is told to
//!    the device and then to the guest by [`VirtioFunction::config_changed`].
//!
//! A driver that breaks the rules finds its device, and no other, in the state NEEDS_RESET;
//! [`VirtioFunction::broken`] says what it did.

pub mod balloon;
pub mod block;
pub mod console;
pub mod entropy;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod net;
pub mod queue;
pub mod transport;

pub use transport::{Broken, CONFIG_BYTES_MAX, Interrupts, RestoreError, VirtioFunction};

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use godwit_records::DecodeError;

/// Indirect descriptors (6).
pub const FEATURE_INDIRECT: u64 = 1 << 28;
/// `used_event` and `avail_event` (6).
pub const FEATURE_EVENT_INDEX: u64 = 1 << 29;
/// Complies with virtio 1.0 and later: always offered, and drivers must accept it (6.1).
pub const FEATURE_VERSION_1: u64 = 1 << 32;
/// Features of the rings and the transport. ACCESS_PLATFORM (33) is not among them: guests have no
/// IOMMU and their memory is not encrypted, so devices use guest-physical addresses.
pub const RING_FEATURES: u64 = FEATURE_INDIRECT | FEATURE_EVENT_INDEX | FEATURE_VERSION_1;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Virtio device id (5).
    pub device_id: u16,
    /// PCI class (23:16), subclass (15:8), interface (7:0).
    pub pci_class: u32,
}

/// Serving that ends only when it is dropped.
pub type Serving<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A type of device: what a [`VirtioFunction`] does not know of it.
pub trait Device {
    /// What it is.
    fn identity(&self) -> Identity;
    /// Features of the device type that are offered, without [`RING_FEATURES`].
    fn features(&self) -> u64;
    /// Whether the driver may choose these of the features offered: those that need others (5).
    fn consistent(&self, features: u64) -> bool;
    /// Most entries of each queue, powers of two.
    fn queue_sizes(&self) -> &'static [u16];
    /// The device configuration; `out` is zeroes.
    fn read_config(&self, features: u64, out: &mut [u8; CONFIG_BYTES_MAX]);
    /// The driver writes to the device configuration, in one access.
    fn write_config(&self, features: u64, offset: usize, bytes: &[u8]);
    /// The driver has reset the device.
    fn reset(&self);
    /// Appends what it keeps besides the common configuration, as one record, or nothing.
    fn save(&self, out: &mut Vec<u8>);
    /// Takes what [`save`](Device::save) gave.
    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError>;
    /// Serves the queues of `function`.
    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a>;
}

/// Appends a record; for [`Device::save`].
fn append_record<R: godwit_records::Record>(record: &R, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + R::MAX_BYTES, 0);
    let written = record.encode(&mut out[start..]);
    out.truncate(start + written.expect("a buffer of the most bytes"));
}
