//! The dirty log against guests that write pages with round numbers: `xl dirty-log` keeps a digest of each page, renews it where
//! the log says so, and at the end nothing may differ; and what is known not to be written must not be reported.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::boot_image;
use godwit_boot_tests::guest::{clear, console_until, create, fact};
use godwit_boot_tests::linux::BOOT_TIMEOUT;
use godwit_harness::{Emulator, Host};
use std::time::Instant;

const NAME: &str = "w";
/// Ctrl-A three times.
const SWITCH: &[u8] = b"\x01\x01\x01";
/// A vCPU may be between the fault that notes a write and the write, when it is paused.
const NOT_YET_WRITTEN: usize = 1;
/// Pages a second that a vCPU may write to when it is held back.
const QUOTA: u64 = 40;
/// What it may be ahead, what a fault in flight may add, and rounding.
const QUOTA_SLACK: u64 = 16;

/// Where the micro-VM writes, by its own account.
struct Area {
    first: u64,
    end: u64,
    block: u64,
}

/// A round of `xl dirty-log -v`.
#[derive(Debug, Default)]
struct Round {
    elapsed_ms: u64,
    reported: Vec<u64>,
    as_before: Vec<u64>,
}

fn number_after(text: &str, mark: &str) -> Result<u64> {
    let rest = text.split_once(mark).map(|(_, rest)| rest);
    let digits: String = rest
        .unwrap_or("")
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    digits
        .parse()
        .with_context(|| format!("no number after {mark:?} in:\n{text}"))
}

/// `3-5,9` as pages.
fn pages(list: &str) -> Result<Vec<u64>> {
    let mut pages = Vec::new();
    for piece in list.trim().split(',').filter(|piece| !piece.is_empty()) {
        let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
        pages.extend(first.parse::<u64>()?..=last.parse()?);
    }
    Ok(pages)
}

fn rounds(said: &str) -> Result<Vec<Round>> {
    let mut rounds: Vec<Round> = Vec::new();
    for line in said.lines() {
        if line.starts_with("round ") {
            rounds.push(Round {
                elapsed_ms: number_after(line, "after ")?,
                ..Round::default()
            });
        }
        let Some(round) = rounds.last_mut() else {
            continue;
        };
        if let Some(list) = line.strip_prefix("  reported: ") {
            round.reported = pages(list)?;
        } else if let Some(list) = line.strip_prefix("  as before: ") {
            round.as_before = pages(list)?;
        }
    }
    Ok(rounds)
}

impl Area {
    fn of(console: &str) -> Result<Area> {
        let first = number_after(console, "DIRTY area=")?;
        Ok(Area {
            first,
            end: number_after(console, &format!("DIRTY area={first}-"))?,
            block: number_after(console, " block=")?,
        })
    }

    fn holds(&self, page: u64) -> bool {
        (self.first..self.end).contains(&page)
    }

    /// Whether the guest ever writes there: it does to every second block, and to what is below its area.
    fn is_written(&self, page: u64) -> bool {
        match self.holds(page) {
            true => ((page - self.first) / self.block).is_multiple_of(2),
            false => page < self.first,
        }
    }
}

/// Runs the command; nothing was missed. Its rounds.
fn log(host: &mut Host, options: &str) -> Result<Vec<Round>> {
    let line = format!("xl dirty-log -v {options} {NAME}");
    let timeout = BOOT_TIMEOUT * host.emulator().slowness();
    let said = host.console().command(&line, timeout)?;
    ensure!(said.contains(" 0 missed"), "{line}:\n{said}");
    rounds(&said)
}

/// `exact`: the guest stood still from the harvest to the reading.
fn judge(round: &Round, area: &Area, exact: bool) -> Result<()> {
    let wrong: Vec<_> = round
        .reported
        .iter()
        .filter(|&&page| !area.is_written(page))
        .collect();
    ensure!(wrong.is_empty(), "never written, but reported: {wrong:?}");
    let as_before: Vec<_> = round
        .as_before
        .iter()
        .filter(|&&page| area.holds(page))
        .collect();
    ensure!(
        !exact || as_before.len() <= NOT_YET_WRITTEN,
        "reported, and not written: {as_before:?}"
    );
    Ok(())
}

