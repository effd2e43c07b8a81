//! The two ways in which PC software resets the machine by a port: the chipset's reset control register (0xCF9) and the keyboard
//! controller's pulse command (0xFE to 0x64).
//!
//! There is no keyboard controller: its status port reads 0xFF, the floating bus by which operating systems see that, and it takes no
//! other command.

use super::BadState;

/// Reset control register.
pub const RESET_CONTROL: u16 = 0xCF9;
/// Command and status port of the keyboard controller.
pub const KEYBOARD_COMMAND: u16 = 0x64;

const PULSE_RESET: u8 = 0xFE;
/// Writing 1 here resets.
const RESET_CPU: u8 = 1 << 2;
/// Kind of reset: system reset, full power cycle. Stored and read back.
const RESET_KIND: u8 = 1 << 1 | 1 << 3;

/// Both ports.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ResetPort {
    control: u8,
}

/// Saved state of [`ResetPort`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetPortState {
    /// Reset control register without its trigger bit.
    pub control: u8,
}

impl ResetPort {
    /// The ports after power-up.
    pub const fn new() -> ResetPort {
        ResetPort { control: 0 }
    }

    /// Reads [`RESET_CONTROL`].
    pub fn control(&self) -> u8 {
        self.control
    }

    /// Writes [`RESET_CONTROL`]; true if that resets the machine.
    pub fn write_control(&mut self, value: u8) -> bool {
        self.control = value & RESET_KIND;
        value & RESET_CPU != 0
    }

    /// Reads [`KEYBOARD_COMMAND`]: nobody drives the bus.
    pub fn keyboard_status(&self) -> u8 {
        0xFF
    }

    /// Writes [`KEYBOARD_COMMAND`]; true if that resets the machine.
    pub fn write_keyboard_command(&self, value: u8) -> bool {
        value == PULSE_RESET
    }

    /// The state to move.
    pub fn save(&self) -> ResetPortState {
        let &ResetPort { control } = self;
        ResetPortState { control }
    }

    /// The ports with this state.
    pub fn restore(state: &ResetPortState) -> Result<ResetPort, BadState> {
        let &ResetPortState { control } = state;
        BadState::unless(control & !RESET_KIND == 0, "reset_port.control")?;
        Ok(ResetPort { control })
    }
}
