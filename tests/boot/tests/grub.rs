//! The bench before the product: GRUB alone prints on the serial line of every emulator, so that
//! a silent boot test is the hypervisor's fault and not the harness's.

use anyhow::{Context, Result, ensure};
use godwit_harness::{DiskConfig, DiskInterface, Emulator, Firmware, Host, HostConfig, Image};
use std::process::Command;

fn grub_speaks(label: &str, emulator: Emulator, firmware: Firmware) -> Result<()> {
    let script = "echo \"grub on $grub_platform speaks\"\nsleep 600";
    let image = Image::grub_alone(label, script)?.write()?;
    let config = HostConfig::new(emulator, &image, label)
        .memory_mib(128)
        .firmware(firmware);
    let platform = match firmware {
        Firmware::Bios | Firmware::SeaBios => "grub on pc speaks",
        Firmware::Uefi => "grub on efi speaks",
    };
    Host::boot(&config)?.expect(platform)?;
    Ok(())
}

#[test]
fn grub_speaks_qemu_bios() -> Result<()> {
    grub_speaks("grub-qemu-bios", Emulator::Qemu, Firmware::Bios)
}

#[test]
fn grub_speaks_qemu_uefi() -> Result<()> {
    grub_speaks("grub-qemu-uefi", Emulator::Qemu, Firmware::Uefi)
}

#[test]
fn grub_speaks_bochs() -> Result<()> {
    grub_speaks("grub-bochs", Emulator::Bochs, Firmware::Bios)
}

/// GRUB finds a FAT disk behind the controller by its label, so the firmware saw the disk.
fn grub_finds_disk(label: &str, emulator: Emulator, interface: DiskInterface) -> Result<()> {
    let work = tempfile::tempdir()?;
    let file = work.path().join("disk.img");
    std::fs::File::create(&file)?.set_len(16 * 63 * 512 * 16)?;
    let made = Command::new("mformat")
        .args(["-v", "FINDME", "-T", "16128", "-h", "16", "-s", "63", "-i"])
        .arg(&file)
        .arg("::")
        .output()
        .context("mformat of the package mtools")?;
    ensure!(made.status.success(), "mformat: {made:?}");
    let script = "search --label FINDME --set=found\necho \"it is $found.\"\nsleep 600";
    let image = Image::grub_alone(label, script)?.write()?;
    let config = HostConfig::new(emulator, &image, label)
        .memory_mib(128)
        .disk(DiskConfig::new(&file, interface));
    Host::boot(&config)?.expect("it is hd0.")?;
    Ok(())
}

#[test]
fn grub_finds_disk_qemu_virtio_blk() -> Result<()> {
    grub_finds_disk("grub-disk-virtio", Emulator::Qemu, DiskInterface::VirtioBlk)
}

#[test]
fn grub_finds_disk_qemu_nvme() -> Result<()> {
    grub_finds_disk("grub-disk-nvme", Emulator::Qemu, DiskInterface::Nvme)
}

#[test]
fn grub_finds_disk_qemu_ahci() -> Result<()> {
    grub_finds_disk("grub-disk-ahci", Emulator::Qemu, DiskInterface::Ahci)
}

#[test]
fn grub_finds_disk_qemu_ide() -> Result<()> {
    grub_finds_disk("grub-disk-ide", Emulator::Qemu, DiskInterface::Ide)
}

#[test]
fn grub_finds_disk_bochs() -> Result<()> {
    grub_finds_disk("grub-disk-bochs", Emulator::Bochs, DiskInterface::Ide)
}
