//! Serial port: a 16550A, with its FIFOs.
//!
//! What the guest sends leaves at once: the transmitter is always empty, the bytes go to a console ring that keeps its history. What comes
//! from outside waits in a bounded queue and enters the receive FIFO as there is room, so nothing is overrun but in loopback. The
//! other end of the line is always there (CTS, DSR and DCD asserted).
//!
//! The interrupt line is level and, as on a PC, gated by the modem-control bit OUT2.

mod registers;
#[cfg(test)]
mod tests;

use super::debug_console::{DebugConsole, DebugConsoleState};
use super::{BadState, TscRate};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use registers::{
    FCR_CLEAR_RECEIVER, FCR_ENABLE, FCR_KEPT, IER_LINE, IER_MODEM, IER_RECEIVE, IER_TRANSMIT,
    IER_WRITABLE, LSR_OVERRUN, LSR_READY, LSR_TRANSMITTER_EMPTY, MCR_LOOPBACK, MCR_OUT2,
    MCR_WRITABLE, MSR_PRESENT, Register,
};

/// First port of the serial port that PCs call COM1.
pub const COM1: u16 = 0x3F8;
/// Ports of one serial port.
pub const PORTS: u16 = 8;
/// Depth of the receive FIFO.
pub const FIFO_BYTES: usize = 16;
/// Bytes from outside that wait for room in the FIFO.
pub const INPUT_BYTES_MAX: usize = godwit_records::SERIAL_INPUT_BYTES_MAX;

/// Clock of the baud-rate generator, by 16.
const BAUD_BASE: u64 = 115_200;
/// Characters without traffic after which what is in the FIFO is announced.
const TIMEOUT_CHARACTERS: u64 = 4;

/// Interrupt sources, as register IIR names them, by falling priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    LineStatus = 0x06,
    Received = 0x04,
    Timeout = 0x0C,
    Transmitted = 0x02,
    ModemStatus = 0x00,
}

/// IIR when nothing is pending.
const IIR_NONE: u8 = 0x01;
const IIR_FIFOS: u8 = 0xC0;

/// One serial port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    rate: TscRate,
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    /// Overrun; the other line-status bits follow.
    overrun: bool,
    /// Modem-status deltas, bits 3:0.
    deltas: u8,
    scratch: u8,
    divisor: u16,
    /// The transmitter's interrupt has not been seen since it became empty.
    transmitted: bool,
    fifo: ArrayVec<u8, FIFO_BYTES>,
    /// Guest TSC when the FIFO was last filled or read.
    traffic_tsc: u64,
    input: VecDeque<u8>,
    /// What the guest has sent.
    pub output: DebugConsole,
}

/// Saved state of [`Uart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UartState {
    /// Interrupt enable register.
    pub ier: u8,
    /// FIFO control register without its triggers.
    pub fcr: u8,
    /// Line control register.
    pub lcr: u8,
    /// Modem control register.
    pub mcr: u8,
    /// Overrun error.
    pub overrun: bool,
    /// Modem-status deltas.
    pub deltas: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Baud-rate divisor.
    pub divisor: u16,
    /// The transmitter's interrupt is pending.
    pub transmitted: bool,
    /// Receive FIFO, oldest first.
    pub fifo: ArrayVec<u8, FIFO_BYTES>,
    /// Guest TSC when the FIFO was last filled or read.
    pub traffic_tsc: u64,
    /// Bytes that wait for room, oldest first.
    pub input: Vec<u8>,
    /// What the guest has sent.
    pub output: DebugConsoleState,
}

impl Uart {
    /// The port after power-up. Allocates the console's ring and the input queue.
    pub fn new(rate: TscRate) -> Uart {
        Uart {
            rate,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            overrun: false,
            deltas: 0,
            scratch: 0,
            divisor: 12,
            transmitted: false,
            fifo: ArrayVec::new(),
            traffic_tsc: 0,
            input: VecDeque::with_capacity(INPUT_BYTES_MAX),
            output: DebugConsole::new(),
        }
    }

    /// The domain resets: registers go back to power-up; what was sent and what waits to be received is kept, being outside.
    pub fn reset(&mut self) {
        let (input, output) = (
            core::mem::take(&mut self.input),
            core::mem::take(&mut self.output),
        );
        *self = Uart {
            rate: self.rate,
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            overrun: false,
            deltas: 0,
            scratch: 0,
            divisor: 12,
            transmitted: false,
            fifo: ArrayVec::new(),
            traffic_tsc: 0,
            input,
            output,
        };
    }

    /// Bytes from outside, for the guest to receive. Returns how many there was room for.
    pub fn push_input(&mut self, bytes: &[u8], now_tsc: u64) -> usize {
        let taken = bytes.len().min(INPUT_BYTES_MAX - self.input.len());
        self.input.extend(&bytes[..taken]);
        self.receive(now_tsc);
        taken
    }

