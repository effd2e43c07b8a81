//! Interrupts of the devices passed to dom0: a host vector each, which becomes an event.

use godwit_abi::{InterruptKind, PciAddress, Port, Status};

use godwit_vmm::passed_ports::legacy_ide_irq;

use super::events::Source;
use super::{Host, Hosted, SERIAL_IRQ};
use crate::cpu::vectors::{DEVICE_FIRST, DEVICE_LAST};
use crate::memory::tables::map_device;
use crate::platform::{ioapic, pci};

const VECTORS: usize = (DEVICE_LAST - DEVICE_FIRST) as usize + 1;
/// Message address of the local APICs (SDM 3A, 11.11.1): destination in bits 19:12.
const MESSAGE_ADDRESS: u32 = 0xfee0_0000;
const COMMAND: u16 = 4;
const COMMAND_INTX_OFF: u32 = 1 << 10;
const MSI_ENABLE: u32 = 1;
const MSI_64BIT: u32 = 1 << 7;
const MSI_MULTIPLE: u32 = 7 << 4;
const MSIX_ENABLE: u32 = 1 << 15;
const MSIX_MASK_ALL: u32 = 1 << 14;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Bound {
    device: PciAddress,
    kind: InterruptKind,
    line: Option<ioapic::Line>,
}

/// Who has which vector.
pub(super) struct Interrupts {
    bound: [Option<Bound>; VECTORS],
}

impl Interrupts {
    pub(super) fn new() -> Self {
        Self {
            bound: [None; VECTORS],
        }
    }

    fn of(&self, vector: u8) -> Option<Bound> {
        *self
            .bound
            .get(usize::from(vector.checked_sub(DEVICE_FIRST)?))?
    }
}

impl<B: Hosted> Host<B> {
    /// Gives an interrupt of a function a vector and an event port, and switches it on.
    pub(super) fn bind_interrupt(
        &self,
        device: PciAddress,
        kind: InterruptKind,
    ) -> Result<Port, Status> {
        self.passed(device)?;
        let mut interrupts = self.interrupts.lock();
        if interrupts
            .bound
            .iter()
            .flatten()
            .any(|bound| bound.device == device && bound.kind == kind)
        {
            return Err(Status::Exists);
        }
        let free = interrupts
            .bound
            .iter()
            .position(Option::is_none)
            .ok_or(Status::Full)?;
        let vector = DEVICE_FIRST + free as u8;
        let line = match kind {
            InterruptKind::Line => {
                let irq = pci::read(device, pci::INTERRUPT_LINE, 1) as u8;
                let line = ioapic::pci_line(irq);
                if line.is_same_pin(&ioapic::isa_line(SERIAL_IRQ)) {
                    return Err(Status::Busy);
                }
                let shared = interrupts
                    .bound
                    .iter()
                    .flatten()
                    .filter_map(|bound| bound.line)
                    .any(|other| other.is_same_pin(&line));
                if shared {
                    // Two devices on one pin would need one event for both.
                    return Err(Status::Busy);
                }
                Some(line)
            }
            InterruptKind::LegacyIde(channel) => {
                let passed = self
                    .devices
                    .iter()
                    .find(|passed| passed.address == device.0);
                let irq = passed.and_then(|passed| legacy_ide_irq(passed, channel));
                Some(ioapic::isa_line(irq.ok_or(Status::NotSupported)?))
            }
            InterruptKind::Msi | InterruptKind::MsiX(_) => None,
        };
        let port = self.events.lock().bind(Source::Interrupt(vector))?;
        interrupts.bound[free] = Some(Bound { device, kind, line });
        drop(interrupts);
        let on = match kind {
            InterruptKind::Line => self.line_on(device, line.ok_or(Status::NotSupported)?, vector),
            InterruptKind::LegacyIde(_) => {
                line.and_then(|line| ioapic::route(line, vector, self.apic_ids[0]).then_some(()))
            }
            InterruptKind::Msi => self.msi_on(device, vector),
            InterruptKind::MsiX(entry) => self.msix_on(device, entry, vector),
        };
        if on.is_none() {
            self.interrupts.lock().bound[free] = None;
            self.events.lock().close(port);
            return Err(Status::NotSupported);
        }
        log::debug!("{device}: {kind:?} is vector {vector:#x}");
        Ok(port)
    }

    fn line_on(&self, device: PciAddress, line: ioapic::Line, vector: u8) -> Option<()> {
        if pci::read(device, pci::INTERRUPT_PIN, 1) == 0 {
            return None;
        }
        let command = pci::read(device, COMMAND, 2);
        pci::write(device, COMMAND, 2, command & !COMMAND_INTX_OFF);
        ioapic::route(line, vector, self.apic_ids[0]).then_some(())
    }

