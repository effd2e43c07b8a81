//! `xl disk-list` and `xl disk-read`.

use crate::table::{Align, Table};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use crc::{CRC_32_ISO_HDLC, Crc};

/// The bytes that `xl disk-read` shows of what it read.
const DUMP_BYTES_MAX: usize = 512;
const LINE_BYTES: usize = 16;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A disk of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskRow {
    /// Its name.
    pub name: String,
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Cannot be written.
    pub read_only: bool,
    /// What the device calls itself; from the device, so shown with care.
    pub model: String,
    /// Its serial number, the same.
    pub serial: String,
    /// Driver, address, interrupt.
    pub place: String,
}

/// What `xl disk-list` prints.
pub fn disk_list(disks: &[DiskRow]) -> String {
    let mut table = Table::new(&[
        ("Name", Align::Left, 8),
        ("MiB", Align::Right, 8),
        ("Block", Align::Right, 5),
        ("Mode", Align::Left, 4),
        ("Model", Align::Left, 16),
        ("Serial", Align::Left, 10),
        ("Device", Align::Left, 1),
    ]);
    for disk in disks {
        table.row(Vec::from([
            disk.name.clone(),
            format!("{}", disk.bytes >> 20),
            format!("{}", disk.block_bytes),
            String::from(if disk.read_only { "ro" } else { "rw" }),
            printable(&disk.model),
            printable(&disk.serial),
            disk.place.clone(),
        ]));
    }
    table.render()
}

/// Text of a device: what is not printable ASCII is a dot, nothing at all a hyphen.
fn printable(text: &str) -> String {
    if text.is_empty() {
        return "-".into();
    }
    text.chars().map(shown).collect()
}

fn shown(character: char) -> char {
    match character {
        ' '..='~' => character,
        _ => '.',
    }
}

/// What `xl disk-read` prints: the first bytes from byte `offset` of a disk on, and the CRC-32 of all.
pub fn disk_dump(offset: u64, bytes: &[u8]) -> String {
    let mut out = String::new();
    let shown_bytes = &bytes[..bytes.len().min(DUMP_BYTES_MAX)];
    for (index, line) in shown_bytes.chunks(LINE_BYTES).enumerate() {
        let _ = write!(out, "{:012x} ", offset + (index * LINE_BYTES) as u64);
        for byte in line {
            let _ = write!(out, " {byte:02x}");
        }
        let text: String = line.iter().map(|byte| shown(char::from(*byte))).collect();
        let _ = writeln!(out, "  {text}");
    }
    let _ = writeln!(
        out,
        "{} bytes, crc32 {:08x}",
        bytes.len(),
        CRC.checksum(bytes)
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn a_dump_shows_the_beginning_and_sums_all() {
        let mut bytes = vec![0u8; 4096];
        bytes[..9].copy_from_slice(b"123456789");
        let dump = disk_dump(0x1000, &bytes);
        let first =
            "000000001000  31 32 33 34 35 36 37 38 39 00 00 00 00 00 00 00  123456789.......\n";
        assert!(dump.starts_with(first), "{dump}");
        assert_eq!(dump.lines().count(), DUMP_BYTES_MAX / LINE_BYTES + 1);
        // The check value of CRC-32/ISO-HDLC.
        assert!(disk_dump(0, &bytes[..9]).ends_with("9 bytes, crc32 cbf43926\n"));
    }

    #[test]
    fn what_devices_say_cannot_drive_the_terminal() {
        let row = DiskRow {
            name: "sata0".into(),
            bytes: 64 << 20,
            block_bytes: 512,
            read_only: false,
            model: "EVIL\x1b[2J\u{7f}".into(),
            serial: String::new(),
            place: "ahci 00:1f.2 MSI".into(),
        };
        let list = disk_list(&[row]);
        assert!(list.contains("EVIL.[2J. "), "{list}");
        let line = list.lines().nth(1).unwrap();
        assert!(
            line.starts_with("sata0          64   512 rw   EVIL"),
            "{line}"
        );
        assert!(line.ends_with(" -          ahci 00:1f.2 MSI"), "{line}");
    }
}
