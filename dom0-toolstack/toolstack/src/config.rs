//! A domain's configuration: `xl.cfg` text and `key=value` arguments into checked values.
//!
//! Entry point for input nobody vouches for: [`parse`], total and bounded. Every problem of all
//! sources is reported at once, each with its line and a caret. Whether the name is taken and whether the
//! kernel exists is not decided here: the caller knows the host.

mod keys;
mod report;
#[cfg(test)]
mod tests;
mod text;

pub use keys::KEYS;
pub use report::{ConfigError, Finding};
pub use text::{CONFIG_BYTES_MAX, LIST_DEPTH_MAX, LIST_ENTRIES_MAX, PROBLEMS_MAX, SETTINGS_MAX};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use report::{Place, Problem, Source};
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

/// What to do with a domain that has ended. `xl.cfg` knows more; those are refused by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndAction {
    /// Take it apart.
    Destroy,
    /// Keep it as it is, to be looked at.
    Preserve,
}

/// What to do when a domain ends, by the way it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndActions {
    /// It switched itself off.
    pub on_poweroff: EndAction,
    /// It asked for a reset. Xen's default is a restart; until there is one, it is destroyed.
    pub on_reboot: EndAction,
    /// It crashed.
    pub on_crash: EndAction,
}

impl Default for EndActions {
    fn default() -> Self {
        Self {
            on_poweroff: EndAction::Destroy,
            on_reboot: EndAction::Destroy,
            on_crash: EndAction::Destroy,
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
    /// Memory at the start, MiB.
    pub memory_mib: u64,
    /// Most memory it may have, MiB; at least `memory_mib`.
    pub memory_max_mib: u64,
    /// vCPUs, 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// Name of the boot module that is the kernel.
    pub kernel: String,
    /// Name of the boot module that is the ramdisk.
    pub ramdisk: Option<String>,
    /// Kernel command line; no control characters, at most [`CMDLINE_BYTES_MAX`] bytes.
    pub cmdline: String,
    /// Scheduling weight, 1 to 65535.
    pub weight: u32,
    /// Cap in percent of one CPU, 0 for none.
    pub cap_percent: u32,
    /// What to do when it ends.
    pub end: EndActions,
}

/// Parses a configuration: the text of a file called `file`, overridden by `key=value` arguments.
/// An argument's value may be bare: `name=t1` is `name="t1"`.
pub fn parse(file: &str, text: &str, overrides: &[String]) -> Result<Config, ConfigError> {
    let names: Vec<String> = (1..=overrides.len())
        .map(|n| format!("setting {n}"))
        .collect();
    let mut sources = alloc::vec![Source { name: file, text }];
    let pairs = names.iter().zip(overrides);
    sources.extend(pairs.map(|(name, text)| Source { name, text }));
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
    let config = keys::check(settings, &mut problems);
    problems.truncate(PROBLEMS_MAX);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigError::new(&sources, problems)),
    }
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
