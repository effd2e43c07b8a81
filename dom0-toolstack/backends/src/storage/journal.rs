//! A journal on a partition of its own: records are appended, and what was acknowledged is there
//! after any power cut.
//!
//! The partition has two regions of equal size, one of which is current: the one whose header is
//! whole and has the higher generation. Behind the header lie records, each from a block of its
//! own on, with consecutive numbers; the first block that is no such record ends them.
//!
//! ```text
//!   region   │ header │ record 7 │ record 8 (3 blocks)   │ zeroes ...
//!   header   magic u64, generation u64, first sequence u64, CRC-32 u32
//!   record   magic u32, CRC-32 u32 of all that follows, generation u64, sequence u64, kind u32,
//!            length u32, bytes
//! ```
//!
//! All little-endian. Invariant: behind the last record the region is zeroes, so nothing old can
//! be taken for a record; opening restores that after a cut. A *checkpoint* writes what is still
//! needed to the other region, and its header last.

use super::blocks::Blocks;
use super::copy::zero;
use crate::disk::DiskError;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
const REGION_MAGIC: [u8; 8] = *b"GODWITJ1";
const RECORD_MAGIC: [u8; 4] = *b"GWJR";
/// Most bytes of a record.
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// Most bytes of a region: it is read whole.
pub const REGION_BYTES_MAX: u64 = 16 << 20;
/// Generations and first numbers from here on are nobody's, so that counting on never wraps.
const COUNT_MAX: u64 = 1 << 63;
/// Fewest bytes of a partition.
pub const PARTITION_BYTES_MIN: u64 = 512 << 10;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RegionHead {
    magic: [u8; 8],
    generation: U64,
    first: U64,
    crc: U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RecordHead {
    magic: [u8; 4],
    crc: U32,
    generation: U64,
    sequence: U64,
    kind: U32,
    length: U32,
}

pub(super) const RECORD_HEAD_BYTES: usize = size_of::<RecordHead>();

/// Something that was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number: one more than that of the record before.
    pub sequence: u64,
    /// What it is, as its writer said.
    pub kind: u32,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Why a journal was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalError {
    /// The disk did not do it.
    Disk(DiskError),
    /// No region has a header: the partition was never formatted.
    NotFormatted,
    /// The partition is too small.
    TooSmall {
        /// Its size in bytes.
        bytes: u64,
    },
    /// A record is too long.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
    },
    /// The region is full: make a checkpoint.
    Full,
}

impl From<DiskError> for JournalError {
    fn from(error: DiskError) -> JournalError {
        JournalError::Disk(error)
    }
}

impl fmt::Display for JournalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JournalError::Disk(error) => error.fmt(f),
            JournalError::NotFormatted => f.write_str("the journal was never formatted"),
            JournalError::TooSmall { bytes } => write!(
                f,
                "a partition of {bytes} bytes is too small for a journal: it takes \
                 {PARTITION_BYTES_MIN}"
            ),
            JournalError::TooLong { bytes } => write!(
                f,
                "a record of {bytes} bytes is too long: at most {RECORD_BYTES_MAX}"
            ),
            JournalError::Full => f.write_str("the journal is full: a checkpoint makes room"),
        }
    }
}

/// What a region holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// The higher of the two is current.
    pub generation: u64,
    /// The number its first record has or will have.
    pub first: u64,
    /// Its records.
    pub records: Vec<Record>,
    /// Bytes up to the end of the last record.
    pub end: usize,
}

/// Reads a region. `None`: it has no header that is whole.
pub fn scan(bytes: &[u8], block_bytes: usize) -> Option<Region> {
    let (head, _) = RegionHead::read_from_prefix(bytes).ok()?;
    let crc = CRC.checksum(&head.as_bytes()[..24]);
    let sane = head.generation.get() < COUNT_MAX && head.first.get() < COUNT_MAX;
    if head.magic != REGION_MAGIC || head.crc.get() != crc || !sane {
        return None;
    }
    let mut region = Region {
        generation: head.generation.get(),
        first: head.first.get(),
        records: Vec::new(),
        end: block_bytes,
    };
    while let Some((record, length)) = next_record(&region, bytes) {
        region.records.push(record);
        region.end += length.next_multiple_of(block_bytes);
    }
    Some(region)
}

