//! What the operator types: a line into commands, with errors that name what is wrong.
//!
//! Entry points for input nobody vouches for: [`parse_line`] and [`complete()`], total and linear in
//! the line. A line is taken as a whole or not at all: when one of its commands cannot be
//! understood, none runs.

mod arguments;
mod complete;
pub mod help;
pub mod spec;
#[cfg(test)]
mod tests;
pub mod words;

pub use complete::{Known, complete};

use crate::suggest::nearest;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use arguments::{Arguments, usage_error};
use core::fmt;
use spec::{LATER, SPECS, Spec, Verb, XL};
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
        settings: Vec<String>,
        paused: bool,
    },
    Destroy {
        domain: String,
    },
    Pause {
        domain: String,
    },
    Unpause {
        domain: String,
    },
    Console {
        domain: String,
        follow: bool,
    },
    SchedCredit2 {
        domain: Option<String>,
        weight: Option<u32>,
        cap_percent: Option<u32>,
    },
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
        ["xl", "help" | "-h" | "--help", rest @ ..] => return help_for(rest),
        ["help", rest @ ..] => return help_for(rest),
        ["xl", verb, rest @ ..] => match Spec::find(&format!("{XL}{verb}")) {
            Some(_) if asks_for_help(rest) => return help_for(&[verb]),
            Some(spec) => (spec, 2),
            None if LATER.contains(verb) => {
                return Ok(Command::NotImplemented(format!("{XL}{verb}")));
            }
            None => return Err(unknown(verb, true)),
        },
        [verb, rest @ ..] => match Spec::find(verb) {
            Some(spec) if asks_for_help(rest) && spec.verb != Verb::Echo => {
                return help_for(&[verb]);
            }
            Some(spec) if !verb.starts_with(XL) => (spec, 1),
            Some(_) | None => return Err(unknown(verb, false)),
        },
        [] => unreachable!("empty commands were left out"),
    };
    command(spec, Arguments::parse(spec, &words[used..])?)
}

fn asks_for_help(rest: &[&str]) -> bool {
    matches!(rest, ["-h" | "--help"])
}

/// After `xl` a verb is suggested; else a whole command, also where only `xl` was left out.
fn unknown(given: &str, after_xl: bool) -> CommandError {
    let full = |short: &str| {
        let spec = SPECS.iter().find(|spec| spec.short_name() == short);
        spec.map(|spec| spec.name)
    };
    let suggestion = if after_xl {
        let verbs = SPECS.iter().filter_map(|spec| spec.name.strip_prefix(XL));
        nearest(given, verbs.chain(LATER.iter().copied()))
    } else {
        nearest(given, SPECS.iter().map(Spec::short_name)).and_then(full)
    };
    CommandError::Unknown {
        given: given.into(),
        suggestion,
    }
}

fn help_for(topic: &[&str]) -> Result<Command, CommandError> {
    let name = match topic {
        [] => return Ok(Command::Help(help::overview())),
        ["keys"] => return Ok(Command::Help(crate::editor::HELP.into())),
        ["xl"] => return Ok(Command::Help(help::overview())),
        ["xl", verb, ..] | [verb, ..] => verb,
    };
    let named = |spec: &&Spec| spec.name == *name || spec.short_name() == *name;
    match SPECS.iter().find(named) {
        Some(spec) => Ok(Command::Help(help::of(spec))),
        None if LATER.contains(name) => Ok(Command::NotImplemented(format!("{XL}{name}"))),
        None => Err(unknown(name, false)),
    }
}

