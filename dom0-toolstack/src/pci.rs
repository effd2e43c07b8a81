//! The PCI functions passed to dom0: configuration space by hypercall, BARs mapped one to one.

use crate::executor::EventPort;
use crate::hypercall::{HYPERCALLS, filled};
use crate::mmio::Mmio;
use crate::ports::Ports;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::ids::InterruptKind;
use godwit_abi::{PCI_LINE, PCI_MSI, PCI_MSIX, PciAddress, PciDevice, Port, Status};

/// The most functions looked at.
const FUNCTIONS_MAX: u32 = 256;
/// The most capabilities of a function: there is room for no more in 256 bytes.
const CAPABILITIES_MAX: usize = 48;

const COMMAND: u16 = 0x04;
const COMMAND_PORTS: u32 = 1 << 0;
const COMMAND_MEMORY: u32 = 1 << 1;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const COMMAND_NO_LINE: u32 = 1 << 10;
const STATUS: u16 = 0x06;
const STATUS_CAPABILITIES: u32 = 1 << 4;
const CAPABILITIES: u16 = 0x34;

/// Class and subclass of IDE controllers.
const CLASS_IDE: u32 = 0x0101;
/// Old command and control ports of the two channels.
const LEGACY_IDE: [(u16, u16); 2] = [(0x1f0, 0x3f6), (0x170, 0x376)];

/// A PCI function.
#[derive(Clone, Copy)]
pub(crate) struct Function {
    /// What the hypervisor says of it.
    pub(crate) info: PciDevice,
}

/// Every function passed to dom0.
pub(crate) fn functions() -> Vec<Function> {
    (0..FUNCTIONS_MAX)
        .map_while(|index| {
            filled(|address, length| HYPERCALLS.pci_device(index, address, length)).ok()
        })
        .map(|info| Function { info })
        .collect()
}

impl Function {
    /// Where it is.
    pub(crate) fn address(&self) -> PciAddress {
        PciAddress(self.info.address)
    }

    /// Reads configuration space; `width` is 1, 2 or 4 bytes.
    pub(crate) fn read(&self, offset: u16, width: u8) -> Result<u32, Status> {
        HYPERCALLS.pci_config_read(self.address(), offset, width)
    }

    /// Lets the function answer at its BARs and access memory by itself: not before its driver has reset it, because it
    /// may remember the addresses of a dom0 that is no more. See [`Function::decode`].
    pub(crate) fn enable(&self) -> Result<(), Status> {
        self.decode()?;
        self.master(true)
    }

    /// Lets the function answer at its BARs, so that its driver can reset it.
    pub(crate) fn decode(&self) -> Result<(), Status> {
        let command = self.read(COMMAND, 2)?;
        // A BAR that firmware has not placed would answer at port 0.
        let mut ports = self.info.bars.iter().filter(|bar| bar.is_port()).peekable();
        let has_ports = ports.peek().is_some() && ports.all(|bar| bar.address != 0);
        let ports = if has_ports { COMMAND_PORTS } else { 0 };
        let wanted = (command | ports | COMMAND_MEMORY) & !COMMAND_NO_LINE;
        if wanted == command {
            return Ok(());
        }
        HYPERCALLS.pci_config_write(self.address(), COMMAND, 2, wanted)
    }

    /// Lets the function access memory by itself, or keeps it from that.
    pub(crate) fn master(&self, on: bool) -> Result<(), Status> {
        let command = self.read(COMMAND, 2)? & !COMMAND_BUS_MASTER;
        let bit = if on { COMMAND_BUS_MASTER } else { 0 };
        HYPERCALLS.pci_config_write(self.address(), COMMAND, 2, command | bit)
    }

    /// The registers behind a memory BAR; `None` if there are none.
    pub(crate) fn registers(&self, bar: usize) -> Option<Mmio> {
        let bar = self.info.bars.get(bar)?;
        if bar.is_port() || bar.bytes() == 0 || bar.address == 0 {
            return None;
        }
        // SAFETY: the hypervisor passes the function and maps its BARs one to one; the drivers,
        // which alone call this, tell devices only addresses of DMA buffers they own.
        Some(unsafe { Mmio::new(bar.address as usize, bar.bytes() as usize) })
    }

