//! dom0 fails and comes back under a guest that runs on, on both vendors; and a host whose dom0 keeps failing stops.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::guest::{clear, console_until, create, fact, state};
use godwit_boot_tests::{PEER, boot, ping_until_clean};
use godwit_harness::{Emulator, Host};
use std::time::{Duration, Instant};

/// For dom0's end to be told of, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Exits that last longer than two restarts: they cost QEMU much more than Bochs.
const EXITS_QEMU: u32 = 300_000;
const EXITS_BOCHS: u32 = 2_500_000;
/// For them to end, on QEMU on a busy machine.
const GUEST_TIMEOUT: Duration = Duration::from_secs(180);
const NAME: &str = "survivor";
const ASKER: &str = "asker";
/// Exits of a guest whose accesses are answered.
const ANSWERS: u64 = 20;
/// Restarts within ten minutes at most.
const RESTARTS_MAX: u32 = 5;

/// Ends dom0 and waits for what the hypervisor says of it.
fn end_dom0(host: &mut Host, expected: &str) -> Result<()> {
    let timeout = TIMEOUT * host.emulator().slowness();
    let console = host.console();
    console.send_line("xl debug-keys D")?;
    console.expect(expected, timeout)?;
    Ok(())
}

/// How often a guest has exited.
fn exits_of(host: &mut Host, name: &str) -> Result<u64> {
    let details = host.command(&format!("xl list -l {name}"))?;
    fact(&details, "exits")?.parse().context("a number")
}

fn restart(label: &str, emulator: Emulator, exits: u32) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    let host = &mut bench.host;
    create(host, NAME, &format!("cpuid-flood iters={exits}"))?;
    console_until(host, NAME, "MICRO cpuid-flood LIMITED")?;
    // This one asks dom0 all the time, so dom0 ends while it waits for an answer.
    create(host, ASKER, "device-flood")?;
    console_until(host, ASKER, "MICRO device-flood ENDLESS")?;
    for number in 1..=2 {
        end_dom0(host, &format!("built anew (restart {number})"))?;
        host.wait_prompt()?;
        let now = state(host, NAME)?.context("the guest is gone")?;
        ensure!(
            !now.contains(['s', 'c', 'd', 'p']),
            "it does not run: {now}"
        );
        ping_until_clean(host, PEER)?;
        let before = exits_of(host, ASKER)?;
        let deadline = Instant::now() + TIMEOUT * host.emulator().slowness();
        while exits_of(host, ASKER)? < before + ANSWERS {
            ensure!(Instant::now() < deadline, "{ASKER} waits for dom0 for ever");
        }
    }
    clear(host, ASKER)?;
    let command = format!("xl console -n {NAME}");
    host.command_until(&command, "MICRO cpuid-flood PASS", GUEST_TIMEOUT)?;
    clear(host, NAME)
}

#[test]
fn dom0_restarts_under_a_guest_qemu() -> Result<()> {
    restart("restart-qemu", Emulator::Qemu, EXITS_QEMU)
}

#[test]
fn dom0_restarts_under_a_guest_bochs() -> Result<()> {
    restart("restart-bochs", Emulator::Bochs, EXITS_BOCHS)
}

#[test]
fn a_dom0_that_keeps_failing_stops_the_host_qemu() -> Result<()> {
    let mut bench = boot("restart-limit-qemu", Emulator::Qemu, |config| config)?;
    let host = &mut bench.host;
    for number in 1..=RESTARTS_MAX {
        end_dom0(host, &format!("built anew (restart {number})"))?;
        host.wait_prompt()?;
    }
    end_dom0(host, "dom0 has ended too often")
}
