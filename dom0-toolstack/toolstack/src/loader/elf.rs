//! ELF images (System V gABI, "Object files" and "Program loading"), 64-bit and 32-bit, read
//! without trust: every offset is checked, every count bounded, and segments are checked against
//! memory and each other.

use super::bytes::{half, long, range, word};
use super::{Content, ElfError, MemoryMap, Piece};
use alloc::vec::Vec;

/// Most program headers.
pub const SEGMENTS_MAX: u16 = 64;
/// Longest note segment, in bytes.
pub const NOTES_BYTES_MAX: usize = 64 << 10;

const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const TYPE_EXECUTABLE: u16 = 2;
const TYPE_SHARED: u16 = 3;
const SEGMENT_LOAD: u32 = 1;
const SEGMENT_NOTE: u32 = 4;
/// `XEN_ELFNOTE_PHYS32_ENTRY`.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";

/// Whether a file has 32-bit or 64-bit structures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Elf32,
    Elf64,
}

/// A part of the image that is loaded. Lies in RAM and overlaps no other.
#[derive(Debug)]
struct Segment<'a> {
    /// Number of its program header.
    index: usize,
    /// Guest-physical address.
    address: u64,
    /// Address it is linked for.
    linked_address: u64,
    /// What the file has of it.
    bytes: &'a [u8],
    /// Its length in memory; the rest is zero.
    memory_bytes: u64,
}

/// A checked image.
#[derive(Debug)]
pub(super) struct Image<'a> {
    /// By address; not empty.
    segments: Vec<Segment<'a>>,
    /// Where the PVH note would have it entered. Only 64-bit images can have one.
    pub(super) pvh_entry: Option<u64>,
    /// Entry in the ELF header: an address it is linked for.
    linked_entry: u64,
}

impl<'a> Image<'a> {
    /// The address behind the last segment.
    pub(super) fn end(&self) -> u64 {
        let last = self.segments.last().expect("an image has a segment");
        last.address + last.memory_bytes
    }

    /// `entry` if it is in the part of a segment that is in the file.
    pub(super) fn loaded_entry(&self, entry: u64) -> Result<u32, ElfError> {
        let loaded = self.segments.iter().any(|segment| {
            let offset = entry.checked_sub(segment.address);
            offset.is_some_and(|offset| offset < segment.bytes.len() as u64)
        });
        match u32::try_from(entry) {
            Ok(entry) if loaded => Ok(entry),
            Ok(_) | Err(_) => Err(ElfError::EntryOutside(entry)),
        }
    }

    /// Physical address of the entry in the ELF header.
    pub(super) fn header_entry(&self) -> Result<u32, ElfError> {
        let entry = self.segments.iter().find_map(|segment| {
            let offset = self.linked_entry.checked_sub(segment.linked_address)?;
            (offset < segment.bytes.len() as u64).then(|| segment.address + offset)
        });
        match entry {
            Some(entry) => self.loaded_entry(entry),
            None => Err(ElfError::EntryOutside(self.linked_entry)),
        }
    }

    /// The segments as pieces of memory.
    pub(super) fn pieces(&self) -> Vec<Piece<'a>> {
        let pieces = self.segments.iter().flat_map(|segment| {
            let file_bytes = segment.bytes.len() as u64;
            let rest = Piece {
                address: segment.address + file_bytes,
                content: Content::Zero(segment.memory_bytes - file_bytes),
            };
            [Piece::image(segment.address, segment.bytes), rest]
        });
        pieces.collect()
    }
}

struct ProgramHeader {
    kind: u32,
    offset: u64,
    linked_address: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

/// What a file of a class begins with.
struct FileHeader {
    class: Class,
    machine: u16,
    kind: u16,
    entry: u64,
    table_offset: u64,
    row_bytes: u16,
    rows: u16,
}

/// Whether a file is an ELF image of a kind that can be read.
pub(super) fn recognises(file: &[u8]) -> bool {
    class_of(file).is_some()
}

fn class_of(file: &[u8]) -> Option<Class> {
    match file {
        [0x7f, b'E', b'L', b'F', 2, 1, 1, ..] => Some(Class::Elf64),
        [0x7f, b'E', b'L', b'F', 1, 1, 1, ..] => Some(Class::Elf32),
        _ => None,
    }
}

/// Reads an image that is to lie in the RAM of `map` below 4 GiB.
pub(super) fn parse<'a>(file: &'a [u8], map: &MemoryMap) -> Result<Image<'a>, ElfError> {
    let file_header = file_header(file).ok_or(ElfError::HeadersOutsideFile)?;
    let headers = program_headers(file, &file_header)?;
    let mut segments = Vec::new();
    let mut pvh_entry = None;
    for (index, header) in headers.iter().enumerate() {
        match header.kind {
            SEGMENT_LOAD if header.memory_bytes > 0 || header.file_bytes > 0 => {
                segments.push(segment(file, index, header, map)?);
            }
            SEGMENT_NOTE if file_header.class == Class::Elf64 => {
                find_entry(file, index, header, &mut pvh_entry)?;
            }
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.address);
    for pair in segments.windows(2) {
        if pair[0].address + pair[0].memory_bytes > pair[1].address {
            return Err(ElfError::SegmentsOverlap(pair[0].index, pair[1].index));
        }
    }
    if segments.is_empty() {
        return Err(ElfError::NothingToLoad);
    }
    Ok(Image {
        segments,
        pvh_entry,
        linked_entry: file_header.entry,
    })
}

