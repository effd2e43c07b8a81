//! The pair of 8259A interrupt controllers of a PC: master at 0x20, slave at 0xA0 behind input 2, trigger modes (ELCR) at 0x4D0.
//!
//! The slave's output is wired to the master's input 2 and followed as a level, after every change. [`Pic::pending`] is the
//! INTR line; [`Pic::acknowledge`] is the CPU's acknowledge cycle and always gives a vector: that of input 7 when the request
//! has gone away, as the hardware does.

mod chip;
#[cfg(test)]
mod tests;

pub use chip::{Chip, Phase};

use super::BadState;

/// Command and data ports of the master.
pub const MASTER_PORTS: core::ops::RangeInclusive<u16> = 0x20..=0x21;
/// Command and data ports of the slave.
pub const SLAVE_PORTS: core::ops::RangeInclusive<u16> = 0xA0..=0xA1;
/// Edge/level control registers of master and slave.
pub const ELCR_PORTS: core::ops::RangeInclusive<u16> = 0x4D0..=0x4D1;

/// Master input to which the slave is wired.
const CASCADE: u8 = 2;
/// Inputs whose trigger mode ELCR can switch: not timer, keyboard, cascade; not clock (8) and coprocessor (13).
const LEVEL_ALLOWED: [u8; 2] = [0xF8, 0xDE];

/// Interrupt request lines of the pair: 0..=15 without 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Irq(u8);

impl Irq {
    /// The ACPI system control interrupt.
    pub const SCI: Irq = Irq(9);
    /// Counter 0 of the interval timer.
    pub const TIMER: Irq = Irq(0);
    /// Serial port COM1.
    pub const SERIAL: Irq = Irq(4);
    /// Real-time clock.
    pub const CLOCK: Irq = Irq(8);

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// IRQ `number`; `None` for the cascade and beyond 15.
    pub const fn new(number: u8) -> Option<Irq> {
        if number < 16 && number != CASCADE {
            Some(Irq(number))
        } else {
            None
        }
    }
}

/// Both controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pic {
    master: Chip,
    slave: Chip,
}

/// Saved state of the pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PicState {
    /// Controller of IRQ 0..=7.
    pub master: Chip,
    /// Controller of IRQ 8..=15.
    pub slave: Chip,
}

impl Default for Pic {
    fn default() -> Pic {
        Pic::new()
    }
}

impl Pic {
    /// The pair after power-up: uninitialised, requests nothing.
    pub const fn new() -> Pic {
        Pic {
            master: Chip::POWER_UP,
            slave: Chip::POWER_UP,
        }
    }

    /// Asserts a line. An edge-triggered input requests once for each rise.
    pub fn raise(&mut self, irq: Irq) {
        self.set_line(irq, true);
    }

    /// Releases a line.
    pub fn lower(&mut self, irq: Irq) {
        self.set_line(irq, false);
    }

    fn set_line(&mut self, Irq(number): Irq, high: bool) {
        if number < 8 {
            self.master.set_line(number, high);
        } else {
            self.slave.set_line(number - 8, high);
            self.follow_cascade();
        }
    }

    /// Wires the slave's output to the master's input 2.
    fn follow_cascade(&mut self) {
        let bit = 1 << CASCADE;
        let high = self.slave.request(0).is_some();
        self.master.lines = if high {
            self.master.lines | bit
        } else {
            self.master.lines & !bit
        };
        self.master.irr = if high {
            self.master.irr | bit
        } else {
            self.master.irr & !bit
        };
    }

    /// Is INTR asserted?
    #[inline]
    pub fn pending(&self) -> bool {
        self.master.request(1 << CASCADE).is_some()
    }

    /// The CPU acknowledges: takes the highest request into service and gives its vector.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(input) = self.master.request(1 << CASCADE) else {
            return self.master.vector(7);
        };
        self.master.take(input);
        if input != CASCADE {
            return self.master.vector(input);
        }
        let vector = self
            .take_slave()
            .map_or(self.slave.vector(7), |input| self.slave.vector(input));
        self.follow_cascade();
        vector
    }

    fn take_slave(&mut self) -> Option<u8> {
        let input = self.slave.request(0)?;
        self.slave.take(input);
        Some(input)
    }

    /// Reads a byte from one of the pair's ports; `None` for another port.
    #[inline]
    pub fn read(&mut self, port: u16) -> Option<u8> {
        Some(match port {
            0x20 | 0x21 => self.read_chip(false, port & 1 != 0),
            0xA0 | 0xA1 => self.read_chip(true, port & 1 != 0),
            0x4D0 => self.master.level_triggered,
            0x4D1 => self.slave.level_triggered,
            _other => return None,
        })
    }

    fn read_chip(&mut self, slave: bool, data_port: bool) -> u8 {
        let nests = if slave { 0 } else { 1 << CASCADE };
        let chip = if slave {
            &mut self.slave
        } else {
            &mut self.master
        };
        if !core::mem::take(&mut chip.polls) {
            return chip.read(data_port);
        }
        let Some(input) = chip.request(nests) else {
            return 0;
        };
        chip.take(input);
        self.follow_cascade();
        0x80 | input
    }

    /// Writes a byte to one of the pair's ports; false for another port.
    #[inline]
    pub fn write(&mut self, port: u16, value: u8) -> bool {
        match port {
            0x20 => self.master.write_command(value),
            0x21 => self.master.write_data(value),
            0xA0 => self.slave.write_command(value),
            0xA1 => self.slave.write_data(value),
            0x4D0 => self.master.set_level_triggered(value & LEVEL_ALLOWED[0]),
            0x4D1 => self.slave.set_level_triggered(value & LEVEL_ALLOWED[1]),
            _other => return false,
        }
        self.follow_cascade();
        true
    }

    /// The state to move.
    pub fn save(&self) -> PicState {
        let &Pic { master, slave } = self;
        PicState { master, slave }
    }

    /// The pair with this state. Refuses what it cannot be in.
    pub fn restore(state: &PicState) -> Result<Pic, BadState> {
        let &PicState { master, slave } = state;
        master.validate(LEVEL_ALLOWED[0])?;
        slave.validate(LEVEL_ALLOWED[1])?;
        let mut pic = Pic { master, slave };
        pic.follow_cascade();
        BadState::unless(pic.master == master, "pic.master.irr")?;
        Ok(pic)
    }
}
