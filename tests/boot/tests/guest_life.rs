//! The life of a Linux guest from the operator's side: button, restart, pause, console, balloon; and
//! configurations that are refused as a whole. On Bochs it is also saved and restored: a boot takes
//! minutes there.

use anyhow::{Result, ensure};
use godwit_boot_tests::ensure_all;
use godwit_boot_tests::guest::state;
use godwit_boot_tests::linux::BOOT_TIMEOUT;
use godwit_boot_tests::served::{CREATE, MEMORY_MIB, NAME, boot, saved_and_restored};
use godwit_harness::Emulator;

const BUTTON: &str = "godwit.run=guest,power-button&";
/// What the guest is shrunk to.
const LESS_MIB: u64 = 96;

fn life(label: &str, emulator: Emulator) -> Result<()> {
    let mut site = boot(label, emulator, BUTTON)?;
    let before = site.free_mib()?;
    site.create("on_poweroff=destroy on_reboot=restart")?;
    let guest = site.guest();
    if emulator == Emulator::Bochs {
        saved_and_restored(&mut site, 1)?;
    }
    let said = site.shell_succeeds("uname -s; echo $((6*7))")?;
    ensure_all(&said, &["Linux", "42"])?;

    site.host.command("xl pause lin")?;
    guest.wait_state(&mut site.host, 'p', BOOT_TIMEOUT)?;
    site.host.command("xl unpause lin")?;
    site.shell_succeeds("true")?;

    let mib = |mib: u64| move |row: &[&str]| row.get(2) == Some(&mib.to_string().as_str());
    site.says_in_time(
        &format!("xl mem-set lin {LESS_MIB}"),
        &format!("{LESS_MIB} MiB"),
    )?;
    site.wait_row(mib(LESS_MIB))?;
    site.says_in_time(
        &format!("xl mem-set lin {MEMORY_MIB}"),
        &format!("{MEMORY_MIB} MiB"),
    )?;
    site.wait_row(mib(MEMORY_MIB))?;
    site.shell_succeeds("guest dirty mib=16 seconds=2")?;

    let id = site.host.command("xl domid lin")?;
    site.says_in_time("xl reboot -w lin", "has ended")?;
    site.host
        .command_until("xl list", &format!("{NAME} "), BOOT_TIMEOUT)?;
    let said = guest.console_until(&mut site.host, "GUEST end shell", BOOT_TIMEOUT)?;
    ensure!(
        !said.contains("Linux\n42\n"),
        "the console of the one before:\n{said}"
    );
    ensure!(
        site.host.command("xl domid lin")? != id,
        "not started again"
    );

    site.says_in_time("xl shutdown -w lin", "has ended")?;
    ensure!(
        state(&mut site.host, NAME)?.is_none(),
        "it is not destroyed"
    );
    let after = site.free_mib()?;
    ensure!(before == after, "{after} MiB are free, not {before}");
    Ok(())
}

#[test]
fn guest_life_qemu() -> Result<()> {
    life("guest-life-qemu", Emulator::Qemu)
}

#[test]
fn guest_life_bochs() -> Result<()> {
    life("guest-life-bochs", Emulator::Bochs)
}

#[test]
fn guest_refused_as_a_whole_qemu() -> Result<()> {
    let mut site = boot("guest-refused-qemu", Emulator::Qemu, "")?;
    let before = site.free_mib()?;
    for (settings, why) in [
        ("memroy=5", "unknown key 'memroy'"),
        ("kernel=kernels/none", "there is no file 'kernels/none'"),
        ("'disk=[\"main/none,raw,xvda,rw\"]'", "main/none"),
        ("memory=100000", "MiB are free"),
        ("'vif=[\"type=nat,forward=tcp:0:22\"]'", "forward"),
    ] {
        let said = site.says(&format!("{CREATE} {settings}"), why)?;
        ensure!(!said.contains("created"), "{settings}: {said}");
        site.is_gone()?;
    }
    ensure!(site.free_mib()? == before, "something is left behind");
    site.says(CREATE, "created domain 'lin'")?;
    // All of its clashes at once.
    let said = site.says(CREATE, "there is a domain 'lin' already")?;
    ensure_all(
        &said,
        &[
            "'main/data' is in use by domain 'lin'",
            "has this port of the host",
        ],
    )?;
    let list = site.host.command("xl list")?;
    ensure!(list.matches(NAME).count() == 1, "{list}");
    site.says("xl rename lin Domain-0", "there is a domain 'Domain-0'")?;
    site.says("xl rename lin 7", "is a number")?;
    site.says("xl rename lin web", "")?;
    let list = site.host.command("xl list")?;
    ensure!(list.contains("\nweb ") && !list.contains(NAME), "{list}");
    Ok(())
}
