//! `./x bench`: our figures beside the goals and the peers' figures on the same emulated machine.
//!
//! A group is a function that measures and returns rows; `measure` below is the one place that
//! knows the groups. The exit status tells whether measuring worked, not whether goals are met.

use crate::shell;
use crate::task_image;
use anyhow::{Result, bail};
use clap::ValueEnum;
use godwit_harness::Artefact;
use serde::Serialize;
use std::process::Command;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Group {
    /// Image sizes, and from GRUB's hand-over to the prompt
    Boot,
    /// Exits and hypercalls as a guest sees them
    Guests,
    /// Live migration
    Migrate,
    /// Disks
    Storage,
}

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One group; without it, every group that exists
    #[arg(value_enum)]
    group: Option<Group>,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Smaller figures are better.
    Less,
    /// Larger figures are better.
    #[expect(dead_code, reason = "no throughput is measured yet")]
    More,
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured, with one of the words cpuid, port, hypercall, boot, size in it.
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
    fn met(&self) -> &'static str {
        match (self.goal, self.better) {
            (None, _) => "",
            (Some(goal), Better::Less) if self.value <= goal => "met",
            (Some(goal), Better::More) if self.value >= goal => "met",
            (Some(_), Better::Less | Better::More) => "missed",
        }
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let groups = args
        .group
        .map_or(Group::value_variants().to_vec(), |group| vec![group]);
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    for group in groups {
        match measure(group)? {
            Some(measured) => rows.extend(measured),
            None => missing.push(name(group)),
        }
    }
    if args.json {
        for row in &rows {
            println!("{}", serde_json::to_string(row)?);
        }
    } else if !rows.is_empty() {
        print!("{}", table(&rows));
    }
    for group in missing {
        if args.group.is_some() {
            bail!("not implemented: bench {group}");
        }
        shell::say(&format!("not implemented: bench {group}"));
    }
    Ok(())
}

fn name(group: Group) -> String {
    group
        .to_possible_value()
        .map_or(String::new(), |value| value.get_name().to_owned())
}

/// Measures a group; `None` when it does not exist yet.
fn measure(group: Group) -> Result<Option<Vec<Row>>> {
    match group {
        Group::Boot => sizes().map(Some),
        Group::Guests | Group::Migrate | Group::Storage => Ok(None),
    }
}

/// Sizes of the stripped images.
fn sizes() -> Result<Vec<Row>> {
    task_image::build_checked()?;
    let mut rows = Vec::new();
    for (artefact, name, goal_kib) in [
        (
            Artefact::Hypervisor,
            "hypervisor image size, stripped",
            1024.0,
        ),
        (Artefact::Dom0, "dom0 image size, stripped", 3072.0),
    ] {
        let stripped = shell::out_dir()?.join("stripped.elf");
        shell::run(
            Command::new("objcopy")
                .arg("--strip-all")
                .args([artefact.built()?, stripped.clone()]),
        )?;
        let size = std::fs::metadata(&stripped)?.len();
        std::fs::remove_file(stripped)?;
        rows.push(Row {
            name: name.to_owned(),
            emulator: "build",
            value: size as f64 / 1024.0,
            unit: "KiB",
            goal: Some(goal_kib),
            better: Better::Less,
            peer: None,
        });
    }
    Ok(rows)
}

fn table(rows: &[Row]) -> String {
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
}
