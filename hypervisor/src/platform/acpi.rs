//! What the hypervisor needs from ACPI: CPUs and interrupt controllers (MADT), memory-mapped PCI
//! configuration (MCFG), reset and power off (FADT, and `_S5` in the DSDT).
//!
//! The tables are firmware's and may be wrong: entries are read with bounds, and what is missing is
//! named in the log.

use core::ptr::NonNull;

use acpi::fadt::Fadt;
use acpi::madt::{Madt, MadtEntry};
use acpi::mcfg::Mcfg;
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use arrayvec::ArrayVec;
use godwit_vmm::passed_ports::PortRange;

use super::power::{Power, Register};
use crate::boot::info::Rsdp;
use crate::cpu::CPUS_MAX;
use crate::memory::layout::PHYSICAL_MAX;
use crate::memory::tables::map_firmware;

/// Bytes of a table's header (ACPI 6.5, 5.2.6).
const HEADER_BYTES: u64 = 36;
/// The longest table believed in: a DSDT is some hundred KiB on large machines.
const TABLE_BYTES_MAX: u64 = 8 << 20;
/// The most IOAPICs and interrupt overrides kept.
const IOAPICS_MAX: usize = 16;
const OVERRIDES_MAX: usize = 32;
/// Blocks of ports of the fixed hardware.
const PORTS_MAX: usize = 10;

/// An I/O interrupt controller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoApicEntry {
    pub(crate) address: u32,
    pub(crate) first_gsi: u32,
}

/// An ISA interrupt that does not arrive where its number says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Override {
    pub(crate) irq: u8,
    pub(crate) gsi: u32,
    /// MPS INTI flags: polarity in bits 1:0, trigger in 3:2.
    pub(crate) flags: u16,
}

/// A PCI segment's memory-mapped configuration space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ecam {
    pub(crate) address: u64,
    pub(crate) segment: u16,
    pub(crate) first_bus: u8,
    pub(crate) last_bus: u8,
}

/// What was found.
#[derive(Default)]
pub(crate) struct Tables {
    /// APIC ids of enabled CPUs.
    pub(crate) cpus: ArrayVec<u32, CPUS_MAX>,
    /// CPUs listed, used or not.
    pub(crate) cpus_present: u32,
    pub(crate) ioapics: ArrayVec<IoApicEntry, IOAPICS_MAX>,
    pub(crate) overrides: ArrayVec<Override, OVERRIDES_MAX>,
    pub(crate) ecams: ArrayVec<Ecam, 8>,
    pub(crate) power: Power,
    /// I/O ports of the fixed hardware.
    pub(crate) ports: ArrayVec<PortRange, PORTS_MAX>,
    /// CMOS register of the century, 0 for none.
    pub(crate) century: u8,
}

#[derive(Clone)]
struct Mapper;

