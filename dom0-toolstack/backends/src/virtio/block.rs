//! A block device (virtio 1.2, 5.2) over any [`Disk`].
//!
//! The protocol counts in sectors of 512 bytes whatever the disk's blocks are. Requests whose
//! memory and place on the disk are aligned go to the disk as they are; others go through a
//! buffer (see `transfer`). Up to [`REQUESTS_MAX`] are worked on at once, in any order; the queue
//! completes them in order. A flush covers what was completed to the guest before it, and what the
//! disk had finished (5.2.6.2).

mod config;
mod request;
#[cfg(test)]
mod tests;
mod transfer;

pub use config::{DISCARD_SECTORS_MAX, RANGES_MAX, SEGMENT_BYTES_MAX, SEGMENTS_MAX};
pub use request::SERIAL_BYTES;

use crate::disk::{Disk, DiskError};
use crate::memory::Memory;
use crate::virtio::{CONFIG_BYTES_MAX, Device, Identity, Serving, VirtioFunction, append_record};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use config::{FLUSH, WRITE_BACK, WRITEBACK_OFFSET};
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use godwit_records::{DecodeError, Record, VirtioBlockState};

/// Requests worked on at once.
pub const REQUESTS_MAX: usize = 64;
/// Bytes of a sector, the unit of the protocol.
pub const SECTOR_BYTES: u64 = 512;
const QUEUE_SIZES: &[u16] = &[256];
/// Mass storage, other: what drivers expect of it.
const PCI_CLASS: u32 = 0x01_80_00;
const DEVICE_ID: u16 = 2;

/// What to do with a request whose disk is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenGone {
    /// Try again: the disk is back.
    Retry,
    /// Fail it.
    Fail,
}

/// Decides, in its own time, about requests whose disk is [gone](DiskError::Gone): an export that
/// is down for a while need not fail the guest's requests.
pub trait GonePolicy {
    /// A request found the disk gone, for this reason.
    fn decide<'a>(&'a self, why: &'a str) -> Pin<Box<dyn Future<Output = WhenGone> + 'a>>;
}

/// The device.
pub struct Block {
    disk: Rc<dyn Disk>,
    memory: Rc<dyn Memory>,
    serial: [u8; SERIAL_BYTES],
    gone: Option<Rc<dyn GonePolicy>>,
    /// The driver's cache switch.
    write_back: Cell<bool>,
    gate: transfer::Gate,
}

impl Block {
    /// A device over `disk`. `serial` is what the guest reads as its id, cut after 20 bytes.
    /// `memory` is dom0's, for buffers. Without a policy, requests of a disk that is gone fail.
    pub fn new(
        disk: Rc<dyn Disk>,
        memory: Rc<dyn Memory>,
        serial: &str,
        gone: Option<Rc<dyn GonePolicy>>,
    ) -> Rc<Block> {
        let mut id = [0; SERIAL_BYTES];
        let length = serial.len().min(SERIAL_BYTES);
        id[..length].copy_from_slice(&serial.as_bytes()[..length]);
        Rc::new(Block {
            disk,
            memory,
            serial: id,
            gone,
            write_back: Cell::new(true),
            gate: transfer::Gate::default(),
        })
    }

    /// The disk behind it.
    pub fn disk(&self) -> &Rc<dyn Disk> {
        &self.disk
    }

    /// Whether writes may complete before they last (5.2.5.2).
    fn caches(&self, features: u64) -> bool {
        if features & WRITE_BACK != 0 {
            self.write_back.get()
        } else {
            features & FLUSH != 0
        }
    }

    /// Does an operation, again as long as the policy says so.
    async fn persistently(
        &self,
        operation: impl AsyncFn() -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        loop {
            let result = operation().await;
            if let (Err(DiskError::Gone(why)), Some(policy)) = (&result, &self.gone)
                && policy.decide(why).await == WhenGone::Retry
            {
                continue;
            }
            return result;
        }
    }
}

impl Device for Block {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            pci_class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        config::features(&self.disk.geometry())
    }

    fn consistent(&self, features: u64) -> bool {
        // A cache switch is of no use to a driver that cannot flush (5.2.5.2).
        features & WRITE_BACK == 0 || features & FLUSH != 0
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, features: u64, out: &mut [u8; CONFIG_BYTES_MAX]) {
        // Before features are agreed on a driver may look too.
        let caches = features == 0 || self.caches(features);
        config::write(&self.disk.geometry(), caches, out);
    }

    fn write_config(&self, features: u64, offset: usize, bytes: &[u8]) {
        if let (WRITEBACK_OFFSET, [value]) = (offset, bytes)
            && features & WRITE_BACK != 0
        {
            self.write_back.set(*value != 0);
        }
    }

    fn reset(&self) {
        self.write_back.set(true);
    }

    fn save(&self, out: &mut Vec<u8>) {
        let write_back = self.write_back.get();
        append_record(&VirtioBlockState { write_back }, out);
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let VirtioBlockState { write_back } = VirtioBlockState::decode(bytes)?;
        self.write_back.set(write_back);
        Ok(())
    }

    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        let handle = async |chain: &_| self.handle(function.features(), chain).await;
        Box::pin(async move { function.serve(0, REQUESTS_MAX, handle).await })
    }
}
