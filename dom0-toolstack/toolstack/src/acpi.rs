//! The ACPI tables of a guest (ACPI 6.5; PCI Firmware 3.3 for MCFG): what the platform that the
//! hypervisor emulates looks like to an operating system.
//!
//! ```text
//!   RSDP -> XSDT -> FADT -> DSDT    devices, PCI routing, soft-off
//!                        -> FACS    waking vector and lock, never used
//!                -> MADT            local APICs, I/O APIC, overrides
//!                -> MCFG            PCI configuration space
//! ```
//! All lies in one block at [`TABLES_START`], the RSDP first, so that a guest whose boot protocol
//! does not say where finds it by the scan of section 5.2.5.1. There is no firmware: the platform is
//! in ACPI mode from the start, and the tables are made anew for every domain.

mod aml;
mod dsdt;
mod fixed;
mod madt;
mod resource;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

/// Where the tables begin, guest-physical.
pub const TABLES_START: u64 = 0xe_0000;
/// Where they end at most.
pub const TABLES_END: u64 = 0x10_0000;
/// Most vCPUs that are described.
pub const VCPUS_MAX: u32 = 1024;

/// PCI configuration space, memory-mapped: segment 0, bus 0.
pub const PCI_CONFIGURATION_START: u64 = 0xe000_0000;
/// One bus of it: 32 devices of 8 functions of 4 KiB.
pub const PCI_CONFIGURATION_BYTES: u64 = 1 << 20;
/// Where PCI base addresses of memory may lie.
pub const PCI_MEMORY_START: u64 = 0xc000_0000;
/// Length of that, bytes.
pub const PCI_MEMORY_BYTES: u64 = 512 << 20;
/// Devices on the bus.
pub const PCI_SLOTS: u32 = 32;
/// The I/O APIC's registers.
pub const IO_APIC_ADDRESS: u32 = 0xfec0_0000;
/// The local APICs' registers.
pub const LOCAL_APIC_ADDRESS: u32 = 0xfee0_0000;
/// Interrupt of the ACPI events, level-triggered, active high.
pub const SCI_GSI: u8 = 9;
/// Interrupt of COM1.
pub const COM1_IRQ: u8 = 4;
/// First port of COM1.
pub const COM1_PORT: u16 = 0x3f8;

/// The first I/O APIC input of PCI interrupts.
const PCI_GSI_FIRST: u32 = 16;
/// How many inputs they share.
const PCI_GSIS: u32 = 4;

/// The I/O APIC input of a PCI device's interrupt pin (0 is INTA).
pub const fn pci_gsi(slot: u32, pin: u32) -> u32 {
    PCI_GSI_FIRST + (slot + pin) % PCI_GSIS
}

/// The tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tables {
    /// What lies from [`TABLES_START`] on; at most to [`TABLES_END`].
    pub bytes: Vec<u8>,
    /// Guest-physical address of the RSDP.
    pub rsdp: u64,
}

/// The tables for a guest of `vcpus` vCPUs with the APIC ids 0, 1, .... `None`: there are none, or
/// more than [`VCPUS_MAX`].
pub fn tables(vcpus: u32) -> Option<Tables> {
    if !(1..=VCPUS_MAX).contains(&vcpus) {
        return None;
    }
    let mut block = Block::default();
    let rsdp = block.add(&[0; fixed::RSDP_BYTES]);
    let facs = block.add(&fixed::facs());
    let dsdt = block.add(&table(b"DSDT", 2, &dsdt::body(vcpus)));
    let fadt = block.add(&table(b"FACP", 6, &fixed::fadt_body(facs, dsdt)));
    let madt = block.add(&table(b"APIC", 5, &madt::body(vcpus)));
    let mcfg = block.add(&table(b"MCFG", 1, &fixed::mcfg_body()));
    let list: Vec<u8> = [fadt, madt, mcfg]
        .iter()
        .flat_map(|at| at.to_le_bytes())
        .collect();
    let xsdt = block.add(&table(b"XSDT", 1, &list));
    let mut bytes = block.0;
    bytes[..fixed::RSDP_BYTES].copy_from_slice(&fixed::rsdp(xsdt));
    assert!(
        bytes.len() as u64 <= TABLES_END - TABLES_START,
        "the tables of VCPUS_MAX vCPUs fit"
    );
    Some(Tables { bytes, rsdp })
}

/// Tables one after the other. The FACS needs 64-byte alignment, the RSDP 16; all get the former.
#[derive(Default)]
struct Block(Vec<u8>);

impl Block {
    const ALIGNMENT: usize = 64;

    /// Puts a table behind those there are. Returns its guest-physical address.
    fn add(&mut self, table: &[u8]) -> u64 {
        let at = self.0.len().next_multiple_of(Self::ALIGNMENT);
        self.0.resize(at, 0);
        self.0.extend(table);
        TABLES_START + at as u64
    }
}

/// Bytes of the header of all tables.
const HEADER_BYTES: usize = 36;
const OEM_ID: &[u8; 6] = b"GODWIT";
const OEM_REVISION: u32 = 1;
const CREATOR_ID: &[u8; 4] = b"GDWT";

/// A table of a body with its header (section 5.2.6).
fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut table = Vec::with_capacity(HEADER_BYTES + body.len());
    table.extend(signature);
    table.extend(((HEADER_BYTES + body.len()) as u32).to_le_bytes());
    table.extend([revision, 0]);
    table.extend(OEM_ID);
    table.extend(b"GUEST   ");
    table.extend(OEM_REVISION.to_le_bytes());
    table.extend(CREATOR_ID);
    table.extend(OEM_REVISION.to_le_bytes());
    table.extend(body);
    table[9] = checksum(&table);
    table
}

/// What to put in the place of a zero so that all bytes add up to zero.
fn checksum(bytes: &[u8]) -> u8 {
    let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    sum.wrapping_neg()
}
