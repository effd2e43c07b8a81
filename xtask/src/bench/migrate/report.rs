//! What `xl migrate` says about a move, and what the guest's load says about its clocks.

use anyhow::{Context, Result};

/// The figures of a move.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moved {
    pub total_ms: f64,
    pub rounds: f64,
    pub wire_kib: f64,
    pub downtime_ms: f64,
    pub stop_kib: f64,
    pub fixed_ms: f64,
    pub proof_ms: f64,
    /// The longest that the guest's clocks have shown around the move.
    pub gap_ms: f64,
}

/// The number behind `mark` on the line that begins with `start`.
fn number(text: &str, start: &str, mark: &str) -> Result<f64> {
    let line = text.lines().find(|line| line.starts_with(start));
    let found = line.and_then(|line| {
        let (_, rest) = line.split_once(mark)?;
        rest.split_whitespace().next()?.parse().ok()
    });
    found.with_context(|| format!("no number behind {mark:?} on a line {start:?} of:\n{text}"))
}

/// Reads the report of `xl migrate` and the console of the guest after it.
pub(super) fn read(said: &str, console: &str) -> Result<Moved> {
    let moved = |mark| number(said, "moved domain ", mark);
    let stop = |mark| number(said, "stop: ", mark);
    Ok(Moved {
        total_ms: moved("': ").or_else(|_| moved(": "))?,
        rounds: moved(" ms, ")?,
        wire_kib: moved(" rounds, ")?,
        downtime_ms: moved("downtime ")?,
        stop_kib: stop("stop: ")?,
        fixed_ms: stop("fixed cost ")?,
        proof_ms: stop("proof ")?,
        gap_ms: gap_us(console)? / 1000.0,
    })
}

/// How many lines of the load a console has; the last one may not be whole.
pub(super) fn lines(console: &str) -> usize {
    whole(console).count()
}

fn whole(console: &str) -> impl Iterator<Item = &str> {
    let is_whole = |line: &&str| line.starts_with("LOAD t=") && line.ends_with(" .");
    console.lines().map(str::trim_end).filter(is_whole)
}

fn gap_us(console: &str) -> Result<f64> {
    let gaps = whole(console)
        .flat_map(|line| line.split(' '))
        .filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            matches!(key, "gap_us" | "boot_gap_us")
                .then_some(value)?
                .parse()
                .ok()
        });
    gaps.reduce(f64::max)
        .with_context(|| format!("no gaps in:\n{console}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let said = "round 1: x\nmoved domain 'm' to host-b: 9000 ms, 3 rounds, 70000 KiB sent, downtime 120 ms\n\
                    pages: 1 zero\n\
                    stop: 512 KiB; memory 60 ms, states 5 ms, proof 25 ms, hand-over 30 ms; fixed cost 60 ms\n";
        let console = "LOAD t=1.0 total=5 gap_us=900 boot_gap_us=121000 gap_ticks=9 .\n\
                       LOAD t=2.0 total=5 gap_us=9999";
        let moved = read(said, console).unwrap();
        assert_eq!((moved.total_ms, moved.rounds), (9000.0, 3.0));
        assert_eq!((moved.wire_kib, moved.downtime_ms), (70000.0, 120.0));
        assert_eq!(
            (moved.stop_kib, moved.fixed_ms, moved.proof_ms),
            (512.0, 60.0, 25.0)
        );
        assert_eq!(moved.gap_ms, 121.0);
        assert_eq!(lines(console), 1);
        assert!(read("moved domain 'm'", console).is_err());
        assert!(read(said, "").is_err());
    }
}
