//! The migrate group: Debian's kernel and our ramdisk under the loads of `guest load`, moved between
//! two hosts over a link of a set rate, encrypted, beside QEMU's and KVM's figures.
//!
//! Two emulators cannot count instructions in step, so what takes time is wall time on a machine that
//! plays both hosts, the link and whatever else it does: bytes and rounds repeat, times within a factor
//! of two on a quiet machine. What a page costs in instructions is counted on one host (pages.rs), and what
//! tracking costs a busy guest (rounds.rs).

mod cases;
mod pages;
mod report;
mod rounds;
mod site;

use super::{Better, Row};
use crate::{shell, task_image};
use anyhow::{Context, Result};
use cases::{Case, Outcome};
use godwit_harness::Emulator;
use report::Moved;
use site::Site;

/// Measures the whole group, or what has `only` in its name.
pub(crate) fn measure(emulators: &[Emulator], only: &str) -> Result<Vec<Row>> {
    task_image::build_checked()?;
    let mut rows = Vec::new();
    for &emulator in emulators {
        if pages::NAME.contains(only) {
            rows.extend(note(pages::measure(emulator)?));
        }
        if rounds::NAME.contains(only) {
            rows.extend(note(rounds::measure(emulator)?));
        }
        rows.extend(moves(emulator, only)?);
    }
    Ok(rows)
}

/// Every case on hosts of its guest's size.
fn moves(emulator: Emulator, only: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for memory_mib in cases::sizes(emulator) {
        let mut cases = cases::of(*memory_mib);
        cases.retain(|case| case.name().contains(only));
        if cases.is_empty() {
            continue;
        }
        shell::say(&format!(
            "booting two hosts on {} for guests of {memory_mib} MiB",
            emulator.name()
        ));
        let mut site = Site::boot(emulator, *memory_mib)?;
        for case in &cases {
            shell::say(&case.name());
            let moved = site.run(case).with_context(|| case.name())?;
            rows.extend(note(rows_of(emulator, case, &moved)));
        }
    }
    rows.extend(same_downtime(emulator, &rows));
    Ok(rows)
}

/// Shows what has been measured so far: what comes may take long, and fail.
fn note(rows: Vec<Row>) -> Vec<Row> {
    eprint!("{}", super::table(&rows));
    rows
}

/// The rows of one move; of one that was not to succeed, how long it took to say so.
fn rows_of(emulator: Emulator, case: &Case, outcome: &Outcome) -> Vec<Row> {
    let row = |what: &str, value, unit, goal, peer| Row {
        name: format!("{}: {what}", case.name()),
        emulator: emulator.name(),
        value,
        unit,
        goal,
        better: Better::Less,
        peer,
    };
    let moved = match outcome {
        Outcome::Refused { seconds } => {
            return vec![row("until it was called off", *seconds, "s", None, None)];
        }
        Outcome::Moved(moved) => moved,
    };
    let Moved {
        total_ms,
        rounds,
        wire_kib,
        downtime_ms,
        stop_kib,
        fixed_ms,
        proof_ms,
        gap_ms,
    } = *moved;
    let peer = case.peer();
    let gap = peer.map(|peer| peer.gap_ms);
    let wire_mb = peer.map(|peer| peer.wire_mb);
    vec![
        row(
            "whole move",
            total_ms / 1000.0,
            "s",
            None,
            peer.map(|peer| peer.total_s),
        ),
        row(
            "on the wire",
            wire_kib * 1.024 / 1000.0,
            "MB",
            case.wire_goal_mb(),
            wire_mb,
        ),
        row("rounds", rounds, "", None, peer.map(|peer| peer.rounds)),
        row("in the stop", stop_kib, "KiB", None, None),
        row(
            "downtime",
            downtime_ms,
            "ms",
            case.downtime_goal_ms(),
            peer.map(|peer| peer.downtime_ms),
        ),
        row(
            "gap seen in the guest",
            gap_ms,
            "ms",
            gap.filter(|_| case.gap_is_goal()),
            gap,
        ),
        row("fixed cost of the stop", fixed_ms, "ms", None, None),
        row("proof within it", proof_ms, "ms", None, None),
    ]
}

/// The downtime of the largest guest over that of the smallest, idle and at the full rate.
fn same_downtime(emulator: Emulator, rows: &[Row]) -> Option<Row> {
    const AT_MOST: f64 = 1.2;
    let downtime = |memory_mib: u32| {
        let name = format!("{}: downtime", cases::idle(memory_mib).name());
        let row = rows.iter().find(|row| row.name == name)?;
        Some(row.value)
    };
    let (small, large) = (downtime(256)?, downtime(1024)?);
    Some(Row {
        name: "migrate idle, downtime of 1 GiB over that of 256 MiB".to_owned(),
        emulator: emulator.name(),
        value: large / small,
        unit: "",
        goal: Some(AT_MOST),
        better: Better::Less,
        peer: None,
    })
}
