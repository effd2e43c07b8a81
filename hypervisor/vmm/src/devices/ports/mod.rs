//! The I/O ports of the guest platform: which device answers at which port.
//!
//! Devices here are one byte wide (the power-management block can be read at any width, being made of bytes). A wide access is
//! what the chipset makes of it: accesses to consecutive ports, low byte first, each answered by its own device. The exceptions are
//! the PCI configuration address, which answers 32-bit accesses only, and the reset control register in its midst, which answers byte
//! accesses only. Ports nobody claims read as all ones, take writes without effect, and are counted.
//!
//! Dispatch is a `match` on the port: no table, no `dyn`, no allocation; what guests touch most is decided inline, the rest behind a
//! call. What the devices want of time and of the CPUs is gathered by [`Platform::poll`] (see `wiring`).

mod memory;
mod saved;
#[cfg(test)]
mod tests;
mod wiring;

pub use saved::PlatformState;
pub use wiring::{
    INTX_FIRST_PIN, INTX_IRQS, LOW_MEMORY_BYTES_MAX, MESSAGES_MAX, Messages, Outlook,
};

use super::TscRate;
use super::acpi_pm::{self, AcpiPm, PmEffect};
use super::debug_console::{self, DebugConsole};
use super::ioapic::Ioapic;
use super::kvmclock::Kvmclock;
use super::pci::{self, Pci};
use super::pic::Pic;
use super::pit::{self, Pit};
use super::reset_port::{self, ResetPort};
use super::rtc::{self, Rtc};
use super::uart::{self, Uart};

/// Width of a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte = 1,
    /// 16 bits.
    Word = 2,
    /// 32 bits.
    Dword = 4,
}

impl Width {
    /// The width of so many bytes: 1, 2 or 4.
    pub const fn from_bytes(bytes: u8) -> Option<Width> {
        match bytes {
            1 => Some(Width::Byte),
            2 => Some(Width::Word),
            4 => Some(Width::Dword),
            _other => None,
        }
    }

    /// Value with all bits of this width set: what an empty bus reads.
    pub const fn all_ones(self) -> u32 {
        match self {
            Width::Byte => 0xFF,
            Width::Word => 0xFFFF,
            Width::Dword => u32::MAX,
        }
    }
}

/// What a port read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortResult {
    /// The value, within the width of the access.
    pub value: u32,
    /// What else it did: [`Effect::None`], [`Effect::InterruptChanged`], or [`Effect::Unclaimed`] when no device answered at any of the
    /// ports.
    pub effect: Effect,
}

/// What an access asks of the rest of the hypervisor. Where one wide write asks for several things, the gravest (the last
/// here) is returned; the others have taken effect in the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// No device there.
    Unclaimed,
    /// The debug console has more to read.
    ConsoleOutput,
    /// [`Platform::poll`] is due: interrupt lines, messages or deadlines may have changed.
    InterruptChanged,
    /// The serial port has more to read, and [`Platform::poll`] is due.
    SerialOutput,
    /// The guest asked for a sleeping state that it was not offered; name it in the log.
    UnsupportedSleep {
        /// SLP_TYP it wrote.
        sleep_type: u8,
    },
    /// Reset the domain.
    Reset,
    /// The domain switched itself off.
    PowerOff,
}

const COM1_LAST: u16 = uart::COM1 + uart::PORTS - 1;

/// Accesses that no device claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Unclaimed {
    /// Bytes read.
    pub reads: u64,
    /// Bytes written.
    pub writes: u64,
    /// The port last touched.
    pub last_port: Option<u16>,
}

/// The devices of one domain that live at I/O ports. `now_tsc` is the domain's TSC: that of a vCPU on which the guest has not
/// moved it (IA32_TSC, IA32_TSC_ADJUST), so that platform time never jumps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    rate: TscRate,
    /// Interrupt controllers.
    pub pic: Pic,
    /// ACPI fixed hardware.
    pub pm: AcpiPm,
    /// Reset ports.
    pub reset: ResetPort,
    /// Debug console.
    pub console: DebugConsole,
    /// I/O APIC.
    pub ioapic: Ioapic,
    /// Interval timer.
    pub pit: Pit,
    /// Clock and CMOS memory. Whoever builds the domain sets both: [`Rtc::set_time`], [`Rtc::set_memory_size`].
    pub rtc: Rtc,
    /// Serial port COM1.
    pub serial: Uart,
    /// PCI bus.
    pub pci: Pci,
    /// Paravirtual clock.
    pub kvmclock: Kvmclock,
    /// Guest TSC at which the timers want to be looked at, `u64::MAX` for never. Follows from them.
    timers_due_tsc: u64,
    /// The deadline that the watching vCPU knows of or has been told to ask for, `u64::MAX` for none.
    watched_tsc: u64,
    unclaimed: Unclaimed,
}

