//! The dirty log against a real Linux guest: two vCPUs write pages that carry round numbers, its disk
//! writes into its memory for it, and `xl dirty-log` compares all of its memory with the log.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::served;
use godwit_harness::Emulator;

/// Fewest pages that are found written in all rounds, so that the test has seen something.
const PAGES_MIN: u64 = 50;

/// Pages reported by all rounds: `round 1: 1146 pages, ...`.
fn reported(said: &str) -> Result<u64> {
    let rounds = said.lines().filter(|line| line.starts_with("round "));
    let counts = rounds.map(|line| {
        let (_, rest) = line.split_once(": ").context("no number of pages")?;
        let count = rest.split(' ').next().unwrap_or_default();
        count.parse::<u64>().with_context(|| line.to_owned())
    });
    counts.sum()
}

#[test]
fn dirty_linux_qemu() -> Result<()> {
    let mut site = served::boot("dirty-linux-qemu", Emulator::Qemu, "")?;
    site.create("vcpus=2")?;
    site.shell_succeeds(
        "(while dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2>/dev/null; do sleep 0.1; done) & true",
    )?;
    site.shell_succeeds("(guest dirty mib=16 rate=1000 heartbeat=0 >/tmp/out) & true")?;
    let said = site.says_in_time("xl dirty-log -n 4 -t 700 lin", " 0 missed")?;
    let found = reported(&said)?;
    ensure!(found >= PAGES_MIN, "{found} pages written:\n{said}");
    site.says_in_time("xl dirty-rate -t 3 lin", "dirty rate: ")?;
    let said = site.shell_succeeds("grep -c BAD /tmp/out; true")?;
    ensure!(said.trim_start().starts_with('0'), "{said}");
    let guest = site.guest();
    guest.clear(&mut site.host)
}
