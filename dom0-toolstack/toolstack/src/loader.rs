//! Loading a PVH guest: an ELF64 image with a `XEN_ELFNOTE_PHYS32_ENTRY` note, entered in 32-bit
//! protected mode without paging (Xen, "PVH boot ABI", `docs/misc/pvh.pandoc`).
//!
//! Nothing is touched here: the result is a [`LoadPlan`]. Entry point for input nobody vouches for:
//! [`plan`], total and bounded; the image comes from whoever wrote the guest.
//!
//! Guest-physical memory: RAM from 0 to at most [`LOW_MEMORY_END`], the rest from 4 GiB on. The
//! image lies where its program headers say; behind it, page by page, the start information and
//! the ramdisk.

mod elf;
mod start_info;
mod state;
#[cfg(test)]
mod tests;

pub use elf::{NOTES_BYTES_MAX, SEGMENTS_MAX};
pub use start_info::{
    MAP_ENTRY_BYTES, MAP_TYPE_RAM, MODULE_ENTRY_BYTES, START_INFO_BYTES, START_INFO_MAGIC,
};
pub use state::entry_state;

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use godwit_abi::PAGE_SIZE_BYTES;
use godwit_records::VcpuState;

/// RAM below 4 GiB ends here at most; what is between is for devices.
pub const LOW_MEMORY_END: u64 = 3 << 30;
/// Where RAM goes on.
pub const HIGH_MEMORY_START: u64 = 4 << 30;

/// What a guest is to be loaded from.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// The kernel image.
    pub kernel: &'a [u8],
    /// The ramdisk.
    pub ramdisk: Option<&'a [u8]>,
    /// Kernel command line, without zero bytes.
    pub cmdline: &'a str,
    /// Memory, bytes, whole pages.
    pub memory_bytes: u64,
}

/// Bytes to be put into guest memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// Part of an image.
    Image(&'a [u8]),
    /// Made by the loader.
    Made(Vec<u8>),
    /// So many zero bytes, which fresh memory has already.
    Zero(u64),
}

/// A range of guest memory and what it is to hold.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece<'a> {
    /// Guest-physical address.
    pub address: u64,
    /// What goes there.
    pub content: Content<'a>,
}

impl Piece<'_> {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Image(bytes) => bytes.len() as u64,
            Content::Made(bytes) => bytes.len() as u64,
            Content::Zero(bytes) => *bytes,
        }
    }
}

/// What to do to load a guest. Pieces do not overlap and lie in the memory.
#[derive(Clone, Debug)]
pub struct LoadPlan<'a> {
    /// RAM, as ranges of guest-physical addresses, whole pages.
    pub memory: Vec<Range<u64>>,
    /// What memory is to hold, by address.
    pub pieces: Vec<Piece<'a>>,
    /// Guest-physical address of the first instruction.
    pub entry: u32,
    /// Guest-physical address of `hvm_start_info`.
    pub start_info: u32,
    /// The boot vCPU.
    pub state: VcpuState,
}