/// Pages of its nested tables: more while large pages are split.
fn tables(host: &mut Host) -> Result<String> {
    let list = host.command(&format!("xl list -l {NAME}"))?;
    fact(&list, "nested_table_pages")
}

/// dom0 dies while it follows the writes: the next one leaves nothing of that.
fn orphan(host: &mut Host, tables_before: &str) -> Result<()> {
    let timeout = BOOT_TIMEOUT * host.emulator().slowness();
    let console = host.console();
    console.send_line(&format!("xl dirty-log -n 1000 -t 20 {NAME}"))?;
    console.expect("round 2: ", timeout)?;
    console.send(SWITCH)?;
    console.expect("input goes to the hypervisor", timeout)?;
    console.send(b"D")?;
    console.expect("built anew (restart 1)", timeout)?;
    console.send(SWITCH)?;
    host.wait_prompt()?;
    let deadline = Instant::now() + timeout;
    while tables(host)? != tables_before {
        ensure!(
            Instant::now() < deadline,
            "tables are split as before the restart"
        );
    }
    Ok(())
}

/// Whole rounds of a micro-VM; then with a quota, which holds it back; then everything is as it was.
fn oracle(label: &str, emulator: Emulator, options: &str) -> Result<()> {
    let mut bench = boot_image(label, emulator, |image| image.hypervisor_options(options))?;
    let host = &mut bench.host;
    create(host, NAME, "dirty")?;
    let area = Area::of(&console_until(host, NAME, "DIRTY round=")?)?;
    let before = tables(host)?;
    let free = log(host, "-n 4 -t 100")?;
    let paused = log(host, "-p -n 4 -t 100")?;
    ensure!(free.len() == 4 && paused.len() == 4, "{free:?} {paused:?}");
    for (rounds, exact) in [(&free, false), (&paused, true)] {
        let reported = rounds.iter().flat_map(|round| &round.reported);
        let written = reported.filter(|&&page| area.holds(page)).count();
        ensure!(written > 0, "the guest stood still: {rounds:?}");
        for (number, round) in rounds.iter().enumerate() {
            // Before the first one it ran while its memory was read.
            judge(round, &area, exact && number > 0)
                .with_context(|| format!("round {}", number + 1))?;
        }
    }
    let held = log(host, &format!("-n 2 -t 1000 -q {QUOTA}"))?;
    for round in &held {
        let found = round.reported.len() as u64;
        let allowed = QUOTA * round.elapsed_ms / 1000 + QUOTA_SLACK;
        ensure!(
            found <= allowed,
            "{found} pages with a quota, not {allowed}"
        );
    }
    let most = free.iter().map(|round| round.reported.len()).max();
    ensure!(
        most > Some((QUOTA + QUOTA_SLACK) as usize),
        "the quota was above what is written: {most:?}"
    );
    let after = tables(host)?;
    ensure!(
        before == after,
        "{before} tables before, {after} afterwards"
    );
    if options.is_empty() {
        orphan(host, &before)?;
    }
    judge(&log(host, "-n 1 -t 100")?[0], &area, false)?;
    let said = console_until(host, NAME, "DIRTY round=")?;
    ensure!(!said.contains("FAIL"), "memory is wrong:\n{said}");
    clear(host, NAME)
}

#[test]
fn dirty_oracle_qemu() -> Result<()> {
    oracle("dirty-oracle-qemu", Emulator::Qemu, "")
}

#[test]
fn dirty_oracle_bochs() -> Result<()> {
    oracle("dirty-oracle-bochs", Emulator::Bochs, "")
}

#[test]
fn dirty_oracle_without_log_bochs() -> Result<()> {
    oracle("dirty-oracle-wp-bochs", Emulator::Bochs, "pml=off")
}
