//! `./x bench`: our figures beside the goals and the peers' figures on the same emulated machine.
//!
//! A group is a function that measures and returns rows; `measure` below is the one place that
//! knows the groups. The exit status tells whether measuring worked, not whether goals are met.

use crate::bench::{self, Row};
use crate::shell;
use crate::task_host::EmulatorName;
use anyhow::{Result, bail};
use clap::ValueEnum;
use godwit_harness::Emulator;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Group {
    /// Sizes, from GRUB's hand-over to the prompt, and what exits and hypercalls cost
    Boot,
    /// Guests with an operating system
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
    /// Only on this emulator, again for more [default: qemu and bochs]
    #[arg(long, value_enum)]
    emulator: Vec<EmulatorName>,
    /// Of the group migrate, only what has this in its name: `idle, 256 MiB`
    #[arg(long, default_value = "")]
    only: String,
    /// One JSON object a line instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let groups = args
        .group
        .map_or(Group::value_variants().to_vec(), |group| vec![group]);
    let emulators = match args.emulator.as_slice() {
        [] => vec![Emulator::Qemu, Emulator::Bochs],
        some => some
            .iter()
            .map(|name| name.usable())
            .collect::<Result<_>>()?,
    };
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    for group in groups {
        match measure(group, &emulators, &args.only)? {
            Some(measured) => rows.extend(measured),
            None => missing.push(name(group)),
        }
    }
    if args.json {
        for row in &rows {
            println!("{}", serde_json::to_string(row)?);
        }
    } else if !rows.is_empty() {
        print!("{}", bench::table(&rows));
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
fn measure(group: Group, emulators: &[Emulator], only: &str) -> Result<Option<Vec<Row>>> {
    match group {
        Group::Boot => bench::boot(emulators).map(Some),
        Group::Guests => bench::guests(emulators).map(Some),
        Group::Migrate => bench::migrate(emulators, only).map(Some),
        Group::Storage => Ok(None),
    }
}