fn file_header(file: &[u8]) -> Option<FileHeader> {
    let class = class_of(file)?;
    let (entry, table_offset, row) = match class {
        Class::Elf64 => (long(file, 24)?, long(file, 32)?, 54),
        Class::Elf32 => (word(file, 24)?.into(), word(file, 28)?.into(), 42),
    };
    Some(FileHeader {
        class,
        kind: half(file, 16)?,
        machine: half(file, 18)?,
        entry,
        table_offset,
        row_bytes: half(file, row)?,
        rows: half(file, row + 2)?,
    })
}

fn program_headers(file: &[u8], header: &FileHeader) -> Result<Vec<ProgramHeader>, ElfError> {
    let (machine, row_bytes) = match header.class {
        Class::Elf64 => (MACHINE_X86_64, 56),
        Class::Elf32 => (MACHINE_386, 32),
    };
    if header.machine != machine {
        return Err(ElfError::Machine(header.machine));
    }
    match header.kind {
        TYPE_EXECUTABLE => {}
        TYPE_SHARED => return Err(ElfError::PositionIndependent),
        kind => return Err(ElfError::Kind(kind)),
    }
    if header.rows > SEGMENTS_MAX {
        return Err(ElfError::TooManySegments(header.rows));
    }
    if header.rows > 0 && header.row_bytes != row_bytes {
        return Err(ElfError::HeaderSize(header.row_bytes));
    }
    let bytes = u64::from(header.rows) * u64::from(row_bytes);
    let outside = ElfError::HeadersOutsideFile;
    let table = range(file, header.table_offset, bytes).ok_or(outside)?;
    let rows = table.chunks_exact(usize::from(row_bytes));
    rows.map(|row| program_header(header.class, row).ok_or(outside))
        .collect()
}

fn program_header(class: Class, row: &[u8]) -> Option<ProgramHeader> {
    let short = |at| word(row, at).map(u64::from);
    Some(match class {
        Class::Elf64 => ProgramHeader {
            kind: word(row, 0)?,
            offset: long(row, 8)?,
            linked_address: long(row, 16)?,
            address: long(row, 24)?,
            file_bytes: long(row, 32)?,
            memory_bytes: long(row, 40)?,
            align: long(row, 48)?,
        },
        Class::Elf32 => ProgramHeader {
            kind: word(row, 0)?,
            offset: short(4)?,
            linked_address: short(8)?,
            address: short(12)?,
            file_bytes: short(16)?,
            memory_bytes: short(20)?,
            align: short(28)?,
        },
    })
}

fn segment<'a>(
    file: &'a [u8],
    index: usize,
    header: &ProgramHeader,
    map: &MemoryMap,
) -> Result<Segment<'a>, ElfError> {
    let bytes = range(file, header.offset, header.file_bytes);
    let bytes = bytes.ok_or(ElfError::SegmentOutsideFile(index))?;
    if header.memory_bytes < header.file_bytes {
        return Err(ElfError::SegmentShrinks(index));
    }
    if !map.has_low_ram(header.address, header.memory_bytes) {
        return Err(ElfError::SegmentOutsideMemory {
            segment: index,
            start: header.address,
            bytes: header.memory_bytes,
        });
    }
    Ok(Segment {
        index,
        address: header.address,
        linked_address: header.linked_address,
        bytes,
        memory_bytes: header.memory_bytes,
    })
}

/// Looks for the PVH entry in a note segment. Notes are padded to 4 bytes, in segments aligned to
/// 8 to 8 bytes.
fn find_entry(
    file: &[u8],
    index: usize,
    header: &ProgramHeader,
    entry: &mut Option<u64>,
) -> Result<(), ElfError> {
    let notes = range(file, header.offset, header.file_bytes);
    let mut notes = notes.ok_or(ElfError::SegmentOutsideFile(index))?;
    if notes.len() > NOTES_BYTES_MAX {
        return Err(ElfError::NotesTooLong(index));
    }
    let align = if header.align == 8 { 8 } else { 4 };
    // Bounded: every turn takes at least the 12 bytes of a note's header.
    while !notes.is_empty() {
        let damaged = ElfError::NoteDamaged(index);
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
                _ => return Err(ElfError::EntryNoteSize(descriptor.len())),
            };
            if entry.replace(address).is_some() {
                return Err(ElfError::EntryTwice);
            }
        }
        let next = (descriptor_at + descriptor_bytes).next_multiple_of(align);
        notes = notes.get(next..).unwrap_or(&[]);
    }
    Ok(())
}
