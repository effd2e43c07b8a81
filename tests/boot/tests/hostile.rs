//! A guest whose disk driver means harm, beside a Linux guest that does not: dom0 lives on and answers,
//! and the other's disk is whole.

use anyhow::{Result, ensure};
use godwit_boot_tests::guest::{clear, passes};
use godwit_boot_tests::served::{DATA, SAVED, boot, check_blocks};
use godwit_harness::Emulator;

/// Blocks the innocent guest writes at its start, again during each attack, and that are on the volume.
const BLOCKS: u64 = 128;

fn hostile(label: &str, emulator: Emulator, seeds: &[u64], rounds: u64) -> Result<()> {
    let words = format!("godwit.run=guest,disk,path=/dev/vda,blocks={BLOCKS},seed=7");
    let mut site = boot(label, emulator, &words)?;
    site.create("")?;
    for seed in seeds {
        let name = format!("bad-{seed}");
        let line = format!(
            "xl create /dev/null name={name} kernel=module:micro memory=8 \
             'disk=[\"main/{SAVED},raw,xvda,rw\"]' on_poweroff=preserve on_reboot=preserve \
             on_crash=preserve extra=\"hostile seed={seed} iters={rounds}\""
        );
        site.says(&line, &format!("created domain '{name}'"))?;
        let check = format!("guest disk path=/dev/vda blocks={BLOCKS} seed=7");
        site.shell_succeeds(&check)?;
        passes(&mut site.host, &name, "hostile")?;
        clear(&mut site.host, &name)?;
    }
    let log = site.host.command("xl dmesg")?;
    ensure!(!log.contains("built anew"), "dom0 was restarted:\n{log}");
    let guest = site.guest();
    guest.clear(&mut site.host)?;
    let store = site.into_store();
    check_blocks(&store.read_volume(DATA)?, BLOCKS, 7)?;
    store.check()
}

#[test]
fn hostile_qemu() -> Result<()> {
    hostile("hostile-qemu", Emulator::Qemu, &[1, 2, 3], 100)
}

#[test]
fn hostile_bochs() -> Result<()> {
    hostile("hostile-bochs", Emulator::Bochs, &[1], 30)
}
