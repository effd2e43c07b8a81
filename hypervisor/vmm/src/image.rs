//! The dom0 image: a position-independent ELF file, parsed as untrusted input before a byte of it is
//! used (System V gABI; x86-64 psABI for relocations).
//!
//! Accepted: ELF64, little endian, x86-64, ET_DYN, loadable segments with page-aligned, disjoint
//! ranges that are never writable and executable at once, relocations of type R_X86_64_RELATIVE
//! only, and the note with the interface version.

use core::fmt;

use arrayvec::ArrayVec;
use godwit_abi::{ABI_VERSION, note};

/// Segments accepted at most.
pub const SEGMENTS_MAX: usize = 8;
/// The largest image accepted, in bytes of memory.
pub const IMAGE_BYTES_MAX: u64 = 16 << 20;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_NOTE: u32 = 4;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_RELAENT: u64 = 9;
const DT_JMPREL: u64 = 23;
const DT_REL: u64 = 17;
const R_X86_64_RELATIVE: u64 = 8;
const RELA_BYTES: usize = 24;
const DYNAMIC_MAX: usize = 128;

/// Why an image is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageError {
    /// Not an ELF64 file for x86-64, or cut off.
    NotElf,
    /// Not position independent.
    NotPie,
    /// A header points outside the file.
    Damaged(&'static str),
    /// Segments that overlap, are out of order, too many or too large.
    BadLayout,
    /// A segment that is writable and executable.
    WritableCode,
    /// No note with the interface version: not a dom0 image.
    NoAbi,
    /// Built for another version of the interface.
    OtherAbi(u32),
    /// A relocation of a type that is not handled.
    Relocation(u32),
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::NotElf => f.write_str("not an ELF file for x86-64"),
            ImageError::NotPie => f.write_str("the ELF file is not position independent"),
            ImageError::Damaged(what) => {
                write!(f, "the ELF file is damaged: {what} outside the file")
            }
            ImageError::BadLayout => {
                f.write_str("the ELF file's segments overlap or are too large")
            }
            ImageError::WritableCode => {
                f.write_str("the ELF file has a segment that is writable and executable")
            }
            ImageError::NoAbi => f.write_str("no Godwit ABI note: this is not a dom0 image"),
            ImageError::OtherAbi(version) => {
                write!(
                    f,
                    "built for ABI version {version}, this hypervisor has {ABI_VERSION}: use images of one build"
                )
            }
            ImageError::Relocation(kind) => write!(f, "relocation type {kind} is not handled"),
        }
    }
}

/// A loadable segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// First byte, from the start of the image; a multiple of 4 KiB less `in_page`.
    pub address: u64,
    /// Bytes in memory; beyond the file's bytes they are zero.
    pub bytes: u64,
    /// Where its contents are in the file.
    pub file: (usize, usize),
    /// Writable.
    pub writable: bool,
    /// Executable.
    pub executable: bool,
}

/// A parsed image.
#[derive(Debug)]
pub struct Image<'a> {
    file: &'a [u8],
    /// Segments in ascending order, page-disjoint.
    pub segments: ArrayVec<Segment, SEGMENTS_MAX>,
    /// Entry point, from the start of the image.
    pub entry: u64,
    /// Bytes of memory from the start of the image, a multiple of 4 KiB.
    pub bytes: u64,
    relocations: (u64, u64),
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|b| u64::from_le_bytes(*b))
}

struct Header {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    bytes: u64,
}

fn header(file: &[u8], at: usize) -> Option<Header> {
    Some(Header {
        kind: u32_at(file, at)?,
        flags: u32_at(file, at + 4)?,
        offset: u64_at(file, at + 8)?,
        address: u64_at(file, at + 16)?,
        file_bytes: u64_at(file, at + 32)?,
        bytes: u64_at(file, at + 40)?,
    })
}

fn range(file: &[u8], offset: u64, bytes: u64) -> Option<(usize, usize)> {
    let end = offset.checked_add(bytes)?;
    (end <= file.len() as u64).then_some((offset as usize, end as usize))
}

