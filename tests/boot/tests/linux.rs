//! Debian's kernel, unmodified, to user space and to its end, on both vendors.

use anyhow::{Result, ensure};
use godwit_boot_tests::linux::{BOOT_TIMEOUT, LinuxGuest, boot};
use godwit_boot_tests::{PEER, ping_until_clean};
use godwit_harness::{Emulator, Flavour, Host, guest_fact};
use std::time::Duration;

/// How long a guest that was told to may take to end, on QEMU.
const END_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a guest is made and ends by itself.
const ROUNDS: u32 = 3;
/// The same in the long form.
const SOAK_ROUNDS: u32 = 20;

fn guest<'a>(name: &'a str, vcpus: u32, words: &'a str) -> LinuxGuest<'a> {
    LinuxGuest {
        name,
        vcpus,
        memory_mib: 256,
        words,
        settings: "",
    }
}

/// To user space with all CPUs, and off by ACPI.
fn to_user_space_and_off(host: &mut Host, vcpus: u32) -> Result<()> {
    let guest = guest("lin", vcpus, "godwit.end=poweroff");
    guest.create(host)?;
    let said = guest.console_until(host, "GUEST end poweroff", BOOT_TIMEOUT)?;
    let cpus = guest_fact(&said, "cpus")?;
    ensure!(
        cpus == f64::from(vcpus),
        "{cpus} CPUs, not {vcpus}:\n{said}"
    );
    ensure!(
        guest_fact(&said, "uptime")? > 0.0,
        "time stands still:\n{said}"
    );
    ensure!(!said.contains("GUEST FAILED"), "a module failed:\n{said}");
    for trouble in [
        "WARNING: CPU:",
        "BUG:",
        "rcu_preempt detected stalls",
        "Call Trace",
    ] {
        ensure!(!said.contains(trouble), "the kernel complains:\n{said}");
    }
    guest.wait_state(host, 's', END_TIMEOUT)?;
    let ended = host.command("xl list -l lin")?;
    ensure!(
        ended.to_lowercase().contains("poweroff"),
        "not by power off:\n{ended}"
    );
    guest.clear(host)
}

/// Boots the kernel with each number of vCPUs in turn on one host; dom0 stays alive.
fn linux(label: &str, emulator: Emulator, cpus: u32, guests: &[u32]) -> Result<()> {
    let mut bench = boot(label, emulator, Flavour::Cloud, |config| config.cpus(cpus))?;
    for &vcpus in guests {
        to_user_space_and_off(&mut bench.host, vcpus)?;
    }
    ping_until_clean(&mut bench.host, PEER)
}

#[test]
fn linux_qemu() -> Result<()> {
    linux("linux-qemu", Emulator::Qemu, 1, &[1, 4, 8])
}

#[test]
fn linux_bochs() -> Result<()> {
    linux("linux-bochs", Emulator::Bochs, 1, &[2])
}

#[test]
fn linux_ends_qemu() -> Result<()> {
    ends("linux-ends-qemu", ROUNDS)
}

/// The long form: `./x test soak`.
#[test]
#[ignore = "takes ten minutes"]
fn soak_ends_qemu() -> Result<()> {
    ends("soak-ends-qemu", SOAK_ROUNDS)
}

/// Guests that end by themselves, again and again, at once or by a reset; all they had comes back.
fn ends(label: &str, rounds: u32) -> Result<()> {
    let mut bench = boot(label, Emulator::Qemu, Flavour::Cloud, |config| {
        config.cpus(1)
    })?;
    let host = &mut bench.host;
    let mut free = None;
    for round in 0..rounds {
        for end in ["poweroff", "reboot"] {
            let words = format!("godwit.end={end}");
            let guest = guest("lin", 2, &words);
            guest.create(host)?;
            guest.console_until(host, &format!("GUEST end {end}"), BOOT_TIMEOUT)?;
            guest.wait_state(host, 's', END_TIMEOUT)?;
            let ended = host.command("xl list -l lin")?.to_lowercase();
            ensure!(ended.contains(end), "round {round}, {end}:\n{ended}");
            guest.clear(host)?;
            let now = host.command("xl info")?;
            let now = godwit_boot_tests::guest::fact(&now, "free_memory_kib")?;
            ensure!(
                free.as_ref().is_none_or(|free| *free == now),
                "round {round}: {free:?} KiB were free, now {now}"
            );
            // The first guest may have made tables grow that stay.
            free = (round > 0 || end == "reboot").then_some(now);
        }
    }
    Ok(())
}

/// Processes on four CPUs: wake-ups by IPI, permissions taken and given while others run.
#[test]
fn linux_smp_load_qemu() -> Result<()> {
    let mut bench = boot("linux-smp-qemu", Emulator::Qemu, Flavour::Cloud, |config| {
        config.cpus(1)
    })?;
    let host = &mut bench.host;
    let guest = guest(
        "lin",
        4,
        "godwit.run=guest,exits,only=ipi+timer+fork+protect+context-switch \
         godwit.run=guest,shootdown,seconds=5 godwit.run=guest,dirty,mib=16,rate=2000,seconds=5 \
         godwit.end=poweroff",
    );
    guest.create(host)?;
    let said = guest.console_until(host, "GUEST end", BOOT_TIMEOUT)?;
    ensure!(
        said.matches("GUEST ran status=0").count() == 3,
        "a load failed:\n{said}"
    );
    ensure!(!said.contains("EB ipi skipped"), "no second CPU:\n{said}");
    guest.wait_state(host, 's', END_TIMEOUT)?;
    guest.clear(host)
}
