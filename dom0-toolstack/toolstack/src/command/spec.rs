//! The table of commands: from it come the parser's checks, usage, help and completion.
//!
//! A row says how its command is typed and how its checked words become a [`Command`].

mod devices;
mod domains;
mod host;
mod hosts;
mod moves;
mod stores;

use super::arguments::{Arguments, usage_error};
use super::{
    Action, AfterSave, Command, CommandError, HostCommand, MoveCommand, SchedulerSet, StoreCommand,
    Volume,
};
use crate::config::DiskTarget;

/// What an argument is, for completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A domain's name or id.
    Domain,
    /// A configuration file.
    Config,
    /// `key=value`.
    Setting,
    /// A file of the configuration partition.
    File,
    /// A host that is known.
    Host,
    /// A store.
    Store,
    /// A volume, or where an export is.
    Volume,
    /// A command.
    Command,
    /// Anything else.
    Text,
}

/// How many of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// Exactly one.
    One,
    /// One or none.
    Optional,
    /// Any number.
    Any,
}

/// An argument.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// As usage shows it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// How many.
    pub count: Count,
}

/// An option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// `-x`.
    pub short: char,
    /// `--xyz`.
    pub long: &'static str,
    /// Name of its value, if it takes one.
    pub value: Option<(&'static str, Kind)>,
    /// What it does.
    pub text: &'static str,
    /// It may be given again and again.
    pub repeats: bool,
}

/// Makes a command of checked words.
pub(super) type Parse = fn(&'static Spec, Arguments) -> Result<Command, CommandError>;

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// How it is typed.
    pub name: &'static str,
    /// Its arguments, in order.
    pub arguments: &'static [Argument],
    /// Its options.
    pub options: &'static [Opt],
    /// One line of help.
    pub summary: &'static str,
    /// More help, in full lines; empty when the summary says it all.
    pub details: &'static str,
    /// What becomes of its words.
    pub(super) parse: Parse,
}

const fn argument(name: &'static str, kind: Kind, count: Count) -> Argument {
    Argument { name, kind, count }
}

const fn flag(short: char, long: &'static str, text: &'static str) -> Opt {
    Opt {
        short,
        long,
        value: None,
        text,
        repeats: false,
    }
}

const fn option(
    short: char,
    long: &'static str,
    value: &'static str,
    kind: Kind,
    text: &'static str,
) -> Opt {
    Opt {
        short,
        long,
        value: Some((value, kind)),
        text,
        repeats: false,
    }
}

const fn spec(
    name: &'static str,
    arguments: &'static [Argument],
    options: &'static [Opt],
    [summary, details]: [&'static str; 2],
    parse: Parse,
) -> Spec {
    Spec {
        name,
        arguments,
        options,
        summary,
        details,
        parse,
    }
}

const DOMAIN: Argument = argument("DOMAIN", Kind::Domain, Count::One);
const ANY_DOMAIN: Argument = argument("DOMAIN", Kind::Domain, Count::Optional);

/// Every command, in the order help lists them.
pub fn specs() -> impl Iterator<Item = &'static Spec> + Clone {
    let groups = [
        domains::SPECS,
        moves::SPECS,
        devices::SPECS,
        stores::SPECS,
        hosts::SPECS,
        host::SPECS,
    ];
    groups.into_iter().flatten()
}

/// Something about the domain that is the only argument.
fn on(action: Action, arguments: Arguments) -> Command {
    let domain = arguments.one();
    Command::Domain { domain, action }
}

/// A volume or an export.
fn target(spec: &'static Spec, text: &str) -> Result<DiskTarget, CommandError> {
    DiskTarget::parse(text).map_err(|what| usage_error(spec, what))
}

/// `xl` verbs that Godwit knows and does not have yet; they answer "not implemented" by name.
pub static LATER: &[&str] = &[
    "cd-eject",
    "cd-insert",
    "channel-list",
    "cpupool-create",
    "cpupool-list",
    "dump-core",
    "migrate-receive",
    "pci-attach",
    "pci-detach",
    "pci-list",
    "remus",
    "sysrq",
    "trigger",
    "vcpu-set",
    "vncviewer",
];

/// Prefix of the commands that are verbs of `xl`.
pub const XL: &str = "xl ";

impl Spec {
    /// The row of a command by its full name.
    pub fn find(name: &str) -> Option<&'static Spec> {
        specs().find(|spec| spec.name == name)
    }

    /// The verb alone, without `xl`.
    pub fn short_name(&self) -> &'static str {
        self.name.strip_prefix(XL).unwrap_or(self.name)
    }
}
