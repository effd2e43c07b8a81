//! Commands that move domains between hosts.

use super::*;
use crate::config::vdev;
use crate::hosts::link::PLAINTEXT_PREFIX;
use crate::operate::block_migrate::{BlockMove, Destination, DiskChoice};
use crate::operate::migrate::{DOWNTIME_US, LIMIT_MAX, MoveOptions};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_migrate::precopy::{Goals, OnMiss};

/// Longest downtime that can be asked for, milliseconds.
const DOWNTIME_MS_MAX: u32 = 3_600_000;
/// Longest deadline, seconds.
const DEADLINE_S_MAX: u32 = 7 * 86_400;
/// Most MiB a second.
const BANDWIDTH_MIB_MAX: u32 = 1 << 20;

const HOST: Argument = argument("HOST", Kind::Host, Count::One);
const DOMAINS: Argument = argument("DOMAIN", Kind::Domain, Count::Any);
const PLAINTEXT: Opt = flag(
    'p',
    "plaintext",
    "do not encrypt; the host must be booted with migrate=plaintext",
);
const JSON: Opt = flag('j', "json", "JSON, one object a line");
const DOWNTIME: Opt = option(
    't',
    "max-downtime",
    "MS",
    Kind::Text,
    "longest time it may stand still (300)",
);
const DEADLINE: Opt = option(
    'd',
    "deadline",
    "S",
    Kind::Text,
    "seconds after which it is stopped at the latest",
);
const ON_MISS: Opt = option(
    'o',
    "on-miss",
    "WHAT",
    Kind::Text,
    "if that fails: throttle, pause, abort, postcopy",
);
const BANDWIDTH: Opt = option(
    'b',
    "bandwidth",
    "MIB",
    Kind::Text,
    "most MiB a second on the network",
);
const BANDWIDTH_DISK: Opt = option(
    'b',
    "bandwidth",
    "MIB",
    Kind::Text,
    "most MiB a second that are copied",
);
const DISK: Opt = Opt {
    repeats: true,
    ..option(
        'd',
        "disk",
        "VDEV=TO",
        Kind::Text,
        "a disk and where it goes; again for others",
    )
};
const STOP: Opt = flag('s', "stop-and-copy", "pause it first, then send everything");
const POSTCOPY: Opt = flag(
    'P',
    "postcopy",
    "after one round run it there, and fetch the rest as it is touched",
);
const VERIFY: Opt = flag(
    'v',
    "verify",
    "compare all memory again while it stands still",
);

