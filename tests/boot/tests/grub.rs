//! The bench before the product: GRUB alone prints on the serial line of every emulator, so that
//! a silent boot test is the hypervisor's fault and not the harness's.

use anyhow::Result;
use godwit_harness::{Emulator, Firmware, Host, HostConfig, Image};

fn grub_speaks(label: &str, emulator: Emulator, firmware: Firmware) -> Result<()> {
    let script = "echo \"grub on $grub_platform speaks\"\nsleep 600";
    let image = Image::grub_alone(label, script)?.write()?;
    let config = HostConfig::new(emulator, &image, label)
        .memory_mib(128)
        .firmware(firmware);
    let platform = match firmware {
        Firmware::Bios => "grub on pc speaks",
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
