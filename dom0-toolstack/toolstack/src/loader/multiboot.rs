//! Multiboot 1 images (Multiboot Specification 0.6.96): ELF, or any file whose Multiboot header
//! gives the addresses. Entered in 32-bit protected mode with EAX = 0x2BADB002 and EBX = the
//! information structure.
//!
//! The ramdisk is the one module. The command line is passed as it stands, without a program name
//! before it. Behind the kernel lie, page by page, the information and the module.

use super::bytes::{range, word};
use super::elf::Image;
use super::memory::{CONVENTIONAL_END, EXTENDED_START, Room};
use super::{Content, Ground, LoadError, Loaded, MultibootError, Piece, state};
use alloc::vec::Vec;

/// The header lies in so many bytes at the beginning of the file.
pub(super) const HEADER_SEARCH_BYTES: usize = 8192;

const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// Header flags: what the loader must understand.
const REQUIRED: u32 = 0xffff;
/// Modules on page borders, and information about memory: what is always given.
const UNDERSTOOD: u32 = 0b11;
/// Header flags: the addresses are there.
const ADDRESSES: u32 = 1 << 16;

/// Memory sizes, command line, modules, memory map, name of the loader.
const INFO_FLAGS: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const INFO_BYTES: usize = 120;
const MODULE_BYTES: usize = 16;
const MAP_ENTRY_BYTES: usize = 24;
const LOADER_NAME: &[u8] = b"Godwit\0";

/// A header.
pub(super) struct Header {
    /// Where it is in the file.
    offset: usize,
    flags: u32,
}

/// Looks for the header.
pub(super) fn find(file: &[u8]) -> Option<Header> {
    let area = &file[..file.len().min(HEADER_SEARCH_BYTES)];
    (0..area.len()).step_by(4).find_map(|offset| {
        let (magic, flags) = (word(area, offset)?, word(area, offset + 4)?);
        let checksum = word(area, offset + 8)?;
        let sum = magic.wrapping_add(flags).wrapping_add(checksum);
        (magic == HEADER_MAGIC && sum == 0).then_some(Header { offset, flags })
    })
}

/// Plans an image; the addresses of its header, if there are any, go before those of the ELF image.
pub(super) fn load<'a>(
    ground: &Ground<'a, '_>,
    header: &Header,
    image: Option<&Image<'a>>,
) -> Result<Loaded<'a>, LoadError> {
    let requires = header.flags & REQUIRED & !UNDERSTOOD;
    if requires != 0 {
        return Err(MultibootError::Requires(requires).into());
    }
    let (mut pieces, end, entry) = match image {
        _ if header.flags & ADDRESSES != 0 => by_addresses(ground, header)?,
        Some(image) => (image.pieces(), image.end(), image.header_entry()?),
        None => return Err(LoadError::NotElf),
    };
    let mut room = Room::behind(end, ground.map);
    let guest = ground.guest;
    let info_at = room.take("Multiboot information", info_bytes(ground) as u64)?;
    let module = match guest.ramdisk {
        Some(bytes) => {
            let address = room.take("ramdisk", bytes.len() as u64)?;
            pieces.push(Piece::image(address, bytes));
            Some((address, bytes.len() as u64))
        }
        None => None,
    };
    pieces.push(Piece::made(info_at, info(ground, info_at, module)));
    let mut state = state::protected_mode(entry);
    state.gprs[state::RAX] = LOADER_MAGIC;
    state.gprs[state::RBX] = info_at;
    Ok(Loaded { pieces, state })
}

/// An image by the addresses in its header (section 3.1.3): what lies in the file around the header
/// goes around `header_addr` in memory. Returns its pieces, its end and its entry.
fn by_addresses<'a>(
    ground: &Ground<'a, '_>,
    header: &Header,
) -> Result<(Vec<Piece<'a>>, u64, u32), LoadError> {
    let file = ground.guest.kernel;
    let bad = MultibootError::Addresses;
    let field = |index: usize| word(file, header.offset + 12 + index * 4).ok_or(bad);
    let (header_addr, load_addr) = (field(0)?, field(1)?);
    let (load_end, bss_end, entry) = (field(2)?, field(3)?, field(4)?);
    let before = header_addr.checked_sub(load_addr).ok_or(bad)?;
    let start = (header.offset as u64)
        .checked_sub(before.into())
        .ok_or(bad)?;
    let bytes = match load_end {
        0 => (file.len() as u64).checked_sub(start),
        end => end.checked_sub(load_addr).map(u64::from),
    };
    let bytes = bytes
        .and_then(|bytes| range(file, start, bytes))
        .ok_or(bad)?;
    let load_addr = u64::from(load_addr);
    let loaded_end = load_addr + bytes.len() as u64;
    let end = match bss_end {
        0 => loaded_end,
        end if u64::from(end) >= loaded_end => end.into(),
        _ => return Err(bad.into()),
    };
    if !(load_addr..loaded_end).contains(&entry.into()) {
        return Err(bad.into());
    }
    if !ground.map.has_low_ram(load_addr, end - load_addr) {
        return Err(MultibootError::OutsideMemory {
            start: load_addr,
            bytes: end - load_addr,
        }
        .into());
    }
    let bss = Piece {
        address: loaded_end,
        content: Content::Zero(end - loaded_end),
    };
    Ok((alloc::vec![Piece::image(load_addr, bytes), bss], end, entry))
}

fn info_bytes(ground: &Ground<'_, '_>) -> usize {
    text_offset(ground) + ground.guest.cmdline.len() + 1
}

/// Behind the structure lie module list, memory map, loader's name and command line.
fn text_offset(ground: &Ground<'_, '_>) -> usize {
    let map = ground.map.ranges.len() * MAP_ENTRY_BYTES;
    INFO_BYTES + MODULE_BYTES + map + LOADER_NAME.len()
}

/// The information structure (section 3.3) as it is to lie at `address`.
fn info(ground: &Ground<'_, '_>, address: u64, module: Option<(u64, u64)>) -> Vec<u8> {
    let address = u32::try_from(address).expect("low memory is below 4 GiB");
    let map_at = INFO_BYTES + MODULE_BYTES;
    let map_bytes = ground.map.ranges.len() * MAP_ENTRY_BYTES;
    let mut block = alloc::vec![0; INFO_BYTES];
    let upper = ground.map.low_end() - EXTENDED_START;
    for (at, value) in [
        (0, INFO_FLAGS),
        (4, (CONVENTIONAL_END >> 10) as u32),
        (8, (upper >> 10) as u32),
        (16, address + text_offset(ground) as u32),
        (20, u32::from(module.is_some())),
        (24, address + INFO_BYTES as u32),
        (44, map_bytes as u32),
        (48, address + map_at as u32),
        (64, address + (map_at + map_bytes) as u32),
    ] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let (start, bytes) = module.unwrap_or((0, 0));
    let name_end = address + (text_offset(ground) - 1) as u32;
    for value in [start as u32, (start + bytes) as u32, name_end, 0] {
        block.extend(value.to_le_bytes());
    }
    for (range, kind) in &ground.map.ranges {
        block.extend((MAP_ENTRY_BYTES as u32 - 4).to_le_bytes());
        block.extend(range.start.to_le_bytes());
        block.extend((range.end - range.start).to_le_bytes());
        block.extend((*kind as u32).to_le_bytes());
    }
    block.extend(LOADER_NAME);
    block.extend(ground.guest.cmdline.as_bytes());
    block.push(0);
    assert_eq!(block.len(), info_bytes(ground));
    block
}