#[rustfmt::skip]
pub(super) static SPECS: &[Spec] = &[
    spec("xl migrate", &[DOMAIN, DOMAINS, HOST],
        &[DOWNTIME, DEADLINE, ON_MISS, BANDWIDTH, STOP, POSTCOPY, VERIFY, PLAINTEXT, JSON,
          flag('c', "offline", "move configuration files, of domains that do not run, instead"),
          flag('n', "dry-run", "check, measure and predict; change nothing")],
        ["move domains to another host while they run",
         "HOST is one that xl host-list shows (xl host-add adds one), with --plaintext also an address.\n\
          Whatever fails, the domain runs on one of the two. Ctrl-C calls it off. throttle slows its\n\
          writes down, pause stops it however long that takes, abort leaves it here, postcopy runs it there\n\
          before its memory, which then depends on both hosts. Its disks must be nbd:// exports.\n\
          HOST may be localhost: a copy is made here, which takes the domain's place; disks may be volumes.\n\
          More domains than xl migrate-limit says wait for their turn.\n\
          With --offline DOMAIN is a path, guests/web.cfg; kernel and ramdisk go too if they are files.\n"],
        migrate),
    spec("xl migrate-status", &[], &[JSON],
        ["domains on the move, and those that have moved lately", ""],
        |_, arguments| Ok(Command::Move(MoveCommand::Status { json: arguments.has('j') }))),
    spec("xl migrate-history", &[], &[JSON],
        ["moves that are over: what they were expected to take, and took", "The last 32; moves.state on the configuration partition has them, where there is one.\n"],
        |_, arguments| Ok(Command::Move(MoveCommand::History { json: arguments.has('j') }))),
    spec("xl migrate-limit", &[argument("N", Kind::Text, Count::Optional)], &[],
        ["how many domains leave at a time (2), or set that", "1 to 8; others wait. It is kept as the history is.\n"],
        limit),
    spec("xl migrate-costs", &[], &[],
        ["what a page costs on this host, by the way it is sent", ""],
        |_, _| Ok(Command::Move(MoveCommand::Costs))),
    spec("xl block-migrate", &[DOMAIN, argument("STORE", Kind::Store, Count::Optional)],
        &[DISK, BANDWIDTH_DISK, flag('D', "delete-source", "delete the old volume once the new one is used"),
          flag('n', "dry-run", "check only; change nothing"), JSON],
        ["move disks of a running domain to other stores while it writes",
         "All disks go to STORE but those that --disk names. TO is STORE[:VOLUME] or nbd://HOST[:PORT]/EXPORT,\n\
          whose contents are overwritten. Until both copies are equal the disk is the old one; any failure\n\
          leaves it there. The old volume is kept as VOLUME.old; the configuration file is changed.\n\
          xl migrate-status shows it, xl migrate-cancel calls it off.\n"],
        block_migrate),
    spec("xl migrate-cancel", &[DOMAIN], &[],
        ["call a move off: the domain stays where it is", ""],
        |_, arguments| Ok(on(Action::MigrateCancel, arguments))),
    spec("xl migrate-resolve", &[DOMAIN],
        &[flag('g', "peer-is-gone", "the other host will never come back: decide without it"),
          flag('y', "yes", "do not ask again")],
        ["decide a move whose other host will NEVER come back",
         "Without options it says what is undecided. While the other host answers, or will, nothing needs\n\
          to be decided: they settle it by themselves. If it is not gone, two copies run and destroy\n\
          their disks.\n"],
        |_, arguments| {
            let [peer_is_gone, yes] = ['g', 'y'].map(|flag| arguments.has(flag));
            let domain = arguments.one();
            Ok(Command::Move(MoveCommand::Resolve { domain, peer_is_gone, yes }))
        }),
    spec("xl host-evacuate", &[HOST], &[DOWNTIME, DEADLINE, ON_MISS, BANDWIDTH, STOP, VERIFY, PLAINTEXT],
        ["move every domain of this host to another one",
         "Says of those that cannot move why. xl host-return brings the others back.\n"],
        |spec, arguments| {
            let (options, plaintext) = (options(spec, &arguments)?, arguments.has('p'));
            let peer = named(arguments.one(), plaintext);
            Ok(Command::Move(MoveCommand::Evacuate { peer, options }))
        }),
    spec("xl host-return", &[HOST], &[PLAINTEXT],
        ["bring back what xl host-evacuate has moved to a host",
         "HOST is asked to send them, as fast as its own xl migrate-limit allows.\n"],
        |_, arguments| {
            let plaintext = arguments.has('p');
            let peer = named(arguments.one(), plaintext);
            Ok(Command::Move(MoveCommand::Return { peer }))
        }),
];

fn block_migrate(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let bandwidth_mib = arguments.number('b', 1..=BANDWIDTH_MIB_MAX)?;
    let mut disks: Vec<DiskChoice> = Vec::new();
    for text in arguments.values('d') {
        let (name, to) = text
            .split_once('=')
            .ok_or_else(|| usage_error(spec, format!("'{text}' is no VDEV=TO")))?;
        let index = vdev(name).map_err(|what| usage_error(spec, what))?;
        if disks.iter().any(|disk| disk.index == index) {
            return Err(usage_error(spec, format!("{name} is named twice")));
        }
        let to = destination(to).map_err(|what| usage_error(spec, what))?;
        disks.push(DiskChoice { index, to });
    }
    let [delete_source, dry_run, json] = ['D', 'n', 'j'].map(|flag| arguments.has(flag));
    let mut words = arguments.positional();
    let domain = words.remove(0);
    let rest = words.pop();
    if disks.is_empty() && rest.is_none() {
        return Err(usage_error(spec, "name a STORE, or disks by --disk".into()));
    }
    let wanted = BlockMove {
        disks,
        rest,
        bandwidth_bytes: bandwidth_mib.map(|mib| u64::from(mib) << 20),
        delete_source,
    };
    Ok(Command::Move(MoveCommand::Disks {
        domain,
        wanted,
        json,
        dry_run,
    }))
}

