//! Disks of an emulated host: an image file behind one of the controllers dom0 has drivers for.

use crate::config::HostConfig;
use anyhow::{Result, bail, ensure};
use std::path::{Path, PathBuf};

/// Buses of q35's own AHCI controller that the CD-ROM (`ide.2`) leaves free.
const AHCI_BUSES: [&str; 5] = ["ide.0", "ide.1", "ide.3", "ide.4", "ide.5"];
/// Places on an added PIIX3 IDE controller: bus and unit.
const IDE_PLACES: [(u32, u32); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];
/// Places in Bochs beside the CD-ROM, which is `ata1-master` then.
const BOCHS_PLACES: [&str; 3] = ["ata0-master", "ata0-slave", "ata1-slave"];

/// The controller a disk hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskInterface {
    /// virtio-blk-pci; QEMU only.
    VirtioBlk,
    /// An NVMe controller of its own with one namespace; QEMU only.
    Nvme,
    /// A port of an AHCI controller; QEMU only.
    Ahci,
    /// IDE with its old I/O ports: PIIX3 in QEMU, Bochs' ATA channels.
    Ide,
}

impl DiskInterface {
    /// The name used on command lines.
    pub fn name(self) -> &'static str {
        match self {
            DiskInterface::VirtioBlk => "virtio-blk",
            DiskInterface::Nvme => "nvme",
            DiskInterface::Ahci => "ahci",
            DiskInterface::Ide => "ide",
        }
    }
}

/// One disk of a host; its serial number is `godwit-<index>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    pub(crate) file: PathBuf,
    pub(crate) interface: DiskInterface,
    pub(crate) block_bytes: u32,
    pub(crate) read_only: bool,
}

impl DiskConfig {
    /// A raw image `file`, writable, of 512-byte blocks.
    pub fn new(file: impl Into<PathBuf>, interface: DiskInterface) -> DiskConfig {
        DiskConfig {
            file: file.into(),
            interface,
            block_bytes: 512,
            read_only: false,
        }
    }

    /// Bytes of a logical block: 512, or 4096 for virtio-blk and NVMe.
    pub fn block_bytes(mut self, block_bytes: u32) -> DiskConfig {
        self.block_bytes = block_bytes;
        self
    }

    /// Whether the device says it cannot be written (virtio-blk and NVMe).
    pub fn read_only(mut self, read_only: bool) -> DiskConfig {
        self.read_only = read_only;
        self
    }

    fn check(&self) -> Result<()> {
        let plain = self.block_bytes == 512 && !self.read_only;
        let able = matches!(
            self.interface,
            DiskInterface::VirtioBlk | DiskInterface::Nvme
        );
        ensure!(
            plain || able,
            "a disk on {} has 512-byte blocks and can be written: use virtio-blk or nvme",
            self.interface.name()
        );
        ensure!(
            matches!(self.block_bytes, 512 | 4096),
            "blocks of {} bytes: 512 or 4096",
            self.block_bytes
        );
        ensure!(
            self.file.is_file(),
            "{} does not exist: make the disk image first",
            self.file.display()
        );
        Ok(())
    }
}

/// QEMU's arguments, in pairs.
pub(crate) fn qemu_pairs(config: &HostConfig) -> Result<Vec<(&'static str, String)>> {
    let mut pairs = Vec::new();
    let mut ahci = AHCI_BUSES.iter();
    let mut ide = IDE_PLACES.iter();
    for (index, disk) in config.disks.iter().enumerate() {
        disk.check()?;
        let read_only = if disk.read_only { "on" } else { "off" };
        let file = disk.file.to_string_lossy().replace(',', ",,");
        pairs.push((
            "-drive",
            format!(
                "if=none,id=disk{index},format=raw,cache=writeback,discard=unmap,\
                 readonly={read_only},file={file}"
            ),
        ));
        let common = format!("drive=disk{index},serial=godwit-{index}");
        let blocks = format!(
            "logical_block_size={0},physical_block_size={0}",
            disk.block_bytes
        );
        let device = match disk.interface {
            DiskInterface::VirtioBlk => format!("virtio-blk-pci,{common},{blocks}"),
            DiskInterface::Nvme => format!("nvme,{common},{blocks}"),
            DiskInterface::Ahci => match ahci.next() {
                Some(bus) => format!("ide-hd,{common},bus={bus}"),
                None => bail!("at most {} disks on ahci", AHCI_BUSES.len()),
            },
            DiskInterface::Ide => match ide.next() {
                Some((bus, unit)) => {
                    if (*bus, *unit) == IDE_PLACES[0] {
                        pairs.push(("-device", "piix3-ide,id=piix".to_owned()));
                    }
                    format!("ide-hd,{common},bus=piix.{bus},unit={unit}")
                }
                None => bail!("at most {} disks on ide", IDE_PLACES.len()),
            },
        };
        pairs.push(("-device", device));
    }
    Ok(pairs)
}

/// Bochs leaves a file beside an image that keeps others away, and when it is ended it leaves it for
/// ever. Whose image it is says who starts it.
fn forget_lock(image: &Path) -> Result<()> {
    let mut lock = image.as_os_str().to_owned();
    lock.push(".lock");
    match std::fs::remove_file(&lock) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Bochs' configuration lines, with the one of the CD-ROM.
pub(crate) fn bochs_lines(config: &HostConfig) -> Result<Vec<String>> {
    let cdrom = if config.disks.is_empty() {
        "ata0-master"
    } else {
        "ata1-master"
    };
    let mut lines = vec![
        format!(
            "{cdrom}: type=cdrom, path=\"{}\", status=inserted",
            config.iso.display()
        ),
        "boot: cdrom".to_owned(),
    ];
    if !config.disks.is_empty() {
        lines.push("ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15".to_owned());
    }
    ensure!(
        config.disks.len() <= BOCHS_PLACES.len(),
        "at most {} disks in Bochs",
        BOCHS_PLACES.len()
    );
    for (disk, place) in config.disks.iter().zip(BOCHS_PLACES) {
        disk.check()?;
        ensure!(
            disk.interface == DiskInterface::Ide,
            "Bochs has no {}: give the host its disks by ide",
            disk.interface.name()
        );
        forget_lock(&disk.file)?;
        lines.push(format!(
            "{place}: type=disk, mode=flat, path=\"{}\"",
            disk.file.display()
        ));
    }
    Ok(lines)
}
