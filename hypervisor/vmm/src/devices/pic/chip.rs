//! One 8259A (Intel data sheet 231468): initialisation, masks, priorities, end of interrupt, poll.
//!
//! As in PC chipsets, the trigger mode is per input and comes from the ELCR, so the LTIM bit of ICW1 has no effect, and the cascade
//! is wired, so ICW3 is taken and not used. An edge stays requested when its line falls again before the acknowledge, as in every
//! chipset since the PIIX (sources here pulse their lines).

use crate::devices::BadState;

/// Where the chip stands in its initialisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// After power-up: never initialised, requests nothing.
    Uninitialised,
    /// Waits for ICW2.
    Icw2,
    /// Waits for ICW3.
    Icw3,
    /// Waits for ICW4.
    Icw4,
    /// Operates.
    Ready,
}

/// Registers of one chip. These are also its saved state: nothing in it is derived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Initialisation.
    pub phase: Phase,
    /// ICW1 said that there will be an ICW4.
    pub expects_icw4: bool,
    /// ICW1 said that there is one chip only: no ICW3.
    pub single: bool,
    /// Levels of the input lines.
    pub lines: u8,
    /// Inputs triggered by level (ELCR).
    pub level_triggered: u8,
    /// Requested.
    pub irr: u8,
    /// In service.
    pub isr: u8,
    /// Masked.
    pub imr: u8,
    /// Vector of input 0; multiple of 8.
    pub vector_base: u8,
    /// Input of lowest priority; the next one up is the highest.
    pub lowest: u8,
    /// Automatic end of interrupt (ICW4).
    pub auto_eoi: bool,
    /// Rotate on automatic end of interrupt (OCW2).
    pub rotate_on_auto_eoi: bool,
    /// Special fully nested mode (ICW4).
    pub special_fully_nested: bool,
    /// Special mask mode (OCW3).
    pub special_mask: bool,
    /// A read of the command port gives the ISR, not the IRR (OCW3).
    pub reads_isr: bool,
    /// The next read polls (OCW3).
    pub polls: bool,
}

impl Chip {
    pub(super) const POWER_UP: Chip = Chip {
        phase: Phase::Uninitialised,
        expects_icw4: false,
        single: false,
        lines: 0,
        level_triggered: 0,
        irr: 0,
        isr: 0,
        imr: 0,
        vector_base: 0,
        lowest: 7,
        auto_eoi: false,
        rotate_on_auto_eoi: false,
        special_fully_nested: false,
        special_mask: false,
        reads_isr: false,
        polls: false,
    };

    /// Refuses registers that no chip can hold; `level_allowed` are the inputs that ELCR can switch.
    pub(super) fn validate(&self, level_allowed: u8) -> Result<(), BadState> {
        BadState::unless(
            self.level_triggered & !level_allowed == 0,
            "pic.level_triggered",
        )?;
        BadState::unless(self.vector_base & 7 == 0, "pic.vector_base")?;
        BadState::unless(self.lowest < 8, "pic.lowest")
    }

    /// Sets an input line, 0..=7.
    pub(super) fn set_line(&mut self, input: u8, high: bool) {
        let bit = 1 << input;
        let rises = high && self.lines & bit == 0;
        self.lines = if high {
            self.lines | bit
        } else {
            self.lines & !bit
        };
        if self.level_triggered & bit != 0 {
            self.irr = self.irr & !bit | self.lines & bit;
        } else if rises {
            self.irr |= bit;
        }
    }

    /// Changes which inputs are level-triggered; a level input requests exactly while its line is high.
    pub(super) fn set_level_triggered(&mut self, mask: u8) {
        self.level_triggered = mask;
        self.irr = self.irr & !mask | self.lines & mask;
    }

    /// The input of highest priority in `set`.
    fn highest(&self, set: u8) -> Option<u8> {
        if set == 0 {
            return None;
        }
        let first = (self.lowest + 1) & 7;
        Some((set.rotate_right(u32::from(first)).trailing_zeros() as u8 + first) & 7)
    }

