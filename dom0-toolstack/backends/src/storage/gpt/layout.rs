//! The bytes of a GPT: header, entry array and protective MBR (UEFI 2.10, sections 5.2.3 and 5.3).

use super::guid::Guid;
use super::name::{NAME_UNITS_MAX, Name};
use super::table::{Blocks, Partition, Table};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const SIGNATURE: [u8; 8] = *b"EFI PART";
const REVISION: u32 = 0x0001_0000;
/// Entries of a table we make: 16 KiB, what UEFI reserves at least.
pub const ENTRIES: u32 = 128;
/// Entries of a table we read; more are refused.
pub const ENTRIES_MAX: u32 = 1024;
/// Bytes of an entry; the longer ones UEFI allows are refused.
pub(super) const ENTRY_BYTES: u32 = 128;
const HEADER_BYTES: usize = size_of::<Header>();
/// Block of the primary header; its entries follow.
pub(super) const PRIMARY: u64 = 1;

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    header_bytes: U32,
    header_crc: U32,
    reserved: U32,
    block: U64,
    other: U64,
    first_usable: U64,
    last_usable: U64,
    disk_guid: [u8; 16],
    entries: U64,
    entry_count: U32,
    entry_bytes: U32,
    entries_crc: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    kind: [u8; 16],
    guid: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
    name: [U16; NAME_UNITS_MAX],
}

const _: () = assert!(HEADER_BYTES == 92 && size_of::<Entry>() == ENTRY_BYTES as usize);

/// What is wrong with a copy of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Its blocks cannot be read.
    Unreadable(crate::disk::DiskError),
    /// There is no header.
    NoSignature,
    /// The header's length makes no sense.
    HeaderLength(u32),
    /// The header's CRC is wrong.
    HeaderCrc,
    /// The header says it belongs elsewhere.
    Place(u64),
    /// Usable blocks or entries do not fit the disk.
    OutsideDisk,
    /// The CRC of the entries is wrong.
    EntriesCrc,
    /// A partition lies outside of the usable blocks or on another one.
    Entry(u32),
    /// Right by its CRC, but of a kind that is not supported: never overwritten.
    Foreign(&'static str),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Unreadable(error) => write!(f, "unreadable: {error}"),
            Damage::NoSignature => f.write_str("no header there"),
            Damage::HeaderLength(bytes) => write!(f, "a header of {bytes} bytes"),
            Damage::HeaderCrc => f.write_str("the header's CRC is wrong"),
            Damage::Place(block) => write!(f, "the header belongs to block {block}"),
            Damage::OutsideDisk => f.write_str("the header speaks of blocks outside of the disk"),
            Damage::EntriesCrc => f.write_str("the CRC of the entries is wrong"),
            Damage::Entry(slot) => write!(f, "partition {} is misplaced", slot + 1),
            Damage::Foreign(what) => write!(f, "{what} are not supported"),
        }
    }
}

/// A header that was checked, without its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    /// Where the other header is.
    pub(super) other: u64,
    /// First block of the entries.
    pub(super) entries: u64,
    /// Blocks of the entries.
    pub(super) entry_blocks: u64,
    slots: u32,
    entries_crc: u32,
    disk_guid: Guid,
    first_usable: u64,
    last_usable: u64,
}

/// Blocks an array of `slots` entries takes.
pub(super) fn entry_blocks(slots: u32, block_bytes: usize) -> u64 {
    (u64::from(slots) * u64::from(ENTRY_BYTES)).div_ceil(block_bytes as u64)
}

/// Checks the header in `bytes`, read from `block` of a disk of `disk_blocks`.
pub(super) fn check_header(bytes: &[u8], block: u64, disk_blocks: u64) -> Result<Checked, Damage> {
    let Ok((header, _)) = Header::read_from_prefix(bytes) else {
        return Err(Damage::NoSignature);
    };
    if header.signature != SIGNATURE {
        return Err(Damage::NoSignature);
    }
    let length = header.header_bytes.get() as usize;
    if !(HEADER_BYTES..=bytes.len()).contains(&length) {
        return Err(Damage::HeaderLength(header.header_bytes.get()));
    }
    let mut digest = CRC.digest();
    digest.update(&bytes[..16]);
    digest.update(&[0; 4]);
    digest.update(&bytes[20..length]);
    if digest.finalize() != header.header_crc.get() {
        return Err(Damage::HeaderCrc);
    }
    if header.block.get() != block {
        return Err(Damage::Place(header.block.get()));
    }
    let slots = header.entry_count.get();
    let foreign = match () {
        () if header.revision.get() != REVISION => Some("headers of this revision"),
        () if header.entry_bytes.get() != ENTRY_BYTES => Some("entries of this length"),
        () if !(1..=ENTRIES_MAX).contains(&slots) => Some("this many entries"),
        () if block == PRIMARY && header.entries.get() != PRIMARY + 1 => Some("entries elsewhere"),
        () => None,
    };
    if let Some(what) = foreign {
        return Err(Damage::Foreign(what));
    }
    let checked = Checked {
        other: header.other.get(),
        entries: header.entries.get(),
        entry_blocks: entry_blocks(slots, bytes.len()),
        slots,
        entries_crc: header.entries_crc.get(),
        disk_guid: Guid(header.disk_guid),
        first_usable: header.first_usable.get(),
        last_usable: header.last_usable.get(),
    };
    let end = checked.entries.checked_add(checked.entry_blocks);
    // The primary header lies before all of it, the backup behind all of it.
    let fits = checked.first_usable > PRIMARY + checked.entry_blocks
        && checked.first_usable <= checked.last_usable
        && checked.last_usable < disk_blocks - 1 - checked.entry_blocks
        && end.is_some_and(|end| end < disk_blocks)
        && (block == PRIMARY || checked.entries > checked.last_usable);
    if fits {
        Ok(checked)
    } else {
        Err(Damage::OutsideDisk)
    }
}