/// Parses an image.
pub fn parse(file: &[u8]) -> Result<Image<'_>, ImageError> {
    let magic = file.get(..20).ok_or(ImageError::NotElf)?;
    if magic[..6] != [0x7f, b'E', b'L', b'F', 2, 1] || u16_at(file, 18) != Some(EM_X86_64) {
        return Err(ImageError::NotElf);
    }
    if u16_at(file, 16) != Some(ET_DYN) {
        return Err(ImageError::NotPie);
    }
    let damaged = ImageError::Damaged("program headers");
    let entry = u64_at(file, 24).ok_or(damaged)?;
    let table = u64_at(file, 32).ok_or(damaged)?;
    let size = usize::from(u16_at(file, 54).ok_or(damaged)?);
    let count = usize::from(u16_at(file, 56).ok_or(damaged)?);
    let (start, _) = range(file, table, (size * count) as u64).ok_or(damaged)?;
    if size < 56 {
        return Err(damaged);
    }
    let mut image = Image {
        file,
        segments: ArrayVec::new(),
        entry,
        bytes: 0,
        relocations: (0, 0),
    };
    let mut abi = None;
    let mut dynamic = None;
    for index in 0..count {
        let header = header(file, start + index * size).ok_or(damaged)?;
        match header.kind {
            PT_LOAD => image.add(&header)?,
            PT_NOTE => {
                let (start, end) = range(file, header.offset, header.file_bytes)
                    .ok_or(ImageError::Damaged("notes"))?;
                abi = abi.or(note::version_in(&file[start..end]));
            }
            PT_DYNAMIC => {
                dynamic = Some(
                    range(file, header.offset, header.file_bytes)
                        .ok_or(ImageError::Damaged("dynamic section"))?,
                );
            }
            _ => {}
        }
    }
    match abi {
        None => return Err(ImageError::NoAbi),
        Some(version) if version != ABI_VERSION => return Err(ImageError::OtherAbi(version)),
        Some(_) => {}
    }
    let code = image.segments.iter().any(|segment| {
        segment.executable
            && (segment.address..segment.address + segment.bytes).contains(&image.entry)
    });
    if !code {
        return Err(ImageError::BadLayout);
    }
    if let Some((start, end)) = dynamic {
        image.read_dynamic(&file[start..end])?;
    }
    Ok(image)
}

impl<'a> Image<'a> {
    fn add(&mut self, header: &Header) -> Result<(), ImageError> {
        if header.bytes == 0 {
            return Ok(());
        }
        let file = range(self.file, header.offset, header.file_bytes)
            .ok_or(ImageError::Damaged("segment"))?;
        let end = header
            .address
            .checked_add(header.bytes)
            .ok_or(ImageError::BadLayout)?;
        // The linker may start a segment inside a page, but never two in one page.
        let disjoint = header.address & !4095 >= self.bytes;
        if !disjoint || header.file_bytes > header.bytes || end > IMAGE_BYTES_MAX {
            return Err(ImageError::BadLayout);
        }
        let segment = Segment {
            address: header.address,
            bytes: header.bytes,
            file,
            writable: header.flags & 2 != 0,
            executable: header.flags & 1 != 0,
        };
        if segment.writable && segment.executable {
            return Err(ImageError::WritableCode);
        }
        self.bytes = end.next_multiple_of(4096);
        self.segments
            .try_push(segment)
            .map_err(|_| ImageError::BadLayout)
    }

    fn read_dynamic(&mut self, dynamic: &[u8]) -> Result<(), ImageError> {
        let mut entry_bytes = RELA_BYTES as u64;
        for entry in dynamic.chunks_exact(16).take(DYNAMIC_MAX) {
            let (Some(tag), Some(value)) = (u64_at(entry, 0), u64_at(entry, 8)) else {
                break;
            };
            match tag {
                0 => break,
                DT_RELA => self.relocations.0 = value,
                DT_RELASZ => self.relocations.1 = value,
                DT_RELAENT => entry_bytes = value,
                DT_JMPREL | DT_REL => return Err(ImageError::Relocation(tag as u32)),
                _ => {}
            }
        }
        if entry_bytes != RELA_BYTES as u64 || !self.relocations.1.is_multiple_of(entry_bytes) {
            return Err(ImageError::Damaged("relocations"));
        }
        Ok(())
    }