    /// Moves waiting input into the FIFO as far as there is room.
    fn receive(&mut self, now_tsc: u64) {
        if self.loops() {
            return;
        }
        while self.fifo.len() < self.depth()
            && let Some(byte) = self.input.pop_front()
        {
            self.fifo.push(byte);
            self.traffic_tsc = now_tsc;
        }
    }

    fn fifos(&self) -> bool {
        self.fcr & FCR_ENABLE != 0
    }

    fn loops(&self) -> bool {
        self.mcr & MCR_LOOPBACK != 0
    }

    /// Bytes the receiver holds: one without FIFO.
    fn depth(&self) -> usize {
        if self.fifos() { FIFO_BYTES } else { 1 }
    }

    /// Bytes in the FIFO from which on it interrupts.
    fn trigger(&self) -> usize {
        match (self.fifos(), self.fcr >> 6) {
            (false, _) | (true, 0) => 1,
            (true, 1) => 4,
            (true, 2) => 8,
            (true, _three) => 14,
        }
    }

    /// Guest TSC from which on bytes below the trigger level are announced.
    fn timeout_tsc(&self) -> u64 {
        let data_bits = 5 + u64::from(self.lcr & 3);
        let stop_and_parity = 1 + u64::from(self.lcr >> 2 & 1) + u64::from(self.lcr >> 3 & 1);
        let divisor = match self.divisor {
            0 => 1 << 16,
            divisor => u128::from(divisor),
        };
        let bits = TIMEOUT_CHARACTERS * (1 + data_bits + stop_and_parity);
        self.traffic_tsc
            .saturating_add(self.rate.tsc_until(u128::from(bits) * divisor, BAUD_BASE))
    }

    /// Interrupt source of highest priority.
    fn source(&self, now_tsc: u64) -> Option<Source> {
        let enabled = |bit: u8| self.ier & bit != 0;
        if enabled(IER_LINE) && self.overrun {
            Some(Source::LineStatus)
        } else if enabled(IER_RECEIVE) && self.fifo.len() >= self.trigger() {
            Some(Source::Received)
        } else if enabled(IER_RECEIVE) && !self.fifo.is_empty() && now_tsc >= self.timeout_tsc() {
            Some(Source::Timeout)
        } else if enabled(IER_TRANSMIT) && self.transmitted {
            Some(Source::Transmitted)
        } else if enabled(IER_MODEM) && self.deltas != 0 {
            Some(Source::ModemStatus)
        } else {
            None
        }
    }

    /// Level of the interrupt line.
    #[inline]
    pub fn irq(&self, now_tsc: u64) -> bool {
        self.ier != 0 && self.opens_line() && self.source(now_tsc).is_some()
    }

    /// Guest TSC at which the receive time-out raises the line, if nothing else has; `None` if it cannot.
    pub fn next_deadline(&self) -> Option<u64> {
        let waits = self.ier & IER_RECEIVE != 0
            && self.opens_line()
            && !self.fifo.is_empty()
            && self.fifo.len() < self.trigger();
        waits.then(|| self.timeout_tsc())
    }

    /// Does an interrupt reach the line?
    fn opens_line(&self) -> bool {
        self.mcr & (MCR_OUT2 | MCR_LOOPBACK) == MCR_OUT2
    }

    /// Reads the register at `offset` from the first port, 0..=7.
    pub fn read(&mut self, offset: u16, now_tsc: u64) -> u8 {
        match Register::at(offset, self.lcr) {
            Register::Data => self.read_data(now_tsc),
            Register::DivisorLow => self.divisor.to_le_bytes()[0],
            Register::DivisorHigh => self.divisor.to_le_bytes()[1],
            Register::InterruptEnable => self.ier,
            Register::InterruptIdentOrFifoControl => {
                let source = self.source(now_tsc);
                if source == Some(Source::Transmitted) {
                    self.transmitted = false;
                }
                let fifos = if self.fifos() { IIR_FIFOS } else { 0 };
                source.map_or(IIR_NONE, |source| source as u8) | fifos
            }
            Register::LineControl => self.lcr,
            Register::ModemControl => self.mcr,
            Register::LineStatus => {
                let overrun = if core::mem::take(&mut self.overrun) {
                    LSR_OVERRUN
                } else {
                    0
                };
                let ready = if self.fifo.is_empty() { 0 } else { LSR_READY };
                LSR_TRANSMITTER_EMPTY | overrun | ready
            }
            Register::ModemStatus => self.modem_lines() | core::mem::take(&mut self.deltas),
            Register::Scratch => self.scratch,
        }
    }

    fn read_data(&mut self, now_tsc: u64) -> u8 {
        // Empty, it gives what a cleared FIFO holds.
        let byte = self.fifo.pop_at(0).unwrap_or(0);
        self.traffic_tsc = now_tsc;
        self.receive(now_tsc);
        byte
    }

