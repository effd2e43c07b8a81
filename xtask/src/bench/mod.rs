//! The measurements behind `./x bench`: [`Row`], and one file a group.

mod boot;
mod exits;
mod guests;
mod migrate;
mod served;

pub(crate) use boot::measure as boot;
pub(crate) use guests::measure as guests;
pub(crate) use migrate::measure as migrate;

use anyhow::{Context, Result};
use serde::Serialize;

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Smaller figures are better.
    Less,
    /// Larger figures are better.
    More,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured, with one of the words cpuid, port, ipi, timer, hypercall,
    /// boot, size, virtio-blk, virtio-net, overhead in it.
    pub(crate) name: String,
    /// Where: `qemu`, `bochs`, or `build` for figures that need no emulator.
    pub(crate) emulator: &'static str,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// What we want, if something was promised.
    pub(crate) goal: Option<f64>,
    /// Which way is good.
    pub(crate) better: Better,
    /// The peer's figure on the same emulated machine, if one was measured.
    pub(crate) peer: Option<f64>,
}

impl Row {
    /// `met` or `missed`, empty without a goal.
    fn met(&self) -> &'static str {
        match (self.goal, self.better) {
            (None, _) => "",
            (Some(goal), Better::Less) if self.value <= goal => "met",
            (Some(goal), Better::More) if self.value >= goal => "met",
            (Some(_), Better::Less | Better::More) => "missed",
        }
    }
}

/// A table for people.
pub(crate) fn table(rows: &[Row]) -> String {
    let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.1}"));
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:<8}{:>14} {:<8}{:>14}{:>14}\n",
        "what", "where", "figure", "unit", "goal", "peer"
    );
    for row in rows {
        let line = format!(
            "{:<width$}  {:<8}{:>14} {:<8}{:>14}{:>14}  {}",
            row.name,
            row.emulator,
            number(Some(row.value)),
            row.unit,
            number(row.goal),
            number(row.peer),
            row.met()
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The number on the line `key : number` of `xl info` or `xl list -l`.
fn fact(info: &str, key: &str) -> Result<f64> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .and_then(|(_, value)| value.trim().parse().ok())
        .with_context(|| format!("no number {key} in:\n{info}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_json_object_with_the_promised_keys() {
        let row = Row {
            name: "cpuid exit".to_owned(),
            emulator: "bochs",
            value: 401.0,
            unit: "ticks",
            goal: Some(400.0),
            better: Better::Less,
            peer: None,
        };
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"name":"cpuid exit","emulator":"bochs","value":401.0,"unit":"ticks","goal":400.0,"better":"less","peer":null}"#
        );
        assert_eq!(row.met(), "missed");
        assert_eq!(
            Row {
                value: 400.0,
                ..row
            }
            .met(),
            "met"
        );
    }

    #[test]
    fn facts_are_found_by_their_whole_key() {
        let info = "boot_ticks_x  : 1\nboot_ticks    : 123\nhost          : host-a\n";
        assert_eq!(fact(info, "boot_ticks").unwrap(), 123.0);
        assert!(fact(info, "host").is_err(), "no number");
        assert!(fact(info, "ticks").is_err(), "no such key");
    }
}
