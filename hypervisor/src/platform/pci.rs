//! PCI configuration space, by ECAM where the MCFG lists the bus, else by ports CF8/CFC, and the
//! list of functions passed to dom0.

use alloc::vec::Vec;

use godwit_abi::{
    BAR_PORT, BAR_PREFETCHABLE, BARS_MAX, Bar, PCI_LINE, PCI_MSI, PCI_MSIX, PciAddress, PciDevice,
};
use spin::mutex::TicketMutex;
use spin::once::Once;
use x86_64::instructions::port::Port;

use super::acpi::Ecam;
use crate::memory::layout::PHYSICAL_MAX;
use crate::memory::tables::map_device;

/// Functions listed at most.
const FUNCTIONS_MAX: usize = 256;
/// Capabilities followed at most in one function.
const CAPABILITIES_MAX: usize = 48;

const COMMAND: u16 = 4;
const STATUS: u16 = 6;
const HEADER_TYPE: u16 = 0xe;
const BAR0: u16 = 0x10;
const SUBSYSTEM: u16 = 0x2c;
const CAPABILITIES: u16 = 0x34;
pub(crate) const INTERRUPT_PIN: u16 = 0x3d;
pub(crate) const INTERRUPT_LINE: u16 = 0x3c;
const COMMAND_IO_MEMORY: u32 = 3;
const STATUS_CAPABILITIES: u32 = 1 << 4;
/// Capability ids (PCI 3.0, appendix H).
pub(crate) const CAPABILITY_MSI: u8 = 5;
/// As above.
pub(crate) const CAPABILITY_MSIX: u8 = 0x11;

static ECAMS: Once<Vec<Ecam>> = Once::new();
/// CF8 and CFC are one register pair for all CPUs.
static PORTS: TicketMutex<()> = TicketMutex::new(());

/// Notes where configuration space is mapped.
pub(crate) fn init(ecams: &[Ecam]) {
    let last = |ecam: &Ecam| {
        ecam.address
            .checked_add((u64::from(ecam.last_bus) + 1) << 20)
    };
    let (good, bad): (Vec<_>, Vec<_>) = ecams.iter().partition(|ecam| {
        ecam.first_bus <= ecam.last_bus && last(ecam).is_some_and(|end| end < PHYSICAL_MAX)
    });
    for ecam in bad {
        log::warn!("ACPI MCFG entry {ecam:?} makes no sense: not used");
    }
    ECAMS.call_once(|| good);
}

fn ecam_register(address: PciAddress, offset: u16) -> Option<*mut u8> {
    let ecam = ECAMS.get()?.iter().find(|ecam| {
        ecam.segment == address.segment()
            && (ecam.first_bus..=ecam.last_bus).contains(&address.bus())
    })?;
    let bus = u64::from(address.bus() - ecam.first_bus);
    let function =
        bus << 20 | u64::from(address.device()) << 15 | u64::from(address.function()) << 12;
    Some(map_device(ecam.address + function, 4096).wrapping_add(usize::from(offset)))
}

/// Reads `width` (1, 2 or 4) bytes; all ones where there is nothing.
pub(crate) fn read(address: PciAddress, offset: u16, width: u8) -> u32 {
    if let Some(register) = ecam_register(address, offset) {
        // SAFETY: inside the function's 4 KiB of mapped configuration space (offset is checked by
        // the callers to be below 4096 and aligned); reads have no side effects in the header and
        // capabilities, and belong to the device's owner elsewhere.
        return unsafe {
            match width {
                1 => register.read_volatile().into(),
                2 => register.cast::<u16>().read_volatile().into(),
                _ => register.cast::<u32>().read_volatile(),
            }
        };
    }
    if address.segment() != 0 || offset >= 256 {
        return u32::MAX;
    }
    let _guard = PORTS.lock();
    // SAFETY: configuration mechanism 1, serialised by the lock.
    unsafe {
        Port::<u32>::new(0xcf8).write(1 << 31 | address.0 << 8 | u32::from(offset & 0xfc));
        let port = 0xcfc + (offset & 3);
        match width {
            1 => Port::<u8>::new(port).read().into(),
            2 => Port::<u16>::new(port).read().into(),
            _ => Port::<u32>::new(port).read(),
        }
    }
}

/// Writes `width` bytes.
pub(crate) fn write(address: PciAddress, offset: u16, width: u8, value: u32) {
    if let Some(register) = ecam_register(address, offset) {
        // SAFETY: as in `read`; what may be written is the caller's decision.
        unsafe {
            match width {
                1 => register.write_volatile(value as u8),
                2 => register.cast::<u16>().write_volatile(value as u16),
                _ => register.cast::<u32>().write_volatile(value),
            }
        }
        return;
    }
    if address.segment() != 0 || offset >= 256 {
        return;
    }
    let _guard = PORTS.lock();
    // SAFETY: as in `read`.
    unsafe {
        Port::<u32>::new(0xcf8).write(1 << 31 | address.0 << 8 | u32::from(offset & 0xfc));
        let port = 0xcfc + (offset & 3);
        match width {
            1 => Port::<u8>::new(port).write(value as u8),
            2 => Port::<u16>::new(port).write(value as u16),
            _ => Port::<u32>::new(port).write(value),
        }
    }
}

