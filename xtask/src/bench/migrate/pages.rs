//! What a page costs in instructions, by the way it is sent: one host where a nanosecond is an
//! instruction measures its own engine (`xl migrate-costs`).

use super::super::{Better, Row};
use anyhow::{Context, Result, ensure};
use godwit_harness::{Emulator, Host, HostConfig, Image};
use std::time::Duration;

/// The group's part in `--only`.
pub(super) const NAME: &str = "instructions a page";
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn measure(emulator: Emulator) -> Result<Vec<Row>> {
    let label = format!("bench-migrate-costs-{}", emulator.name());
    let image = Image::new(&label, "host-a")?.write()?;
    let mut host = Host::boot(&HostConfig::new(emulator, &image, &label).exact_time(true))?;
    host.wait_prompt()?;
    let timeout = TIMEOUT * emulator.slowness();
    let said = host.console().command("xl migrate-costs", timeout)?;
    rows(emulator, &said)
}

fn rows(emulator: Emulator, said: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for line in said
        .lines()
        .filter(|line| line.trim_end().ends_with(" ns a page"))
    {
        let (step, cost) = line.split_at(12.min(line.len()));
        let cost = cost.split_whitespace().next();
        let value = cost.and_then(|cost| cost.parse().ok());
        rows.push(Row {
            name: format!("migrate {NAME}: {}", step.trim()),
            emulator: emulator.name(),
            value: value.with_context(|| format!("no number on {line:?}"))?,
            unit: "instr",
            goal: None,
            better: Better::Less,
            peer: None,
        });
    }
    ensure!(!rows.is_empty(), "no costs in:\n{said}");
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_row() {
        let said = "scan             500 ns a page\ndelta alone    12345 ns a page\nhost-a#";
        let rows = rows(Emulator::Qemu, said).unwrap();
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.name.as_str(), row.value))
            .collect();
        let wanted = [
            ("migrate instructions a page: scan", 500.0),
            ("migrate instructions a page: delta alone", 12345.0),
        ];
        assert_eq!(found, wanted);
        assert!(super::rows(Emulator::Qemu, "unknown command").is_err());
    }
}
