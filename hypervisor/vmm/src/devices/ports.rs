//! The I/O ports of the guest platform: which device answers at which port.
//!
//! Devices here are one byte wide (the power-management block can be read at any width, being made of bytes). A wide access is
//! what the chipset makes of it: accesses to consecutive ports, low byte first, each answered by its own device. The exception is
//! the reset control register, which answers byte accesses only: wider ones around it are the PCI configuration address. Ports nobody
//! claims read as all ones, take writes without effect, and are counted.
//!
//! Dispatch is a `match` on the port: no table, no `dyn`, no allocation.

use super::acpi_pm::{self, AcpiPm, AcpiPmState, PmEffect};
use super::debug_console::{self, DebugConsole, DebugConsoleState};
use super::pic::{Irq, Pic, PicState};
use super::reset_port::{self, ResetPort, ResetPortState};
use super::{BadState, TscRate};

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
    /// Did a device answer at any of the ports?
    pub claimed: bool,
}

/// What a port write asks of the rest of the hypervisor. Where one wide write asks for several things, the gravest (the last
/// here) is returned; the others have taken effect in the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub enum Effect {
    /// Nothing.
    None,
    /// No device there.
    Unclaimed,
    /// The console has more to read.
    ConsoleOutput,
    /// [`Pic::pending`] may answer differently now.
    InterruptChanged,
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
    unclaimed: Unclaimed,
}

/// Saved state of [`Platform`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformState {
    /// Interrupt controllers.
    pub pic: PicState,
    /// ACPI fixed hardware.
    pub pm: AcpiPmState,
    /// Reset ports.
    pub reset: ResetPortState,
    /// Debug console with its history.
    pub console: DebugConsoleState,
}

impl Platform {
    /// The platform as firmware leaves it: the system control interrupt is level-triggered, all else is as after power-up. Allocates
    /// the console's ring.
    pub fn new(rate: TscRate) -> Platform {
        let mut platform = Platform {
            rate,
            pic: Pic::new(),
            pm: AcpiPm::new(rate),
            reset: ResetPort::new(),
            console: DebugConsole::new(),
            unclaimed: Unclaimed::default(),
        };
        platform.power_up();
        platform
    }

    /// The domain resets: devices go back to power-up; the console keeps its history, as a terminal would.
    pub fn power_up(&mut self) {
        self.pic = Pic::new();
        self.pm = AcpiPm::new(self.rate);
        self.reset = ResetPort::new();
        self.pic.write(0x4D1, 1 << 1);
    }

    /// Accesses that no device claimed, since the domain came to this host.
    pub fn unclaimed(&self) -> Unclaimed {
        self.unclaimed
    }

    /// IN: reads `width` bytes from `port` on.
    #[inline]
    pub fn read(&mut self, port: u16, width: Width, now_tsc: u64) -> PortResult {
        if width == Width::Byte {
            return match self.read_byte(port, width, now_tsc) {
                Some(byte) => PortResult {
                    value: u32::from(byte),
                    claimed: true,
                },
                None => PortResult {
                    value: 0xFF,
                    claimed: false,
                },
            };
        }
        let mut result = PortResult {
            value: 0,
            claimed: false,
        };
        for offset in 0..width as u16 {
            // Beyond the last port there is nothing.
            let byte = port
                .checked_add(offset)
                .and_then(|port| self.read_byte(port, width, now_tsc));
            result.claimed |= byte.is_some();
            result.value |= u32::from(byte.unwrap_or(0xFF)) << (8 * offset);
        }
        result
    }

    #[inline]
    fn read_byte(&mut self, port: u16, width: Width, now_tsc: u64) -> Option<u8> {
        match port {
            0x20 | 0x21 | 0xA0 | 0xA1 | 0x4D0 | 0x4D1 => self.pic.read(port),
            debug_console::PORT => Some(debug_console::PORT as u8),
            acpi_pm::PORT_FIRST..=acpi_pm::PORT_LAST => Some(self.pm.read(port, now_tsc)),
            reset_port::RESET_CONTROL if width == Width::Byte => Some(self.reset.control()),
            reset_port::KEYBOARD_COMMAND => Some(self.reset.keyboard_status()),
            _unclaimed => {
                self.unclaimed.reads += 1;
                self.unclaimed.last_port = Some(port);
                None
            }
        }
    }