fn next_record(region: &Region, bytes: &[u8]) -> Option<(Record, usize)> {
    let rest = bytes.get(region.end..)?;
    let (head, body) = RecordHead::read_from_prefix(rest).ok()?;
    let length = head.length.get() as usize;
    let sequence = region.first.checked_add(region.records.len() as u64)?;
    let ours = head.magic == RECORD_MAGIC
        && head.generation.get() == region.generation
        && head.sequence.get() == sequence
        && length <= RECORD_BYTES_MAX;
    let body = body.get(..length).filter(|_| ours)?;
    if CRC.checksum(&rest[8..RECORD_HEAD_BYTES + length]) != head.crc.get() {
        return None;
    }
    let record = Record {
        sequence,
        kind: head.kind.get(),
        bytes: body.to_vec(),
    };
    Some((record, RECORD_HEAD_BYTES + length))
}

/// A record as it is written, in whole blocks.
pub(super) fn encode(
    generation: u64,
    sequence: u64,
    kind: u32,
    body: &[u8],
    block_bytes: usize,
) -> Vec<u8> {
    let mut head = RecordHead {
        magic: RECORD_MAGIC,
        crc: 0.into(),
        generation: generation.into(),
        sequence: sequence.into(),
        kind: kind.into(),
        length: (body.len() as u32).into(),
    };
    let mut digest = CRC.digest();
    digest.update(&head.as_bytes()[8..]);
    digest.update(body);
    head.crc = digest.finalize().into();
    let length = RECORD_HEAD_BYTES + body.len();
    let mut bytes = vec![0; length.next_multiple_of(block_bytes)];
    bytes[..RECORD_HEAD_BYTES].copy_from_slice(head.as_bytes());
    bytes[RECORD_HEAD_BYTES..length].copy_from_slice(body);
    bytes
}

/// An open journal.
pub struct Journal {
    state: Mutex<NoopRawMutex, State>,
}

struct State {
    blocks: Blocks,
    /// Bytes of a region.
    region_bytes: usize,
    /// Which of the two is current.
    current: u64,
    generation: u64,
    /// The next record's number.
    next: u64,
    /// Where it goes, in bytes of the region.
    end: usize,
    /// A write failed: what is on the disk must be read again.
    stale: bool,
}

impl Journal {
    /// Makes an empty journal of a partition; what it held is lost.
    pub async fn format(blocks: Blocks) -> Result<Journal, JournalError> {
        let mut state = State {
            region_bytes: region_bytes(&blocks)?,
            blocks,
            current: 1,
            generation: 0,
            next: 1,
            end: 0,
            stale: false,
        };
        // No old generation may win over the new one.
        let size = state.blocks.block_bytes();
        for region in [0, 1] {
            let first = region * state.region_blocks();
            zero(&state.blocks, first, 1, false).await?;
        }
        state.blocks.flush().await?;
        state.checkpoint(&[]).await?;
        assert_eq!(state.end, size, "an empty region");
        Ok(Journal {
            state: Mutex::new(state),
        })
    }

    /// Opens a journal and reads all of its records. What a cut has left behind them is cleared.
    pub async fn open(blocks: Blocks) -> Result<(Journal, Vec<Record>), JournalError> {
        let (state, records) = State::open(blocks).await?;
        let state = Mutex::new(state);
        Ok((Journal { state }, records))
    }

    /// As [`Journal::open`], but makes an empty journal first of a partition that is all zero, as tools
    /// that know nothing of journals leave one. What is not zero is nobody's to overwrite.
    pub async fn open_or_format(blocks: Blocks) -> Result<(Journal, Vec<Record>), JournalError> {
        match Journal::open(blocks.clone()).await {
            Err(JournalError::NotFormatted) if is_blank(&blocks).await? => {
                Ok((Journal::format(blocks).await?, Vec::new()))
            }
            opened => opened,
        }
    }

    /// Appends a record. When this returns its number, the record is there after any power cut.
    pub async fn append(&self, kind: u32, bytes: &[u8]) -> Result<u64, JournalError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(JournalError::TooLong { bytes: bytes.len() });
        }
        let mut state = self.state.lock().await;
        state.ready().await?;
        state.append(kind, bytes).await
    }

    /// Replaces all records by these, with new numbers. A power cut leaves the old or the new.
    pub async fn checkpoint(&self, records: &[(u32, &[u8])]) -> Result<(), JournalError> {
        let mut state = self.state.lock().await;
        state.ready().await?;
        state.checkpoint(records).await
    }

    /// Bytes that are left for records before a checkpoint is due.
    pub async fn free_bytes(&self) -> usize {
        let state = self.state.lock().await;
        state.region_bytes - state.end
    }
}

