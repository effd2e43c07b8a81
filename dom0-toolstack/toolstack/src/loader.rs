//! Loading a guest's kernel. [`plan`] recognises what the image is:
//!
//! | image | recognised by | entered in |
//! |---|---|---|
//! | ELF64 with a PVH note | ELF magic, note "Xen" type 18 | 32-bit protected mode, EBX = `hvm_start_info` |
//! | Multiboot 1, ELF or with addresses in its header | `0x1BADB002` in the first 8 KiB | 32-bit protected mode, EBX = Multiboot information |
//! | Linux bzImage | "HdrS" at 0x202 | long mode (64-bit kernels) or protected mode, RSI = `boot_params` |
//!
//! Nothing is touched here: the result is a [`LoadPlan`]. Entry point for input nobody vouches for:
//! [`plan`], total and bounded; the image comes from whoever wrote the guest.
//!
//! Every guest finds the ACPI tables ([`crate::acpi`]) below 1 MiB and is told where, if its protocol
//! can say so. Of the machine only memory and the boot vCPU's record are set. The rest is as after a
//! reset, which the guests' kernels rely on: local APICs in xAPIC mode, software-disabled, other
//! vCPUs waiting for a start-up IPI, interrupt controllers and timers untouched (no firmware ran, so
//! none programmed them), PCI base addresses unassigned.

mod bytes;
mod bzimage;
mod elf;
mod error;
mod memory;
mod multiboot;
mod page_tables;
mod pvh;
mod start_info;
mod state;
#[cfg(test)]
mod tests;

pub use elf::{NOTES_BYTES_MAX, SEGMENTS_MAX};
pub use error::{ElfError, LinuxError, LoadError, MultibootError};
pub use memory::{
    CONVENTIONAL_END, EXTENDED_START, HIGH_MEMORY_START, LOW_MEMORY_END, MemoryMap, RangeKind,
    memory_of,
};
pub use start_info::{MAP_ENTRY_BYTES, MODULE_ENTRY_BYTES, START_INFO_BYTES, START_INFO_MAGIC};

use crate::acpi;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_records::VcpuState;

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
    /// vCPUs; APIC ids count from 0.
    pub vcpus: u32,
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

impl<'a> Piece<'a> {
    /// Part of an image.
    fn image(address: u64, bytes: &'a [u8]) -> Self {
        let content = Content::Image(bytes);
        Self { address, content }
    }

    /// Bytes made by the loader.
    fn made(address: u64, bytes: Vec<u8>) -> Self {
        let content = Content::Made(bytes);
        Self { address, content }
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        match &self.content {
            Content::Image(bytes) => bytes.len() as u64,
            Content::Made(bytes) => bytes.len() as u64,
            Content::Zero(bytes) => *bytes,
        }
    }
}

/// What to do to load a guest. Pieces do not overlap, are not empty and lie in the memory.
#[derive(Clone, Debug)]
pub struct LoadPlan<'a> {
    /// What to populate, as ranges of guest-physical addresses, whole pages.
    pub memory: Vec<Range<u64>>,
    /// What memory is to hold.
    pub pieces: Vec<Piece<'a>>,
    /// The boot vCPU at the kernel's first instruction.
    pub state: VcpuState,
}

/// What the loader of one kind of image is given.
struct Ground<'a, 'g> {
    guest: &'g Guest<'a>,
    map: &'g MemoryMap,
    /// Guest-physical address of the RSDP.
    rsdp: u64,
}

/// What it makes of that.
struct Loaded<'a> {
    pieces: Vec<Piece<'a>>,
    state: VcpuState,
}

/// Plans the loading of a guest.
pub fn plan<'a>(guest: &Guest<'a>) -> Result<LoadPlan<'a>, LoadError> {
    let tables = acpi::tables(guest.vcpus).ok_or(LoadError::Vcpus(guest.vcpus))?;
    let ground = Ground {
        guest,
        map: &MemoryMap::new(guest.memory_bytes)?,
        rsdp: tables.rsdp,
    };
    let Loaded { mut pieces, state } = load(&ground)?;
    pieces.push(Piece::made(acpi::TABLES_START, tables.bytes));
    pieces.retain(|piece| piece.bytes() > 0);
    Ok(LoadPlan {
        memory: memory_of(guest.memory_bytes),
        pieces,
        state,
    })
}

fn load<'a>(ground: &Ground<'a, '_>) -> Result<Loaded<'a>, LoadError> {
    let kernel = ground.guest.kernel;
    if elf::recognises(kernel) {
        let image = elf::parse(kernel, ground.map)?;
        if let Some(entry) = image.pvh_entry {
            return pvh::load(ground, &image, entry);
        }
        let header = multiboot::find(kernel).ok_or(LoadError::NoEntry)?;
        return multiboot::load(ground, &header, Some(&image));
    }
    if bzimage::recognises(kernel) {
        return bzimage::load(ground);
    }
    match multiboot::find(kernel) {
        Some(header) => multiboot::load(ground, &header, None),
        None => Err(what_it_is(kernel)),
    }
}

/// Names an image that no loader takes.
fn what_it_is(kernel: &[u8]) -> LoadError {
    match kernel {
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] | [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            LoadError::Compressed
        }
        [0x7f, b'E', b'L', b'F', ..] => LoadError::ElfClass,
        _ => LoadError::Unknown,
    }
}
