//! NVMe (NVM Express Base 1.4 and NVM Command Set): commands, what Identify says, status, and PRPs.

use super::{Command, Limits, Operation};
use crate::disk::{DiskError, Geometry};
use crate::memory::{PAGE_BYTES, Span};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a command.
pub const COMMAND_BYTES: usize = 64;
/// Bytes of a completion.
pub const COMPLETION_BYTES: usize = 16;
/// Bytes of an Identify answer.
pub const IDENTIFY_BYTES: usize = 4096;
/// Bytes of the range of a discard.
pub const RANGE_BYTES: usize = 16;
/// Entries of a list of pages that is one page.
const LIST_ENTRIES: usize = PAGE_BYTES as usize / 8;
/// The longest transfer.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// Blocks of one discard; the range could say more.
const DISCARD_BLOCKS_MAX: u32 = 1 << 24;
/// Blocks of zeroes: what 16 bits, counted from 0, can say.
const ZEROES_BLOCKS_MAX: u32 = 1 << 16;

// Admin commands.
const CREATE_SUBMISSION: u8 = 0x01;
const CREATE_COMPLETION: u8 = 0x05;
const IDENTIFY: u8 = 0x06;
// Commands of the NVM command set.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
/// Of Dataset Management: deallocate.
const DEALLOCATE: u32 = 1 << 2;
/// Of Write Zeroes: the blocks may be deallocated.
const ZEROES_DEALLOCATE: u32 = 1 << 25;

/// What Identify is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// One namespace.
    Namespace(u32),
    /// The controller.
    Controller,
    /// The namespaces there are.
    Active,
}

/// A command as it lies in a queue.
pub type Entry = [u8; COMMAND_BYTES];

fn entry(opcode: u8, id: u16, namespace: u32, pages: [u64; 2], words: [u32; 3]) -> Entry {
    let mut entry = [0; COMMAND_BYTES];
    let mut put = |at: usize, value: u32| entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(0, u32::from(opcode) | u32::from(id) << 16);
    put(4, namespace);
    for (at, page) in pages.into_iter().enumerate() {
        put(24 + 8 * at, page as u32);
        put(28 + 8 * at, (page >> 32) as u32);
    }
    for (at, word) in words.into_iter().enumerate() {
        put(40 + 4 * at, word);
    }
    entry
}

/// Identify, into the page at `address`.
pub fn identify(id: u16, subject: Subject, address: u64) -> Entry {
    let (namespace, structure) = match subject {
        Subject::Namespace(namespace) => (namespace, 0),
        Subject::Controller => (0, 1),
        Subject::Active => (0, 2),
    };
    entry(IDENTIFY, id, namespace, [address, 0], [structure, 0, 0])
}

/// Makes completion queue 1 of `size` entries at `address`, which interrupts by vector 0.
pub fn create_completion(id: u16, size: u16, address: u64) -> Entry {
    const CONTIGUOUS_AND_INTERRUPTS: u32 = 3;
    let queue = 1 | u32::from(size - 1) << 16;
    let words = [queue, CONTIGUOUS_AND_INTERRUPTS, 0];
    entry(CREATE_COMPLETION, id, 0, [address, 0], words)
}

/// Makes submission queue 1 of `size` entries at `address`, for completion queue 1.
pub fn create_submission(id: u16, size: u16, address: u64) -> Entry {
    const CONTIGUOUS: u32 = 1;
    let queue = 1 | u32::from(size - 1) << 16;
    let words = [queue, CONTIGUOUS | 1 << 16, 0];
    entry(CREATE_SUBMISSION, id, 0, [address, 0], words)
}

