//! ELF64 images (System V gABI, "Object files" and "Program loading"), read without trust: every
//! offset is checked, every count bounded, and segments are checked against memory and each other.

use super::LoadError;
use alloc::vec::Vec;

/// Most program headers.
pub const SEGMENTS_MAX: u16 = 64;
/// Longest note segment, in bytes.
pub const NOTES_BYTES_MAX: usize = 64 << 10;

const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: u16 = 56;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";

/// A part of the image that is loaded. Lies in memory and overlaps no other.
#[derive(Debug)]
pub(super) struct Segment<'a> {
    /// Number of its program header.
    pub(super) index: usize,
    /// Guest-physical address.
    pub(super) address: u64,
    /// What the file has of it.
    pub(super) bytes: &'a [u8],
    /// Its length in memory; the rest is zero.
    pub(super) memory_bytes: u64,
}

/// A checked image.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// By address; not empty.
    pub(super) segments: Vec<Segment<'a>>,
    /// In one of the segments, in the part that is in the file.
    pub(super) entry: u32,
}

impl Image<'_> {
    /// The address behind the last segment.
    pub(super) fn end(&self) -> u64 {
        let last = self.segments.last().expect("an image has a segment");
        last.address + last.memory_bytes
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

/// Reads an image that is to lie below `memory_end`.
pub(super) fn parse(file: &[u8], memory_end: u64) -> Result<Image<'_>, LoadError> {
    let headers = program_headers(file)?;
    let mut segments = Vec::new();
    let mut entry = None;
    for (index, header) in headers.iter().enumerate() {
        match header.kind {
            SEGMENT_LOAD if header.memory_bytes > 0 || header.file_bytes > 0 => {
                segments.push(segment(file, index, header, memory_end)?);
            }
            SEGMENT_NOTE => find_entry(file, index, header, &mut entry)?,
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.address);
    for pair in segments.windows(2) {
        if pair[0].address + pair[0].memory_bytes > pair[1].address {
            return Err(LoadError::SegmentsOverlap(pair[0].index, pair[1].index));
        }
    }
    if segments.is_empty() {
        return Err(LoadError::NothingToLoad);
    }
    let entry = entry.ok_or(LoadError::NoEntryNote)?;
    let loaded = segments.iter().any(|segment| {
        let offset = entry.checked_sub(segment.address);
        offset.is_some_and(|offset| offset < segment.bytes.len() as u64)
    });
    match u32::try_from(entry) {
        Ok(entry) if loaded => Ok(Image { segments, entry }),
        Ok(_) | Err(_) => Err(LoadError::EntryOutside(entry)),
    }
}

fn program_headers(file: &[u8]) -> Result<Vec<ProgramHeader>, LoadError> {
    check_identity(file)?;
    let header = file
        .get(..HEADER_BYTES)
        .ok_or(LoadError::HeadersOutsideFile)?;
    match half(header, 18) {
        Some(MACHINE_X86_64) => {}
        machine => return Err(LoadError::Machine(machine.unwrap_or(0))),
    }
    match half(header, 16) {
        Some(TYPE_EXECUTABLE) => {}
        Some(TYPE_SHARED) => return Err(LoadError::PositionIndependent),
        kind => return Err(LoadError::Kind(kind.unwrap_or(0))),
    }
    let outside = LoadError::HeadersOutsideFile;
    let count = half(header, 56).ok_or(outside)?;
    if count > SEGMENTS_MAX {
        return Err(LoadError::TooManySegments(count));
    }
    let size = half(header, 54).ok_or(outside)?;
    if count > 0 && size != PROGRAM_HEADER_BYTES {
        return Err(LoadError::HeaderSize(size));
    }
    let start = long(header, 32).ok_or(outside)?;
    let bytes = u64::from(count) * u64::from(PROGRAM_HEADER_BYTES);
    let table = range(file, start, bytes).ok_or(outside)?;
    let rows = table.chunks_exact(usize::from(PROGRAM_HEADER_BYTES));
    rows.map(|row| program_header(row).ok_or(outside)).collect()
}

fn check_identity(file: &[u8]) -> Result<(), LoadError> {
    if file.get(0x202..0x206) == Some(b"HdrS") {
        return Err(LoadError::BzImage);
    }
    match file {
        [0x7f, b'E', b'L', b'F', 2, 1, 1, ..] => Ok(()),
        [0x7f, b'E', b'L', b'F', ..] => Err(LoadError::NotElf64LittleEndian),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            Err(LoadError::Compressed)
        }
        _ => Err(LoadError::NotElf),
    }
}

fn program_header(row: &[u8]) -> Option<ProgramHeader> {
    Some(ProgramHeader {
        kind: word(row, 0)?,
        offset: long(row, 8)?,
        address: long(row, 24)?,
        file_bytes: long(row, 32)?,
        memory_bytes: long(row, 40)?,
        align: long(row, 48)?,
    })
}

fn segment<'a>(
    file: &'a [u8],
    index: usize,
    header: &ProgramHeader,
    memory_end: u64,
) -> Result<Segment<'a>, LoadError> {
    let bytes = range(file, header.offset, header.file_bytes);
    let bytes = bytes.ok_or(LoadError::SegmentOutsideFile(index))?;
    if header.memory_bytes < header.file_bytes {
        return Err(LoadError::SegmentShrinks(index));
    }
    match header.address.checked_add(header.memory_bytes) {
        Some(end) if end <= memory_end => Ok(Segment {
            index,
            address: header.address,
            bytes,
            memory_bytes: header.memory_bytes,
        }),
        Some(_) | None => Err(LoadError::SegmentOutsideMemory {
            segment: index,
            start: header.address,
            bytes: header.memory_bytes,
        }),
    }
}

/// Looks for the PVH entry in a note segment. Notes are padded to 4 bytes, in segments aligned to
/// 8 to 8 bytes.
fn find_entry(
    file: &[u8],
    index: usize,
    header: &ProgramHeader,
    entry: &mut Option<u64>,
) -> Result<(), LoadError> {
    let notes = range(file, header.offset, header.file_bytes);
    let mut notes = notes.ok_or(LoadError::SegmentOutsideFile(index))?;
    if notes.len() > NOTES_BYTES_MAX {
        return Err(LoadError::NotesTooLong(index));
    }
    let align = if header.align == 8 { 8 } else { 4 };
    // Bounded: every turn takes at least the 12 bytes of a note's header.
    while !notes.is_empty() {
        let damaged = LoadError::NoteDamaged(index);
        let size = |at| word(notes, at).map(|size| size as usize).ok_or(damaged);
        let (name_bytes, descriptor_bytes) = (size(0)?, size(4)?);
        let kind = word(notes, 8).ok_or(damaged)?;
        let name = range(notes, 12, name_bytes as u64).ok_or(damaged)?;
        let descriptor_at = (12 + name_bytes).next_multiple_of(align);
        let descriptor = range(notes, descriptor_at as u64, descriptor_bytes as u64);
        let descriptor = descriptor.ok_or(damaged)?;
        if kind == NOTE_PHYS32_ENTRY && name == NOTE_NAME {
            let address = match *descriptor {
                [a, b, c, d] => u64::from(u32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => u64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => return Err(LoadError::EntryNoteSize(descriptor.len())),
            };
            if entry.replace(address).is_some() {
                return Err(LoadError::EntryTwice);
            }
        }
        let next = (descriptor_at + descriptor_bytes).next_multiple_of(align);
        notes = notes.get(next..).unwrap_or(&[]);
    }
    Ok(())
}

fn range(bytes: &[u8], start: u64, length: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    bytes.get(start..end)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u16::from_le_bytes(*bytes))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}
