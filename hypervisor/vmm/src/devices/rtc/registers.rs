//! Registers of the MC146818A: numbers, bits, the formats of the time of day (BCD or binary, 12 or 24 hours), and what firmware keeps
//! in the memory behind them.

use super::{CMOS_BYTES, DateTime};

const SECONDS: usize = 0;
const MINUTES: usize = 2;
const HOURS: usize = 4;
const WEEKDAY: usize = 6;
const DAY: usize = 7;
const MONTH: usize = 8;
const YEAR: usize = 9;
/// Century, where the FADT says it is.
pub(super) const CENTURY: usize = 0x32;
pub(super) const REGISTER_A: usize = 0xA;
pub(super) const REGISTER_B: usize = 0xB;
pub(super) const REGISTER_C: usize = 0xC;
pub(super) const REGISTER_D: usize = 0xD;

pub(super) const A_UPDATING: u8 = 1 << 7;
pub(super) const A_WRITABLE: u8 = 0x7F;
pub(super) const A_DIVIDER: u8 = 0b111 << 4;
/// The divider counts a crystal of 32768 Hz; nothing else is connected.
pub(super) const A_DIVIDER_RUNS: u8 = 0b010 << 4;
pub(super) const A_RATE: u8 = 0xF;
pub(super) const B_SET: u8 = 1 << 7;
pub(super) const B_24_HOURS: u8 = 1 << 1;
pub(super) const B_BINARY: u8 = 1 << 2;
const B_SQUARE_WAVE: u8 = 1 << 3;
/// Flags of register C; each has its enable bit at the same place in register B.
pub(super) const C_PERIODIC: u8 = 1 << 6;
pub(super) const C_ALARM: u8 = 1 << 5;
pub(super) const C_UPDATE: u8 = 1 << 4;
pub(super) const C_REQUEST: u8 = 1 << 7;
pub(super) const B_ENABLES: u8 = C_PERIODIC | C_ALARM | C_UPDATE;
pub(super) const B_RESET_CLEARS: u8 = B_ENABLES | B_SQUARE_WAVE;
pub(super) const D_VALID: u8 = 1 << 7;

/// PM in 12-hour formats.
const PM: u8 = 1 << 7;
/// The registers of the time of day, without the century.
pub(super) const TIME: [usize; 7] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR];
/// Does this register belong to the time of day?
pub(super) fn is_time(register: usize) -> bool {
    register == CENTURY || TIME.contains(&register)
}

fn encode(value: u8, binary: bool) -> u8 {
    if binary {
        value
    } else {
        let (tens, ones) = (value / 10 % 10, value % 10);
        tens << 4 | ones
    }
}

pub(super) fn decode(byte: u8, binary: bool) -> u8 {
    if binary {
        byte
    } else {
        (byte >> 4) * 10 + (byte & 0xF)
    }
}

fn encode_hour(hour: u8, control: u8) -> u8 {
    let binary = control & B_BINARY != 0;
    if control & B_24_HOURS != 0 {
        return encode(hour, binary);
    }
    let half = if hour >= 12 { PM } else { 0 };
    encode((hour + 11) % 12 + 1, binary) | half
}

pub(super) fn decode_hour(byte: u8, control: u8) -> u8 {
    let binary = control & B_BINARY != 0;
    if control & B_24_HOURS != 0 {
        return decode(byte, binary);
    }
    let half = if byte & PM != 0 { 12 } else { 0 };
    decode(byte & !PM, binary) % 12 + half
}

/// Writes a time into the registers, in the format register B asks for.
pub(super) fn store(cmos: &mut [u8; CMOS_BYTES], date: &DateTime) {
    let control = cmos[REGISTER_B];
    let binary = control & B_BINARY != 0;
    for (register, value) in [
        (SECONDS, date.second),
        (MINUTES, date.minute),
        (WEEKDAY, date.weekday),
        (DAY, date.day),
        (MONTH, date.month),
        (YEAR, (date.year % 100) as u8),
    ] {
        cmos[register] = encode(value, binary);
    }
    cmos[HOURS] = encode_hour(date.hour, control);
    // The century is memory that firmware keeps, in BCD whatever the format.
    cmos[CENTURY] = encode((date.year / 100) as u8, false);
}

/// The time the registers say. Whatever they hold, it is some time.
pub(super) fn load(cmos: &[u8; CMOS_BYTES]) -> DateTime {
    let control = cmos[REGISTER_B];
    let binary = control & B_BINARY != 0;
    DateTime {
        year: u16::from(decode(cmos[CENTURY], false)) * 100 + u16::from(decode(cmos[YEAR], binary)),
        month: decode(cmos[MONTH], binary),
        day: decode(cmos[DAY], binary),
        weekday: 1,
        hour: decode_hour(cmos[HOURS], control),
        minute: decode(cmos[MINUTES], binary),
        second: decode(cmos[SECONDS], binary),
    }
}

/// Describes memory: base at 0x15, extended at 0x17 and 0x30 (KiB), above 16 MiB at 0x34 and above 4 GiB at 0x5B (64 KiB). Each says as
/// much as its width can. Bytes 0x10..=0x2D are covered by the checksum at 0x2E (high) and 0x2F (low).
pub(super) fn store_memory_size(
    cmos: &mut [u8; CMOS_BYTES],
    below_4g_bytes: u64,
    above_4g_bytes: u64,
) {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const CHUNK: u64 = 64 * KIB;
    const BASE_KIB: u16 = 640;
    /// A coprocessor.
    const EQUIPMENT: u8 = 1 << 1;
    let units = |bytes: u64, unit: u64| ((bytes / unit).min(0xFFFF) as u16).to_le_bytes();
    let extended = units(below_4g_bytes.saturating_sub(MIB), KIB);
    let high = units(below_4g_bytes.saturating_sub(16 * MIB), CHUNK);
    cmos[0x14] = EQUIPMENT;
    for (register, bytes) in [
        (0x15, BASE_KIB.to_le_bytes()),
        (0x17, extended),
        (0x30, extended),
        (0x34, high),
    ] {
        cmos[register..register + 2].copy_from_slice(&bytes);
    }
    let above = (above_4g_bytes / CHUNK).min(0xFF_FFFF).to_le_bytes();
    cmos[0x5B..0x5E].copy_from_slice(&above[..3]);
    let sum: u16 = cmos[0x10..0x2E].iter().map(|&byte| u16::from(byte)).sum();
    cmos[0x2E..0x30].copy_from_slice(&sum.to_be_bytes());
}
