//! A virtio device on PCI, in its modern form: where its structures are, how it is told to start,
//! and its queues (Virtio 1.2, 4.1 and 3.1). Nothing here knows what kind of device it is.

use super::virtqueue::Virtqueue;
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::format;
use alloc::string::{String, ToString};
use embassy_time::{Duration, Instant, Timer};
use godwit_toolstack::net::virtqueue::queue_size;

/// PCI capability: vendor specific.
const CAPABILITY_VENDOR: u8 = 0x09;

// Structures a capability can point at (4.1.4).
const STRUCTURE_COMMON: u32 = 1;
const STRUCTURE_NOTIFY: u32 = 2;
const STRUCTURE_ISR: u32 = 3;
const STRUCTURE_DEVICE: u32 = 4;

/// The common configuration structure (4.1.4.3).
mod common {
    pub(super) const DEVICE_FEATURE_SELECT: usize = 0x00;
    pub(super) const DEVICE_FEATURE: usize = 0x04;
    pub(super) const DRIVER_FEATURE_SELECT: usize = 0x08;
    pub(super) const DRIVER_FEATURE: usize = 0x0c;
    pub(super) const CONFIG_VECTOR: usize = 0x10;
    pub(super) const STATUS: usize = 0x14;
    pub(super) const GENERATION: usize = 0x15;
    pub(super) const QUEUE_SELECT: usize = 0x16;
    pub(super) const QUEUE_SIZE: usize = 0x18;
    pub(super) const QUEUE_VECTOR: usize = 0x1a;
    pub(super) const QUEUE_ENABLE: usize = 0x1c;
    pub(super) const QUEUE_NOTIFY_OFFSET: usize = 0x1e;
    pub(super) const QUEUE_DESCRIPTORS: usize = 0x20;
    pub(super) const QUEUE_AVAILABLE: usize = 0x28;
    pub(super) const QUEUE_USED: usize = 0x30;
    pub(super) const BYTES: usize = 0x38;
}

// Device status (2.1).
const STATUS_ACKNOWLEDGE: u8 = 1;
const STATUS_DRIVER: u8 = 2;
const STATUS_DRIVER_OK: u8 = 4;
const STATUS_FEATURES_OK: u8 = 8;

/// The device follows version 1 of the standard.
pub(crate) const FEATURE_VERSION_1: u64 = 1 << 32;
/// Addresses are subject to an IOMMU; with one, dom0's memory is mapped one to one.
pub(crate) const FEATURE_ACCESS_PLATFORM: u64 = 1 << 33;

/// No MSI-X vector; also what a refused one reads back as.
const NO_VECTOR: u16 = 0xffff;
const RESET_LIMIT: Duration = Duration::from_millis(100);
/// Reads of a configuration that changes all the time.
const CONSISTENT_TRIES_MAX: usize = 16;

/// A queue that is set up but for its rings.
pub(crate) struct QueuePlace {
    /// Descriptors, a power of two.
    pub(crate) size: u16,
    /// Where notifications go.
    pub(crate) notify: Mmio,
    /// Offset of this queue's there.
    pub(crate) bell: usize,
}

/// A virtio device.
pub(crate) struct VirtioDevice {
    common: Mmio,
    notify: Mmio,
    notify_multiplier: usize,
    isr: Mmio,
    device: Mmio,
    features: u64,
    /// MSI-X vector for everything, if that is how the device interrupts.
    vector: Option<u16>,
}

impl VirtioDevice {
    /// Resets a device and agrees with it on features: of those it offers, all in `wanted`; it must
    /// offer `FEATURE_VERSION_1`. `vector` is the MSI-X entry bound for it, `None` for its line.
    pub(crate) async fn new(
        function: &Function,
        wanted: u64,
        vector: Option<u16>,
    ) -> Result<Self, String> {
        let mut device = Self::find(function)?;
        device.vector = vector;
        device.reset().await?;
        device.add_status(STATUS_ACKNOWLEDGE);
        device.add_status(STATUS_DRIVER);
        device.agree(wanted)?;
        let config_vector = vector.unwrap_or(NO_VECTOR);
        device.common.write(common::CONFIG_VECTOR, config_vector);
        Ok(device)
    }

    /// Where its structures are.
    fn find(function: &Function) -> Result<Self, String> {
        let read = |offset, width| {
            let value = function.read(offset, width);
            value.map_err(|status| format!("read configuration space: {status}"))
        };
        let mut found: [Option<Mmio>; 5] = [None; 5];
        let mut notify_multiplier = 0;
        let capabilities = function.capabilities(CAPABILITY_VENDOR);
        for at in capabilities.map_err(|status| status.to_string())? {
            let kind = read(at + 3, 1)?;
            // The first of a kind is the one to take, unless it is in a BAR that is none (4.1.4).
            let Some(slot) = found.get_mut(kind as usize).filter(|slot| slot.is_none()) else {
                continue;
            };
            let (bar, offset, bytes) = (read(at + 4, 1)?, read(at + 8, 4)?, read(at + 12, 4)?);
            *slot = function
                .registers(bar as usize)
                .and_then(|registers| registers.part(offset as usize, bytes as usize));
            if kind == STRUCTURE_NOTIFY && slot.is_some() {
                notify_multiplier = read(at + 16, 4)? as usize;
            }
        }
        let structure = |kind: u32, bytes: usize| {
            found[kind as usize]
                .filter(|part| part.bytes() >= bytes)
                .ok_or_else(|| format!("it has no usable structure of type {kind} (legacy only?)"))
        };
        Ok(Self {
            common: structure(STRUCTURE_COMMON, common::BYTES)?,
            notify: structure(STRUCTURE_NOTIFY, 2)?,
            notify_multiplier,
            isr: structure(STRUCTURE_ISR, 1)?,
            device: structure(STRUCTURE_DEVICE, 8)?,
            features: 0,
            vector: None,
        })
    }