fn command(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    Ok(match spec.verb {
        Verb::Info => Command::Info,
        Verb::List => Command::List {
            long: arguments.has('l'),
            domain: arguments.positional().pop(),
        },
        Verb::VcpuList => Command::VcpuList {
            domain: arguments.positional().pop(),
        },
        Verb::Top => Command::Top {
            delay_s: arguments
                .number('d', 1..=3600)?
                .unwrap_or(TOP_DELAY_SECONDS),
            iterations: arguments.number('i', 1..=u32::MAX)?,
            batch: arguments.has('b'),
        },
        Verb::Dmesg => Command::Dmesg,
        Verb::Create => create(spec, arguments)?,
        Verb::Destroy => Command::Destroy {
            domain: one(arguments),
        },
        Verb::Pause => Command::Pause {
            domain: one(arguments),
        },
        Verb::Unpause => Command::Unpause {
            domain: one(arguments),
        },
        Verb::Console => Command::Console {
            follow: !arguments.has('n'),
            domain: one(arguments),
        },
        Verb::SchedCredit2 => sched_credit2(spec, &arguments)?,
        Verb::DebugKeys => Command::DebugKeys {
            keys: debug_keys(spec, one(arguments))?,
        },
        Verb::DiskList => Command::DiskList,
        Verb::DiskRead => disk_read(spec, arguments)?,
        Verb::Modules => Command::Modules,
        Verb::Ping => Command::Ping {
            count: arguments.number('c', 1..=1_000_000)?,
            interval_ms: arguments
                .number('i', 10..=60_000)?
                .unwrap_or(PING_INTERVAL_MS),
            host: one(arguments),
        },
        Verb::Ip => Command::Ip,
        Verb::Uptime => Command::Uptime,
        Verb::Echo => Command::Echo(arguments.positional().join(" ")),
        Verb::Reboot => Command::Reboot,
        Verb::PowerOff => Command::PowerOff,
        Verb::Help => unreachable!("help is handled before its arguments are"),
    })
}

/// The argument of a command that has exactly one.
fn one(arguments: Arguments) -> String {
    let mut all = arguments.positional();
    assert_eq!(all.len(), 1, "the number of arguments was checked");
    all.remove(0)
}

fn create(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let paused = arguments.has('p');
    let mut settings = arguments.positional();
    let config = settings.remove(0);
    if config.contains('=') {
        let what = format!("CONFIG comes before '{config}' ({EMPTY_CONFIG} is an empty one)");
        return Err(usage_error(spec, what));
    }
    if config != EMPTY_CONFIG {
        let what = format!("configuration files need a store; use {EMPTY_CONFIG} and KEY=VALUE");
        return Ok(Command::NotImplemented(format!("{config}: {what}")));
    }
    match settings.iter().find(|setting| !setting.contains('=')) {
        Some(word) => Err(usage_error(spec, format!("'{word}' is no KEY=VALUE"))),
        None => Ok(Command::Create { settings, paused }),
    }
}

fn sched_credit2(spec: &'static Spec, arguments: &Arguments) -> Result<Command, CommandError> {
    let domain = arguments.value('d').map(String::from);
    let weight = arguments.number('w', 1..=65535)?;
    let cap_percent = arguments.number('c', 0..=6400)?;
    if domain.is_none() && (weight.is_some() || cap_percent.is_some()) {
        return Err(usage_error(spec, "weight and cap need -d DOMAIN".into()));
    }
    Ok(Command::SchedCredit2 {
        domain,
        weight,
        cap_percent,
    })
}

fn disk_read(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let blocks = arguments
        .number('c', 1..=DISK_READ_BLOCKS_MAX)?
        .unwrap_or(1);
    let mut words = arguments.positional();
    let (block, disk) = (words.remove(1), words.remove(0));
    match block.parse() {
        Ok(block) => Ok(Command::DiskRead {
            disk,
            block,
            blocks,
        }),
        Err(_) => Err(usage_error(spec, format!("'{block}' is no block number"))),
    }
}

fn debug_keys(spec: &'static Spec, keys: String) -> Result<Vec<u8>, CommandError> {
    if keys.is_empty() || !keys.bytes().all(|key| key.is_ascii_graphic()) {
        return Err(usage_error(spec, format!("'{keys}' are no debug keys")));
    }
    Ok(keys.into_bytes())
}
