//! Why an image cannot be loaded.

use super::SEGMENTS_MAX;
use super::elf::NOTES_BYTES_MAX;
use super::multiboot::HEADER_SEARCH_BYTES;
use crate::acpi::VCPUS_MAX;
use core::fmt;

/// Why a guest cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "Display says what each means")]
pub enum LoadError {
    MemoryTooSmall(u64),
    Vcpus(u32),
    NoRoom { what: &'static str, bytes: u64 },
    Compressed,
    Unknown,
    NotElf,
    ElfClass,
    NoEntry,
    Elf(ElfError),
    Linux(LinuxError),
    Multiboot(MultibootError),
}

/// Why an ELF image cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "Display says what each means")]
pub enum ElfError {
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
    EntryTwice,
    EntryNoteSize(usize),
    EntryOutside(u64),
}

/// Why a bzImage cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "Display says what each means")]
pub enum LinuxError {
    SetupCutOff,
    Protocol(u16),
    LoadedLow,
    KernelCutOff { expected: u64, present: u64 },
    Alignment(u32),
    NotRelocatable(u64),
    KernelOutsideMemory { start: u64, bytes: u64 },
    CommandLineTooLong { bytes: usize, most: u32 },
}

/// Why a Multiboot image cannot be loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "Display says what each means")]
pub enum MultibootError {
    Requires(u32),
    Addresses,
    OutsideMemory { start: u64, bytes: u64 },
}

impl From<ElfError> for LoadError {
    fn from(error: ElfError) -> Self {
        Self::Elf(error)
    }
}

impl From<LinuxError> for LoadError {
    fn from(error: LinuxError) -> Self {
        Self::Linux(error)
    }
}

impl From<MultibootError> for LoadError {
    fn from(error: MultibootError) -> Self {
        Self::Multiboot(error)
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LoadError::MemoryTooSmall(bytes) => {
                write!(f, "{bytes} bytes of memory are too few: give it at least 2 MiB")
            }
            LoadError::Vcpus(count) => {
                write!(f, "{count} vCPUs cannot be described: 1 to {VCPUS_MAX} can")
            }
            LoadError::NoRoom { what, bytes } => write!(
                f,
                "no room for the {what} ({bytes} bytes) behind the kernel below 3 GiB: give it more memory"
            ),
            LoadError::Compressed => f.write_str("it is compressed; unpack it first"),
            LoadError::Unknown => f.write_str(
                "it is no kernel that can be loaded: no Linux bzImage, no ELF image, no Multiboot image",
            ),
            LoadError::NotElf => f.write_str("it is no ELF image, and its Multiboot header gives no addresses"),
            LoadError::ElfClass => {
                f.write_str("it is neither a 64-bit nor a 32-bit little-endian ELF image")
            }
            LoadError::NoEntry => write!(
                f,
                "it has no PVH entry (64-bit ELF with note \"Xen\", type 18; for Linux, build with CONFIG_PVH or use the bzImage) and no Multiboot header in its first {HEADER_SEARCH_BYTES} bytes"
            ),
            LoadError::Elf(error) => error.fmt(f),
            LoadError::Linux(error) => error.fmt(f),
            LoadError::Multiboot(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ElfError::Machine(machine) => {
                write!(
                    f,
                    "it is for ELF machine {machine}, not for x86 (62 with 64-bit, 3 with 32-bit images)"
                )
            }
            ElfError::PositionIndependent => f.write_str(
                "it is position-independent; link it for a fixed address (relocation-model static)",
            ),
            ElfError::Kind(kind) => write!(f, "ELF type {kind} is no executable (2)"),
            ElfError::HeadersOutsideFile => f.write_str("its program headers are not in the file"),
            ElfError::HeaderSize(bytes) => {
                write!(
                    f,
                    "its program headers have {bytes} bytes instead of 56 (64-bit) or 32 (32-bit)"
                )
            }
            ElfError::TooManySegments(count) => {
                write!(
                    f,
                    "it has {count} program headers; at most {SEGMENTS_MAX} are taken"
                )
            }
            ElfError::NothingToLoad => f.write_str("it has nothing to load (no PT_LOAD segment)"),
            ElfError::SegmentOutsideFile(index) => {
                write!(
                    f,
                    "segment {index} is not in the file: the file was cut off"
                )
            }
            ElfError::SegmentShrinks(index) => {
                write!(
                    f,
                    "segment {index} has more bytes in the file than in memory"
                )
            }
            ElfError::SegmentOutsideMemory {
                segment,
                start,
                bytes,
            } => write!(
                f,
                "segment {segment} ({bytes} bytes at {start:#x}) is outside the domain's RAM below 3 GiB (up to 640 KiB, from 1 MiB on): give it more memory"
            ),
            ElfError::SegmentsOverlap(left, right) => {
                write!(f, "segments {left} and {right} overlap")
            }
            ElfError::NotesTooLong(index) => write!(
                f,
                "note segment {index} is longer than {NOTES_BYTES_MAX} bytes"
            ),
            ElfError::NoteDamaged(index) => write!(f, "a note in segment {index} is damaged"),
            ElfError::EntryTwice => f.write_str("it has two PVH entries"),
            ElfError::EntryNoteSize(bytes) => {
                write!(f, "its PVH entry note has {bytes} bytes instead of 4 or 8")
            }
            ElfError::EntryOutside(entry) => {
                write!(
                    f,
                    "its entry {entry:#x} is not in what is loaded from the file"
                )
            }
        }
    }
}

impl fmt::Display for LinuxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            LinuxError::SetupCutOff => f.write_str("its Linux setup header is damaged or cut off"),
            LinuxError::Protocol(version) => write!(
                f,
                "its Linux boot protocol is {}.{}; 2.10 or later is needed",
                version >> 8,
                version & 0xff
            ),
            LinuxError::LoadedLow => {
                f.write_str("it is a Linux zImage, to be loaded below 1 MiB; use a bzImage")
            }
            LinuxError::KernelCutOff { expected, present } => write!(
                f,
                "it was cut off: the kernel proper has {present} bytes of {expected}"
            ),
            LinuxError::Alignment(alignment) => {
                write!(f, "its kernel_alignment {alignment:#x} is no power of two")
            }
            LinuxError::NotRelocatable(address) => write!(
                f,
                "it runs at {address:#x} only, which is below 1 MiB or not aligned as it demands"
            ),
            LinuxError::KernelOutsideMemory { start, bytes } => write!(
                f,
                "it needs {bytes} bytes at {start:#x}, which the domain does not have below 3 GiB: give it {} MiB of memory or more",
                start.saturating_add(bytes).div_ceil(1 << 20)
            ),
            LinuxError::CommandLineTooLong { bytes, most } => {
                write!(
                    f,
                    "the command line has {bytes} bytes; this kernel takes {most}"
                )
            }
        }
    }
}

impl fmt::Display for MultibootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MultibootError::Requires(flags) => write!(
                f,
                "its Multiboot header requires what there is not (flags {flags:#x}; there are 1 pages, 2 memory)"
            ),
            MultibootError::Addresses => f.write_str(
                "the addresses in its Multiboot header contradict each other or the file",
            ),
            MultibootError::OutsideMemory { start, bytes } => write!(
                f,
                "it needs {bytes} bytes at {start:#x}, which is not in the domain's RAM below 3 GiB (up to 640 KiB, from 1 MiB on): give it more memory"
            ),
        }
    }
}