impl AcpiHandler for Mapper {
    unsafe fn map_physical_region<T>(
        &self,
        address: usize,
        size: usize,
    ) -> PhysicalMapping<Self, T> {
        // The crate makes references of tables that state a shorter length than `T` has (an ACPI 1.0 FADT):
        // the compiler may read ahead of the crate's own checks.
        let readable = size.max(size_of::<T>());
        let pointer = map_firmware(address as u64, readable as u64).cast::<T>();
        let pointer = NonNull::new(pointer).expect("the direct map does not begin at 0");
        // SAFETY: the range has just been mapped, for reading, and stays so.
        unsafe { PhysicalMapping::new(address, pointer, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_region: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables. An empty result means a machine without usable ACPI.
pub(crate) fn read(rsdp: Option<Rsdp>) -> Tables {
    let mut found = Tables::default();
    let Some(rsdp) = rsdp else {
        log::warn!("no ACPI root pointer from the boot loader: one CPU, no power off");
        return found;
    };
    if let Err(why) = plausible(rsdp) {
        log::warn!("ACPI tables are not used: {why}. One CPU, no power off");
        return found;
    }
    // SAFETY: the boot loader copied the root pointer from firmware; every table it leads to has been
    // found to lie where memory can be, and the crate checks each one's checksum before it uses it.
    let tables = match unsafe { AcpiTables::from_rsdt(Mapper, rsdp.revision, rsdp.table as usize) }
    {
        Ok(tables) => tables,
        Err(error) => {
            log::warn!("ACPI tables cannot be read ({error:?}): one CPU, no power off");
            return found;
        }
    };
    match tables.find_table::<Madt>() {
        Ok(madt) => read_madt(madt.get(), &mut found),
        Err(error) => log::warn!("no ACPI MADT ({error:?}): one CPU"),
    }
    match tables.find_table::<Mcfg>() {
        Ok(mcfg) => found
            .ecams
            .extend(mcfg.entries().iter().take(8).map(|entry| Ecam {
                address: entry.base_address,
                segment: entry.pci_segment_group,
                first_bus: entry.bus_number_start,
                last_bus: entry.bus_number_end,
            })),
        Err(_) => log::debug!("no ACPI MCFG: PCI configuration through ports"),
    }
    match tables.find_table::<Fadt>() {
        Ok(fadt) => {
            found.century = fadt.century;
            found.ports = fixed_ports(&fadt);
            read_fadt(&fadt, &tables, &mut found.power)
        }
        Err(error) => log::warn!("no ACPI FADT ({error:?}): no power off"),
    }
    found
}

/// Looks at where the root table and its entries point before anything follows them: the crate maps
/// whatever length a header states.
fn plausible(rsdp: Rsdp) -> Result<(), &'static str> {
    let root = table_bytes(rsdp.table).ok_or("the root table lies outside of memory")?;
    let width = if rsdp.revision == 0 { 4 } else { 8 };
    for entry in (HEADER_BYTES..root).step_by(width) {
        if entry + width as u64 > root {
            break;
        }
        let pointer = map_firmware(rsdp.table + entry, width as u64);
        let mut bytes = [0; 8];
        // SAFETY: inside the root table, mapped just now.
        unsafe { core::ptr::copy_nonoverlapping(pointer.cast_const(), bytes.as_mut_ptr(), width) };
        table_bytes(u64::from_le_bytes(bytes)).ok_or("a table lies outside of memory")?;
    }
    Ok(())
}

/// The length a table's header states, where both table and length are possible.
fn table_bytes(address: u64) -> Option<u64> {
    const LENGTH_OFFSET: u64 = 4;
    if address == 0 || address >= PHYSICAL_MAX - TABLE_BYTES_MAX {
        return None;
    }
    let pointer = map_firmware(address + LENGTH_OFFSET, 4).cast::<u32>();
    // SAFETY: mapped just now; tables need not be aligned.
    let bytes = u64::from(unsafe { pointer.read_unaligned() });
    (HEADER_BYTES..=TABLE_BYTES_MAX)
        .contains(&bytes)
        .then_some(bytes)
}

fn read_madt(madt: core::pin::Pin<&Madt>, found: &mut Tables) {
    for entry in madt.entries() {
        match entry {
            MadtEntry::LocalApic(cpu) => add_cpu(found, cpu.apic_id.into(), cpu.flags),
            MadtEntry::LocalX2Apic(cpu) => add_cpu(found, cpu.x2apic_id, cpu.flags),
            MadtEntry::IoApic(io) => {
                let _ = found.ioapics.try_push(IoApicEntry {
                    address: io.io_apic_address,
                    first_gsi: io.global_system_interrupt_base,
                });
            }
            MadtEntry::InterruptSourceOverride(over) => {
                let _ = found.overrides.try_push(Override {
                    irq: over.irq,
                    gsi: over.global_system_interrupt,
                    flags: over.flags,
                });
            }
            _ => {}
        }
    }
}

fn add_cpu(found: &mut Tables, apic_id: u32, flags: u32) {
    const ENABLED: u32 = 1;
    if flags & ENABLED == 0 {
        return;
    }
    found.cpus_present += 1;
    if !found.cpus.contains(&apic_id) && found.cpus.try_push(apic_id).is_err() {
        log::warn!("CPU with APIC id {apic_id} is not used: {CPUS_MAX} CPUs are the most");
    }
}

/// The ports of the register blocks that the FADT names.
fn fixed_ports(fadt: &Fadt) -> ArrayVec<PortRange, PORTS_MAX> {
    use acpi::address::AddressSpace;
    let blocks = [
        fadt.pm1a_event_block().ok(),
        fadt.pm1b_event_block().ok().flatten(),
        fadt.pm1a_control_block().ok(),
        fadt.pm1b_control_block().ok().flatten(),
        fadt.pm2_control_block().ok().flatten(),
        fadt.pm_timer_block().ok().flatten(),
        fadt.gpe0_block().ok().flatten(),
        fadt.gpe1_block().ok().flatten(),
        fadt.reset_register().ok(),
    ];
    let in_ports = blocks
        .into_iter()
        .flatten()
        .filter(|block| block.address_space == AddressSpace::SystemIo && block.address != 0)
        .filter_map(|block| PortRange::new(block.address, u64::from(block.bit_width.max(8) / 8)));
    let smi = PortRange::new(fadt.smi_cmd_port.into(), 1);
    in_ports.chain(smi).take(PORTS_MAX).collect()
}

fn read_fadt(fadt: &Fadt, tables: &AcpiTables<Mapper>, power: &mut Power) {
    let register = |address: acpi::address::GenericAddress| match address.address_space {
        acpi::address::AddressSpace::SystemIo => Some(Register::Port(address.address as u16)),
        acpi::address::AddressSpace::SystemMemory => {
            (address.address < PHYSICAL_MAX - 8).then_some(Register::Memory(address.address))
        }
        acpi::address::AddressSpace::PciConfigSpace => Some(Register::Pci(address.address)),
        _ => None,
    };
    if { fadt.flags }.supports_system_reset_via_fadt() {
        power.reset = fadt.reset_register().ok().and_then(register);
        power.reset_value = fadt.reset_value;
    }
    power.pm1a_control = fadt.pm1a_control_block().ok().and_then(register);
    power.pm1b_control = fadt.pm1b_control_block().ok().flatten().and_then(register);
    power.smi_command = fadt.smi_cmd_port as u16;
    power.acpi_enable = fadt.acpi_enable;
    if fadt
        .dsdt_address()
        .ok()
        .and_then(|address| table_bytes(address as u64))
        .is_none()
    {
        log::warn!("the FADT points at no DSDT: no power off");
        return;
    }
    let Ok(dsdt) = tables.dsdt() else { return };
    let pointer = map_firmware(dsdt.address as u64, dsdt.length.into());
    // SAFETY: firmware's DSDT, mapped just now; nothing writes to it.
    let aml = unsafe { core::slice::from_raw_parts(pointer.cast_const(), dsdt.length as usize) };
    power.sleep_type = godwit_vmm::s5::sleep_type(aml);
    if power.sleep_type.is_none() {
        log::warn!("no _S5 package in the DSDT: no power off");
    }
}
