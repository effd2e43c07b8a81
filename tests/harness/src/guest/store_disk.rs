//! A disk for a host: a store (a GPT disk with a partition named `GODWIT:LABEL`) whose volumes hold
//! given images. Written by `sfdisk` and a sparse copy, so nothing is mounted.

use anyhow::{Context, Result, ensure};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
/// Where the first partition begins; room for the table before it, and after the last one.
const EDGE_BYTES: u64 = MIB;
/// The store's own partition.
const FILES_BYTES: u64 = 16 * MIB;

/// Writes a store named `label` to `disk` with a volume for each name and image, and `free_mib` of
/// room for more. What was in the file is lost.
pub fn store_disk(
    disk: &Path,
    label: &str,
    volumes: &[(&str, &Path)],
    free_mib: u64,
) -> Result<()> {
    let mut table = format!(
        "label: gpt\n{}",
        line(EDGE_BYTES, FILES_BYTES, &format!("GODWIT:{label}"))
    );
    let mut places = Vec::new();
    let mut next = EDGE_BYTES + FILES_BYTES;
    for (name, image) in volumes {
        let bytes = std::fs::metadata(image)
            .with_context(|| format!("no image {}", image.display()))?
            .len()
            .next_multiple_of(MIB);
        table += &line(next, bytes, name);
        places.push((next, *image));
        next += bytes;
    }
    if let Some(parent) = disk.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(disk)?;
    file.set_len(next + free_mib * MIB + EDGE_BYTES)?;
    partition(disk, &table)?;
    for (offset, image) in places {
        copy(image, &file, offset)?;
    }
    Ok(())
}

/// A line of sfdisk's script: start and size in sectors.
fn line(start: u64, bytes: u64, name: &str) -> String {
    format!(
        "start={}, size={}, name=\"{name}\"\n",
        start / SECTOR_BYTES,
        bytes / SECTOR_BYTES
    )
}

fn partition(disk: &Path, table: &str) -> Result<()> {
    let mut child = Command::new("sfdisk")
        .args(["--quiet", "--no-reread", "--no-tell-kernel"])
        .arg(disk)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run sfdisk: install the package fdisk")?;
    let mut input = child.stdin.take().context("standard input is piped")?;
    input.write_all(table.as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "sfdisk failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Copies a file into another at `offset`, leaving holes where there are only zeroes.
fn copy(from: &Path, to: &File, offset: u64) -> Result<()> {
    let mut from = File::open(from)?;
    let mut piece = vec![0; MIB as usize];
    let mut at = offset;
    loop {
        let length = from.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        if piece[..length].iter().any(|&byte| byte != 0) {
            to.write_all_at(&piece[..length], at)?;
        }
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_holds_its_image() {
        let dir = tempfile::tempdir().unwrap();
        let (image, disk) = (dir.path().join("image"), dir.path().join("disk"));
        let mut contents = vec![0; 3 * MIB as usize + 512];
        contents[2 * MIB as usize] = 7;
        *contents.last_mut().unwrap() = 9;
        std::fs::write(&image, &contents).unwrap();
        store_disk(&disk, "main", &[("root", &image)], 8).unwrap();
        let written = std::fs::read(&disk).unwrap();
        assert_eq!(written.len() as u64, (1 + 16 + 4 + 8 + 1) * MIB);
        assert_eq!(&written[512..520], b"EFI PART");
        assert_eq!(written[17 * MIB as usize..][..contents.len()], contents);
        // Names are UTF-16, 56 bytes into their entries of 128, from the third block on.
        let name = |index: usize| -> String {
            let start = 1024 + index * 128 + 56;
            let letters = written[start..start + 72].chunks(2);
            letters
                .map(|two| two[0] as char)
                .take_while(|c| *c != '\0')
                .collect()
        };
        assert_eq!([name(0), name(1)], ["GODWIT:main", "root"]);
    }
}
