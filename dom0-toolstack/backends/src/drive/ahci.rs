//! AHCI (Serial ATA AHCI 1.3.1): command headers, command tables and the register FIS.

use super::ata::{Data, Task};
use super::cut;
use crate::memory::Span;

/// Bytes of a command header.
pub const HEADER_BYTES: usize = 32;
/// Bytes that are set aside for a command table: a page.
pub const TABLE_BYTES: u64 = 4096;
/// Where in a page the list of a TRIM is, behind the table.
pub const LIST_OFFSET: u64 = TABLE_BYTES - 512;
/// Where in a table its regions begin.
const REGIONS_OFFSET: usize = 0x80;
/// The most regions of a command.
pub const REGIONS_MAX: usize = (LIST_OFFSET as usize - REGIONS_OFFSET) / 16;
/// Bytes of a region.
const REGION_BYTES_MAX: u32 = 4 << 20;

/// Whether a controller can reach spans: even addresses and lengths, not too many; one without
/// 64-bit addressing only below 4 GiB.
pub fn reaches(spans: &[Span], is_wide: bool) -> bool {
    let reachable = |span: &Span| {
        let end = span.address.checked_add(span.bytes.into());
        let most = if is_wide { u64::MAX } else { 1 << 32 };
        span.address.is_multiple_of(2)
            && span.bytes.is_multiple_of(2)
            && end.is_some_and(|end| end <= most)
    };
    spans.iter().all(reachable) && regions(spans).len() <= REGIONS_MAX
}

fn regions(spans: &[Span]) -> alloc::vec::Vec<Span> {
    cut(spans, REGION_BYTES_MAX, 1 << 63)
}

/// The header of a command whose table at `table` has the regions of `spans` (4.2.2).
pub fn header(task: &Task, spans: &[Span], table: u64) -> [u8; HEADER_BYTES] {
    const FIS_WORDS: u32 = 5;
    const WRITE: u32 = 1 << 6;
    let count = regions(spans).len() as u32;
    let write = match task.data {
        Data::ToDevice => WRITE,
        Data::FromDevice | Data::None => 0,
    };
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&(FIS_WORDS | write | count << 16).to_le_bytes());
    header[8..16].copy_from_slice(&table.to_le_bytes());
    header
}

/// The command table: the FIS, and the regions of `spans` (4.2.3).
pub fn table(task: &Task, spans: &[Span]) -> alloc::vec::Vec<u8> {
    let mut table = alloc::vec![0; REGIONS_OFFSET];
    let fis = fis(task);
    table[..fis.len()].copy_from_slice(&fis);
    for region in regions(spans) {
        table.extend(region.address.to_le_bytes());
        table.extend(0u32.to_le_bytes());
        table.extend((region.bytes - 1).to_le_bytes());
    }
    table
}

/// Register FIS, host to device (Serial ATA 3.x, 10.5.5).
fn fis(task: &Task) -> [u8; 20] {
    const HOST_TO_DEVICE: u8 = 0x27;
    const IS_COMMAND: u8 = 1 << 7;
    let [f0, f1] = task.features.to_le_bytes();
    let [c0, c1] = task.count.to_le_bytes();
    let [l0, l1, l2, l3, l4, l5, ..] = task.lba.to_le_bytes();
    let device = task.device;
    [
        HOST_TO_DEVICE,
        IS_COMMAND,
        task.command,
        f0, //
        l0,
        l1,
        l2,
        device, //
        l3,
        l4,
        l5,
        f1, //
        c0,
        c1,
        0,
        0, //
        0,
        0,
        0,
        0,
    ]
}

#[cfg(test)]
mod tests {
    use super::super::ata::{Identity, tests::identify};
    use super::super::{Command, Operation};
    use super::*;

    fn span(address: u64, bytes: u32) -> Span {
        Span { address, bytes }
    }

    fn write(spans: &[Span]) -> Task {
        let disk = Identity::parse(&identify(1 << 40, true)).unwrap();
        disk.task(&Command {
            unit: 0,
            block: 0x06_0504_0302,
            blocks: 0x1234,
            operation: Operation::Write(spans),
        })
    }

    #[test]
    fn the_table_has_fis_and_regions() {
        let spans = [span(0x1_0000_2000, 512), span(0x4000, 5 << 20)];
        let task = write(&spans);
        let table = table(&task, &spans);
        let fis = [
            0x27, 0x80, 0x35, 0, 2, 3, 4, 0xe0, 5, 6, 0, 0, 0x34, 0x12, 0, 0,
        ];
        assert_eq!(table[..16], fis);
        assert_eq!(table.len(), REGIONS_OFFSET + 3 * 16);
        let word = |at: usize| u32::from_le_bytes(core::array::from_fn(|i| table[at + i]));
        assert_eq!((word(0x80), word(0x84), word(0x8c)), (0x2000, 1, 511));
        assert_eq!((word(0x90), word(0x9c)), (0x4000, (4 << 20) - 1));
        assert_eq!((word(0xa0), word(0xac)), (0x40_4000, (1 << 20) - 1));
        let header = header(&task, &spans, 0x1_0000_7000);
        assert_eq!(header[..4], [5 | 1 << 6, 0, 3, 0]);
        assert_eq!(header[8..16], 0x1_0000_7000u64.to_le_bytes());
    }

    #[test]
    fn what_is_out_of_reach_is_seen() {
        assert!(reaches(&[span(1 << 40, 512)], true));
        assert!(!reaches(&[span(1 << 40, 512)], false));
        assert!(!reaches(&[span(0x1001, 512)], true));
        assert!(!reaches(&[span(0x1000, 1)], true));
        assert!(reaches(&[span(0x1000, 512); REGIONS_MAX], true));
        assert!(!reaches(&[span(0x1000, 512); REGIONS_MAX + 1], true));
    }
}
