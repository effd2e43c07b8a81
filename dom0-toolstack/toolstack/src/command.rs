//! What the operator types: a line into commands, with errors that name what is wrong.
//!
//! Entry points for input nobody vouches for: [`parse_line`] and [`complete()`], total and linear in
//! the line. A line is taken as a whole or not at all: when one of its commands cannot be
//! understood, none runs.

mod action;
mod arguments;
mod complete;
pub mod help;
mod size;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod words;

pub use action::{
    Action, AfterSave, ConsoleKind, DirtyLogOptions, HostCommand, MoveCommand, SchedulerSet,
    StoreCommand, Volume,
};
pub use complete::{Known, complete};

use crate::config::DiskTarget;
use crate::suggest::nearest;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arguments::Arguments;
use core::fmt;
use spec::{LATER, Spec, XL, specs};
use words::{Open, Word};

/// The longest line that is parsed, in bytes.
pub const LINE_BYTES_MAX: usize = 8192;
/// The most commands on a line.
pub const COMMANDS_MAX: usize = 64;
/// The empty configuration.
pub const EMPTY_CONFIG: &str = "/dev/null";
/// Seconds between updates of `xl top`.
pub const TOP_DELAY_SECONDS: u32 = 3;
/// The most blocks that `xl disk-read` reads.
pub const DISK_READ_BLOCKS_MAX: u32 = 65536;
/// Seconds for which `xl dirty-rate` counts.
pub const DIRTY_RATE_SECONDS: u32 = 5;
/// Rounds of `xl dirty-log`, and the milliseconds that each takes.
pub const DIRTY_LOG_ROUNDS: u32 = 3;
/// See [`DIRTY_LOG_ROUNDS`].
pub const DIRTY_LOG_INTERVAL_MS: u32 = 1000;
/// Milliseconds between echo requests.
pub const PING_INTERVAL_MS: u32 = 1000;

/// A command, ready to run.
#[derive(Clone, PartialEq, Debug)]
#[allow(
    missing_docs,
    reason = "the fields are the arguments of the table's rows"
)]
pub enum Command {
    /// Text that help made.
    Help(String),
    Info,
    List {
        long: bool,
        domain: Option<String>,
    },
    VcpuList {
        domain: Option<String>,
    },
    Top {
        delay_s: u32,
        iterations: Option<u32>,
        batch: bool,
    },
    Dmesg,
    /// Settings as they were given, `key=value`.
    Create {
        config: String,
        settings: Vec<String>,
        paused: bool,
        console: bool,
    },
    Restore {
        target: DiskTarget,
        paused: bool,
        console: bool,
    },
    DomainUptime {
        domain: Option<String>,
    },
    /// Something about one domain.
    Domain {
        domain: String,
        action: Action,
    },
    /// Something about disks, stores, volumes or files.
    Store(StoreCommand),
    /// Something about this host's key or the hosts it knows.
    Host(HostCommand),
    /// Something about domains that move.
    Move(MoveCommand),
    SchedCredit2(SchedulerSet),
    DebugKeys {
        keys: Vec<u8>,
    },
    DiskList,
    DiskRead {
        disk: String,
        block: u64,
        blocks: u32,
    },
    Modules,
    Ping {
        host: String,
        count: Option<u32>,
        interval_ms: u32,
    },
    Ip,
    Uptime,
    Echo(String),
    Reboot,
    PowerOff,
    /// Known by name and not there yet; the text names it.
    NotImplemented(String),
}

/// Why a line is no command.
#[derive(Clone, Debug)]
pub enum CommandError {
    /// A quote is not closed, or a backslash ends the line.
    Open(Open),
    /// Longer than [`LINE_BYTES_MAX`], or more than [`COMMANDS_MAX`] commands.
    TooLong,
    /// No such command.
    Unknown {
        /// What was typed.
        given: String,
        /// What may have been meant.
        suggestion: Option<&'static str>,
    },
    /// The command exists, its arguments do not fit.
    Usage {
        /// The command.
        spec: &'static Spec,
        /// What does not fit.
        what: String,
    },
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Open(Open::Quote(mark)) => write!(f, "the quote {mark} is not closed"),
            CommandError::Open(Open::Backslash | Open::Word | Open::Nothing) => {
                f.write_str("the line ends after a backslash")
            }
            CommandError::TooLong => write!(
                f,
                "the line is too long: at most {LINE_BYTES_MAX} bytes and {COMMANDS_MAX} commands"
            ),
            CommandError::Unknown { given, suggestion } => {
                write!(f, "unknown command '{given}': ")?;
                match suggestion {
                    Some(name) => write!(f, "did you mean '{name}'?"),
                    None => f.write_str("help lists the commands"),
                }
            }
            CommandError::Usage { spec, what } => {
                write!(f, "{}: {what}\n{}", spec.name, help::usage(spec).trim_end())
            }
        }
    }
}