impl Checked {
    /// The table, once its entries were read: `entry_blocks` from block `entries` on.
    pub(super) fn table(&self, entries: &[u8]) -> Result<Table, Damage> {
        let entries = &entries[..self.slots as usize * ENTRY_BYTES as usize];
        if CRC.checksum(entries) != self.entries_crc {
            return Err(Damage::EntriesCrc);
        }
        let mut table = Table::new(
            self.disk_guid,
            self.slots,
            self.first_usable,
            self.last_usable,
        );
        for (slot, bytes) in entries.chunks_exact(ENTRY_BYTES as usize).enumerate() {
            let slot = slot as u32;
            let entry = Entry::read_from_bytes(bytes).map_err(|_| Damage::Entry(slot))?;
            if entry.kind == Guid::ZERO.0 {
                continue;
            }
            let (first, last) = (entry.first.get(), entry.last.get());
            let count = last.checked_sub(first).and_then(|more| more.checked_add(1));
            let partition = Partition {
                slot,
                kind: Guid(entry.kind),
                guid: Guid(entry.guid),
                blocks: Blocks {
                    first,
                    count: count.ok_or(Damage::Entry(slot))?,
                },
                attributes: entry.attributes.get(),
                name: Name(entry.name.map(U16::get)),
            };
            let put = table.insert(partition);
            put.map_err(|_| Damage::Entry(slot))?;
        }
        Ok(table)
    }
}

/// The entry array, in whole blocks.
pub(super) fn encode_entries(table: &Table, block_bytes: usize) -> Vec<u8> {
    let blocks = entry_blocks(table.slots, block_bytes) as usize;
    let mut bytes = vec![0; blocks * block_bytes];
    for partition in table.partitions() {
        let entry = Entry {
            kind: partition.kind.0,
            guid: partition.guid.0,
            first: partition.blocks.first.into(),
            last: (partition.blocks.end() - 1).into(),
            attributes: partition.attributes.into(),
            name: partition.name.0.map(U16::new),
        };
        let at = partition.slot as usize * ENTRY_BYTES as usize;
        bytes[at..at + ENTRY_BYTES as usize].copy_from_slice(entry.as_bytes());
    }
    bytes
}

/// The header block at `block`, with its copy at `other` and its entries (as `encode_entries`
/// made them) at `entries_at`.
pub(super) fn encode_header(
    table: &Table,
    entries: &[u8],
    block_bytes: usize,
    (block, other, entries_at): (u64, u64, u64),
) -> Vec<u8> {
    let used = table.slots as usize * ENTRY_BYTES as usize;
    let mut header = Header {
        signature: SIGNATURE,
        revision: REVISION.into(),
        header_bytes: (HEADER_BYTES as u32).into(),
        header_crc: 0.into(),
        reserved: 0.into(),
        block: block.into(),
        other: other.into(),
        first_usable: table.first_usable.into(),
        last_usable: table.last_usable.into(),
        disk_guid: table.disk_guid.0,
        entries: entries_at.into(),
        entry_count: table.slots.into(),
        entry_bytes: ENTRY_BYTES.into(),
        entries_crc: CRC.checksum(&entries[..used]).into(),
    };
    header.header_crc = CRC.checksum(header.as_bytes()).into();
    let mut bytes = vec![0; block_bytes];
    bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    bytes
}

/// Offset of the first of the four MBR partition records, and of the signature.
const MBR_RECORDS: usize = 446;
const MBR_SIGNATURE: usize = 510;
const MBR_PROTECTIVE: u8 = 0xee;

/// Block 0: one partition of type 0xEE over the whole disk.
pub(super) fn encode_mbr(disk_blocks: u64, block_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; block_bytes];
    let record = &mut bytes[MBR_RECORDS..MBR_RECORDS + 16];
    record[1..8].copy_from_slice(&[0, 2, 0, MBR_PROTECTIVE, 0xff, 0xff, 0xff]);
    record[8..12].copy_from_slice(&1u32.to_le_bytes());
    let size = u32::try_from(disk_blocks - 1).unwrap_or(u32::MAX);
    record[12..].copy_from_slice(&size.to_le_bytes());
    bytes[MBR_SIGNATURE..MBR_SIGNATURE + 2].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

/// Whether block 0 says "GPT" to those who know only MBRs.
pub(super) fn is_protective(bytes: &[u8]) -> bool {
    let records = bytes[MBR_RECORDS..MBR_SIGNATURE].chunks_exact(16);
    let kinds = records.map(|record| record[4]);
    bytes[MBR_SIGNATURE..MBR_SIGNATURE + 2] == [0x55, 0xaa]
        && kinds.into_iter().any(|kind| kind == MBR_PROTECTIVE)
}
