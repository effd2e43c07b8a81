//! Restarting the machine and switching it off.

use godwit_vmm::s5::SleepType;
use x86_64::instructions::port::Port;

use super::pci;
use crate::memory::tables::map_device;

/// A register of the ACPI fixed hardware.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Register {
    Port(u16),
    Memory(u64),
    /// Segment 0, bus 0: device in bits 47:32, function 31:16, offset 15:0 (ACPI 6.5, 5.2.3.2).
    Pci(u64),
}

/// What the firmware offers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Power {
    pub(crate) reset: Option<Register>,
    pub(crate) reset_value: u8,
    pub(crate) pm1a_control: Option<Register>,
    pub(crate) pm1b_control: Option<Register>,
    pub(crate) smi_command: u16,
    pub(crate) acpi_enable: u8,
    pub(crate) sleep_type: Option<SleepType>,
}

/// PM1_CNT: ACPI mode is on.
const SCI_EN: u16 = 1;
/// PM1_CNT: go to sleep now.
const SLP_EN: u16 = 1 << 13;
const SLP_TYP_SHIFT: u16 = 10;

fn write16(register: Register, value: u16) {
    match register {
        // SAFETY: a PM1 control register named by the FADT.
        Register::Port(port) => unsafe { Port::<u16>::new(port).write(value) },
        // SAFETY: as above, mapped uncached.
        Register::Memory(address) => unsafe {
            map_device(address, 2).cast::<u16>().write_volatile(value)
        },
        Register::Pci(_) => log::error!("PM1 control in PCI configuration space: not implemented"),
    }
}

fn read16(register: Register) -> u16 {
    match register {
        // SAFETY: as in `write16`; reading has no side effects.
        Register::Port(port) => unsafe { Port::<u16>::new(port).read() },
        // SAFETY: as above.
        Register::Memory(address) => unsafe {
            map_device(address, 2).cast::<u16>().read_volatile()
        },
        Register::Pci(_) => 0,
    }
}

/// Switches the machine off. Returns only when the firmware offers no way.
pub(crate) fn off(power: &Power) {
    let (Some(control), Some(sleep)) = (power.pm1a_control, power.sleep_type) else {
        return;
    };
    if read16(control) & SCI_EN == 0 && power.smi_command != 0 && power.acpi_enable != 0 {
        // SAFETY: the FADT's way to switch ACPI mode on (ACPI 6.5, 4.8.2.5).
        unsafe { Port::<u8>::new(power.smi_command).write(power.acpi_enable) };
        for _ in 0..1_000_000 {
            if read16(control) & SCI_EN != 0 {
                break;
            }
        }
    }
    write16(control, u16::from(sleep.a) << SLP_TYP_SHIFT | SLP_EN);
    if let Some(second) = power.pm1b_control {
        write16(second, u16::from(sleep.b) << SLP_TYP_SHIFT | SLP_EN);
    }
    super::clock::spin_ns(100_000_000);
}

/// Restarts the machine: the FADT's reset register, port CF9, the keyboard controller, a triple
/// fault, in this order.
pub(crate) fn restart(power: &Power) -> ! {
    match power.reset {
        // SAFETY: the FADT names this register as the machine's reset.
        Some(Register::Port(port)) => unsafe { Port::<u8>::new(port).write(power.reset_value) },
        // SAFETY: as above, mapped uncached.
        Some(Register::Memory(address)) => unsafe {
            map_device(address, 1).write_volatile(power.reset_value)
        },
        Some(Register::Pci(raw)) => {
            let address =
                godwit_abi::PciAddress::new(0, 0, (raw >> 32) as u8 & 31, (raw >> 16) as u8 & 7);
            pci::write(address, raw as u16, 1, power.reset_value.into());
        }
        None => {}
    }
    super::clock::spin_ns(50_000_000);
    // SAFETY: the chipset's reset control register (hard reset), then the keyboard controller's
    // reset pulse; both are how PCs have been restarted since there were PCs.
    unsafe {
        Port::<u8>::new(0xcf9).write(2);
        Port::<u8>::new(0xcf9).write(6);
    }
    super::clock::spin_ns(50_000_000);
    // SAFETY: as above.
    unsafe { Port::<u8>::new(0x64).write(0xfe) };
    super::clock::spin_ns(50_000_000);
    let nothing = x86_64::structures::DescriptorTablePointer {
        limit: 0,
        base: x86_64::VirtAddr::zero(),
    };
    // SAFETY: an exception without an IDT is a triple fault, which is what is wanted.
    unsafe {
        x86_64::instructions::tables::lidt(&nothing);
        core::arch::asm!("ud2", options(noreturn));
    }
}
