//! A domain's configuration: `xl.cfg` text and `key=value` arguments into checked values.
//!
//! Entry point for input nobody vouches for: [`read`], total and bounded. Every problem of all
//! sources is reported at once, each with its line and a caret. Whether the name is taken, the
//! kernel exists or a disk is there is not decided here: the caller knows the host, and reports what it
//! finds at the place of the setting with [`Document::refuse`].

pub mod cpus;
mod disk;
mod keys;
mod pairs;
mod render;
mod report;
#[cfg(test)]
mod tests;
mod text;
mod vif;

pub use disk::{DISKS_MAX, Disk, DiskTarget, NBD_PORT, PART_BYTES_MAX, vdev};
pub use keys::{KEYS, name_problem};
pub use report::{ConfigError, Finding};
pub use text::{CONFIG_BYTES_MAX, LIST_DEPTH_MAX, LIST_ENTRIES_MAX, PROBLEMS_MAX, SETTINGS_MAX};
pub use vif::{Attachment, FORWARDS_MAX, Forward, Mac, Protocol, RATE_BYTES_MIN, VIFS_MAX, Vif};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::{CPU_POLICY_HOST, CPU_POLICY_PORTABLE};
use report::{Place, Places, Problem, Source};
use text::{Setting, Value};

/// Longest name, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest kernel command line, in bytes.
pub const CMDLINE_BYTES_MAX: usize = 4095;
/// Most memory of a domain, in MiB.
pub const MEMORY_MIB_MAX: u64 = 16 << 20;
/// Most vCPUs of a domain.
pub const VCPUS_MAX: u32 = 32;
/// Scheduling weight of a domain that sets none.
pub const WEIGHT_DEFAULT: u32 = 256;
/// Largest cap, in percent of one CPU.
pub const CAP_PERCENT_MAX: u32 = 6400;
/// MiB of a domain that sets no memory.
pub const MEMORY_MIB_DEFAULT: u64 = 64;
/// What a file name that means a boot module begins with.
pub const MODULE_PREFIX: &str = "module:";

/// Whether a domain that does not say so has a source of entropy.
pub const RNG_DEFAULT: bool = true;
/// Whether a domain that does not say so has a balloon.
pub const BALLOON_DEFAULT: bool = true;
/// Longest path of a file, in bytes.
pub const PATH_BYTES_MAX: usize = 256;

/// What to do with a domain that has ended. `xl.cfg` knows more; those are refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndAction {
    /// Take it apart.
    Destroy,
    /// Take it apart and make it anew, with the same identity and devices.
    Restart,
    /// Keep it as it is, to be looked at.
    Preserve,
}

impl EndAction {
    /// As `xl.cfg` spells it.
    pub const fn word(self) -> &'static str {
        match self {
            EndAction::Destroy => "destroy",
            EndAction::Restart => "restart",
            EndAction::Preserve => "preserve",
        }
    }
}

/// What to do when a domain ends, by the way it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndActions {
    /// It switched itself off.
    pub on_poweroff: EndAction,
    /// It asked for a reset.
    pub on_reboot: EndAction,
    /// It crashed.
    pub on_crash: EndAction,
}

impl Default for EndActions {
    fn default() -> Self {
        Self {
            on_poweroff: EndAction::Destroy,
            on_reboot: EndAction::Restart,
            on_crash: EndAction::Destroy,
        }
    }
}

/// Where an image comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Image {
    /// A boot module, by its name.
    Module(String),
    /// A file of the configuration partition, by its path.
    File(String),
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Image::Module(name) => write!(f, "{MODULE_PREFIX}{name}"),
            Image::File(path) => f.write_str(path),
        }
    }
}

/// Which CPU a guest sees.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CpuPolicy {
    /// What CPUs of both vendors have, so that the domain can move.
    #[default]
    Portable,
    /// What this host has.
    Host,
}

impl CpuPolicy {
    /// As a configuration spells it.
    pub const fn word(self) -> &'static str {
        match self {
            CpuPolicy::Portable => "portable",
            CpuPolicy::Host => "host",
        }
    }

    /// As the hypervisor is told (`DomainConfig::cpu_policy`).
    pub const fn number(self) -> u32 {
        match self {
            CpuPolicy::Portable => CPU_POLICY_PORTABLE,
            CpuPolicy::Host => CPU_POLICY_HOST,
        }
    }
}

