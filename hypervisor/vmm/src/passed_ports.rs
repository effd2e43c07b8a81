//! Which I/O ports the control domain may use without an exit: the port BARs of the functions passed
//! to it, and the old fixed ports of an IDE controller that answers there.
//!
//! Ports that the hypervisor owns are never among them, whatever a BAR says: a range that touches one
//! is refused as a whole.

use alloc::vec::Vec;
use core::fmt;
use godwit_abi::{PciAddress, PciDevice};

/// Ports `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl PortRange {
    /// `count` ports, not 0, from `first` on. `None`: they do not end in I/O space.
    pub fn new(first: u64, count: u64) -> Option<PortRange> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        Some(PortRange {
            first: first.try_into().ok()?,
            last: last.try_into().ok()?,
        })
    }

    fn touches(&self, other: &PortRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}

const fn range(first: u16, last: u16) -> PortRange {
    PortRange { first, last }
}

/// What the hypervisor uses itself or keeps from everybody: below 100h the PC's own devices (DMA,
/// PIC, PIT, keyboard controller, RTC, A20 and reset), COM1, the PICs' trigger registers, and PCI
/// configuration with the reset register in it.
const OWNED: [PortRange; 4] = [
    range(0x000, 0x0ff),
    range(0x3f8, 0x3ff),
    range(0x4d0, 0x4d1),
    range(0xcf8, 0xcff),
];

/// PCI class and subclass of IDE controllers.
const CLASS_IDE: u32 = 0x0101;
/// Interface bit: the channel is in native mode; its ports are in BARs (PCI IDE Controller
/// Specification 1.0).
const NATIVE: [u32; 2] = [1 << 0, 1 << 2];
/// Command and control ports of the channels in compatibility mode.
const LEGACY: [[PortRange; 2]; 2] = [
    [range(0x1f0, 0x1f7), range(0x3f6, 0x3f6)],
    [range(0x170, 0x177), range(0x376, 0x376)],
];
/// ISA interrupts of the channels in compatibility mode.
const LEGACY_IRQS: [u8; 2] = [14, 15];

/// The ports of the functions passed to the control domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PassedPorts {
    /// Ports it may use.
    pub open: Vec<PortRange>,
    /// Ports it may not, and whose they are.
    pub refused: Vec<(PciAddress, PortRange)>,
}

/// Decides on the ports of `devices`. `firmware` are ports that the hypervisor owns on this machine:
/// ACPI's.
pub fn passed_ports(devices: &[PciDevice], firmware: &[PortRange]) -> PassedPorts {
    let mut passed = PassedPorts::default();
    let owned = |wanted: &PortRange| {
        let mut all = OWNED.iter().chain(firmware);
        all.any(|owned| owned.touches(wanted))
    };
    for device in devices {
        for wanted in ports_of(device) {
            if owned(&wanted) {
                passed.refused.push((PciAddress(device.address), wanted));
            } else {
                passed.open.push(wanted);
            }
        }
    }
    passed
}

fn ports_of(device: &PciDevice) -> Vec<PortRange> {
    let bars = device.bars.iter().enumerate();
    let mut all: Vec<_> = bars
        .filter(|(index, bar)| bar.is_port() && bar.address != 0 && !is_unused(device, *index))
        .filter_map(|(_, bar)| PortRange::new(bar.address, bar.bytes()))
        .collect();
    for (channel, ports) in LEGACY.iter().enumerate() {
        if is_legacy(device, channel) {
            all.extend(ports);
        }
    }
    all
}

/// Whether a channel of an IDE controller answers at its fixed ports.
fn is_legacy(device: &PciDevice, channel: usize) -> bool {
    device.class >> 8 == CLASS_IDE && device.class & NATIVE[channel] == 0
}

/// The four BARs of channels say nothing while the channel is in compatibility mode.
fn is_unused(device: &PciDevice, bar: usize) -> bool {
    bar < 4 && is_legacy(device, bar / 2)
}

/// The ISA interrupt of a channel (0 or 1) of an IDE controller in compatibility mode. `None`: the
/// function is no such controller or the channel is in native mode.
pub fn legacy_ide_irq(device: &PciDevice, channel: u8) -> Option<u8> {
    let channel = usize::from(channel);
    let irq = LEGACY_IRQS.get(channel).copied()?;
    is_legacy(device, channel).then_some(irq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_abi::{BAR_PORT, BARS_MAX, Bar};

    fn device(class: u32, ports: &[(u64, u64)]) -> PciDevice {
        let mut bars = [Bar {
            address: 0,
            length: 0,
        }; BARS_MAX];
        for (bar, (address, count)) in bars.iter_mut().zip(ports) {
            bar.address = *address;
            bar.length = if *count == 0 { 0 } else { count | BAR_PORT };
        }
        PciDevice {
            address: 8,
            vendor: 0x8086,
            device: 0x7010,
            class,
            subsystem: 0,
            interrupts: 0,
            msix_entries: 0,
            bars,
        }
    }

    #[test]
    fn an_ordinary_function_gets_its_bars_and_no_more() {
        let passed = passed_ports(&[device(0x02_0000, &[(0xc000, 64), (0, 0)])], &[]);
        assert_eq!(passed.open, [range(0xc000, 0xc03f)]);
        assert!(passed.refused.is_empty());
    }

    #[test]
    fn an_ide_controller_gets_the_fixed_ports_of_its_legacy_channels() {
        // BAR 0 to 3 read as rubbish in compatibility mode.
        let bars = [(0xa0, 8), (0, 0), (0, 0), (0, 0), (0xc000, 16)];
        let passed = passed_ports(&[device(0x01_0180, &bars)], &[]);
        let expected = [
            range(0xc000, 0xc00f),
            range(0x1f0, 0x1f7),
            range(0x3f6, 0x3f6),
            range(0x170, 0x177),
            range(0x376, 0x376),
        ];
        assert_eq!(passed.open, expected);
        assert!(passed.refused.is_empty());
        let second_native = device(0x01_0184, &[(0, 0), (0, 0), (0xd000, 8), (0xd008, 4)]);
        let passed = passed_ports(&[second_native], &[]);
        let expected = [
            range(0xd000, 0xd007),
            range(0xd008, 0xd00b),
            range(0x1f0, 0x1f7),
            range(0x3f6, 0x3f6),
        ];
        assert_eq!(passed.open, expected);
        assert_eq!(legacy_ide_irq(&second_native, 0), Some(14));
        assert_eq!(legacy_ide_irq(&second_native, 1), None);
        assert_eq!(legacy_ide_irq(&second_native, 2), None);
    }

    #[test]
    fn nobody_gets_what_the_hypervisor_owns() {
        let firmware = [range(0x600, 0x63f)];
        let claims = [
            (0x20, 2),
            (0x40, 4),
            (0x3f0, 9),
            (0xcf9, 1),
            (0x63f, 1),
            (0xfff0, 32),
        ];
        let passed = passed_ports(&[device(0x02_0000, &claims)], &firmware);
        assert!(passed.open.is_empty(), "{:?}", passed.open);
        // The last does not end in I/O space: it is no range at all.
        assert_eq!(passed.refused.len(), 5);
        let everything = device(0x02_0000, &[(1, 0xffff)]);
        assert!(passed_ports(&[everything], &[]).open.is_empty());
    }

    #[test]
    fn only_ide_controllers_have_legacy_interrupts() {
        assert_eq!(legacy_ide_irq(&device(0x01_0601, &[]), 0), None);
        assert_eq!(legacy_ide_irq(&device(0x01_0180, &[]), 1), Some(15));
    }
}