/// A command of a [`super::Drive`]. `pages` are what the two PRP fields say; for a discard the first
/// is where its [`range`] is.
pub fn command(id: u16, namespace: u32, command: &Command<'_>, pages: [u64; 2]) -> Entry {
    let (low, high) = (command.block as u32, (command.block >> 32) as u32);
    // Counted from 0.
    let count = command.blocks.wrapping_sub(1) & 0xffff;
    let (opcode, words) = match command.operation {
        Operation::Read(_) => (READ, [low, high, count]),
        Operation::Write(_) => (WRITE, [low, high, count]),
        Operation::Flush => (FLUSH, [0, 0, 0]),
        Operation::Discard => (DATASET_MANAGEMENT, [0, DEALLOCATE, 0]),
        Operation::WriteZeroes { may_discard } => {
            let flags = if may_discard { ZEROES_DEALLOCATE } else { 0 };
            (WRITE_ZEROES, [low, high, count | flags])
        }
    };
    entry(opcode, id, namespace, pages, words)
}

/// The range of a discard.
pub fn range(block: u64, blocks: u32) -> [u8; RANGE_BYTES] {
    let mut range = [0; RANGE_BYTES];
    range[4..8].copy_from_slice(&blocks.to_le_bytes());
    range[8..].copy_from_slice(&block.to_le_bytes());
    range
}

/// The pages of spans, first to last. `None`: they do not fit together, as only the first may begin
/// and only the last may end inside a page.
pub fn pages(spans: &[Span]) -> Option<Vec<u64>> {
    let mut pages = Vec::new();
    let last = spans.len().checked_sub(1)?;
    for (at, span) in spans.iter().enumerate() {
        let end = span.address.checked_add(span.bytes.into())?;
        let begins_well = span
            .address
            .is_multiple_of(if at == 0 { 4 } else { PAGE_BYTES });
        let ends_well = at == last || end.is_multiple_of(PAGE_BYTES);
        if !begins_well || !ends_well || span.bytes == 0 {
            return None;
        }
        pages.push(span.address);
        let next = (span.address & !(PAGE_BYTES - 1)) + PAGE_BYTES;
        pages.extend((next..end).step_by(PAGE_BYTES as usize));
        if pages.len() > LIST_ENTRIES {
            return None;
        }
    }
    Some(pages)
}

/// What the PRP fields say about `pages`, and what the page at `list` must hold for that.
pub fn prps(pages: &[u64], list: u64) -> ([u64; 2], Vec<u8>) {
    match pages {
        [] => ([0, 0], Vec::new()),
        [one] => ([*one, 0], Vec::new()),
        [one, two] => ([*one, *two], Vec::new()),
        [one, rest @ ..] => {
            let bytes = rest.iter().flat_map(|page| page.to_le_bytes());
            ([*one, list], bytes.collect())
        }
    }
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Which command.
    pub id: u16,
    /// It is new when this is not what it was in the round before.
    pub phase: bool,
    /// Status, without the phase.
    pub status: u16,
}

impl Completion {
    /// As it lies in a queue.
    pub fn parse(bytes: &[u8; COMPLETION_BYTES]) -> Completion {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Completion {
            id: half(12),
            phase: half(14) & 1 != 0,
            status: half(14) >> 1,
        }
    }

    /// What its status means.
    pub fn result(&self) -> Result<(), DiskError> {
        let (kind, code) = (self.status >> 8 & 7, self.status & 0xff);
        let name = match (kind, code) {
            (0, 0x00) => return Ok(()),
            (0, 0x01) => return Err(DiskError::Unsupported),
            (0, 0x20) | (1, 0x82) => return Err(DiskError::ReadOnly),
            (0, 0x80) => return Err(DiskError::OutOfRange),
            (0, 0x81) => return Err(DiskError::NoSpace),
            (0, 0x04) => "data transfer error",
            (0, 0x06) => "internal error",
            (2, 0x80) => "write fault",
            (2, 0x81) => "unrecovered read error",
            (2, 0x87) => "unwritten or deallocated block",
            (_, _) => "error",
        };
        let why = format!("{name} (NVMe status type {kind}, code {code:#04x})");
        Err(DiskError::Failed(why))
    }
}

fn text(bytes: &[u8]) -> String {
    let text: String = bytes.iter().copied().map(char::from).collect();
    text.trim_matches([' ', '\0']).into()
}

/// A controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Model number.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// How many namespaces there can be.
    pub namespaces: u32,
    transfer_bytes_max: u32,
    has_cache: bool,
    discards: bool,
    zeroes: bool,
}

