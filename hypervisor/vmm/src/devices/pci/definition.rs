//! What a PCI function is, before a guest has touched it.

use super::msi::{MSI_CAPABILITY_BYTES, MSI_MESSAGES_MAX};
use super::msix::MSIX_VECTORS_MAX;
use alloc::vec::Vec;
use godwit_abi::DOORBELLS_MAX;

/// Base address registers of a function.
pub const BAR_COUNT: usize = 6;
/// Bytes of configuration space that a function has.
pub(super) const CONFIG_BYTES: usize = 256;
/// First byte behind the header: capabilities begin here.
pub(super) const HEADER_BYTES: usize = 0x40;
/// Memory behind the MSI-X tables: one page, table first, pending bits at [`super::msix`]'s offset.
pub(super) const MSIX_BAR_BYTES: u32 = 4096;
/// Length of the MSI-X capability, less its two common bytes.
pub(super) const MSIX_CAPABILITY_BYTES: usize = 10;

const IO_BYTES_MAX: u16 = 256;
/// Largest memory BAR: what a guest's address space has room for.
const MEMORY_BYTES_MAX: u64 = 1 << 36;

/// One base address register. Sizes are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Not there, or the upper half of the one before.
    None,
    /// Ports, 4..=256.
    Io {
        /// Number of ports.
        ports: u16,
    },
    /// Memory below 4 GiB, from 16 bytes on.
    Memory32 {
        /// Bytes.
        size_bytes: u32,
    },
    /// Memory anywhere, prefetchable, from 16 bytes on; takes the next register too.
    Memory64 {
        /// Bytes.
        size_bytes: u64,
    },
}

/// A capability, as it stands in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID.
    pub id: u8,
    /// Bytes behind the link to the next.
    pub body: Vec<u8>,
}

/// What a function is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDefinition {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass and interface, 24 bits.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// Base address registers.
    pub bars: [Bar; BAR_COUNT],
    /// Interrupt pin: 0 none, 1 INTA to 4 INTD.
    pub interrupt_pin: u8,
    /// Capabilities but MSI and MSI-X, all read-only.
    pub capabilities: Vec<Capability>,
    /// MSI-X: the BAR that holds its tables ([`Bar::Memory32`] of 4096 bytes) and the number of vectors.
    pub msix: Option<(u8, u16)>,
    /// Messages of plain MSI, a power of two; 0: no such capability.
    pub msi_messages: u8,
    /// Doorbells, if it has any.
    pub doorbells: Option<Doorbells>,
}

/// Registers of a function that only say "look": writing one is answered at once, whatever is written. Number n is at
/// `offset` + n * `stride` of its BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbells {
    /// The BAR.
    pub bar: u8,
    /// Where the first begins.
    pub offset: u32,
    /// Bytes from one to the next.
    pub stride: u32,
    /// How many, 1..=64.
    pub count: u16,
}

impl Doorbells {
    /// The doorbell at an offset of its BAR.
    pub(super) fn at(&self, offset: u64) -> Option<u8> {
        let index = offset.checked_sub(self.offset.into())? / u64::from(self.stride);
        // Below 64.
        (index < self.count.into()).then_some(index as u8)
    }

    /// A bit for each.
    pub fn all(&self) -> u64 {
        u64::MAX
            .checked_shr(DOORBELLS_MAX - u32::from(self.count))
            .unwrap_or(0)
    }

    fn fits(&self, bars: &[Bar; BAR_COUNT]) -> bool {
        let bytes = match bars.get(usize::from(self.bar)) {
            None | Some(Bar::None) => 0,
            Some(Bar::Io { ports }) => u64::from(*ports),
            Some(Bar::Memory32 { size_bytes }) => u64::from(*size_bytes),
            Some(Bar::Memory64 { size_bytes }) => *size_bytes,
        };
        let end = u64::from(self.offset) + u64::from(self.stride) * u64::from(self.count);
        self.stride > 0 && (1..=DOORBELLS_MAX as u16).contains(&self.count) && end <= bytes
    }
}

/// Why a function cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFunction {
    /// There is no such slot, or it is taken.
    SlotTaken,
    /// A BAR's size is no power of two, too small or too large, or a 64-bit BAR has no second register.
    Bar,
    /// The capabilities do not fit into configuration space.
    Capabilities,
    /// The MSI-X BAR is not memory of 4096 bytes, or the number of vectors is not in 1..=[`MSIX_VECTORS_MAX`].
    Msix,
    /// The number of MSI messages is no power of two in 1..=[`MSI_MESSAGES_MAX`].
    Msi,
    /// No such interrupt pin, or a class wider than 24 bits.
    Header,
    /// Doorbells that their BAR has no room for, or more than 64.
    Doorbells,
}

impl core::fmt::Display for BadFunction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            BadFunction::SlotTaken => "PCI slot does not exist or is taken",
            BadFunction::Bar => "PCI base address register: size is not a power of two in range",
            BadFunction::Capabilities => "PCI capabilities do not fit into configuration space",
            BadFunction::Msix => "MSI-X: table is not 4096 bytes of memory, or too many vectors",
            BadFunction::Msi => "MSI: messages are not a power of two up to 32",
            BadFunction::Doorbells => "PCI doorbells: beyond their BAR, or too many",
            BadFunction::Header => "PCI header: no such interrupt pin or class",
        })
    }
}

impl FunctionDefinition {
    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<(), BadFunction> {
        for (index, bar) in self.bars.iter().enumerate() {
            let valid = match *bar {
                Bar::None => true,
                Bar::Io { ports } => ports.is_power_of_two() && (4..=IO_BYTES_MAX).contains(&ports),
                Bar::Memory32 { size_bytes } => size_bytes.is_power_of_two() && size_bytes >= 16,
                Bar::Memory64 { size_bytes } => {
                    size_bytes.is_power_of_two()
                        && (16..=MEMORY_BYTES_MAX).contains(&size_bytes)
                        && self.bars.get(index + 1) == Some(&Bar::None)
                }
            };
            if !valid {
                return Err(BadFunction::Bar);
            }
        }
        if self.interrupt_pin > 4 || self.class >> 24 != 0 {
            return Err(BadFunction::Header);
        }
        if let Some((bar, vectors)) = self.msix {
            let memory = Bar::Memory32 {
                size_bytes: MSIX_BAR_BYTES,
            };
            let in_range = (1..=MSIX_VECTORS_MAX as u16).contains(&vectors);
            if !in_range || self.bars.get(usize::from(bar)) != Some(&memory) {
                return Err(BadFunction::Msix);
            }
        }
        let messages = self.msi_messages;
        if messages != 0 && !(messages.is_power_of_two() && messages <= MSI_MESSAGES_MAX) {
            return Err(BadFunction::Msi);
        }
        if self.doorbells.is_some_and(|bells| !bells.fits(&self.bars)) {
            return Err(BadFunction::Doorbells);
        }
        let msix = self.msix.map(|_| MSIX_CAPABILITY_BYTES);
        let msi = (messages != 0).then_some(MSI_CAPABILITY_BYTES);
        let bodies = self.capabilities.iter().map(|each| each.body.len());
        // Each begins at a multiple of 4.
        let total: usize = bodies
            .chain(msix)
            .chain(msi)
            .map(|body| (body + 2).next_multiple_of(4))
            .sum();
        if HEADER_BYTES + total > CONFIG_BYTES {
            return Err(BadFunction::Capabilities);
        }
        Ok(())
    }
}
