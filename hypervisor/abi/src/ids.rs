//! Names of things that both sides speak of.

use core::fmt;

/// A domain: a slot and the slot's generation, so that the id of a domain that is gone never
/// means the next one in its place.
///
/// Raw form: generation in bits 31:16, slot in bits 15:0. Domain 0 is slot 0, generation 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(u32);

impl DomainId {
    /// The control domain.
    pub const CONTROL: DomainId = DomainId(0);

    /// The id of `slot` in its `generation`.
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | slot as u32)
    }

    /// From the raw form; every value is an id of some slot and generation.
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The raw form.
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// The slot in the domain table.
    pub const fn slot(self) -> u16 {
        self.0 as u16
    }

    /// Which occupant of the slot.
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Debug for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "d{}", self)
    }
}

/// The number operators see: slot and generation as one decimal number, never reused while the
/// host runs (a slot is retired when its generations are used up).
impl fmt::Display for DomainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u64::from(self.generation()) * 1024 + u64::from(self.slot());
        fmt::Display::fmt(&number, f)
    }
}

/// A vCPU of a domain, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuIndex(pub u16);

/// An event port of the calling domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Port(pub u32);

/// The vCPU whose access to a device `device_serve` answers; none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answered(pub Option<(DomainId, VcpuIndex)>);

/// A PCI function: segment in bits 31:16, bus 15:8, device 7:3, function 2:0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress(pub u32);

impl PciAddress {
    /// From its parts. `device` below 32, `function` below 8.
    pub const fn new(segment: u16, bus: u8, device: u8, function: u8) -> Self {
        assert!(device < 32 && function < 8);
        Self((segment as u32) << 16 | (bus as u32) << 8 | (device as u32) << 3 | function as u32)
    }

    /// PCI segment group.
    pub const fn segment(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Bus number.
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device number, 0 to 31.
    pub const fn device(self) -> u8 {
        (self.0 >> 3) as u8 & 31
    }

    /// Function number, 0 to 7.
    pub const fn function(self) -> u8 {
        self.0 as u8 & 7
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{}",
            self.segment(),
            self.bus(),
            self.device(),
            self.function()
        )
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What `host_power` does to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerAction {
    /// Restart the machine.
    Reboot,
    /// Switch it off.
    PowerOff,
}

/// What an event port is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EventSource {
    /// Bytes have arrived on the host's serial console.
    ConsoleInput,
    /// Some domain has changed its state (created, paused, shut down, crashed, gone).
    DomainState,
    /// Some domain has written to its debug console.
    GuestConsole,
    /// A guest has rung a doorbell of a device that the control domain serves.
    Doorbell,
}

/// Which interrupt of a PCI function an event port is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InterruptKind {
    /// The function's INTx line, level triggered: masked when it fires until `interrupt_unmask`.
    Line,
    /// Message signalled interrupt (the hypervisor programs the capability).
    Msi,
    /// Entry of the function's MSI-X table.
    MsiX(u16),
    /// The ISA interrupt of channel 0 or 1 of an IDE controller in compatibility mode, edge
    /// triggered: it is never masked.
    LegacyIde(u8),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_address_keeps_its_parts() {
        let a = PciAddress::new(1, 2, 31, 7);
        assert_eq!(
            (a.segment(), a.bus(), a.device(), a.function()),
            (1, 2, 31, 7)
        );
    }

    #[test]
    fn generations_are_different_domains() {
        assert_ne!(DomainId::new(3, 0), DomainId::new(3, 1));
        assert_eq!(DomainId::new(3, 9).slot(), 3);
    }
}
