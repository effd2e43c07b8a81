//! One host comes up on every emulator and firmware, says who it is and answers pings.

use anyhow::{Result, ensure};
use godwit_boot_tests::{HOST, PEER, boot, ensure_all, ping_until_clean};
use godwit_harness::{Emulator, Firmware, HostConfig, Nic};
use std::time::Duration;

const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// Prompt, `xl info` (vendor, CPUs), dom0 in `xl list`, pings both ways.
fn smoke(
    label: &str,
    emulator: Emulator,
    vendor: &str,
    cpus: u32,
    change: impl FnOnce(HostConfig) -> HostConfig,
) -> Result<()> {
    let mut bench = boot(label, emulator, |config| change(config.cpus(cpus)))?;
    let info = bench.host.command("xl info")?;
    ensure_all(&info, &["host-a", vendor])?;
    let count = info
        .lines()
        .find_map(|line| line.strip_prefix("nr_cpus")?.split(':').nth(1));
    ensure!(
        count.map(str::trim) == Some(&cpus.to_string()),
        "not {cpus} CPUs:\n{info}"
    );
    ensure_all(&bench.host.command("xl list")?, &["Name", "Domain-0"])?;
    ping_until_clean(&mut bench.host, PEER)?;
    bench.peer.ping(HOST, PING_TIMEOUT)?;
    Ok(())
}

#[test]
fn smoke_qemu_bios() -> Result<()> {
    smoke("smoke-qemu-bios", Emulator::Qemu, "SVM", 1, |config| config)
}

#[test]
fn smoke_qemu_two_cpus() -> Result<()> {
    smoke("smoke-qemu-two-cpus", Emulator::Qemu, "SVM", 2, |config| {
        config
    })
}

#[test]
fn smoke_qemu_uefi() -> Result<()> {
    smoke("smoke-qemu-uefi", Emulator::Qemu, "SVM", 1, |config| {
        config.firmware(Firmware::Uefi)
    })
}

#[test]
fn smoke_qemu_e1000() -> Result<()> {
    smoke("smoke-qemu-e1000", Emulator::Qemu, "SVM", 1, |config| {
        config.nic(Nic::E1000)
    })
}

#[test]
fn smoke_bochs() -> Result<()> {
    smoke("smoke-bochs", Emulator::Bochs, "VT-x", 1, |config| config)
}

/// Ends the machine by a command; QEMU runs with `-no-reboot`, so a restart ends it, too.
fn ends(label: &str, emulator: Emulator, command: &str) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    bench.host.console().send_line(command)?;
    let status = bench.host.wait_exit(Duration::from_secs(30))?;
    ensure!(
        status.success(),
        "{command}: {} ended with {status}",
        emulator.name()
    );
    Ok(())
}

#[test]
fn poweroff_ends_qemu() -> Result<()> {
    ends("poweroff-qemu", Emulator::Qemu, "poweroff")
}

#[test]
fn reboot_restarts_qemu() -> Result<()> {
    ends("reboot-qemu", Emulator::Qemu, "reboot")
}

/// Bochs compares TSC deadlines with its ticks since power-on, though its reset sets the TSC back: the
/// second run must notice, or all its timers fire at once.
#[test]
fn reboot_restarts_bochs() -> Result<()> {
    let mut bench = boot("reboot-bochs", Emulator::Bochs, |config| config)?;
    bench.host.console().send_line("reboot")?;
    bench.host.expect("(godwit) ")?;
    bench.host.wait_prompt()?;
    // The second run has working timers and network too.
    ping_until_clean(&mut bench.host, PEER).map(drop)
}
