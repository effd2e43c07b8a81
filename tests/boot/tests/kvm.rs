//! On real silicon, through nested virtualization.

use anyhow::Result;
use godwit_boot_tests::{HOST, PEER, boot, ping_until_clean};
use godwit_harness::{Emulator, Firmware};
use std::time::Duration;

fn smoke(label: &str, firmware: Firmware) -> Result<()> {
    let mut bench = boot(label, Emulator::Kvm, |config| {
        config.cpus(2).firmware(firmware)
    })?;
    ping_until_clean(&mut bench.host, PEER)?;
    bench.peer.ping(HOST, Duration::from_secs(30))?;
    Ok(())
}

#[test]
fn smoke_kvm_bios() -> Result<()> {
    smoke("smoke-kvm-bios", Firmware::Bios)
}

#[test]
fn smoke_kvm_uefi() -> Result<()> {
    smoke("smoke-kvm-uefi", Firmware::Uefi)
}