impl Platform {
    /// The platform as firmware leaves it: the system control interrupt and those of PCI are level-triggered, all else is as after
    /// power-up. Allocates the consoles' rings.
    pub fn new(rate: TscRate) -> Platform {
        let mut platform = Platform {
            rate,
            pic: Pic::new(),
            pm: AcpiPm::new(rate),
            reset: ResetPort::new(),
            console: DebugConsole::new(),
            ioapic: Ioapic::new(),
            pit: Pit::new(rate),
            rtc: Rtc::new(rate),
            serial: Uart::new(rate),
            pci: Pci::new(),
            kvmclock: Kvmclock::new(rate),
            timers_due_tsc: u64::MAX,
            watched_tsc: u64::MAX,
            unclaimed: Unclaimed::default(),
        };
        platform.power_up();
        platform
    }

    /// The domain resets: devices go back to power-up; consoles keep their history, as a terminal would, the clock its time and the PCI
    /// bus its functions.
    pub fn power_up(&mut self) {
        self.pic = Pic::new();
        self.pm = AcpiPm::new(self.rate);
        self.reset = ResetPort::new();
        self.ioapic = Ioapic::new();
        self.pit = Pit::new(self.rate);
        self.rtc.reset();
        self.serial.reset();
        self.pci.reset();
        self.kvmclock.reset();
        self.timers_due_tsc = u64::MAX;
        self.watched_tsc = u64::MAX;
        let level_triggered = INTX_IRQS
            .into_iter()
            .fold(1 << 1, |mask, irq| mask | 1 << (irq - 8));
        self.pic.write(0x4D1, level_triggered);
    }

    /// Accesses that no device claimed, since the domain came to this host.
    pub fn unclaimed(&self) -> Unclaimed {
        self.unclaimed
    }

    /// IN: reads `width` bytes from `port` on.
    #[inline]
    pub fn read(&mut self, port: u16, width: Width, now_tsc: u64) -> PortResult {
        if width == Width::Byte {
            let (byte, effect) = self.read_byte(port, width, now_tsc);
            return PortResult {
                value: u32::from(byte),
                effect,
            };
        }
        if port == pci::CONFIG_ADDRESS && width == Width::Dword {
            return PortResult {
                value: self.pci.config_address(),
                effect: Effect::None,
            };
        }
        let mut result = PortResult {
            value: 0,
            effect: Effect::Unclaimed,
        };
        for offset in 0..width as u16 {
            // Beyond the last port there is nothing.
            let (byte, effect) = match port.checked_add(offset) {
                Some(port) => self.read_byte(port, width, now_tsc),
                None => (0xFF, Effect::Unclaimed),
            };
            result.value |= u32::from(byte) << (8 * offset);
            // One device that answers is enough.
            result.effect = match (result.effect, effect) {
                (Effect::Unclaimed, other) | (other, Effect::Unclaimed) => other,
                (one, other) => one.max(other),
            };
        }
        result
    }

    #[inline]
    fn read_byte(&mut self, port: u16, width: Width, now_tsc: u64) -> (u8, Effect) {
        let value = match port {
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => self.pic.read(port).unwrap_or(0xFF),
            debug_console::PORT => debug_console::PORT as u8,
            acpi_pm::PORT_FIRST..=acpi_pm::PORT_LAST => self.pm.read(port, now_tsc),
            _rarer => return self.read_rarer(port, width, now_tsc),
        };
        (value, Effect::None)
    }

