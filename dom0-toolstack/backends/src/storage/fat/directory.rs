//! Directory entries: 32-byte slots, a short name each, long names in slots before it. Pure.

use super::FatError;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

pub(in crate::storage) const SLOT: usize = 32;
const END: u8 = 0;
pub(in crate::storage) const DELETED: u8 = 0xe5;
const LONG: u8 = 0x0f;
const VOLUME: u8 = 0x08;
pub(in crate::storage) const DIRECTORY: u8 = 0x10;
pub(in crate::storage) const ARCHIVE: u8 = 0x20;
/// Where the 13 UTF-16 units of a long name's slot lie.
const UNIT_PLACES: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
const LAST: u8 = 0x40;
/// UTF-16 units of a long name.
pub const NAME_UNITS_MAX: usize = 255;
/// 1 January 1980, the first day FAT has: times are not kept.
const DATE: [u8; 2] = [0x21, 0];

/// A file or directory as its parent knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::storage) struct Entry {
    pub(in crate::storage) name: String,
    pub(in crate::storage) short: [u8; 11],
    pub(in crate::storage) is_directory: bool,
    pub(in crate::storage) first: u32,
    pub(in crate::storage) bytes: u32,
    /// Its slots in the directory; the last has the short name.
    pub(in crate::storage) slots: Range<usize>,
}

/// All entries of a directory but `.`, `..` and the volume's label.
pub(in crate::storage) fn entries(directory: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    // The long name collected so far: its slots, next number, check sum, units from behind.
    let mut long: Option<(usize, u8, u8, Vec<u16>)> = None;
    for (index, slot) in directory.chunks_exact(SLOT).enumerate() {
        match slot[0] {
            END => break,
            DELETED => {
                long = None;
                continue;
            }
            _ => {}
        }
        if slot[11] & 0x3f == LONG {
            let number = slot[0] & !LAST;
            let mut units: Vec<u16> = UNIT_PLACES
                .iter()
                .map(|at| u16::from_le_bytes([slot[*at], slot[*at + 1]]))
                .collect();
            long = match long.take() {
                _ if slot[0] & LAST != 0 => Some((index, number, slot[13], units)),
                Some((start, expected, sum, rest)) if expected == number + 1 && sum == slot[13] => {
                    units.extend(rest);
                    Some((start, number, sum, units))
                }
                Some(_) | None => None,
            };
            continue;
        }
        let name = long.take();
        if slot[11] & VOLUME != 0 || slot[0] == b'.' {
            continue;
        }
        let mut short = [0; 11];
        short.copy_from_slice(&slot[..11]);
        let (start, name) = match name {
            Some((start, 1, sum, units)) if sum == checksum(&short) => (start, long_text(&units)),
            Some(_) | None => (index, short_text(&short, slot[12])),
        };
        let half = |at: usize| u32::from(u16::from_le_bytes([slot[at], slot[at + 1]]));
        found.push(Entry {
            name,
            short,
            is_directory: slot[11] & DIRECTORY != 0,
            first: half(20) << 16 | half(26),
            bytes: half(28) | half(30) << 16,
            slots: start..index + 1,
        });
    }
    found
}

fn long_text(units: &[u16]) -> String {
    let end = units.iter().position(|unit| *unit == 0);
    String::from_utf16_lossy(&units[..end.unwrap_or(units.len())])
}

/// A short name as text; `case` has the bits that Windows NT keeps for lower case.
fn short_text(short: &[u8; 11], case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let end = bytes.iter().rposition(|byte| *byte != b' ');
        let bytes = &bytes[..end.map_or(0, |last| last + 1)];
        let character = |byte: &u8| match byte.is_ascii() {
            true if lower => char::from(byte.to_ascii_lowercase()),
            true => char::from(*byte),
            // Of a code page we do not know.
            false => char::REPLACEMENT_CHARACTER,
        };
        bytes.iter().map(character).collect::<String>()
    };
    let mut text = part(&short[..8], case & 0x08 != 0);
    let extension = part(&short[8..], case & 0x10 != 0);
    if !extension.is_empty() {
        text.push('.');
        text.push_str(&extension);
    }
    text
}

/// What ties long names to their short one.
fn checksum(short: &[u8; 11]) -> u8 {
    let add = |sum: u8, byte: &u8| sum.rotate_right(1).wrapping_add(*byte);
    short.iter().fold(0, add)
}