    /// Rank of an input: 0 is the highest.
    fn rank(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest + 1) & 7
    }

    /// In-service inputs that hold back others: in special mask mode the masked ones do not.
    fn in_service(&self) -> u8 {
        if self.special_mask {
            self.isr & !self.imr
        } else {
            self.isr
        }
    }

    /// The input that requests an interrupt now. `nests` are inputs which, being in service, still let themselves be interrupted: the
    /// cascade in special fully nested mode.
    #[inline]
    pub(super) fn request(&self, nests: u8) -> Option<u8> {
        if self.irr & !self.imr == 0 || self.phase != Phase::Ready {
            return None;
        }
        let input = self.highest(self.irr & !self.imr)?;
        let holding = if self.special_fully_nested {
            self.in_service() & !nests
        } else {
            self.in_service()
        };
        let held = self
            .highest(holding)
            .is_some_and(|holder| self.rank(holder) <= self.rank(input));
        (!held).then_some(input)
    }

    /// First and second INTA pulse for `input`, which [`Chip::request`] gave.
    pub(super) fn take(&mut self, input: u8) {
        let bit = 1 << input;
        if self.level_triggered & bit == 0 {
            self.irr &= !bit;
        }
        if !self.auto_eoi {
            self.isr |= bit;
        } else if self.rotate_on_auto_eoi {
            self.lowest = input;
        }
    }

    /// Vector of an input; input 7 is also that of a spurious interrupt.
    pub(super) fn vector(&self, input: u8) -> u8 {
        self.vector_base | input
    }

    /// Write to the command port (A0 = 0): ICW1, OCW2 or OCW3.
    pub(super) fn write_command(&mut self, value: u8) {
        if value & 0x10 != 0 {
            self.initialise(value);
        } else if value & 0x08 != 0 {
            self.operate(value);
        } else {
            self.end_of_interrupt(value);
        }
    }

    /// ICW1: edge detection starts anew, so a line that is high must fall first; masks and modes are cleared.
    fn initialise(&mut self, icw1: u8) {
        *self = Chip {
            phase: Phase::Icw2,
            expects_icw4: icw1 & 1 != 0,
            single: icw1 & 2 != 0,
            lines: self.lines,
            level_triggered: self.level_triggered,
            irr: self.lines & self.level_triggered,
            ..Chip::POWER_UP
        };
    }

    /// OCW2: end of interrupt and rotation.
    fn end_of_interrupt(&mut self, ocw2: u8) {
        let level = ocw2 & 7;
        match ocw2 >> 5 {
            0b000 => self.rotate_on_auto_eoi = false,
            0b100 => self.rotate_on_auto_eoi = true,
            0b001 | 0b101 => {
                if let Some(input) = self.highest(self.in_service()) {
                    self.isr &= !(1 << input);
                    if ocw2 & 0x80 != 0 {
                        self.lowest = input;
                    }
                }
            }
            0b011 => self.isr &= !(1 << level),
            0b111 => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            _no_operation => {}
        }
    }

    /// OCW3: special mask mode, register to read, poll.
    fn operate(&mut self, ocw3: u8) {
        if ocw3 & 0x40 != 0 {
            self.special_mask = ocw3 & 0x20 != 0;
        }
        self.polls = ocw3 & 4 != 0;
        if ocw3 & 2 != 0 && !self.polls {
            self.reads_isr = ocw3 & 1 != 0;
        }
    }

    /// Write to the data port (A0 = 1): the next ICW, or OCW1.
    pub(super) fn write_data(&mut self, value: u8) {
        match self.phase {
            Phase::Ready | Phase::Uninitialised => self.imr = value,
            Phase::Icw2 => {
                self.vector_base = value & 0xF8;
                self.phase = match (self.single, self.expects_icw4) {
                    (false, _) => Phase::Icw3,
                    (true, true) => Phase::Icw4,
                    (true, false) => Phase::Ready,
                };
            }
            Phase::Icw3 => {
                self.phase = if self.expects_icw4 {
                    Phase::Icw4
                } else {
                    Phase::Ready
                }
            }
            Phase::Icw4 => {
                self.auto_eoi = value & 2 != 0;
                self.special_fully_nested = value & 0x10 != 0;
                self.phase = Phase::Ready;
            }
        }
    }

    /// Read of a port without a pending poll.
    pub(super) fn read(&self, data_port: bool) -> u8 {
        match (data_port, self.reads_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr,
        }
    }
}