/// Parses a line. Empty commands are left out; an empty line is no command.
pub fn parse_line(line: &str) -> Result<Vec<Command>, CommandError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(CommandError::TooLong);
    }
    let words = words::split(line);
    match words.open {
        Open::Nothing | Open::Word => {}
        Open::Quote(_) | Open::Backslash => return Err(CommandError::Open(words.open)),
    }
    let commands = words.commands.iter().filter(|words| !words.is_empty());
    if commands.clone().count() > COMMANDS_MAX {
        return Err(CommandError::TooLong);
    }
    commands.map(|words| parse(words)).collect()
}

/// Parses the words of one command, of which there is at least one.
fn parse(words: &[Word]) -> Result<Command, CommandError> {
    let texts: Vec<&str> = words.iter().map(|word| word.text.as_str()).collect();
    let (spec, used) = match texts.as_slice() {
        ["xl"] => return Ok(Command::Help(help::overview())),
        ["xl", "help" | "-h" | "--help", rest @ ..] => return help_for(rest, true),
        ["help", rest @ ..] => return help_for(rest, false),
        ["xl", verb, rest @ ..] => match Spec::find(&format!("{XL}{verb}")) {
            Some(_) if asks_for_help(rest) => return help_for(&[verb], true),
            Some(spec) => (spec, 2),
            None if LATER.contains(verb) => {
                return Ok(Command::NotImplemented(format!("{XL}{verb}")));
            }
            None => return Err(unknown(verb, true)),
        },
        [verb, rest @ ..] => match Spec::find(verb) {
            Some(spec) if asks_for_help(rest) && spec.name != "echo" => {
                return help_for(&[verb], false);
            }
            Some(spec) if !verb.starts_with(XL) => (spec, 1),
            Some(_) | None => return Err(unknown(verb, false)),
        },
        [] => unreachable!("empty commands were left out"),
    };
    (spec.parse)(spec, Arguments::parse(spec, &words[used..])?)
}

fn asks_for_help(rest: &[&str]) -> bool {
    matches!(rest, ["-h" | "--help"])
}

/// After `xl` a verb is suggested; else a whole command, also where only `xl` was left out.
fn unknown(given: &str, after_xl: bool) -> CommandError {
    let full = |short: &str| {
        let spec = specs().find(|spec| spec.short_name() == short);
        spec.map(|spec| spec.name)
    };
    let suggestion = if after_xl {
        let verbs = specs().filter_map(|spec| spec.name.strip_prefix(XL));
        nearest(given, verbs.chain(LATER.iter().copied()))
    } else {
        nearest(given, specs().map(Spec::short_name)).and_then(full)
    };
    CommandError::Unknown {
        given: given.into(),
        suggestion,
    }
}

/// Help about a topic. Where a command is there with and without `xl`, `after_xl` says which is meant.
fn help_for(topic: &[&str], after_xl: bool) -> Result<Command, CommandError> {
    let (name, after_xl) = match topic {
        [] | ["xl"] => return Ok(Command::Help(help::overview())),
        ["keys"] => return Ok(Command::Help(crate::editor::HELP.into())),
        ["xl", verb, ..] => (verb, true),
        [verb, ..] => (verb, after_xl),
    };
    let full = |spec: &&Spec| match after_xl {
        true => spec.name.strip_prefix(XL) == Some(name),
        false => spec.name == *name,
    };
    let short = |spec: &&Spec| spec.name == *name || spec.short_name() == *name;
    match specs().find(full).or_else(|| specs().find(short)) {
        Some(spec) => Ok(Command::Help(help::of(spec))),
        None if LATER.contains(name) => Ok(Command::NotImplemented(format!("{XL}{name}"))),
        None => Err(unknown(name, false)),
    }
}
