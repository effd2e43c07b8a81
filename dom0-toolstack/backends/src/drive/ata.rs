//! ATA disks (ATA8-ACS), whatever they hang on: what IDENTIFY DEVICE says, and commands as task files.

use super::{Command, Limits, Operation};
use crate::disk::{DiskError, Geometry};
use alloc::format;
use alloc::string::String;

/// Command: tell what you are.
pub const IDENTIFY: u8 = 0xec;
/// Words of the answer.
pub const IDENTIFY_WORDS: usize = 256;
/// Status: an error, in the error register.
pub const STATUS_ERROR: u8 = 1 << 0;
/// Status: data wait to be transferred.
pub const STATUS_DATA: u8 = 1 << 3;
/// Status: the device has a fault.
pub const STATUS_FAULT: u8 = 1 << 5;
/// Status: the device is at work, nothing else means anything.
pub const STATUS_BUSY: u8 = 1 << 7;

const READ_DMA: u8 = 0xc8;
const READ_DMA_EXT: u8 = 0x25;
const WRITE_DMA: u8 = 0xca;
const WRITE_DMA_EXT: u8 = 0x35;
const FLUSH: u8 = 0xe7;
const FLUSH_EXT: u8 = 0xea;
const DATA_SET_MANAGEMENT: u8 = 0x06;
const TRIM: u16 = 1;

/// Device register: addresses are LBAs; the bits around it are 1 in old devices.
const DEVICE_LBA: u8 = 0xe0;
/// Blocks that 28-bit commands can name and move.
const LBA28_BLOCKS: u64 = 1 << 28;
const LBA28_COUNT_MAX: u32 = 256;
/// The longest transfer.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// Bytes of a TRIM range list; one block of it is used.
pub const TRIM_LIST_BYTES: u32 = 512;
/// Blocks of one TRIM range, and of one whole list of 64.
const TRIM_RANGE_BLOCKS: u32 = 0xffff;
const TRIM_BLOCKS_MAX: u32 = TRIM_RANGE_BLOCKS * (TRIM_LIST_BYTES / 8);

/// What a disk says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Model, without the spaces around it.
    pub model: String,
    /// Serial number, the same.
    pub serial: String,
    /// Its size and abilities.
    pub geometry: Geometry,
    /// It has the 48-bit commands.
    pub is_lba48: bool,
}

impl Identity {
    /// From the answer to [`IDENTIFY`]. The error says why the disk cannot be used.
    pub fn parse(words: &[u16; IDENTIFY_WORDS]) -> Result<Identity, &'static str> {
        if words[0] & 1 << 15 != 0 {
            return Err("it is no ATA disk");
        }
        if words[49] & 1 << 9 == 0 || words[49] & 1 << 8 == 0 {
            return Err("it has no LBA or no DMA");
        }
        // Bits 15:14 are 01 where a word means something.
        let valid = |word: u16| word >> 14 == 1;
        let commands = if valid(words[83]) { words[83] } else { 0 };
        let is_lba48 = commands & 1 << 10 != 0;
        let join = |at: &[usize]| {
            let part = |sum: u64, at: &usize| sum << 16 | u64::from(words[*at]);
            at.iter().rev().fold(0, part)
        };
        let blocks = if is_lba48 {
            join(&[100, 101, 102, 103])
        } else {
            join(&[60, 61]).min(LBA28_BLOCKS)
        };
        let block_bytes = if valid(words[106]) && words[106] & 1 << 12 != 0 {
            join(&[117, 118]) * 2
        } else {
            512
        };
        if !matches!(block_bytes, 512 | 4096) {
            return Err("its blocks have neither 512 nor 4096 bytes");
        }
        if blocks == 0 || blocks >= 1 << 48 {
            return Err("it has no blocks, or more than it can name");
        }
        let block_bytes = block_bytes as u32;
        let can_flush = commands & (1 << 12 | 1 << 13) != 0;
        let count_max = if is_lba48 { u32::MAX } else { LBA28_COUNT_MAX };
        Ok(Identity {
            model: text(&words[27..47]),
            serial: text(&words[10..20]),
            geometry: Geometry {
                blocks,
                block_bytes,
                read_only: false,
                // Without the command nothing can be done about a cache.
                needs_flush: can_flush,
                can_discard: words[169] & 1 != 0 && is_lba48 && block_bytes == 512,
                can_write_zeroes: false,
                transfer_bytes_max: TRANSFER_BYTES_MAX.min(count_max.saturating_mul(block_bytes)),
            },
            is_lba48,
        })
    }

    /// Its limits.
    pub fn limits(&self) -> Limits {
        Limits {
            discard_blocks: TRIM_BLOCKS_MAX,
            zeroes_blocks: 0,
        }
    }

    /// The task file of a command. A discard takes the list of [`trim_list`] as data to write.
    pub fn task(&self, command: &Command<'_>) -> Task {
        let long = self.is_lba48;
        let pick = |short, ext| if long { ext } else { short };
        let mut task = Task {
            command: 0,
            features: 0,
            lba: command.block,
            // 0 stands for 256 or 65536.
            count: if long {
                command.blocks as u16
            } else {
                u16::from(command.blocks as u8)
            },
            device: DEVICE_LBA,
            is_long: long,
            data: Data::None,
        };
        match command.operation {
            Operation::Read(_) => {
                task.command = pick(READ_DMA, READ_DMA_EXT);
                task.data = Data::FromDevice;
            }
            Operation::Write(_) => {
                task.command = pick(WRITE_DMA, WRITE_DMA_EXT);
                task.data = Data::ToDevice;
            }
            Operation::Flush => {
                task.command = pick(FLUSH, FLUSH_EXT);
                (task.lba, task.count) = (0, 0);
            }
            Operation::Discard | Operation::WriteZeroes { .. } => {
                task.command = DATA_SET_MANAGEMENT;
                task.features = TRIM;
                (task.lba, task.count) = (0, 1);
                task.data = Data::ToDevice;
            }
        }
        if !long {
            task.device |= (task.lba >> 24) as u8 & 0xf;
        }
        task
    }
}