/// Why an image cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "Display says what each means")]
pub enum LoadError {
    Compressed,
    BzImage,
    NotElf,
    NotElf64LittleEndian,
    Machine(u16),
    PositionIndependent,
    Kind(u16),
    HeadersOutsideFile,
    HeaderSize(u16),
    TooManySegments(u16),
    NothingToLoad,
    SegmentOutsideFile(usize),
    SegmentShrinks(usize),
    SegmentOutsideMemory {
        segment: usize,
        start: u64,
        bytes: u64,
    },
    SegmentsOverlap(usize, usize),
    NotesTooLong(usize),
    NoteDamaged(usize),
    NoEntryNote,
    EntryTwice,
    EntryNoteSize(usize),
    EntryOutside(u64),
    NoRoom {
        what: &'static str,
        bytes: u64,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LoadError::Compressed => f.write_str("it is compressed; unpack it first"),
            LoadError::BzImage => f.write_str(
                "not implemented: Linux bzImage; use the vmlinux of the same build, with CONFIG_PVH",
            ),
            LoadError::NotElf => f.write_str("it is no ELF image"),
            LoadError::NotElf64LittleEndian => f.write_str("it is no 64-bit little-endian ELF image"),
            LoadError::Machine(machine) => {
                write!(f, "it is for ELF machine {machine}, not for x86-64 (62)")
            }
            LoadError::PositionIndependent => f.write_str(
                "it is position-independent; link it for a fixed address (relocation-model static)",
            ),
            LoadError::Kind(kind) => write!(f, "ELF type {kind} is no executable (2)"),
            LoadError::HeadersOutsideFile => f.write_str("its program headers are not in the file"),
            LoadError::HeaderSize(bytes) => {
                write!(f, "its program headers have {bytes} bytes instead of 56")
            }
            LoadError::TooManySegments(count) => {
                write!(f, "it has {count} program headers; at most {SEGMENTS_MAX} are taken")
            }
            LoadError::NothingToLoad => f.write_str("it has nothing to load (no PT_LOAD segment)"),
            LoadError::SegmentOutsideFile(index) => {
                write!(f, "segment {index} is not in the file: the file was cut off")
            }
            LoadError::SegmentShrinks(index) => {
                write!(f, "segment {index} has more bytes in the file than in memory")
            }
            LoadError::SegmentOutsideMemory { segment, start, bytes } => write!(
                f,
                "segment {segment} ({bytes} bytes at {start:#x}) is outside the domain's memory below 3 GiB: give it more memory"
            ),
            LoadError::SegmentsOverlap(left, right) => {
                write!(f, "segments {left} and {right} overlap")
            }
            LoadError::NotesTooLong(index) => write!(
                f,
                "note segment {index} is longer than {NOTES_BYTES_MAX} bytes"
            ),
            LoadError::NoteDamaged(index) => write!(f, "a note in segment {index} is damaged"),
            LoadError::NoEntryNote => f.write_str(
                "it has no PVH entry (ELF note \"Xen\", type 18): for Linux, build with CONFIG_PVH",
            ),
            LoadError::EntryTwice => f.write_str("it has two PVH entries"),
            LoadError::EntryNoteSize(bytes) => {
                write!(f, "its PVH entry note has {bytes} bytes instead of 4 or 8")
            }
            LoadError::EntryOutside(entry) => {
                write!(f, "its PVH entry {entry:#x} is not in what is loaded from the file")
            }
            LoadError::NoRoom { what, bytes } => write!(
                f,
                "no room for the {what} ({bytes} bytes) behind the kernel below 3 GiB: give it more memory"
            ),
        }
    }
}

/// RAM of a guest of `memory_bytes`.
pub fn memory_of(memory_bytes: u64) -> Vec<Range<u64>> {
    let low = memory_bytes.min(LOW_MEMORY_END);
    let mut ranges = alloc::vec![0..low];
    if memory_bytes > low {
        ranges.push(HIGH_MEMORY_START..HIGH_MEMORY_START.saturating_add(memory_bytes - low));
    }
    ranges
}

/// Plans the loading of a guest.
pub fn plan<'a>(guest: &Guest<'a>) -> Result<LoadPlan<'a>, LoadError> {
    let memory = memory_of(guest.memory_bytes);
    let low_end = memory[0].end;
    let image = elf::parse(guest.kernel, low_end)?;
    let mut pieces = Vec::new();
    for segment in &image.segments {
        let file_bytes = segment.bytes.len() as u64;
        let parts = [
            (segment.address, Content::Image(segment.bytes)),
            (
                segment.address + file_bytes,
                Content::Zero(segment.memory_bytes - file_bytes),
            ),
        ];
        let parts = parts.map(|(address, content)| Piece { address, content });
        pieces.extend(parts.into_iter().filter(|piece| piece.bytes() > 0));
    }
    let end = image.end();
    let mut room = Room {
        next: end,
        end: low_end,
    };
    let block_bytes = start_info::bytes(guest, memory.len());
    let start_info = room.take("start information", block_bytes)?;
    let ramdisk = match guest.ramdisk {
        Some(bytes) => Some(room.take("ramdisk", bytes.len() as u64)?),
        None => None,
    };
    let block = start_info::make(guest, start_info, ramdisk, &memory);
    pieces.push(Piece {
        address: start_info,
        content: Content::Made(block),
    });
    if let (Some(bytes), Some(address)) = (guest.ramdisk, ramdisk) {
        pieces.push(Piece {
            address,
            content: Content::Image(bytes),
        });
    }
    let start_info = u32::try_from(start_info).expect("low memory is below 4 GiB");
    Ok(LoadPlan {
        memory,
        pieces,
        entry: image.entry,
        start_info,
        state: entry_state(image.entry, start_info),
    })
}

/// What is free behind the kernel.
struct Room {
    next: u64,
    end: u64,
}

impl Room {
    /// The address of `bytes` from the next page border on.
    fn take(&mut self, what: &'static str, bytes: u64) -> Result<u64, LoadError> {
        let address = self.next.next_multiple_of(PAGE_SIZE_BYTES);
        match address.checked_add(bytes) {
            Some(end) if end <= self.end => {
                self.next = end;
                Ok(address)
            }
            Some(_) | None => Err(LoadError::NoRoom { what, bytes }),
        }
    }
}
