//! Programs that run inside a Linux guest: what exits cost, and loads that check themselves.
//!
//! One static binary, `guest SUBCOMMAND key=value...`, because the ramdisk holds no library. Every
//! line it prints begins with a word that programs search for; a failed check prints `... BAD` and
//! ends with status 1.

mod arguments;
mod clock;
mod dirty;
mod disk;
mod exits;
mod heartbeat;
mod load;
mod pattern;
mod port;
mod power;
mod shootdown;
mod tcp;
mod wake;

use arguments::Arguments;
use std::process::ExitCode;

/// A subcommand: its name, what it does, and the function.
type Subcommand = (
    &'static str,
    &'static str,
    fn(&Arguments) -> Result<(), String>,
);

const SUBCOMMANDS: &[Subcommand] = &[
    ("exits", "what operations cost: EB lines", exits::run),
    ("ticks", "prints the time-stamp counter", clock::print),
    (
        "shootdown",
        "changes translations that all CPUs use",
        shootdown::run,
    ),
    ("dirty", "writes and checks memory at a rate", dirty::run),
    (
        "load",
        "writes memory in a known way, and shows pauses",
        load::run,
    ),
    ("disk", "writes and checks blocks of a disk", disk::run),
    ("tcp-serve", "answers tcp-send on a port", tcp::serve),
    (
        "tcp-send",
        "sends a checked stream to an address",
        tcp::send,
    ),
    (
        "heartbeat",
        "prints the gaps that clocks show",
        heartbeat::run,
    ),
    (
        "power-button",
        "switches off when the button is pressed",
        power::run,
    ),
];

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let name = words.next().unwrap_or_default();
    let Some((_, _, run)) = SUBCOMMANDS.iter().find(|(known, ..)| *known == name) else {
        for (name, what, _) in SUBCOMMANDS {
            eprintln!("guest {name:<14}{what}");
        }
        return ExitCode::FAILURE;
    };
    match Arguments::parse(words).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("{name} BAD {why}");
            ExitCode::FAILURE
        }
    }
}
