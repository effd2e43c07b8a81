//! What speaks against a move. Every objection has a name, and all of them are told at once, before
//! anything is touched.
//!
//! Over the wire they are the lines of a refusal, `NAME: WHAT`; who hears them shows them as they are.

use crate::config::Spot;
use crate::operate::OperateError;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The kinds of objections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The other host is this one.
    Itself,
    /// The two hosts do not speak the same version.
    Version,
    /// Another job or operation works on the domain.
    Busy,
    /// The domain has ended.
    Ended,
    /// Too many domains are on the move.
    Jobs,
    /// Its configuration cannot be read there.
    Config,
    /// A domain there has its name.
    Name,
    /// A domain there has its uuid.
    Uuid,
    /// Processor features are missing there.
    Cpu,
    /// The processors it is pinned to are not there.
    Affinity,
    /// Too little memory is free there.
    Memory,
    /// A disk cannot be reached, or somebody else writes to it.
    Disk,
    /// A bridge, address or port cannot be had there.
    Network,
    /// Another device cannot be served there.
    Device,
    /// The times of day differ too much.
    Clock,
    /// The hypervisor there makes no further domain.
    Host,
}

impl Cause {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Itself => "itself",
            Cause::Version => "version",
            Cause::Busy => "busy",
            Cause::Ended => "ended",
            Cause::Jobs => "jobs",
            Cause::Config => "configuration",
            Cause::Name => "name",
            Cause::Uuid => "uuid",
            Cause::Cpu => "cpu",
            Cause::Affinity => "cpus",
            Cause::Memory => "memory",
            Cause::Disk => "disk",
            Cause::Network => "network",
            Cause::Device => "device",
            Cause::Clock => "clock",
            Cause::Host => "host",
        }
    }

    /// Of a problem with a configuration, by the place it is at.
    fn at(spot: Spot) -> Self {
        match spot {
            Spot::Disk(_) => Cause::Disk,
            Spot::Vif(_) => Cause::Network,
            Spot::Key("name") => Cause::Name,
            Spot::Key("uuid") => Cause::Uuid,
            Spot::Key("memory" | "maxmem") => Cause::Memory,
            Spot::Key("cpus") => Cause::Affinity,
            Spot::Key("console" | "rng" | "balloon") => Cause::Device,
            Spot::Key(_) => Cause::Config,
        }
    }
}

/// One thing that speaks against a move.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Objection {
    /// Its kind.
    pub cause: Cause,
    /// What it is, and what to do.
    pub what: String,
}

impl Objection {
    pub(super) fn new(cause: Cause, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { cause, what }
    }

    /// Of a problem with a configuration.
    pub(super) fn of(spot: Spot, what: String) -> Self {
        let what = match spot {
            Spot::Disk(index) | Spot::Vif(index) => alloc::format!("number {index}: {what}"),
            Spot::Key(_) => what,
        };
        Self::new(Cause::at(spot), what)
    }
}

impl fmt::Display for Objection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause.name(), self.what)
    }
}

/// All of them as one error, a line each.
pub(super) fn refuse(all: &[Objection]) -> OperateError {
    let lines: Vec<String> = all.iter().map(ToString::to_string).collect();
    OperateError::Other(lines.join("\n"))
}