/// Whether a name may be given to a file.
pub(in crate::storage) fn check_name(name: &str) -> Result<(), FatError> {
    let forbidden = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c);
    let units = name.encode_utf16().count();
    let fits = (1..=NAME_UNITS_MAX).contains(&units)
        && !name.contains(forbidden)
        && !name.ends_with(['.', ' '])
        && !name.starts_with(' ');
    match fits {
        true => Ok(()),
        false => Err(FatError::Name(name.into())),
    }
}

/// Names are one if they differ in case only.
pub(in crate::storage) fn same_name(one: &str, other: &str) -> bool {
    let lower = |text: &str| {
        text.chars()
            .flat_map(char::to_lowercase)
            .collect::<String>()
    };
    lower(one) == lower(other)
}

/// A short name that no entry has, `NAME~1.EXT`.
fn alias(name: &str, taken: &[Entry]) -> [u8; 11] {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let usable = |c: char| c.is_ascii_alphanumeric() || "-_!#$%&@^(){}".contains(c);
    let clean = |text: &str, most: usize| -> Vec<u8> {
        let characters = text.chars().filter(|c| !matches!(c, ' ' | '.'));
        let ascii = characters.map(|c| {
            if usable(c) {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        });
        ascii.take(most).map(|c| c as u8).collect()
    };
    let (stem, extension) = (clean(stem, 8), clean(extension, 3));
    let mut number = 1u32;
    loop {
        let tail = alloc::format!("~{number}");
        let kept = stem.len().min(8 - tail.len());
        let mut short = [b' '; 11];
        short[..kept].copy_from_slice(&stem[..kept]);
        short[kept..kept + tail.len()].copy_from_slice(tail.as_bytes());
        short[8..8 + extension.len()].copy_from_slice(&extension);
        if taken.iter().all(|entry| entry.short != short) {
            return short;
        }
        number += 1;
    }
}

/// The slots of a new entry, in order.
pub(in crate::storage) fn new_slots(
    name: &str,
    attributes: u8,
    (first, bytes): (u32, u32),
    taken: &[Entry],
) -> Vec<[u8; SLOT]> {
    let short = alias(name, taken);
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let pieces = units.len().div_ceil(UNIT_PLACES.len());
    if !units.len().is_multiple_of(UNIT_PLACES.len()) {
        units.push(0);
        units.resize(pieces * UNIT_PLACES.len(), 0xffff);
    }
    let mut slots = Vec::new();
    for (index, piece) in units.chunks(UNIT_PLACES.len()).enumerate().rev() {
        let mut slot = [0; SLOT];
        let last = if index + 1 == pieces { LAST } else { 0 };
        slot[0] = (index + 1) as u8 | last;
        slot[11] = LONG;
        slot[13] = checksum(&short);
        for (at, unit) in UNIT_PLACES.iter().zip(piece) {
            slot[*at..*at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        slots.push(slot);
    }
    slots.push(short_slot(&short, attributes, first, bytes));
    slots
}

/// The slot with the short name.
pub(in crate::storage) fn short_slot(
    short: &[u8; 11],
    attributes: u8,
    first: u32,
    bytes: u32,
) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..11].copy_from_slice(short);
    slot[11] = attributes;
    for at in [16, 18, 24] {
        slot[at..at + 2].copy_from_slice(&DATE);
    }
    slot[20..22].copy_from_slice(&((first >> 16) as u16).to_le_bytes());
    slot[26..28].copy_from_slice(&(first as u16).to_le_bytes());
    slot[28..32].copy_from_slice(&bytes.to_le_bytes());
    slot
}

/// Slot where `count` slots in a row are free, if there are.
pub(in crate::storage) fn free_run(directory: &[u8], count: usize) -> Option<usize> {
    let mut run = 0;
    let mut ended = false;
    for (index, slot) in directory.chunks_exact(SLOT).enumerate() {
        ended |= slot[0] == END;
        run = if ended || slot[0] == DELETED {
            run + 1
        } else {
            0
        };
        if run == count {
            return Some(index + 1 - count);
        }
    }
    None
}

/// Whether a slot behind the end has to be made the new end when the one before it is used.
pub(in crate::storage) fn needs_end(directory: &[u8], slot: usize) -> bool {
    let mut slots = directory.chunks_exact(SLOT);
    let end = slots.position(|one| one[0] == END);
    let next = directory.get(slot * SLOT).copied();
    end.is_some_and(|end| end < slot) && next.is_some_and(|byte| byte != END)
}
