//! Registers of the 16550A: where they are and what their bits mean (data sheet PC16550D, table II).

/// Register at one of the eight ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    /// Receive buffer, transmit holding.
    Data,
    DivisorLow,
    DivisorHigh,
    InterruptEnable,
    /// Interrupt identification when read, FIFO control when written.
    InterruptIdentOrFifoControl,
    LineControl,
    ModemControl,
    LineStatus,
    ModemStatus,
    Scratch,
}

impl Register {
    /// The register at `offset`, 0..=7. The divisor latch is there while the line control register says so.
    pub(super) fn at(offset: u16, lcr: u8) -> Register {
        let divisor = lcr & LCR_DIVISOR != 0;
        match offset & 7 {
            0 if divisor => Register::DivisorLow,
            0 => Register::Data,
            1 if divisor => Register::DivisorHigh,
            1 => Register::InterruptEnable,
            2 => Register::InterruptIdentOrFifoControl,
            3 => Register::LineControl,
            4 => Register::ModemControl,
            5 => Register::LineStatus,
            6 => Register::ModemStatus,
            _seven => Register::Scratch,
        }
    }
}

pub(super) const IER_RECEIVE: u8 = 1 << 0;
pub(super) const IER_TRANSMIT: u8 = 1 << 1;
pub(super) const IER_LINE: u8 = 1 << 2;
pub(super) const IER_MODEM: u8 = 1 << 3;
pub(super) const IER_WRITABLE: u8 = 0x0F;

pub(super) const FCR_ENABLE: u8 = 1 << 0;
pub(super) const FCR_CLEAR_RECEIVER: u8 = 1 << 1;
/// Enable, DMA mode, trigger level.
pub(super) const FCR_KEPT: u8 = 0xC9;

const LCR_DIVISOR: u8 = 1 << 7;

const MCR_DTR: u8 = 1 << 0;
const MCR_RTS: u8 = 1 << 1;
const MCR_OUT1: u8 = 1 << 2;
pub(super) const MCR_OUT2: u8 = 1 << 3;
pub(super) const MCR_LOOPBACK: u8 = 1 << 4;
pub(super) const MCR_WRITABLE: u8 = 0x1F;

pub(super) const LSR_READY: u8 = 1 << 0;
pub(super) const LSR_OVERRUN: u8 = 1 << 1;
/// Holding register and shift register.
pub(super) const LSR_TRANSMITTER_EMPTY: u8 = 1 << 5 | 1 << 6;

const MSR_CTS: u8 = 1 << 4;
const MSR_DSR: u8 = 1 << 5;
const MSR_RI: u8 = 1 << 6;
const MSR_DCD: u8 = 1 << 7;
/// Lines of an end that is there.
pub(super) const MSR_PRESENT: u8 = MSR_CTS | MSR_DSR | MSR_DCD;

/// Modem lines in loopback: each output is wired to an input.
pub(super) fn looped_lines(mcr: u8) -> u8 {
    [
        (MCR_RTS, MSR_CTS),
        (MCR_DTR, MSR_DSR),
        (MCR_OUT1, MSR_RI),
        (MCR_OUT2, MSR_DCD),
    ]
    .into_iter()
    .filter(|&(output, _)| mcr & output != 0)
    .fold(0, |lines, (_, input)| lines | input)
}

/// Delta bits (3:0) of a change of the lines: any change, but of RI its fall only.
pub(super) fn deltas(before: u8, after: u8) -> u8 {
    let changed = (before ^ after) & (MSR_CTS | MSR_DSR | MSR_DCD) | before & !after & MSR_RI;
    changed >> 4
}

/// Bits of a character.
pub(super) fn data_mask(lcr: u8) -> u8 {
    0x1F << (lcr & 3) | 0x1F
}