    /// The ports behind a port BAR; `None` if there are none.
    pub(crate) fn ports(&self, bar: usize) -> Option<Ports> {
        let bar = self.info.bars.get(bar).filter(|bar| bar.is_port())?;
        let (first, count) = (u16::try_from(bar.address).ok()?, bar.bytes() as u16);
        if first == 0 || count == 0 {
            return None;
        }
        // SAFETY: the hypervisor passes the function; what it does not pass of its ports does nothing.
        // The drivers, which alone call this, tell devices only addresses of memory they keep.
        Some(unsafe { Ports::new(first, count) })
    }

    /// Command and control ports of an IDE channel that answers at its old ports. `None`: this
    /// function has no such channel.
    pub(crate) fn legacy_ide(&self, channel: u8) -> Option<(Ports, Ports)> {
        let native = 1 << (2 * channel);
        if self.info.class >> 8 != CLASS_IDE || self.info.class & native != 0 {
            return None;
        }
        let (command, control) = *LEGACY_IDE.get(usize::from(channel))?;
        // SAFETY: as in `ports`: a channel in compatibility mode answers there.
        unsafe { Some((Ports::new(command, 8), Ports::new(control, 1))) }
    }

    /// Offsets of the capabilities with the id `wanted`. Bounded, whatever the list says.
    pub(crate) fn capabilities(&self, wanted: u8) -> Result<Vec<u16>, Status> {
        let mut found = Vec::new();
        if self.read(STATUS, 2)? & STATUS_CAPABILITIES == 0 {
            return Ok(found);
        }
        let mut offset = self.read(CAPABILITIES, 1)? as u16 & 0xfc;
        for _ in 0..CAPABILITIES_MAX {
            if offset == 0 {
                break;
            }
            let header = self.read(offset, 2)?;
            if header as u8 == wanted {
                found.push(offset);
            }
            offset = (header >> 8) as u16 & 0xfc;
        }
        Ok(found)
    }

    /// Binds the best interrupt the function offers: MSI-X entry 0, MSI, or its line.
    pub(crate) fn bind_interrupt(&self) -> Result<Interrupt, Status> {
        let offers = self.info.interrupts;
        let kinds = [
            (PCI_MSIX, InterruptKind::MsiX(0)),
            (PCI_MSI, InterruptKind::Msi),
            (PCI_LINE, InterruptKind::Line),
        ];
        let mut refused = Status::NotSupported;
        for (_, kind) in kinds.into_iter().filter(|(flag, _)| offers & flag != 0) {
            match self.bind(kind) {
                Ok(interrupt) => return Ok(interrupt),
                Err(status) => refused = status,
            }
        }
        Err(refused)
    }

    /// Binds one interrupt.
    pub(crate) fn bind(&self, kind: InterruptKind) -> Result<Interrupt, Status> {
        Interrupt::new(kind, HYPERCALLS.interrupt_bind(self.address(), kind)?)
    }
}

/// An interrupt of a function, as an event port.
pub(crate) struct Interrupt {
    kind: InterruptKind,
    event: EventPort,
}

impl Interrupt {
    fn new(kind: InterruptKind, port: Port) -> Result<Self, Status> {
        let event = EventPort::new(port)?;
        Ok(Self { kind, event })
    }

    /// Which kind it is.
    pub(crate) fn kind(&self) -> InterruptKind {
        self.kind
    }

    /// Waits for it.
    pub(crate) async fn wait(&self) {
        self.event.wait().await;
    }

    /// Lets it come again after the device has been served; only a line was masked.
    pub(crate) fn served(&self) {
        if self.kind != InterruptKind::Line {
            return;
        }
        if let Err(status) = HYPERCALLS.interrupt_unmask(self.event.port()) {
            log::error!("unmask interrupt: {status}");
        }
    }
}

/// Prints as `INTx`, `MSI` or `MSI-X`.
pub(crate) struct KindName(pub(crate) InterruptKind);

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            InterruptKind::Line => "INTx",
            InterruptKind::Msi => "MSI",
            InterruptKind::MsiX(_) => "MSI-X",
            InterruptKind::LegacyIde(0) => "IRQ14",
            InterruptKind::LegacyIde(_) => "IRQ15",
        })
    }
}
