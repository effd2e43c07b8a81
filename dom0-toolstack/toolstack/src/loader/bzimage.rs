//! Linux bzImages (Linux, `Documentation/arch/x86/boot.rst` and `zero-page.rst`).
//!
//! A 64-bit kernel is entered by the 64-bit boot protocol, 0x200 bytes behind its load address, in
//! long mode; others, and those that do not say (before protocol 2.12), by the 32-bit protocol at
//! the load address itself. The kernel lies at the address it prefers, the ramdisk as high as it can
//! reach, and what the loader makes for it from [`TABLES_START`] on.

mod header;
mod zero_page;

use super::memory::{CONVENTIONAL_END, Room};
use super::page_tables::{self, TABLES_BYTES};
use super::{Content, Ground, LinuxError, LoadError, Loaded, MemoryMap, Piece, state};
use alloc::vec::Vec;
use header::SetupHeader;
use zero_page::ZeroPage;

/// What the loader makes lies from here on: Linux gives the first 64 KiB to nobody.
const TABLES_START: u64 = 64 << 10;
/// The 64-bit entry, from the load address.
const ENTRY_64_OFFSET: u64 = 0x200;

pub(super) use header::recognises;

/// Plans a bzImage.
pub(super) fn load<'a>(ground: &Ground<'a, '_>) -> Result<Loaded<'a>, LoadError> {
    let guest = ground.guest;
    let header = SetupHeader::parse(guest.kernel)?;
    let kernel = header.kernel(guest.kernel)?;
    let cmdline = cmdline(&header, guest.cmdline)?;
    let runs_in_bytes = u64::from(header.init_size_bytes).max(kernel.len() as u64);
    let start = place(&header, ground.map, runs_in_bytes)?;
    let mut room = Room::behind(start + runs_in_bytes, ground.map);
    let ramdisk = match guest.ramdisk {
        Some(bytes) => {
            let end = u64::from(header.ramdisk_address_max) + 1;
            let address = room.take_high("ramdisk", bytes.len() as u64, end)?;
            Some((address, bytes))
        }
        None => None,
    };
    let mut low = Room::new(TABLES_START..CONVENTIONAL_END);
    let table = state::descriptor_table(header.is_64_bit);
    let table_at = low.take("descriptor table", table.len() as u64)?;
    let cmdline_at = low.take("command line", cmdline.len() as u64)?;
    let zero_page_at = low.take("zero page", zero_page::BYTES as u64)?;
    let zero_page = ZeroPage {
        header: &header,
        start,
        ramdisk,
        cmdline: cmdline_at,
        rsdp: ground.rsdp,
        map: ground.map,
    };
    let behind_kernel = start + kernel.len() as u64;
    let mut pieces = alloc::vec![
        Piece::image(start, kernel),
        Piece {
            address: behind_kernel,
            content: Content::Zero(runs_in_bytes - kernel.len() as u64),
        },
        Piece::made(table_at, table.into()),
        Piece::made(cmdline_at, cmdline),
        Piece::made(zero_page_at, zero_page.make()),
    ];
    pieces.extend(ramdisk.map(|(address, bytes)| Piece::image(address, bytes)));
    let mut state = if header.is_64_bit {
        let root = low.take("page tables", TABLES_BYTES)?;
        pieces.push(Piece::made(root, page_tables::make(root)));
        state::long_mode(start + ENTRY_64_OFFSET, table_at, root)
    } else {
        let entry = u32::try_from(start).expect("low memory is below 4 GiB");
        state::linux_protected_mode(entry, table_at)
    };
    state.gprs[state::RSI] = zero_page_at;
    Ok(Loaded { pieces, state })
}

/// The command line with the zero byte that ends it.
fn cmdline(header: &SetupHeader<'_>, line: &str) -> Result<Vec<u8>, LinuxError> {
    let (bytes, most) = (line.len(), header.cmdline_bytes_max);
    if bytes as u64 > u64::from(most) {
        return Err(LinuxError::CommandLineTooLong { bytes, most });
    }
    let mut line = Vec::from(line);
    line.push(0);
    Ok(line)
}

/// Where the kernel goes. A relocatable kernel is never put below the address it prefers, even
/// though the protocol permits it: Linux takes that as the least address it can be unpacked to, and
/// would overwrite what is not memory instead of telling anyone.
fn place(header: &SetupHeader<'_>, map: &MemoryMap, bytes: u64) -> Result<u64, LinuxError> {
    let preferred = header.preferred_address;
    let alignment = header.alignment_bytes;
    let start = if header.relocatable {
        let least = preferred.max(super::EXTENDED_START);
        least.checked_next_multiple_of(alignment)
    } else if preferred >= super::EXTENDED_START && preferred.is_multiple_of(alignment) {
        Some(preferred)
    } else {
        return Err(LinuxError::NotRelocatable(preferred));
    };
    match start {
        Some(start) if map.has_low_ram(start, bytes) => Ok(start),
        Some(_) | None => Err(LinuxError::KernelOutsideMemory {
            start: preferred,
            bytes,
        }),
    }
}