/// A checked configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Name: 1 to [`NAME_BYTES_MAX`] bytes, no control characters, no number.
    pub name: String,
    /// Identity; a new one is made up when it is not given.
    pub uuid: Option<[u8; 16]>,
    /// What its balloon is to leave it, MiB.
    pub memory_mib: u64,
    /// Memory it starts with and can have at most, MiB; at least `memory_mib`, and more only with a
    /// balloon.
    pub memory_max_mib: u64,
    /// vCPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// The kernel.
    pub kernel: Image,
    /// The ramdisk.
    pub ramdisk: Option<Image>,
    /// Kernel command line; no control characters, at most [`CMDLINE_BYTES_MAX`] bytes.
    pub cmdline: String,
    /// Scheduling weight, 1 to 65535.
    pub weight: u32,
    /// Cap in percent of one CPU, 0 for none.
    pub cap_percent: u32,
    /// CPUs its vCPUs may run on, a bit each: empty for all, one set for every vCPU, or a set for
    /// each vCPU.
    pub cpus: Vec<u64>,
    /// Which CPU it sees.
    pub cpu_policy: CpuPolicy,
    /// Disks, by index, no two with the same.
    pub disks: Vec<Disk>,
    /// Network devices, in their order, no two with the same address.
    pub vifs: Vec<Vif>,
    /// It has a virtio console besides the serial port.
    pub console: bool,
    /// It has a source of entropy.
    pub rng: bool,
    /// It has a balloon.
    pub balloon: bool,
    /// It is started when the host is.
    pub autostart: bool,
    /// What to do when it ends.
    pub end: EndActions,
}

/// A setting, to report something about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Spot {
    /// The value of a key; the beginning of the file if it is not set.
    Key(&'static str),
    /// An entry of `disk`, by its index in [`Config::disks`].
    Disk(usize),
    /// An entry of `vif`, by its index in [`Config::vifs`].
    Vif(usize),
}

/// A configuration together with the texts it came from.
#[derive(Clone, Debug)]
pub struct Document {
    /// What the texts mean.
    pub config: Config,
    /// Name and text of each source.
    sources: Vec<(String, String)>,
    places: Places,
}

impl Document {
    /// Refuses the configuration for what the host says about it: at least one problem.
    pub fn refuse(&self, problems: Vec<(Spot, String)>) -> ConfigError {
        let sources = self.sources.iter();
        let sources: Vec<Source<'_>> = sources.map(|(name, text)| Source { name, text }).collect();
        let placed = problems.into_iter().map(|(spot, what)| Problem {
            place: self.places.find(spot),
            what,
        });
        ConfigError::new(&sources, placed.collect())
    }
}

/// Reads a configuration: the text of a file called `file`, overridden by `key=value` arguments.
/// An argument's value may be bare: `name=t1` is `name="t1"`.
pub fn read(file: &str, text: &str, overrides: &[String]) -> Result<Document, ConfigError> {
    let mut owned = alloc::vec![(String::from(file), String::from(text))];
    let arguments = overrides.iter().enumerate();
    owned.extend(arguments.map(|(index, text)| (format!("setting {}", index + 1), text.clone())));
    let sources: Vec<Source<'_>> = owned
        .iter()
        .map(|(name, text)| Source { name, text })
        .collect();
    let mut problems = Vec::new();
    let mut settings = text::read(&sources[0], 0, &mut problems);
    refuse_repeats(&settings, &mut problems);
    for (index, source) in sources.iter().enumerate().skip(1) {
        match argument(source.text, index) {
            Ok(setting) => {
                settings.retain(|old| old.key != setting.key);
                settings.push(setting);
            }
            Err(problem) => problems.push(problem),
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    let checked = keys::check(settings, &mut problems);
    problems.truncate(PROBLEMS_MAX);
    match checked {
        Some((config, places)) if problems.is_empty() => Ok(Document {
            config,
            sources: owned,
            places,
        }),
        Some(_) | None => Err(ConfigError::new(&sources, problems)),
    }
}

/// As [`read`], without the texts.
pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Config, ConfigError> {
    read(file, text, overrides).map(|document| document.config)
}

fn refuse_repeats(settings: &[Setting], problems: &mut Vec<Problem>) {
    for (index, setting) in settings.iter().enumerate() {
        if settings[..index]
            .iter()
            .any(|other| other.key == setting.key)
        {
            problems.push(Problem {
                place: setting.key_place,
                what: format!("'{}' is set twice", setting.key),
            });
        }
    }
}

/// One `key=value` argument.
fn argument(text: &str, source: usize) -> Result<Setting, Problem> {
    let place = |offset| Place { source, offset };
    let Some((key, value)) = text
        .split_once('=')
        .filter(|_| text.len() <= CONFIG_BYTES_MAX)
    else {
        let what = format!("KEY=VALUE of at most {CONFIG_BYTES_MAX} bytes is expected");
        return Err(Problem {
            place: place(0),
            what,
        });
    };
    let value_at = key.len() + 1;
    let blank = value.len() - value.trim_start().len();
    let value = value.trim_start();
    let value = if value.starts_with(['"', '\'', '[']) {
        text::read_value(text, source, value_at + blank)?
    } else {
        match text::number(value) {
            Some(number) if !keys::is_text(key.trim()) => Value::Number(number),
            Some(_) | None => Value::Text(value.into()),
        }
    };
    Ok(Setting {
        key: key.trim().into(),
        key_place: place(0),
        value,
        value_place: place(value_at + blank),
    })
}