    #[inline(never)]
    fn read_rarer(&mut self, port: u16, width: Width, now_tsc: u64) -> (u8, Effect) {
        let value = match port {
            reset_port::RESET_CONTROL if width == Width::Byte => self.reset.control(),
            reset_port::KEYBOARD_COMMAND => self.reset.keyboard_status(),
            pit::PORT_FIRST => {
                let value = self.pit.read(port, now_tsc);
                return (value, self.timer_accessed());
            }
            pit::PORT_SECOND..=pit::PORT_LAST | pit::SPEAKER_PORT => self.pit.read(port, now_tsc),
            pci::CONFIG_DATA_FIRST..=pci::CONFIG_DATA_LAST => self.pci.read_config_port(port),
            rtc::INDEX_PORT | rtc::DATA_PORT => {
                let value = self.rtc.read(port, now_tsc);
                return (value, self.clock_accessed());
            }
            uart::COM1..=COM1_LAST => {
                let value = self.serial.read(port - uart::COM1, now_tsc);
                return (value, self.serial_accessed(now_tsc));
            }
            _unclaimed => {
                self.unclaimed.reads += 1;
                self.unclaimed.last_port = Some(port);
                return (0xFF, Effect::Unclaimed);
            }
        };
        (value, Effect::None)
    }

    /// OUT: writes the low `width` bytes of `value` from `port` on.
    #[inline]
    pub fn write(&mut self, port: u16, width: Width, value: u32, now_tsc: u64) -> Effect {
        let bytes = value.to_le_bytes();
        if width == Width::Byte {
            return self.write_byte(port, bytes[0], width, now_tsc);
        }
        if port == pci::CONFIG_ADDRESS && width == Width::Dword {
            self.pci.set_config_address(value);
            return Effect::None;
        }
        let mut effect = Effect::None;
        for (offset, byte) in (0..width as u16).zip(bytes) {
            let Some(port) = port.checked_add(offset) else {
                break;
            };
            effect = effect.max(self.write_byte(port, byte, width, now_tsc));
        }
        effect
    }

    #[inline]
    fn write_byte(&mut self, port: u16, value: u8, width: Width, now_tsc: u64) -> Effect {
        match port {
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => {
                self.pic.write(port, value);
                Effect::InterruptChanged
            }
            debug_console::PORT => {
                self.console.push(value);
                Effect::ConsoleOutput
            }
            acpi_pm::PORT_FIRST..=acpi_pm::PORT_LAST => {
                let effect = self.pm.write(port, value, now_tsc);
                self.drive_sci(now_tsc);
                match effect {
                    PmEffect::None => Effect::InterruptChanged,
                    PmEffect::PowerOff => Effect::PowerOff,
                    PmEffect::UnsupportedSleep { sleep_type } => {
                        Effect::UnsupportedSleep { sleep_type }
                    }
                }
            }
            _rarer => self.write_rarer(port, value, width, now_tsc),
        }
    }

    #[inline(never)]
    fn write_rarer(&mut self, port: u16, value: u8, width: Width, now_tsc: u64) -> Effect {
        match port {
            reset_port::RESET_CONTROL if width == Width::Byte => {
                Self::reset_if(self.reset.write_control(value))
            }
            reset_port::KEYBOARD_COMMAND => {
                Self::reset_if(self.reset.write_keyboard_command(value))
            }
            pit::PORT_FIRST..=pit::PORT_LAST | pit::SPEAKER_PORT => {
                self.pit.write(port, value, now_tsc);
                self.timer_accessed()
            }
            rtc::INDEX_PORT | rtc::DATA_PORT => {
                self.rtc.write(port, value, now_tsc);
                self.clock_accessed()
            }
            uart::COM1..=COM1_LAST => {
                let more = self.serial.write(port - uart::COM1, value, now_tsc);
                let effect = self.serial_accessed(now_tsc);
                if more {
                    // One history of what the guest says, by whichever way.
                    self.console.push(value);
                    Effect::SerialOutput
                } else {
                    effect
                }
            }
            pci::CONFIG_DATA_FIRST..=pci::CONFIG_DATA_LAST => {
                self.pci.write_config_port(port, value);
                self.pci_accessed()
            }
            _unclaimed => {
                self.unclaimed.writes += 1;
                self.unclaimed.last_port = Some(port);
                Effect::Unclaimed
            }
        }
    }

    fn reset_if(resets: bool) -> Effect {
        if resets { Effect::Reset } else { Effect::None }
    }
}