/// Which way data go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// There are none.
    None,
    /// Into memory.
    FromDevice,
    /// Out of memory.
    ToDevice,
}

/// A command as registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// Command register.
    pub command: u8,
    /// Features.
    pub features: u16,
    /// Address of the first block.
    pub lba: u64,
    /// Count register.
    pub count: u16,
    /// Device register, for the first device of a channel.
    pub device: u8,
    /// It takes the 48-bit registers.
    pub is_long: bool,
    /// Which way data go.
    pub data: Data,
}

/// The ranges of a TRIM (7.10.3): 48 bits of address, 16 of length, rest zero.
pub fn trim_list(block: u64, blocks: u32) -> [u8; TRIM_LIST_BYTES as usize] {
    assert!(blocks <= TRIM_BLOCKS_MAX, "the drive splits what is longer");
    let mut list = [0; TRIM_LIST_BYTES as usize];
    let (mut at, mut left) = (block, blocks);
    for entry in list.chunks_exact_mut(8) {
        let length = left.min(TRIM_RANGE_BLOCKS);
        if length > 0 {
            let range = at | u64::from(length) << 48;
            entry.copy_from_slice(&range.to_le_bytes());
        }
        at += u64::from(length);
        left -= length;
    }
    list
}

/// How a command ended, from status and error register.
pub fn result(status: u8, error: u8) -> Result<(), DiskError> {
    if status & (STATUS_ERROR | STATUS_FAULT) == 0 {
        return Ok(());
    }
    const NAMES: [(u8, &str); 5] = [
        (1 << 7, "interface CRC error"),
        (1 << 6, "uncorrectable data"),
        (1 << 5, "medium changed"),
        (1 << 4, "block not found"),
        (1 << 2, "command aborted"),
    ];
    let name = NAMES.iter().find(|(bit, _)| error & bit != 0);
    let name = name.map_or("error", |(_, name)| name);
    let why = format!("{name} (ATA status {status:#04x}, error {error:#04x})");
    Err(DiskError::Failed(why))
}

