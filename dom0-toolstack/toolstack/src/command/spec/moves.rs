//! Commands that move domains between hosts.

use super::*;
use crate::hosts::link::PLAINTEXT_PREFIX;
use crate::operate::migrate::{DOWNTIME_US, MoveOptions};
use alloc::format;
use alloc::string::String;
use godwit_migrate::precopy::{Goals, OnMiss};

/// Longest downtime that can be asked for, milliseconds.
const DOWNTIME_MS_MAX: u32 = 3_600_000;
/// Longest deadline, seconds.
const DEADLINE_S_MAX: u32 = 7 * 86_400;
/// Most MiB a second.
const BANDWIDTH_MIB_MAX: u32 = 1 << 20;

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl migrate", &[DOMAIN, argument("HOST", Kind::Host, Count::One)],
        &[option('t', "max-downtime", "MS", Kind::Text, "longest time it may stand still (300)"),
          option('d', "deadline", "S", Kind::Text, "seconds after which it is stopped at the latest"),
          option('o', "on-miss", "WHAT", Kind::Text, "if that fails: throttle, pause, abort, postcopy"),
          option('b', "bandwidth", "MIB", Kind::Text, "most MiB a second on the network"),
          flag('s', "stop-and-copy", "pause it first, then send everything"),
          flag('v', "verify", "compare all memory again while it stands still"),
          flag('p', "plaintext", "do not encrypt; the host must be booted with migrate=plaintext"),
          flag('n', "dry-run", "say what would be done")],
        ["move a domain to another host while it runs",
         "HOST is one that xl host-list shows (xl host-add adds one), with --plaintext also an address.\n\
          Whatever fails, the domain runs on one of the two. Ctrl-C calls it off. throttle slows its\n\
          writes down, pause stops it however long that takes, abort leaves it here. Its disks must be\n\
          nbd:// exports.\n"],
        migrate),
    spec("xl migrate-status", &[], &[],
        ["domains on the move, and those that have moved lately", ""],
        |_, _| Ok(Command::MigrateStatus)),
    spec("xl migrate-cancel", &[DOMAIN], &[],
        ["call a move off: the domain stays where it is", ""],
        |_, arguments| Ok(on(Action::MigrateCancel, arguments))),
];

fn migrate(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    if arguments.has('n') {
        let what = "xl migrate --dry-run".into();
        return Ok(Command::NotImplemented(what));
    }
    let on_miss = match arguments.value('o') {
        None | Some("throttle") => OnMiss::Throttle,
        Some("pause") => OnMiss::Pause,
        Some("abort") => OnMiss::Abort,
        Some("postcopy") => {
            let what = "xl migrate --on-miss=postcopy".into();
            return Ok(Command::NotImplemented(what));
        }
        Some(other) => {
            let what = format!("WHAT is throttle, pause, abort or postcopy, not '{other}'");
            return Err(usage_error(spec, what));
        }
    };
    let downtime_ms = arguments.number('t', 1..=DOWNTIME_MS_MAX)?;
    let deadline_s = arguments.number('d', 1..=DEADLINE_S_MAX)?;
    let bandwidth_mib = arguments.number('b', 1..=BANDWIDTH_MIB_MAX)?;
    let options = MoveOptions {
        goals: Goals {
            downtime_us: downtime_ms.map_or(DOWNTIME_US, |ms| u64::from(ms) * 1000),
            deadline_us: deadline_s.map(|seconds| u64::from(seconds) * 1_000_000),
            on_miss,
        },
        bandwidth_bytes: bandwidth_mib.map(|mib| u64::from(mib) << 20),
        stop_and_copy: arguments.has('s'),
        verify: arguments.has('v'),
    };
    let plaintext = arguments.has('p');
    let [domain, mut peer]: [String; 2] = arguments.all();
    if plaintext && !peer.starts_with(PLAINTEXT_PREFIX) {
        peer = format!("{PLAINTEXT_PREFIX}{peer}");
    }
    let action = Action::Migrate { peer, options };
    Ok(Command::Domain { domain, action })
}
