//! The hypervisor's command line: `loglvl=error|warn|info|debug`, `cpus=N`, `dom0_mem=MiB`, `pml=on|off`.
//! A word that is not understood is named in the log and has no effect.

use log::LevelFilter;

/// What the command line says, or what holds without it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The most talkative level on the serial line.
    pub(crate) log_level: LevelFilter,
    /// CPUs used at most.
    pub(crate) cpus: usize,
    /// Memory of dom0 in MiB; without it [`dom0_share_mib`].
    pub(crate) dom0_mib: Option<u64>,
    /// Whether page-modification logging is used where there is such a thing.
    pub(crate) page_log: bool,
}

/// dom0's memory without `dom0_mem=` on a small machine.
const DOM0_MIB: u64 = 48;
/// A machine with more than this gives dom0 one in so many MiB of what is beyond, up to a limit: it
/// remembers what it sends of guests that move.
const SMALL_MIB: u64 = 512;
const DOM0_SHARE: u64 = 5;
const DOM0_SHARE_MIB_MAX: u64 = 512;
/// The least dom0 can work with.
const DOM0_MIB_MIN: u64 = 24;
/// dom0's memory lies below 4 GiB, in one piece.
const DOM0_MIB_MAX: u64 = 3 << 10;

/// dom0's memory, in MiB, when nobody has said how much, on a machine of so many bytes.
pub(crate) fn dom0_share_mib(total_bytes: u64) -> u64 {
    let beyond_mib = (total_bytes >> 20).saturating_sub(SMALL_MIB);
    DOM0_MIB + (beyond_mib / DOM0_SHARE / 2 * 2).min(DOM0_SHARE_MIB_MAX)
}

/// Reads the command line; `unknown` is told of every word that is not understood.
pub(crate) fn parse(cmdline: &str, mut unknown: impl FnMut(&str)) -> Options {
    let mut options = Options {
        log_level: LevelFilter::Info,
        cpus: crate::cpu::CPUS_MAX,
        dom0_mib: None,
        page_log: true,
    };
    for word in cmdline.split_whitespace() {
        let understood = match word.split_once('=') {
            Some(("loglvl", level)) => level.parse().map(|level| options.log_level = level).is_ok(),
            Some(("cpus", count)) => match count.parse() {
                Ok(count) if count >= 1 => {
                    options.cpus = count;
                    true
                }
                _ => false,
            },
            Some(("dom0_mem", mib)) => match mib.trim_end_matches('M').parse() {
                Ok(mib) if (DOM0_MIB_MIN..=DOM0_MIB_MAX).contains(&mib) => {
                    options.dom0_mib = Some(mib);
                    true
                }
                _ => false,
            },
            Some(("pml", "on")) => true,
            Some(("pml", "off")) => {
                options.page_log = false;
                true
            }
            // GRUB passes the file name first on some versions.
            Some(_) | None => word.starts_with('/'),
        };
        if !understood {
            unknown(word);
        }
    }
    options
}
