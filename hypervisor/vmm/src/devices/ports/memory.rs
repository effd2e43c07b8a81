//! The devices of the platform that are reached by memory access: I/O APIC, PCI configuration space, MSI-X tables.
//!
//! An access of 8 bytes is for the caller to split, low half first; no register here is wider than 4.

use super::{Effect, Platform, Width};
use crate::devices::pci::Route;
use crate::devices::{ioapic, pci};

/// Which of them.
enum Device {
    /// Offset from its first register.
    Ioapic(u64),
    /// Offset from bus 0.
    Config(u64),
    /// A BAR of a function.
    Pci(pci::Target),
}

impl Platform {
    #[inline]
    fn device_at(&self, gpa: u64) -> Option<Device> {
        match gpa {
            ioapic::BASE..IOAPIC_END => Some(Device::Ioapic(gpa - ioapic::BASE)),
            pci::ECAM_BASE..ECAM_END => Some(Device::Config(gpa - pci::ECAM_BASE)),
            _other => self.pci.decode_memory(gpa).map(Device::Pci),
        }
    }

    /// The device in dom0 that claims guest-physical memory.
    #[inline]
    pub fn forwarded_memory(&self, gpa: u64) -> Option<Route> {
        match self.device_at(gpa)? {
            Device::Ioapic(_) | Device::Config(_) => None,
            Device::Pci(target) => self.pci.route(target),
        }
    }

    /// The device in dom0 that claims a port.
    #[inline]
    pub fn forwarded_port(&self, port: u16) -> Option<Route> {
        self.pci.route(self.pci.decode_io(port)?)
    }

    /// Takes a PCI function away. `false`: there is none in this slot that could be. [`Platform::poll`] is due afterwards.
    pub fn remove_function(&mut self, slot: u8) -> bool {
        let removed = self.pci.remove(slot);
        self.drive_intx();
        removed
    }

    /// Reads guest-physical memory of a device. `None`: none here claims it; see [`Platform::forwarded_memory`].
    pub fn mmio_read(&mut self, gpa: u64, width: Width, _now_tsc: u64) -> Option<u32> {
        match self.device_at(gpa)? {
            Device::Ioapic(offset) => Some(self.ioapic.mmio_read(offset, width)),
            Device::Config(address) => Some(self.pci.read_config(address, width)),
            Device::Pci(target) => self.pci.read_msix(target, width),
        }
    }

    /// Writes guest-physical memory of a device. `None` as for [`Platform::mmio_read`].
    pub fn mmio_write(
        &mut self,
        gpa: u64,
        width: Width,
        value: u32,
        now_tsc: u64,
    ) -> Option<Effect> {
        match self.device_at(gpa)? {
            Device::Ioapic(offset) => {
                // What has happened by now finds the entries as they were.
                let due = now_tsc >= self.timers_due_tsc;
                if due {
                    self.run_timers(now_tsc);
                }
                self.ioapic.mmio_write(offset, width, value);
                Some(Platform::changed_if(due || self.ioapic.has_message()))
            }
            Device::Config(address) => {
                self.pci.write_config(address, width, value);
                Some(self.pci_accessed())
            }
            Device::Pci(target) => {
                self.pci.write_msix(target, width, value)?;
                Some(self.pci_accessed())
            }
        }
    }
}

const IOAPIC_END: u64 = ioapic::BASE + ioapic::SIZE;
const ECAM_END: u64 = pci::ECAM_BASE + pci::ECAM_BYTES;