/// Text of an answer: two characters a word, the first in the upper half.
fn text(words: &[u16]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_be_bytes());
    let text: String = bytes.map(char::from).collect();
    text.trim_matches([' ', '\0']).into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A disk of `blocks` blocks; 48-bit if that is asked for.
    pub(crate) fn identify(blocks: u64, is_lba48: bool) -> [u16; IDENTIFY_WORDS] {
        let mut words = [0; IDENTIFY_WORDS];
        words[49] = 3 << 8;
        let short = blocks.min(LBA28_BLOCKS - 1);
        (words[60], words[61]) = (short as u16, (short >> 16) as u16);
        words[83] = 1 << 14 | 1 << 12;
        if is_lba48 {
            words[83] |= 1 << 10 | 1 << 13;
            for part in 0..4 {
                words[100 + part] = (blocks >> (16 * part)) as u16;
            }
        }
        for (at, pair) in b"GODWIT  DISK      ".chunks(2).enumerate() {
            words[27 + at] = u16::from_be_bytes([pair[0], pair[1]]);
        }
        words
    }

    fn command(block: u64, blocks: u32, operation: Operation<'_>) -> Command<'_> {
        Command {
            unit: 0,
            block,
            blocks,
            operation,
        }
    }

    #[test]
    fn identity_is_read_and_limits_follow() {
        let disk = Identity::parse(&identify(0x12_3456_7890, true)).unwrap();
        assert_eq!(disk.geometry.blocks, 0x12_3456_7890);
        assert_eq!(disk.model, "GODWIT  DISK");
        assert_eq!(disk.serial, "");
        assert_eq!(disk.geometry.transfer_bytes_max, 1 << 20);
        let old = Identity::parse(&identify(1000, false)).unwrap();
        assert_eq!(old.geometry.transfer_bytes_max, 128 << 10);
        assert!(old.geometry.needs_flush && !old.geometry.can_discard);
    }

    #[test]
    fn large_blocks_are_taken_and_odd_ones_refused() {
        let mut words = identify(1000, true);
        words[106] = 1 << 14 | 1 << 12;
        words[117] = 2048;
        let disk = Identity::parse(&words).unwrap();
        assert_eq!(disk.geometry.block_bytes, 4096);
        words[117] = 260;
        assert!(Identity::parse(&words).is_err());
    }

    #[test]
    fn what_is_no_usable_disk_is_refused() {
        let good = identify(1000, true);
        let bad = |change: &dyn Fn(&mut [u16; IDENTIFY_WORDS])| {
            let mut words = good;
            change(&mut words);
            Identity::parse(&words).is_err()
        };
        assert!(bad(&|words| words[0] = 0x8580));
        assert!(bad(&|words| words[49] = 1 << 9));
        assert!(bad(&|words| words[100] = 0));
        assert!(bad(&|words| words[103] = 1));
        assert!(Identity::parse(&[0xffff; IDENTIFY_WORDS]).is_err());
    }

    #[test]
    fn short_and_long_commands_carry_the_address() {
        let long = Identity::parse(&identify(1 << 40, true)).unwrap();
        let task = long.task(&command(0x12_3456_7890, 65536, Operation::Read(&[])));
        assert_eq!(
            (task.command, task.count, task.lba),
            (0x25, 0, 0x12_3456_7890)
        );
        assert_eq!(task.device, 0xe0);
        let short = Identity::parse(&identify(1 << 27, false)).unwrap();
        let task = short.task(&command(0x7ab_cdef, 256, Operation::Write(&[])));
        assert_eq!((task.command, task.count, task.device), (0xca, 0, 0xe7));
        assert_eq!(task.data, Data::ToDevice);
        let task = short.task(&command(0, 0, Operation::Flush));
        assert_eq!((task.command, task.data), (0xe7, Data::None));
    }

    #[test]
    fn trim_lists_cover_the_range_once() {
        let list = trim_list(1000, 0x1_0001);
        let entry = |at: usize| u64::from_le_bytes(core::array::from_fn(|i| list[8 * at + i]));
        assert_eq!(entry(0), 1000 | 0xffff << 48);
        assert_eq!(entry(1), (1000 + 0xffff) | 2 << 48);
        assert_eq!(entry(2), 0);
        let all = trim_list(0, TRIM_BLOCKS_MAX);
        assert!(all.chunks(8).all(|entry| entry[6..] == [0xff, 0xff]));
    }

    #[test]
    fn errors_have_the_device_s_codes() {
        assert_eq!(result(0x50, 0x04), Ok(()));
        let DiskError::Failed(why) = result(0x51, 0x40).unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(why, "uncorrectable data (ATA status 0x51, error 0x40)");
        assert!(result(0x70, 0).is_err());
    }
}