    /// Writes the register at `offset` from the first port, 0..=7. True if there is more output to read.
    pub fn write(&mut self, offset: u16, value: u8, now_tsc: u64) -> bool {
        match Register::at(offset, self.lcr) {
            Register::Data => return self.send(value, now_tsc),
            Register::DivisorLow => self.divisor = self.divisor & 0xFF00 | u16::from(value),
            Register::DivisorHigh => self.divisor = self.divisor & 0x00FF | u16::from(value) << 8,
            Register::InterruptEnable => {
                // The transmitter is empty: enabling its interrupt raises it.
                self.transmitted |= value & !self.ier & IER_TRANSMIT != 0;
                self.ier = value & IER_WRITABLE;
            }
            Register::InterruptIdentOrFifoControl => self.control_fifos(value, now_tsc),
            Register::LineControl => self.lcr = value,
            Register::ModemControl => {
                let before = self.modem_lines();
                self.mcr = value & MCR_WRITABLE;
                self.deltas |= registers::deltas(before, self.modem_lines());
                self.receive(now_tsc);
            }
            Register::Scratch => self.scratch = value,
            Register::LineStatus | Register::ModemStatus => {}
        }
        false
    }

    fn send(&mut self, byte: u8, now_tsc: u64) -> bool {
        self.transmitted = true;
        if !self.loops() {
            self.output.push(byte);
            return true;
        }
        let byte = byte & registers::data_mask(self.lcr);
        if self.fifo.len() < self.depth() {
            self.fifo.push(byte);
            self.traffic_tsc = now_tsc;
        } else {
            self.overrun = true;
        }
        false
    }

    /// FIFO control: switching the FIFOs on or off empties them; other bits count with the enable bit only.
    fn control_fifos(&mut self, value: u8, now_tsc: u64) {
        let switched = (value ^ self.fcr) & FCR_ENABLE != 0;
        let enabled = value & FCR_ENABLE != 0;
        self.fcr = if enabled { value & FCR_KEPT } else { 0 };
        if switched || enabled && value & FCR_CLEAR_RECEIVER != 0 {
            self.fifo.clear();
            self.overrun = false;
            self.receive(now_tsc);
        }
    }

    /// Modem-status lines, bits 7:4: from outside, or in loopback from the modem-control register.
    fn modem_lines(&self) -> u8 {
        if self.loops() {
            registers::looped_lines(self.mcr)
        } else {
            MSR_PRESENT
        }
    }

    /// The state to move.
    pub fn save(&self) -> UartState {
        let Uart {
            rate: _,
            ier,
            fcr,
            lcr,
            mcr,
            overrun,
            deltas,
            scratch,
            divisor,
            transmitted,
            fifo,
            traffic_tsc,
            input,
            output,
        } = self;
        UartState {
            ier: *ier,
            fcr: *fcr,
            lcr: *lcr,
            mcr: *mcr,
            overrun: *overrun,
            deltas: *deltas,
            scratch: *scratch,
            divisor: *divisor,
            transmitted: *transmitted,
            fifo: fifo.clone(),
            traffic_tsc: *traffic_tsc,
            input: input.iter().copied().collect(),
            output: output.save(),
        }
    }

    /// The port with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &UartState, rate: TscRate) -> Result<Uart, BadState> {
        let UartState {
            ier,
            fcr,
            lcr,
            mcr,
            overrun,
            deltas,
            scratch,
            divisor,
            transmitted,
            fifo,
            traffic_tsc,
            input,
            output,
        } = state;
        BadState::unless(*ier & !IER_WRITABLE == 0, "uart.ier")?;
        let fcr_valid = *fcr == 0 || *fcr & FCR_ENABLE != 0 && *fcr & !FCR_KEPT == 0;
        BadState::unless(fcr_valid, "uart.fcr")?;
        BadState::unless(*mcr & !MCR_WRITABLE == 0, "uart.mcr")?;
        BadState::unless(*deltas < 16, "uart.deltas")?;
        BadState::unless(input.len() <= INPUT_BYTES_MAX, "uart.input")?;
        let mut queue = VecDeque::with_capacity(INPUT_BYTES_MAX);
        queue.extend(input);
        let uart = Uart {
            rate,
            ier: *ier,
            fcr: *fcr,
            lcr: *lcr,
            mcr: *mcr,
            overrun: *overrun,
            deltas: *deltas,
            scratch: *scratch,
            divisor: *divisor,
            transmitted: *transmitted,
            fifo: fifo.clone(),
            traffic_tsc: *traffic_tsc,
            input: queue,
            output: DebugConsole::restore(output)?,
        };
        BadState::unless(uart.fifo.len() <= uart.depth(), "uart.fifo")?;
        let waits = uart.fifo.len() < uart.depth() && !uart.loops() && !uart.input.is_empty();
        BadState::unless(!waits, "uart.input")?;
        Ok(uart)
    }
}