fn region_bytes(blocks: &Blocks) -> Result<usize, JournalError> {
    let bytes = blocks.disk().geometry().bytes();
    if bytes < PARTITION_BYTES_MIN {
        return Err(JournalError::TooSmall { bytes });
    }
    let half = (bytes / 2).min(REGION_BYTES_MAX);
    let size = blocks.block_bytes();
    Ok(half as usize / size * size)
}

/// Whether both regions are all zero.
async fn is_blank(blocks: &Blocks) -> Result<bool, JournalError> {
    let region_bytes = region_bytes(blocks)?;
    let mut bytes = vec![0; region_bytes];
    for region in [0, 1] {
        let first = region * (region_bytes / blocks.block_bytes()) as u64;
        blocks.read(first, &mut bytes).await?;
        if bytes.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

impl State {
    fn region_blocks(&self) -> u64 {
        (self.region_bytes / self.blocks.block_bytes()) as u64
    }

    async fn open(blocks: Blocks) -> Result<(State, Vec<Record>), JournalError> {
        let (region_bytes, size) = (region_bytes(&blocks)?, blocks.block_bytes());
        let mut best: Option<(u64, Region, Vec<u8>)> = None;
        for number in [0, 1] {
            let mut bytes = vec![0; region_bytes];
            let first = number * (region_bytes / size) as u64;
            blocks.read(first, &mut bytes).await?;
            let Some(region) = scan(&bytes, size) else {
                continue;
            };
            let newer = |(_, other, _): &(_, Region, _)| region.generation > other.generation;
            if best.as_ref().is_none_or(newer) {
                best = Some((number, region, bytes));
            }
        }
        let (current, region, bytes) = best.ok_or(JournalError::NotFormatted)?;
        let state = State {
            blocks,
            region_bytes,
            current,
            generation: region.generation,
            next: region.first + region.records.len() as u64,
            end: region.end,
            stale: false,
        };
        let dirty = bytes[region.end..].iter().any(|byte| *byte != 0);
        if dirty && !state.blocks.disk().geometry().read_only {
            let from = state.block(region.end);
            let left = (region_bytes - region.end) / size;
            zero(&state.blocks, from, left as u64, false).await?;
            state.blocks.flush().await?;
        }
        Ok((state, region.records))
    }

    async fn ready(&mut self) -> Result<(), JournalError> {
        if self.stale {
            *self = State::open(self.blocks.clone()).await?.0;
        }
        Ok(())
    }

    /// The block of the partition with byte `at` of the current region.
    fn block(&self, at: usize) -> u64 {
        let in_region = (at / self.blocks.block_bytes()) as u64;
        self.current * self.region_blocks() + in_region
    }

    async fn append(&mut self, kind: u32, body: &[u8]) -> Result<u64, JournalError> {
        let size = self.blocks.block_bytes();
        let bytes = encode(self.generation, self.next, kind, body, size);
        if self.end + bytes.len() > self.region_bytes {
            return Err(JournalError::Full);
        }
        self.stale = true;
        self.blocks.write(self.block(self.end), &bytes).await?;
        self.blocks.flush().await?;
        self.stale = false;
        let sequence = self.next;
        self.next += 1;
        self.end += bytes.len();
        Ok(sequence)
    }

    async fn checkpoint(&mut self, records: &[(u32, &[u8])]) -> Result<(), JournalError> {
        let size = self.blocks.block_bytes();
        let (generation, other) = (self.generation + 1, 1 - self.current);
        let mut bytes = vec![0; size];
        let head = RegionHead {
            magic: REGION_MAGIC,
            generation: generation.into(),
            first: self.next.into(),
            crc: 0.into(),
        };
        let crc = CRC.checksum(&head.as_bytes()[..24]).into();
        let head = RegionHead { crc, ..head };
        bytes[..size_of::<RegionHead>()].copy_from_slice(head.as_bytes());
        let mut next = self.next;
        for (kind, body) in records {
            if body.len() > RECORD_BYTES_MAX {
                return Err(JournalError::TooLong { bytes: body.len() });
            }
            bytes.extend(encode(generation, next, *kind, body, size));
            next += 1;
        }
        if bytes.len() > self.region_bytes {
            return Err(JournalError::Full);
        }
        self.stale = true;
        let (first, count) = (other * self.region_blocks(), self.region_blocks());
        zero(&self.blocks, first, count, false).await?;
        self.blocks.write(first + 1, &bytes[size..]).await?;
        self.blocks.flush().await?;
        // Now it counts.
        self.blocks.write(first, &bytes[..size]).await?;
        self.blocks.flush().await?;
        self.stale = false;
        self.current = other;
        self.generation = generation;
        self.next = next;
        self.end = bytes.len();
        Ok(())
    }
}