    /// OUT: writes the low `width` bytes of `value` from `port` on.
    #[inline]
    pub fn write(&mut self, port: u16, width: Width, value: u32, now_tsc: u64) -> Effect {
        let bytes = value.to_le_bytes();
        if width == Width::Byte {
            return self.write_byte(port, bytes[0], width, now_tsc);
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
            reset_port::RESET_CONTROL if width == Width::Byte => {
                Self::reset_if(self.reset.write_control(value))
            }
            reset_port::KEYBOARD_COMMAND => {
                Self::reset_if(self.reset.write_keyboard_command(value))
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

    /// Wires the system control interrupt to the PIC. To be called when [`Platform::next_deadline`] has passed.
    pub fn drive_sci(&mut self, now_tsc: u64) {
        if self.pm.sci(now_tsc) {
            self.pic.raise(Irq::SCI)
        } else {
            self.pic.lower(Irq::SCI)
        }
    }

    /// Guest TSC at which [`Platform::drive_sci`] will have something to do.
    pub fn next_deadline(&self, now_tsc: u64) -> Option<u64> {
        self.pm.next_deadline(now_tsc)
    }

    /// Presses the power button: the guest sees it through the system control interrupt.
    pub fn press_power_button(&mut self, now_tsc: u64) {
        self.pm.press_power_button();
        self.drive_sci(now_tsc);
    }

    /// The state to move. Counters of unclaimed accesses stay: they describe this host's log.
    pub fn save(&self) -> PlatformState {
        let Platform {
            rate: _,
            pic,
            pm,
            reset,
            console,
            unclaimed: _,
        } = self;
        PlatformState {
            pic: pic.save(),
            pm: pm.save(),
            reset: reset.save(),
            console: console.save(),
        }
    }

    /// The platform with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &PlatformState, rate: TscRate) -> Result<Platform, BadState> {
        let PlatformState {
            pic,
            pm,
            reset,
            console,
        } = state;
        Ok(Platform {
            rate,
            pic: Pic::restore(pic)?,
            pm: AcpiPm::restore(pm, rate)?,
            reset: ResetPort::restore(reset)?,
            console: DebugConsole::restore(console)?,
            unclaimed: Unclaimed::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const RATE: TscRate = TscRate::from_hz(2_000_000_000).unwrap();

    fn ports() -> impl Strategy<Value = u16> {
        prop_oneof![
            4 => prop::sample::select(vec![0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1, 0xE9, 0x64, 0xCF9, 0xFFFF]),
            2 => 0x5FEu16..0x60E,
            1 => any::<u16>(),
        ]
    }

    fn widths() -> impl Strategy<Value = Width> {
        prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword])
    }

    proptest! {
        /// Saved and restored at any moment, the platform answers every later access as the original does.
        #[test]
        fn restored_platform_has_the_same_future(
            ops in prop::collection::vec((ports(), widths(), any::<u32>(), 0u8..3, 0u64..1 << 34), 1..60),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut platform = Platform::new(RATE);
            let (mut twin, mut now) = (None, 0);
            let cut = cut.index(ops.len());
            for (index, (port, width, value, kind, pause)) in ops.into_iter().enumerate() {
                if index == cut {
                    twin = Some(Platform::restore(&platform.save(), RATE).unwrap());
                }
                now += pause;
                let act = |p: &mut Platform| {
                    let read = if kind == 0 { Some(p.read(port, width, now)) } else { None };
                    let effect = if kind == 1 { Some(p.write(port, width, value, now)) } else { None };
                    let vector = if kind == 2 { p.pic.raise(Irq::new((value % 2 + 3) as u8).unwrap()); Some(p.pic.acknowledge()) } else { None };
                    (read, effect, vector, p.pic.pending(), p.next_deadline(now))
                };
                let answer = act(&mut platform);
                if let (Some(read), _, _, _, _) = answer {
                    prop_assert_eq!(read.value & !width.all_ones(), 0);
                }
                if let Some(twin) = &mut twin {
                    prop_assert_eq!(act(twin), answer);
                    prop_assert_eq!(twin.save(), platform.save());
                }
            }
        }
    }

    #[test]
    fn unclaimed_ports_read_ones_and_are_counted() {
        let mut platform = Platform::new(RATE);
        for (width, ones) in [
            (Width::Byte, 0xFF),
            (Width::Word, 0xFFFF),
            (Width::Dword, u32::MAX),
        ] {
            assert_eq!(
                platform.read(0x3F8, width, 0),
                PortResult {
                    value: ones,
                    claimed: false
                }
            );
        }
        assert_eq!(platform.write(0x3F8, Width::Byte, 1, 0), Effect::Unclaimed);
        assert_eq!(
            platform.unclaimed(),
            Unclaimed {
                reads: 7,
                writes: 1,
                last_port: Some(0x3F8)
            }
        );
        assert_eq!(platform.read(0xFFFF, Width::Dword, 0).value, u32::MAX);
    }

    #[test]
    fn wide_accesses_reach_consecutive_ports() {
        let mut platform = Platform::new(RATE);
        assert_eq!(
            platform.read(0xE9, Width::Word, 0),
            PortResult {
                value: 0xFFE9,
                claimed: true
            }
        );
        assert_eq!(
            platform.write(0x4D0, Width::Word, 0x0E08, 0),
            Effect::InterruptChanged
        );
        assert_eq!(platform.read(0x4D0, Width::Word, 0).value, 0x0E08);
        assert_eq!(
            platform.write(0x604, Width::Word, 0x2000, 0),
            Effect::PowerOff
        );
        assert_eq!(
            platform.read(0x608, Width::Dword, 2_000_000_000).value,
            3_579_545
        );
        // A PCI configuration address whose second byte has the reset bit is no reset.
        assert_eq!(
            platform.write(0xCF8, Width::Dword, 0x8000_0600, 0),
            Effect::Unclaimed
        );
        assert_eq!(
            platform.read(0xCF8, Width::Dword, 0),
            PortResult {
                value: u32::MAX,
                claimed: false
            }
        );
    }

    #[test]
    fn both_reset_ports_reset_and_nothing_else_does() {
        let mut platform = Platform::new(RATE);
        assert_eq!(platform.write(0xCF9, Width::Byte, 0x02, 0), Effect::None);
        assert_eq!(platform.read(0xCF9, Width::Byte, 0).value, 0x02);
        assert_eq!(platform.write(0xCF9, Width::Byte, 0x06, 0), Effect::Reset);
        assert_eq!(platform.write(0x64, Width::Byte, 0xD1, 0), Effect::None);
        assert_eq!(platform.read(0x64, Width::Byte, 0).value, 0xFF);
        assert_eq!(platform.write(0x64, Width::Byte, 0xFE, 0), Effect::Reset);
    }

    #[test]
    fn power_button_interrupts_through_the_pic() {
        let mut platform = Platform::new(RATE);
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0xA0, 0x11),
            (0xA1, 0x38),
            (0xA1, 2),
            (0xA1, 1),
        ] {
            assert_eq!(
                platform.write(port, Width::Byte, value, 0),
                Effect::InterruptChanged
            );
        }
        assert_eq!(
            platform.write(0x602, Width::Word, 1 << 8, 0),
            Effect::InterruptChanged
        );
        assert!(!platform.pic.pending());
        platform.press_power_button(0);
        assert!(platform.pic.pending());
        assert_eq!(
            platform.write(0x600, Width::Word, 1 << 8, 0),
            Effect::InterruptChanged
        );
        assert!(!platform.pic.pending());
    }

    #[test]
    fn console_outlives_a_reset() {
        let mut platform = Platform::new(RATE);
        assert_eq!(
            platform.write(0xE9, Width::Byte, u32::from(b'a'), 0),
            Effect::ConsoleOutput
        );
        platform.power_up();
        let mut buffer = [0; 4];
        assert_eq!(
            platform
                .console
                .read(debug_console::Cursor(0), &mut buffer)
                .copied,
            1
        );
        assert_eq!(buffer[0], b'a');
    }
}