    /// The contents of a segment as the file has them.
    pub fn contents(&self, segment: &Segment) -> &'a [u8] {
        &self.file[segment.file.0..segment.file.1]
    }

    /// Calls `write(offset, value)` for every word that holds an address, where the image is
    /// placed at `base`.
    pub fn relocate(&self, base: u64, mut write: impl FnMut(u64, u64)) -> Result<(), ImageError> {
        let table = self
            .in_file(self.relocations.0, self.relocations.1)
            .ok_or(ImageError::Damaged("relocations"))?;
        for entry in table.chunks_exact(RELA_BYTES) {
            let word = |at| u64_at(entry, at).unwrap_or(0);
            let (offset, kind, addend) = (word(0), word(8), word(16));
            if kind != R_X86_64_RELATIVE {
                return Err(ImageError::Relocation(kind as u32));
            }
            let inside = self.segments.iter().any(|segment| {
                offset >= segment.address
                    && offset
                        .checked_add(8)
                        .is_some_and(|end| end <= segment.address + segment.bytes)
            });
            if !inside {
                return Err(ImageError::Damaged("relocation target"));
            }
            write(offset, base.wrapping_add(addend));
        }
        Ok(())
    }

    /// File contents by address in the image.
    fn in_file(&self, address: u64, bytes: u64) -> Option<&'a [u8]> {
        if bytes == 0 {
            return Some(&[]);
        }
        let segment = self.segments.iter().find(|segment| {
            address >= segment.address && address < segment.address + segment.bytes
        })?;
        let start = (address - segment.address) as usize;
        self.contents(segment)
            .get(start..start.checked_add(bytes as usize)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// An image with a text segment (0..0x1000) and a data segment (0x2000..0x3000) that holds the
    /// dynamic section, one relocation and the note.
    fn sample(version: u32) -> Vec<u8> {
        let mut file = vec![0u8; 0x3000];
        put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
        put(&mut file, 16, &3u16.to_le_bytes());
        put(&mut file, 18, &62u16.to_le_bytes());
        put(&mut file, 24, &0x800u64.to_le_bytes());
        put(&mut file, 32, &64u64.to_le_bytes());
        put(&mut file, 54, &56u16.to_le_bytes());
        put(&mut file, 56, &4u16.to_le_bytes());
        let headers: [(u32, u32, u64, u64, u64, u64); 4] = [
            (1, 5, 0, 0, 0x1000, 0x1000),
            (1, 6, 0x2000, 0x2000, 0x1000, 0x5000),
            (2, 6, 0x2000, 0x2000, 0x40, 0x40),
            (4, 4, 0x2200, 0x2200, 24, 24),
        ];
        for (index, (kind, flags, offset, address, size, memory)) in headers.into_iter().enumerate()
        {
            let at = 64 + index * 56;
            put(&mut file, at, &kind.to_le_bytes());
            put(&mut file, at + 4, &flags.to_le_bytes());
            for (slot, value) in [(8, offset), (16, address), (32, size), (40, memory)] {
                put(&mut file, at + slot, &value.to_le_bytes());
            }
        }
        for (index, (tag, value)) in [(7u64, 0x2100u64), (8, 24), (9, 24), (0, 0)]
            .into_iter()
            .enumerate()
        {
            put(&mut file, 0x2000 + index * 16, &tag.to_le_bytes());
            put(&mut file, 0x2008 + index * 16, &value.to_le_bytes());
        }
        for (index, value) in [0x2300u64, 8, 0x123].into_iter().enumerate() {
            put(&mut file, 0x2100 + index * 8, &value.to_le_bytes());
        }
        for (index, word) in [7u32, 4, 1].into_iter().enumerate() {
            put(&mut file, 0x2200 + index * 4, &word.to_le_bytes());
        }
        put(&mut file, 0x220c, b"Godwit\0\0");
        put(&mut file, 0x2214, &version.to_le_bytes());
        file
    }

    #[test]
    fn loads_and_relocates() {
        let file = sample(ABI_VERSION);
        let image = parse(&file).unwrap();
        assert_eq!(
            (image.entry, image.bytes, image.segments.len()),
            (0x800, 0x7000, 2)
        );
        let mut written = Vec::new();
        image
            .relocate(0x10_0000, |at, value| written.push((at, value)))
            .unwrap();
        assert_eq!(written, [(0x2300, 0x10_0123)]);
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(parse(b"#!/bin/sh").unwrap_err(), ImageError::NotElf);
        assert_eq!(
            parse(&sample(ABI_VERSION + 1)).unwrap_err(),
            ImageError::OtherAbi(ABI_VERSION + 1)
        );
        let mut file = sample(ABI_VERSION);
        put(&mut file, 16, &2u16.to_le_bytes());
        assert_eq!(parse(&file).unwrap_err(), ImageError::NotPie);
        let mut file = sample(ABI_VERSION);
        put(&mut file, 64 + 56 + 4, &7u32.to_le_bytes());
        assert_eq!(parse(&file).unwrap_err(), ImageError::WritableCode);
        let mut file = sample(ABI_VERSION);
        put(&mut file, 0x220c, b"Gone");
        assert_eq!(parse(&file).unwrap_err(), ImageError::NoAbi);
        let mut file = sample(ABI_VERSION);
        put(&mut file, 0x2108, &1u64.to_le_bytes());
        assert_eq!(
            parse(&file).unwrap().relocate(0, |_, _| {}),
            Err(ImageError::Relocation(1))
        );
        let mut file = sample(ABI_VERSION);
        put(&mut file, 0x2100, &0x7000u64.to_le_bytes());
        assert_eq!(
            parse(&file).unwrap().relocate(0, |_, _| {}),
            Err(ImageError::Damaged("relocation target"))
        );
    }

    proptest! {
        #[test]
        fn damaged_images_never_panic(changes in prop::collection::vec((0usize..0x400, any::<u8>()), 1..12), tail in 0x2000usize..0x2300, byte: u8) {
            let mut file = sample(ABI_VERSION);
            for (at, value) in changes {
                file[at] = value;
            }
            file[tail] = byte;
            if let Ok(image) = parse(&file) {
                let _ = image.relocate(0x1000, |at, _| assert!(at + 8 <= image.bytes));
                for segment in &image.segments {
                    assert!(image.contents(segment).len() as u64 <= segment.bytes);
                }
            }
        }
    }
}
