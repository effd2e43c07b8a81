//! What is known of one domain, and its text in the blob:
//!
//! ```text
//! godwit-domain 1          the format's version, readable alone
//! phase live
//! target_mib 256
//! ceiling_mib 512
//! made_ns 1700000000000000000
//! restarts 0
//! reboot_asked 0
//! source guests/web.cfg    if it came from a file
//! arrival 0123456789abcdef 1   if it came from another host: by this attempt, and it runs
//! link 4 disk vdev=vda,access=rw,target=main/web
//! link 5 rng
//!                          an empty line, then the configuration as a file
//! name = "web"
//!                          an empty line and another file, if it is to change with the next start
//! ```
//!
//! Entry point for bytes nobody vouches for: [`Entry::decode`].

use crate::config::{self, Config, Disk, Vif};
use crate::site::{Device, Link};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use godwit_abi::BLOB_BYTES_MAX;

const MAGIC: &str = "godwit-domain";
const VERSION: u32 = 1;
/// Most devices of a domain.
pub const LINKS_MAX: usize = 32;

/// How far a domain is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// It is being made; interrupted, it is destroyed.
    Building,
    /// It is whole.
    Live,
    /// It is being taken apart.
    Ending,
}

impl Phase {
    const ALL: [Phase; 3] = [Phase::Building, Phase::Live, Phase::Ending];

    const fn word(self) -> &'static str {
        match self {
            Phase::Building => "building",
            Phase::Live => "live",
            Phase::Ending => "ending",
        }
    }
}

/// A domain as the toolstack knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its configuration, with uuid and MACs.
    pub config: Config,
    /// The configuration it is to have when it is started again, if that is another.
    pub next: Option<Config>,
    /// The file it came from.
    pub source: Option<String>,
    /// How far it is.
    pub phase: Phase,
    /// Its devices.
    pub links: Vec<Link>,
    /// What its balloon was told last, MiB.
    pub target_mib: u64,
    /// What `xl mem-set` may ask for at most, MiB.
    pub ceiling_mib: u64,
    /// When it was made, nanoseconds since 1970; 0 when the host did not know.
    pub made_ns: u64,
    /// How often it was made anew after an end.
    pub restarts: u32,
    /// The operator wants it made anew when it switches itself off.
    pub reboot_asked: bool,
    /// How it came from another host, if it did.
    pub arrival: Option<Arrival>,
}

/// How a domain came from another host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// The number of the attempt.
    pub attempt: u64,
    /// It is to run here; else it was paused, and stays so.
    pub runs: bool,
}

/// Why a blob says nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EntryError {
    /// There is none.
    Absent,
    /// Of another version.
    Version(String),
    /// A line cannot be understood.
    Line(String),
    /// The configuration is refused.
    Config(String),
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryError::Absent => f.write_str("nothing is noted about it"),
            EntryError::Version(line) => write!(f, "its note is of another version: '{line}'"),
            EntryError::Line(line) => write!(f, "its note has a line '{line}'"),
            EntryError::Config(error) => write!(f, "its noted configuration is refused: {error}"),
        }
    }
}

impl Entry {
    /// A domain that is about to be made.
    pub fn new(config: Config, source: Option<String>) -> Self {
        Self {
            target_mib: config.memory_mib,
            ceiling_mib: config.memory_max_mib,
            config,
            next: None,
            source,
            phase: Phase::Building,
            links: Vec::new(),
            made_ns: 0,
            restarts: 0,
            reboot_asked: false,
            arrival: None,
        }
    }

    /// The entry as text; at most [`BLOB_BYTES_MAX`] by the limits of a configuration.
    pub fn encode(&self) -> String {
        let Self {
            config,
            next,
            source,
            phase,
            links,
            target_mib,
            ceiling_mib,
            made_ns,
            restarts,
            reboot_asked,
            arrival,
        } = self;
        let mut out = format!("{MAGIC} {VERSION}\nphase {}\n", phase.word());
        let numbers = [
            ("target_mib", *target_mib),
            ("ceiling_mib", *ceiling_mib),
            ("made_ns", *made_ns),
            ("restarts", u64::from(*restarts)),
            ("reboot_asked", u64::from(*reboot_asked)),
        ];
        for (key, number) in numbers {
            let _ = writeln!(out, "{key} {number}");
        }
        if let Some(source) = source {
            let _ = writeln!(out, "source {source}");
        }
        if let Some(Arrival { attempt, runs }) = arrival {
            let _ = writeln!(out, "arrival {attempt:016x} {}", u8::from(*runs));
        }
        for Link { slot, device } in links {
            let device = match device {
                Device::Disk(disk) => format!("disk {disk}"),
                Device::Vif(vif) => format!("vif {vif}"),
                Device::Console | Device::Rng | Device::Balloon => device.to_string(),
            };
            let _ = writeln!(out, "link {slot} {device}");
        }
        out.push('\n');
        out.push_str(&config.render());
        if let Some(next) = next {
            out.push('\n');
            out.push_str(&next.render());
        }
        assert!(out.len() as u64 <= BLOB_BYTES_MAX, "an entry fits its blob");
        out
    }