impl Controller {
    /// From Identify; pages are 4 KiB.
    pub fn parse(bytes: &[u8; IDENTIFY_BYTES]) -> Controller {
        let optional = u16::from_le_bytes([bytes[520], bytes[521]]);
        // A power of two of pages, 0 for no limit.
        let transfer_bytes_max = match bytes[77] {
            0 => TRANSFER_BYTES_MAX,
            shift => TRANSFER_BYTES_MAX.min(4096u32.checked_shl(shift.into()).unwrap_or(u32::MAX)),
        };
        Controller {
            model: text(&bytes[24..64]),
            serial: text(&bytes[4..24]),
            namespaces: u32::from_le_bytes(core::array::from_fn(|at| bytes[516 + at])),
            // A shift so large that nothing is left means no limit that matters.
            transfer_bytes_max: if transfer_bytes_max == 0 {
                TRANSFER_BYTES_MAX
            } else {
                transfer_bytes_max
            },
            has_cache: bytes[525] & 1 != 0,
            discards: optional & 1 << 2 != 0,
            zeroes: optional & 1 << 3 != 0,
        }
    }

    /// A namespace from Identify. `None`: there is none of this number. The error says why it
    /// cannot be used.
    pub fn namespace(&self, bytes: &[u8; IDENTIFY_BYTES]) -> Result<Option<Geometry>, String> {
        let blocks = u64::from_le_bytes(core::array::from_fn(|at| bytes[at]));
        if blocks == 0 {
            return Ok(None);
        }
        let format = usize::from(bytes[26] & 0xf | bytes[26] >> 1 & 0x30);
        let at = 128 + 4 * format;
        let (metadata, shift) = (
            u16::from_le_bytes([bytes[at], bytes[at + 1]]),
            bytes[at + 2],
        );
        if metadata != 0 {
            return Err(format!("its blocks have {metadata} bytes of metadata"));
        }
        if !matches!(shift, 9 | 12) {
            return Err(format!("its blocks have 2^{shift} bytes, not 512 or 4096"));
        }
        Ok(Some(Geometry {
            blocks,
            block_bytes: 1 << shift,
            read_only: bytes[99] & 1 != 0,
            needs_flush: self.has_cache,
            can_discard: self.discards,
            can_write_zeroes: self.zeroes,
            transfer_bytes_max: self.transfer_bytes_max,
        }))
    }

    /// Limits of all its namespaces.
    pub fn limits(&self) -> Limits {
        Limits {
            discard_blocks: DISCARD_BLOCKS_MAX,
            zeroes_blocks: ZEROES_BLOCKS_MAX,
        }
    }
}

