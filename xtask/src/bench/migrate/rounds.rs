//! What armed dirty tracking costs a busy guest, in instructions a write round: the micro-VM
//! `write-round` writes to 852 pages again and again on one host where a tick is an instruction,
//! first untracked, then with `xl dirty-log` harvesting in every pause between two rounds.

use super::super::{Better, Row};
use anyhow::{Context, Result, ensure};
use godwit_harness::{Emulator, Host, HostConfig, Image};
use std::time::Duration;

/// The group's part in `--only`.
pub(super) const NAME: &str = "write round";
const GUEST: &str = "w";
/// For rounds of the guest, and for the whole log, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Rounds before the log, of which the first ones touch pages for the first time.
const UNTRACKED: u64 = 8;
const WARM: u64 = 3;
/// Harvests, more than one in each pause of the guest.
const LOG: &str = "xl dirty-log -n 60 -t 10 w";
/// What a tracked round is slower by, at least.
const SLOWER: f64 = 1.2;
/// Of rounds, and of harvests that found all their pages.
const SAMPLES_MIN: usize = 8;

/// KVM's figures in Linux 6.1 on the same machines, the same loop in a flat guest of 8 MiB with
/// `KVM_GET_DIRTY_LOG` after each round: instructions; the lesser of small and large pages. Without
/// the log, its `pml=0`.
#[derive(Clone, Copy)]
struct Peer {
    untracked: f64,
    armed: f64,
    harvest: f64,
}

/// One way to track.
struct Way {
    /// In the row's name.
    name: &'static str,
    options: &'static str,
    peer: Option<Peer>,
}

const NPT: Way = Way {
    name: "",
    options: "",
    peer: Some(Peer {
        untracked: 5225.0,
        armed: 1_329_299.0,
        harvest: 296_374.0,
    }),
};
const LOGGED: Way = Way {
    name: "",
    options: "",
    peer: Some(Peer {
        untracked: 5225.0,
        armed: 41_914.0,
        harvest: 338_931.0,
    }),
};
/// Its figures are not counted.
const SILICON: Way = Way {
    name: "",
    options: "",
    peer: None,
};
const PROTECTED: Way = Way {
    name: ", pml=off",
    options: "pml=off",
    peer: Some(Peer {
        untracked: 5225.0,
        armed: 1_314_815.0,
        harvest: 294_471.0,
    }),
};

pub(super) fn measure(emulator: Emulator) -> Result<Vec<Row>> {
    let ways: &[Way] = match emulator {
        Emulator::Qemu => &[NPT],
        Emulator::Kvm => &[SILICON],
        Emulator::Bochs => &[LOGGED, PROTECTED],
    };
    let mut rows = Vec::new();
    for way in ways {
        rows.extend(rows_of(emulator, way, &counted(emulator, way)?));
    }
    Ok(rows)
}

/// Instructions: medians.
#[derive(Debug, PartialEq)]
struct Counted {
    untracked: f64,
    armed: f64,
    harvest: f64,
}

fn counted(emulator: Emulator, way: &Way) -> Result<Counted> {
    let label = format!("bench-write-round-{}{}", emulator.name(), way.options);
    let image = Image::new(&label, "host-a")?
        .hypervisor_options(way.options)
        .write()?;
    let mut host = Host::boot(&HostConfig::new(emulator, &image, &label).exact_time(true))?;
    host.wait_prompt()?;
    host.command(&format!(
        "xl create /dev/null name={GUEST} kernel=module:micro memory=8 balloon=1 on_poweroff=preserve \
         extra=write-round"
    ))?;
    let console = format!("xl console -n {GUEST}");
    let until = format!("ROUND {UNTRACKED} ");
    let before = host.command_until(&console, &until, TIMEOUT)?;
    let log = host.console().command(LOG, TIMEOUT * emulator.slowness())?;
    ensure!(log.contains(" 0 missed"), "{LOG}:\n{log}");
    figures(&before, &log, &host.command(&console)?)
}