    /// Reads what [`Entry::encode`] wrote. Total.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let line_error = |line: &str| EntryError::Line(line.chars().take(80).collect());
        let text = core::str::from_utf8(bytes).map_err(|_| line_error("not UTF-8"))?;
        let (head, body) = text
            .split_once("\n\n")
            .ok_or_else(|| line_error("no empty line"))?;
        let mut lines = head.lines();
        let first = lines.next().unwrap_or("");
        if first != format!("{MAGIC} {VERSION}") {
            return Err(EntryError::Version(first.chars().take(80).collect()));
        }
        let parse = |text: &str| {
            let config = config::parse("note", text, &[]);
            config.map_err(|error| EntryError::Config(error.to_string()))
        };
        // A rendered configuration has no empty line.
        let (body, next) = match body.split_once("\n\n") {
            Some((body, next)) => (body, Some(parse(next)?)),
            None => (body, None),
        };
        let mut entry = Entry::new(parse(body)?, None);
        entry.next = next;
        for line in lines {
            let taken = line
                .split_once(' ')
                .and_then(|(key, value)| entry.take_line(key, value));
            taken.ok_or_else(|| line_error(line))?;
        }
        if entry.config.uuid.is_none() {
            return Err(line_error("no uuid"));
        }
        Ok(entry)
    }

    fn take_line(&mut self, key: &str, value: &str) -> Option<()> {
        match key {
            "phase" => self.phase = Phase::ALL.into_iter().find(|phase| phase.word() == value)?,
            "target_mib" => self.target_mib = value.parse().ok()?,
            "ceiling_mib" => self.ceiling_mib = value.parse().ok()?,
            "made_ns" => self.made_ns = value.parse().ok()?,
            "restarts" => self.restarts = value.parse().ok()?,
            "reboot_asked" => self.reboot_asked = flag(value)?,
            "arrival" => self.arrival = Some(arrival(value)?),
            "source" => self.source = Some(value.into()),
            "link" if self.links.len() < LINKS_MAX => self.links.push(link(value)?),
            _ => return None,
        }
        Some(())
    }

    /// The devices that the configuration asks for, in the order they are attached.
    pub fn devices(config: &Config) -> Vec<Device> {
        let disks = config.disks.iter().cloned().map(Device::Disk);
        let vifs = config.vifs.iter().cloned().map(Device::Vif);
        let others = [
            (config.console, Device::Console),
            (config.rng, Device::Rng),
            (config.balloon, Device::Balloon),
        ];
        let others = others.into_iter().filter(|(wanted, _)| *wanted);
        disks
            .chain(vifs)
            .chain(others.map(|(_, device)| device))
            .collect()
    }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn arrival(text: &str) -> Option<Arrival> {
    let (attempt, runs) = text.split_once(' ')?;
    Some(Arrival {
        attempt: u64::from_str_radix(attempt, 16).ok()?,
        runs: flag(runs)?,
    })
}

fn link(text: &str) -> Option<Link> {
    let (slot, device) = text.split_once(' ')?;
    let (kind, rest) = device.split_once(' ').unwrap_or((device, ""));
    let device = match kind {
        "disk" => Device::Disk(Disk::parse(rest).ok()?),
        "vif" => Device::Vif(Vif::parse(rest).ok().filter(|vif| vif.mac.is_some())?),
        "console" => Device::Console,
        "rng" => Device::Rng,
        "balloon" => Device::Balloon,
        _ => return None,
    };
    Some(Link {
        slot: slot.parse().ok()?,
        device,
    })
}