/// Offset of a capability.
pub(crate) fn capability(address: PciAddress, id: u8) -> Option<u16> {
    if read(address, STATUS, 2) & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = read(address, CAPABILITIES, 1) as u16 & 0xfc;
    for _ in 0..CAPABILITIES_MAX {
        if at < 0x40 {
            return None;
        }
        let header = read(address, at, 2);
        if header as u8 == id {
            return Some(at);
        }
        at = (header >> 8) as u16 & 0xfc;
    }
    None
}

/// Every function with an ordinary header (type 0) that is not a host bridge: what dom0 is given.
/// The buses walked are those that bridges lead to, and bus 0.
pub(crate) fn scan() -> Vec<PciDevice> {
    let mut found = Vec::new();
    let mut buses = alloc::vec![0u8];
    let mut next = 0;
    while let Some(bus) = buses.get(next).copied() {
        next += 1;
        for device in 0..32 {
            let first = PciAddress::new(0, bus, device, 0);
            if read(first, 0, 2) == 0xffff {
                continue;
            }
            let functions = if read(first, HEADER_TYPE, 1) & 0x80 != 0 {
                8
            } else {
                1
            };
            for function in 0..functions {
                let address = PciAddress::new(0, bus, device, function);
                if found.len() < FUNCTIONS_MAX {
                    visit(address, &mut found, &mut buses);
                }
            }
        }
    }
    found
}

fn visit(address: PciAddress, found: &mut Vec<PciDevice>, buses: &mut Vec<u8>) {
    const SECONDARY_BUS: u16 = 0x19;
    const CLASS_BRIDGE: u32 = 6;
    let id = read(address, 0, 4);
    if id as u16 == 0xffff {
        return;
    }
    let class = read(address, 8, 4) >> 8;
    match read(address, HEADER_TYPE, 1) & 0x7f {
        1 => {
            let bus = read(address, SECONDARY_BUS, 1) as u8;
            if bus != 0 && !buses.contains(&bus) {
                buses.push(bus);
            }
        }
        0 if class >> 16 != CLASS_BRIDGE => found.push(describe(address, id, class)),
        _ => {}
    }
}

fn describe(address: PciAddress, id: u32, class: u32) -> PciDevice {
    let mut interrupts = 0;
    let mut msix_entries = 0;
    if read(address, INTERRUPT_PIN, 1) != 0 && read(address, INTERRUPT_LINE, 1) < 16 {
        interrupts |= PCI_LINE;
    }
    if capability(address, CAPABILITY_MSI).is_some() {
        interrupts |= PCI_MSI;
    }
    if let Some(at) = capability(address, CAPABILITY_MSIX) {
        interrupts |= PCI_MSIX;
        msix_entries = (read(address, at + 2, 2) & 0x7ff) + 1;
    }
    PciDevice {
        address: address.0,
        vendor: id as u16,
        device: (id >> 16) as u16,
        class,
        subsystem: read(address, SUBSYSTEM, 4),
        interrupts,
        msix_entries,
        bars: bars(address),
    }
}

/// Sizes the BARs: with decoding off, all ones are written and the bits that stay zero counted.
fn bars(address: PciAddress) -> [Bar; BARS_MAX] {
    let mut bars = [Bar {
        address: 0,
        length: 0,
    }; BARS_MAX];
    let command = read(address, COMMAND, 2);
    write(address, COMMAND, 2, command & !COMMAND_IO_MEMORY);
    let mut index = 0;
    while index < BARS_MAX {
        let register = BAR0 + 4 * index as u16;
        let low = read(address, register, 4);
        let size_low = probe(address, register, low);
        if low & 1 != 0 {
            let bytes = u64::from(!(size_low & !3) as u16) + 1;
            if size_low != 0 {
                bars[index] = Bar {
                    address: u64::from(low & !3),
                    length: bytes | BAR_PORT,
                };
            }
            index += 1;
            continue;
        }
        let wide = low >> 1 & 3 == 2 && index + 1 < BARS_MAX;
        let (high, size_high) = if wide {
            let high = read(address, register + 4, 4);
            (high, probe(address, register + 4, high))
        } else {
            (0, u32::MAX)
        };
        let mask = u64::from(size_high) << 32 | u64::from(size_low & !15);
        if size_low & !15 != 0 || (wide && size_high != 0) {
            let prefetchable = if low & 8 != 0 { BAR_PREFETCHABLE } else { 0 };
            let base = u64::from(high) << 32 | u64::from(low & !15);
            bars[index] = Bar {
                address: base,
                length: (!mask).wrapping_add(1) | prefetchable,
            };
        }
        index += if wide { 2 } else { 1 };
    }
    write(address, COMMAND, 2, command);
    bars
}

fn probe(address: PciAddress, register: u16, value: u32) -> u32 {
    write(address, register, 4, u32::MAX);
    let size = read(address, register, 4);
    write(address, register, 4, value);
    size
}