fn number(line: &str, mark: &str) -> Option<u64> {
    let (_, rest) = line.split_once(mark)?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

/// Of each round its number, pages and ticks.
fn rounds(console: &str) -> Vec<(u64, u64, u64)> {
    let round = |line: &str| {
        Some((
            number(line, "ROUND ")?,
            number(line, "pages=")?,
            number(line, "ticks=")?,
        ))
    };
    console.lines().filter_map(round).collect()
}

fn median(mut samples: Vec<u64>, of: &str) -> Result<f64> {
    samples.sort_unstable();
    let enough = samples.len() >= SAMPLES_MIN || of == "untracked" && !samples.is_empty();
    ensure!(enough, "too few samples, {of}: {samples:?}");
    Ok(samples[samples.len() / 2] as f64)
}

/// From the console before the log, what the log said, and the console after it.
fn figures(before: &str, log: &str, after: &str) -> Result<Counted> {
    let before = rounds(before);
    let &(last, pages, _) = before.last().context("no round before the log")?;
    let untracked = before.iter().filter(|round| round.0 > WARM);
    // The guest goes on before and after the log as long as it takes to type: tracked rounds are those that are slower.
    let free = median(untracked.map(|round| round.2).collect(), "untracked")?;
    let after = rounds(after);
    let armed = after
        .iter()
        .filter(|round| round.0 > last && round.2 as f64 > SLOWER * free);
    let harvests = log.lines().filter_map(|line| {
        let found = number(line, ": ")?;
        let ticks = number(line, "harvested in ")?;
        (found >= pages).then_some(ticks)
    });
    Ok(Counted {
        untracked: free,
        armed: median(armed.map(|round| round.2).collect(), "armed")?,
        harvest: median(harvests.collect(), "harvests of a whole round")?,
    })
}

fn rows_of(emulator: Emulator, way: &Way, counted: &Counted) -> Vec<Row> {
    let row = |what: &str, value, peer: Option<f64>, wanted: bool| Row {
        name: format!(
            "migrate heavy, 8 MiB{}, {NAME} of 852 pages: {what}",
            way.name
        ),
        emulator: emulator.name(),
        value,
        unit: "instr",
        goal: peer.filter(|_| wanted),
        better: Better::Less,
        peer,
    };
    let of = |pick: fn(Peer) -> f64| way.peer.map(pick);
    let Counted {
        untracked,
        armed,
        harvest,
    } = *counted;
    vec![
        row("untracked", untracked, of(|peer| peer.untracked), false),
        row("armed", armed, of(|peer| peer.armed), false),
        row(
            "slow-down",
            armed - untracked,
            of(|peer| peer.armed - peer.untracked),
            true,
        ),
        row("harvest", harvest, of(|peer| peer.harvest), false),
        row(
            "armed and harvest",
            armed + harvest,
            of(|peer| peer.armed + peer.harvest),
            false,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armed_rounds_are_the_slower_ones_after_the_first_reading() {
        let round = |number: u64, ticks: u64| format!("ROUND {number} pages=852 ticks={ticks}\n");
        let before: String = (1..=8)
            .map(|n| round(n, if n <= WARM { 9999 } else { 5 }))
            .collect();
        let tracked: String = (9..=20).map(|n| round(n, 700)).collect();
        let untracked: String = (21..=60).map(|n| round(n, 5)).collect();
        let after = format!("{before}{tracked}{untracked}");
        let harvest = |pages: u32| {
            format!(
                "round 1: {pages} pages, 0 as before, after 10 ms, harvested in {} ticks\n",
                pages * 2
            )
        };
        let log: String = [0, 860, 300].map(harvest).concat().repeat(8);
        let counted = figures(&before, &log, &after).unwrap();
        let wanted = Counted {
            untracked: 5.0,
            armed: 700.0,
            harvest: 1720.0,
        };
        assert_eq!(counted, wanted);
        let error = figures(&before, &log, &before).unwrap_err().to_string();
        assert!(error.contains("too few samples, armed"), "{error}");
    }

    #[test]
    fn what_counts_is_the_slow_down() {
        let counted = Counted {
            untracked: 5.0,
            armed: 700.0,
            harvest: 300.0,
        };
        let rows = rows_of(Emulator::Qemu, &NPT, &counted);
        let goals = rows.iter().filter(|row| row.goal.is_some());
        let goals: Vec<_> = goals.map(|row| (row.value, row.goal != row.peer)).collect();
        assert_eq!(goals, [(695.0, false)]);
    }
}