    async fn reset(&self) -> Result<(), String> {
        self.halt();
        let limit = Instant::now() + RESET_LIMIT;
        while self.common.read::<u8>(common::STATUS) != 0 {
            if Instant::now() > limit {
                return Err("it does not come out of its reset".into());
            }
            Timer::after_micros(100).await;
        }
        Ok(())
    }

    /// Begins a reset; until it runs again the device uses no memory.
    pub(crate) fn halt(&self) {
        self.common.write(common::STATUS, 0u8);
    }

    fn add_status(&self, bit: u8) {
        let status = self.common.read::<u8>(common::STATUS);
        self.common.write(common::STATUS, status | bit);
    }

    fn agree(&mut self, wanted: u64) -> Result<(), String> {
        let mut offered = 0;
        for half in 0..2u32 {
            self.common.write(common::DEVICE_FEATURE_SELECT, half);
            let bits = self.common.read::<u32>(common::DEVICE_FEATURE);
            offered |= u64::from(bits) << (32 * half);
        }
        if offered & FEATURE_VERSION_1 == 0 {
            return Err(format!("it offers no version 1 (features {offered:#x})"));
        }
        self.features = offered & (wanted | FEATURE_VERSION_1 | FEATURE_ACCESS_PLATFORM);
        for half in 0..2u32 {
            let bits = (self.features >> (32 * half)) as u32;
            self.common.write(common::DRIVER_FEATURE_SELECT, half);
            self.common.write(common::DRIVER_FEATURE, bits);
        }
        self.add_status(STATUS_FEATURES_OK);
        if self.common.read::<u8>(common::STATUS) & STATUS_FEATURES_OK == 0 {
            return Err(format!("it refuses the features {:#x}", self.features));
        }
        Ok(())
    }

    /// The features agreed on.
    pub(crate) fn features(&self) -> u64 {
        self.features
    }

    /// Sets up queue `index`.
    pub(crate) fn queue(&self, index: u16) -> Result<Virtqueue, String> {
        let place = self.place_queue(index)?;
        let queue = Virtqueue::new(index, place.size, place.notify, place.bell);
        self.enable_queue(
            queue.descriptors_address(),
            queue.available_address(),
            queue.used_address(),
        );
        Ok(queue)
    }

    /// Selects queue `index` and sets its size and interrupt.
    pub(crate) fn place_queue(&self, index: u16) -> Result<QueuePlace, String> {
        let common = self.common;
        common.write(common::QUEUE_SELECT, index);
        let size = queue_size(common.read::<u16>(common::QUEUE_SIZE))
            .ok_or_else(|| format!("it has no queue {index}"))?;
        common.write(common::QUEUE_SIZE, size);
        let vector = self.vector.unwrap_or(NO_VECTOR);
        common.write(common::QUEUE_VECTOR, vector);
        if common.read::<u16>(common::QUEUE_VECTOR) != vector {
            return Err(format!(
                "it refuses MSI-X vector {vector} for queue {index}"
            ));
        }
        let offset = usize::from(common.read::<u16>(common::QUEUE_NOTIFY_OFFSET));
        let bell = offset
            .checked_mul(self.notify_multiplier)
            .filter(|offset| offset.is_multiple_of(2) && offset + 2 <= self.notify.bytes())
            .ok_or_else(|| format!("the notification of queue {index} is out of range"))?;
        Ok(QueuePlace {
            size,
            notify: self.notify,
            bell,
        })
    }

    /// Tells the device where the rings of the selected queue are, and that it may use them.
    pub(crate) fn enable_queue(&self, descriptors: u64, available: u64, used: u64) {
        let common = self.common;
        for (register, address) in [
            (common::QUEUE_DESCRIPTORS, descriptors),
            (common::QUEUE_AVAILABLE, available),
            (common::QUEUE_USED, used),
        ] {
            common.write(register, address as u32);
            common.write(register + 4, (address >> 32) as u32);
        }
        common.write(common::QUEUE_ENABLE, 1u16);
    }

    /// Lets the device run; its queues are set up.
    pub(crate) fn run(&self) {
        self.add_status(STATUS_DRIVER_OK);
    }

    /// Acknowledges an interrupt of its line; nothing is to be done for MSI-X.
    pub(crate) fn acknowledge(&self) {
        if self.vector.is_none() {
            // Reading clears, which lets go of the line (4.1.4.5).
            self.isr.read::<u8>(0);
        }
    }

    /// Reads its device specific configuration such that all of it is of one time (2.5.1).
    pub(crate) fn consistent<T>(&self, read: impl Fn(Mmio) -> T) -> Option<T> {
        for _ in 0..CONSISTENT_TRIES_MAX {
            let before = self.common.read::<u8>(common::GENERATION);
            let value = read(self.device);
            if self.common.read::<u8>(common::GENERATION) == before {
                return Some(value);
            }
        }
        None
    }
}