/// `STORE[:VOLUME]`, `STORE/VOLUME` or an export.
fn destination(text: &str) -> Result<Destination, String> {
    let (store, volume) = match text.split_once(':') {
        Some((store, volume)) if !volume.starts_with("//") => (store, Some(volume)),
        Some(_) => return DiskTarget::parse(text).map(Destination::Export),
        None => match text.split_once('/') {
            Some((store, volume)) => (store, Some(volume)),
            None => (text, None),
        },
    };
    // Names follow the rules of targets.
    let whole = format!("{store}/{}", volume.unwrap_or("x"));
    DiskTarget::parse(&whole)?;
    Ok(Destination::Store {
        store: store.into(),
        volume: volume.map(String::from),
    })
}

fn limit(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let given = arguments.positional();
    let limit = match given.first() {
        None => None,
        Some(text) => match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Some(limit),
            Ok(_) | Err(_) => {
                let what = format!("N is a number from 1 to {LIMIT_MAX}, not '{text}'");
                return Err(usage_error(spec, what));
            }
        },
    };
    Ok(Command::Move(MoveCommand::Limit { limit }))
}

/// A host, and how it is to be connected to.
fn named(peer: String, plaintext: bool) -> String {
    match plaintext && !peer.starts_with(PLAINTEXT_PREFIX) {
        true => format!("{PLAINTEXT_PREFIX}{peer}"),
        false => peer,
    }
}

fn migrate(spec: &'static Spec, arguments: Arguments) -> Result<Command, CommandError> {
    let options = options(spec, &arguments)?;
    let [plaintext, json, dry_run] = ['p', 'j', 'n'].map(|flag| arguments.has(flag));
    let is_offline = arguments.has('c');
    let mut domains = arguments.positional();
    let peer = domains.pop().expect("the number of arguments was checked");
    let twice = |(at, name): (usize, &String)| domains[..at].contains(name);
    if domains.iter().enumerate().any(twice) {
        return Err(usage_error(spec, "a domain is named twice".into()));
    }
    let peer = named(peer, plaintext);
    if is_offline {
        let configs = domains;
        return Ok(Command::Move(MoveCommand::Offline { configs, peer }));
    }
    Ok(Command::Move(MoveCommand::Migrate {
        domains,
        peer,
        options,
        json,
        dry_run,
    }))
}

fn options(spec: &'static Spec, arguments: &Arguments) -> Result<MoveOptions, CommandError> {
    let on_miss = match arguments.value('o') {
        None | Some("throttle") => OnMiss::Throttle,
        Some("pause") => OnMiss::Pause,
        Some("abort") => OnMiss::Abort,
        Some("postcopy") => OnMiss::PostCopy,
        Some(other) => {
            let what = format!("WHAT is throttle, pause, abort or postcopy, not '{other}'");
            return Err(usage_error(spec, what));
        }
    };
    let downtime_ms = arguments.number('t', 1..=DOWNTIME_MS_MAX)?;
    let deadline_s = arguments.number('d', 1..=DEADLINE_S_MAX)?;
    let bandwidth_mib = arguments.number('b', 1..=BANDWIDTH_MIB_MAX)?;
    Ok(MoveOptions {
        goals: Goals {
            downtime_us: downtime_ms.map_or(DOWNTIME_US, |ms| u64::from(ms) * 1000),
            deadline_us: deadline_s.map(|seconds| u64::from(seconds) * 1_000_000),
            on_miss,
        },
        bandwidth_bytes: bandwidth_mib.map(|mib| u64::from(mib) << 20),
        stop_and_copy: arguments.has('s'),
        postcopy: arguments.has('P'),
        verify: arguments.has('v'),
    })
}