/// The namespaces of the list of active ones.
pub fn active(bytes: &[u8; IDENTIFY_BYTES]) -> Vec<u32> {
    let words = bytes.chunks_exact(4);
    let numbers = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    numbers.take_while(|number| *number != 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(address: u64, bytes: u32) -> Span {
        Span { address, bytes }
    }

    fn word(entry: &Entry, at: usize) -> u32 {
        u32::from_le_bytes(core::array::from_fn(|i| entry[4 * at + i]))
    }

    #[test]
    fn pages_fit_together_or_are_refused() {
        assert_eq!(pages(&[span(0x1004, 512)]).unwrap(), [0x1004]);
        let two = pages(&[span(0x1e00, 0x400)]).unwrap();
        assert_eq!(two, [0x1e00, 0x2000]);
        let joined = pages(&[span(0x1e00, 0x200), span(0x8000, 0x2200)]).unwrap();
        assert_eq!(joined, [0x1e00, 0x8000, 0x9000, 0xa000]);
        assert_eq!(pages(&[span(0x1002, 512)]), None);
        assert_eq!(pages(&[span(0x1000, 0x200), span(0x8000, 0x200)]), None);
        assert_eq!(pages(&[span(0x1000, 0x1000), span(0x8200, 0x200)]), None);
        assert_eq!(pages(&[span(0x1000, 513 * 4096)]), None);
        assert_eq!(pages(&[]), None);
    }

    #[test]
    fn only_more_than_two_pages_take_a_list() {
        assert_eq!(prps(&[1, 2], 9), ([1, 2], Vec::new()));
        let (fields, list) = prps(&[0x1000, 0x2000, 0x3000], 0x9000);
        assert_eq!(fields, [0x1000, 0x9000]);
        assert_eq!(list[..9], [0, 0x20, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(list.len(), 16);
    }

    #[test]
    fn commands_have_their_fields_where_the_standard_says() {
        let read = Command {
            unit: 0,
            block: 0x12_3456_789a,
            blocks: 8,
            operation: Operation::Read(&[]),
        };
        let entry = command(5, 1, &read, [0x1_0000_2000, 0x3000]);
        assert_eq!((word(&entry, 0), word(&entry, 1)), (5 << 16 | 2, 1));
        assert_eq!(
            (word(&entry, 6), word(&entry, 7), word(&entry, 8)),
            (0x2000, 1, 0x3000)
        );
        assert_eq!((word(&entry, 10), word(&entry, 11)), (0x3456_789a, 0x12));
        assert_eq!(word(&entry, 12), 7);
        let zeroes = Command {
            blocks: ZEROES_BLOCKS_MAX,
            operation: Operation::WriteZeroes { may_discard: true },
            ..read
        };
        assert_eq!(word(&command(0, 1, &zeroes, [0, 0]), 12), 1 << 25 | 0xffff);
        let queue = create_submission(1, 64, 0x7000);
        assert_eq!(
            (word(&queue, 10), word(&queue, 11)),
            (63 << 16 | 1, 1 << 16 | 1)
        );
    }

    #[test]
    fn namespaces_are_read_and_odd_ones_refused() {
        let mut identity = [0; IDENTIFY_BYTES];
        identity[24..30].copy_from_slice(b"Godwit");
        identity[77] = 5;
        identity[520] = 1 << 2;
        identity[525] = 1;
        let controller = Controller::parse(&identity);
        assert_eq!(controller.model, "Godwit");
        let mut bytes = [0; IDENTIFY_BYTES];
        assert_eq!(controller.namespace(&bytes), Ok(None));
        bytes[1] = 1;
        bytes[26] = 1;
        bytes[128 + 4 + 2] = 12;
        let geometry = controller.namespace(&bytes).unwrap().unwrap();
        assert_eq!((geometry.blocks, geometry.block_bytes), (256, 4096));
        assert_eq!(geometry.transfer_bytes_max, 128 << 10);
        assert!(geometry.needs_flush && geometry.can_discard && !geometry.can_write_zeroes);
        bytes[128 + 4] = 8;
        assert!(controller.namespace(&bytes).is_err());
        bytes[128 + 4] = 0;
        bytes[26] = 2;
        assert!(controller.namespace(&bytes).is_err());
    }

    #[test]
    fn no_transfer_limit_is_zero() {
        for shift in 0..=255 {
            let mut identity = [0; IDENTIFY_BYTES];
            identity[77] = shift;
            let most = Controller::parse(&identity).transfer_bytes_max;
            assert!(
                (4096..=TRANSFER_BYTES_MAX).contains(&most),
                "{shift}: {most}"
            );
        }
    }

    #[test]
    fn completions_are_told_by_their_phase_and_named() {
        let mut bytes = [0; COMPLETION_BYTES];
        bytes[12..].copy_from_slice(&[7, 0, 0x03, 0x05]);
        let completion = Completion::parse(&bytes);
        assert_eq!((completion.id, completion.phase), (7, true));
        let DiskError::Failed(why) = completion.result().unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(
            why,
            "unrecovered read error (NVMe status type 2, code 0x81)"
        );
        bytes[14..].copy_from_slice(&[0, 0]);
        assert_eq!(Completion::parse(&bytes).result(), Ok(()));
    }

    #[test]
    fn active_namespaces_end_at_a_zero() {
        let mut bytes = [0; IDENTIFY_BYTES];
        (bytes[0], bytes[4], bytes[12]) = (1, 3, 9);
        assert_eq!(active(&bytes), [1, 3]);
        assert_eq!(active(&[0xff; IDENTIFY_BYTES]).len(), 1024);
    }
}
