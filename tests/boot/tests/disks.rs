//! The host's own disks: every driver finds its disks and reads what is on them.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::ensure_all;
use godwit_harness::{DiskConfig, DiskInterface, Emulator, Host, HostConfig, Image};
use std::path::{Path, PathBuf};

const BLOCK_BYTES: usize = 512;

/// Bytes that say where on the disk they are: a block moved or mixed up changes the sum.
fn pattern(bytes: usize) -> Vec<u8> {
    let word = |at: usize| (at as u64 ^ 0x9e37_79b9).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (0..bytes / 8)
        .flat_map(|at| word(at).to_le_bytes())
        .collect()
}

/// CRC-32/ISO-HDLC, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ if crc & 1 != 0 { 0xedb8_8320 } else { 0 }
        })
    };
    !bytes.iter().fold(!0, step)
}

/// A disk image and what is in it.
struct Medium {
    file: PathBuf,
    bytes: Vec<u8>,
}

fn medium(directory: &Path, name: &str, bytes: usize) -> Result<Medium> {
    let file = directory.join(name);
    let bytes = pattern(bytes);
    std::fs::write(&file, &bytes)?;
    Ok(Medium { file, bytes })
}

/// Fails unless `count` blocks read from `block` on are what is in the image.
fn reads(
    host: &mut Host,
    disk: &str,
    medium: &Medium,
    block_bytes: usize,
    (block, count): (usize, usize),
) -> Result<()> {
    let output = host.command(&format!("xl disk-read {disk} {block} -c {count}"))?;
    let range = &medium.bytes[block * block_bytes..(block + count) * block_bytes];
    let sum = format!("{} bytes, crc32 {:08x}", range.len(), crc32(range));
    let first: String = range[..16]
        .iter()
        .map(|byte| format!(" {byte:02x}"))
        .collect();
    ensure_all(&output, &[&sum, &first])
        .with_context(|| format!("{disk}, {count} blocks from {block}"))
}

/// Boots with one 16 MiB disk, finds it under `name` and reads it at its beginning, in the middle and
/// at its end; beyond its end is refused.
fn one_disk(
    label: &str,
    emulator: Emulator,
    (interface, block_bytes): (DiskInterface, usize),
    name: &str,
    words: &[&str],
) -> Result<()> {
    let directory = tempfile::tempdir()?;
    // Bochs wants whole cylinders of 16 heads and 63 sectors.
    let medium = medium(directory.path(), "disk.img", 32 * 16 * 63 * BLOCK_BYTES)?;
    let image = Image::new(label, "host-a")?.write()?;
    let disk = DiskConfig::new(&medium.file, interface).block_bytes(block_bytes as u32);
    let config = HostConfig::new(emulator, &image, label).disk(disk);
    let mut host = Host::boot(&config)?;
    host.wait_prompt()?;
    let list = host.command("xl disk-list")?;
    let line = list.lines().find(|line| line.starts_with(name));
    let line = line.with_context(|| format!("no {name} in:\n{list}"))?;
    ensure_all(line, words)?;
    let blocks = medium.bytes.len() / block_bytes;
    for range in [
        (0, 1),
        (1, 7),
        (blocks / 2, 1000),
        (blocks - 1, 1),
        (0, 8000),
    ] {
        let range = (range.0, range.1.min(blocks));
        reads(&mut host, name, &medium, block_bytes, range)?;
    }
    let beyond = host.command(&format!("xl disk-read {name} {} -c 2", blocks - 1))?;
    ensure_all(&beyond, &["beyond the end"])?;
    let nobody = host.command("xl disk-read nobody 0")?;
    ensure_all(&nobody, &["no disk 'nobody'"])?;
    writes(&mut host, name, &medium, block_bytes)?;
    let log = host.command("xl dmesg")?;
    ensure!(!log.contains("polling"), "interrupts are missing:\n{log}");
    Ok(())
}

/// Makes a store of the disk: its partition table is in the image then, and reads back as it is there.
fn writes(host: &mut Host, disk: &str, medium: &Medium, block_bytes: usize) -> Result<()> {
    let made = host.command(&format!("xl store-create {disk} probe"))?;
    let bytes = std::fs::read(&medium.file)?;
    ensure!(
        bytes[block_bytes..].starts_with(b"EFI PART"),
        "no partition table after {made:?}"
    );
    let backup = bytes.len() - block_bytes;
    ensure!(
        bytes[backup..].starts_with(b"EFI PART"),
        "no second partition table after {made:?}"
    );
    let written = Medium {
        file: medium.file.clone(),
        bytes,
    };
    let last = written.bytes.len() / block_bytes - 40;
    for range in [(0, 40), (last, 40)] {
        reads(host, disk, &written, block_bytes, range)?;
    }
    Ok(())
}

#[test]
fn disks_virtio() -> Result<()> {
    let words = ["virtio-blk", "MSI-X", " 512 "];
    let kind = (DiskInterface::VirtioBlk, 512);
    one_disk("disks-virtio", Emulator::Qemu, kind, "vd0", &words)
}

#[test]
fn disks_virtio_large_blocks() -> Result<()> {
    let words = ["virtio-blk", "MSI-X", " 4096 "];
    let kind = (DiskInterface::VirtioBlk, 4096);
    one_disk("disks-virtio-4k", Emulator::Qemu, kind, "vd0", &words)
}

#[test]
fn disks_ata() -> Result<()> {
    let words = ["QEMU HARDDISK", "godwit-0", "IRQ14"];
    let kind = (DiskInterface::Ide, 512);
    one_disk("disks-ata", Emulator::Qemu, kind, "ata0", &words)
}

#[test]
fn disks_ata_bochs() -> Result<()> {
    let words = ["Generic 1234", "IRQ14"];
    let kind = (DiskInterface::Ide, 512);
    one_disk("disks-ata-bochs", Emulator::Bochs, kind, "ata0", &words)
}

#[test]
fn disks_nvme() -> Result<()> {
    let words = ["QEMU NVMe Ctrl", "godwit-0", "MSI-X", " 512 "];
    let kind = (DiskInterface::Nvme, 512);
    one_disk("disks-nvme", Emulator::Qemu, kind, "nvme0n1", &words)
}

#[test]
fn disks_nvme_large_blocks() -> Result<()> {
    let words = ["QEMU NVMe Ctrl", " 4096 "];
    let kind = (DiskInterface::Nvme, 4096);
    one_disk("disks-nvme-4k", Emulator::Qemu, kind, "nvme0n1", &words)
}

#[test]
fn disks_ahci() -> Result<()> {
    let words = ["QEMU HARDDISK", "godwit-0", "MSI"];
    let kind = (DiskInterface::Ahci, 512);
    one_disk("disks-ahci", Emulator::Qemu, kind, "sata0", &words)
}