    fn msi_on(&self, device: PciAddress, vector: u8) -> Option<()> {
        let at = pci::capability(device, pci::CAPABILITY_MSI)?;
        let control = pci::read(device, at + 2, 2);
        pci::write(device, at + 4, 4, MESSAGE_ADDRESS | self.apic_ids[0] << 12);
        let data = if control & MSI_64BIT != 0 {
            pci::write(device, at + 8, 4, 0);
            at + 12
        } else {
            at + 8
        };
        pci::write(device, data, 2, vector.into());
        pci::write(device, at + 2, 2, control & !MSI_MULTIPLE | MSI_ENABLE);
        Some(())
    }

    fn msix_on(&self, device: PciAddress, entry: u16, vector: u8) -> Option<()> {
        let at = pci::capability(device, pci::CAPABILITY_MSIX)?;
        let control = pci::read(device, at + 2, 2);
        if u32::from(entry) > control & 0x7ff {
            return None;
        }
        let table = pci::read(device, at + 4, 4);
        let bar = self
            .devices
            .iter()
            .find(|passed| passed.address == device.0)?
            .bars
            .get(table as usize & 7)?;
        let offset = u64::from(table & !7) + u64::from(entry) * 16;
        if bar.is_port() || bar.address == 0 || offset + 16 > bar.bytes() {
            return None;
        }
        pci::write(device, at + 2, 2, control | MSIX_ENABLE | MSIX_MASK_ALL);
        let words = map_device(bar.address + offset, 16).cast::<u32>();
        // SAFETY: the entry lies inside the BAR (checked), which is mapped uncached; the table
        // is dom0's device's: only interrupt remapping could keep dom0 from writing it too.
        unsafe {
            words.write_volatile(MESSAGE_ADDRESS | self.apic_ids[0] << 12);
            words.add(1).write_volatile(0);
            words.add(2).write_volatile(vector.into());
            words.add(3).write_volatile(0);
        }
        pci::write(device, at + 2, 2, control & !MSIX_MASK_ALL | MSIX_ENABLE);
        Some(())
    }

    /// A device has interrupted. Level-triggered lines stay masked until dom0 has served the device.
    pub(super) fn device_interrupt(&self, vector: u8) {
        let bound = self.interrupts.lock().of(vector);
        match bound {
            Some(bound) => {
                // An edge does not come again by itself, and one that comes to a masked pin is lost.
                if let Some(line) = bound.line.filter(|line| line.is_level()) {
                    ioapic::set_masked(line, true);
                }
                self.raise_source(Source::Interrupt(vector));
            }
            None => log::warn!("interrupt {vector:#x} belongs to nobody"),
        }
    }

    /// Unmasks the line behind a port.
    pub(super) fn unmask_interrupt(&self, port: Port) -> Result<(), Status> {
        let Some(Source::Interrupt(vector)) = self.events.lock().source(port) else {
            return Err(Status::NotFound);
        };
        if let Some(line) = self
            .interrupts
            .lock()
            .of(vector)
            .and_then(|bound| bound.line)
        {
            ioapic::set_masked(line, false);
        }
        Ok(())
    }

    /// Switches the interrupt behind a closed port off.
    pub(super) fn unbind_interrupt(&self, vector: u8) {
        let bound = self.interrupts.lock().bound[usize::from(vector - DEVICE_FIRST)].take();
        let Some(bound) = bound else { return };
        match bound.kind {
            InterruptKind::Line | InterruptKind::LegacyIde(_) => {
                if let Some(line) = bound.line {
                    ioapic::set_masked(line, true);
                }
            }
            InterruptKind::Msi => {
                self.capability_off(bound.device, pci::CAPABILITY_MSI, MSI_ENABLE)
            }
            InterruptKind::MsiX(_) => {
                self.capability_off(bound.device, pci::CAPABILITY_MSIX, MSIX_ENABLE)
            }
        }
    }

    /// Switches every interrupt off.
    pub(super) fn unbind_all_interrupts(&self) {
        for vector in DEVICE_FIRST..=DEVICE_LAST {
            self.unbind_interrupt(vector);
        }
    }

    fn capability_off(&self, device: PciAddress, id: u8, enable: u32) {
        if let Some(at) = pci::capability(device, id) {
            let control = pci::read(device, at + 2, 2);
            pci::write(device, at + 2, 2, control & !enable);
        }
    }

    /// Whether a function is dom0's.
    pub(super) fn passed(&self, device: PciAddress) -> Result<(), Status> {
        let known = self.devices.iter().any(|passed| passed.address == device.0);
        if known { Ok(()) } else { Err(Status::NotFound) }
    }
}
