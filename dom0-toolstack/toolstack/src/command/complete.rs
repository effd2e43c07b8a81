//! Completion of half a command line.

use super::spec::{Count, Kind, LATER, Spec, XL, specs};
use super::words::{Open, Word, quoted, split};
use crate::editor::{Candidate, Completion};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// What completion may offer besides the table of commands.
#[derive(Clone, Copy, Default, Debug)]
pub struct Known<'a> {
    /// Names of domains.
    pub domains: &'a [String],
    /// Names of boot modules.
    pub modules: &'a [&'a str],
    /// Keys of a configuration.
    pub keys: &'a [&'a str],
    /// Paths of files.
    pub files: &'a [String],
    /// Names of hosts that are known.
    pub hosts: &'a [String],
    /// Names of stores.
    pub stores: &'a [String],
    /// Volumes, `STORE/VOLUME`.
    pub volumes: &'a [String],
}

/// Values that a setting can take besides what the operator makes up.
const ACTION_KEYS: [&str; 3] = ["on_poweroff", "on_reboot", "on_crash"];

/// Candidates for the word before the cursor. Total; bounded by the line and by `known`.
pub fn complete(before: &str, known: Known<'_>) -> Completion {
    let mut words = split(before);
    let mut command = words.commands.pop().unwrap_or_default();
    let word = match words.open {
        Open::Nothing => None,
        Open::Word | Open::Quote(_) | Open::Backslash => command.pop(),
    };
    let (typed, start) = match &word {
        Some(word) => (word.text.as_str(), word.start),
        None => ("", before.len()),
    };
    let mut candidates = candidates(&command, typed, known);
    candidates.retain(|candidate| candidate.text.starts_with(typed));
    candidates.sort();
    candidates.dedup();
    for candidate in &mut candidates {
        candidate.text = quoted(&candidate.text);
    }
    Completion { start, candidates }
}

fn finished(text: &str) -> Candidate {
    Candidate {
        text: text.into(),
        space: true,
    }
}

fn candidates(command: &[Word], typed: &str, known: Known<'_>) -> Vec<Candidate> {
    let texts: Vec<&str> = command.iter().map(|word| word.text.as_str()).collect();
    match texts.as_slice() {
        [] => first_words(),
        ["xl"] => xl_verbs().chain([finished("help")]).collect(),
        ["help"] | ["xl", "help"] => help_topics(),
        ["help", "xl"] => xl_verbs().collect(),
        ["xl", verb, rest @ ..] => match Spec::find(&format!("{XL}{verb}")) {
            Some(spec) => of_spec(spec, rest, typed, known),
            None => Vec::new(),
        },
        [verb, rest @ ..] => match Spec::find(verb) {
            Some(spec) => of_spec(spec, rest, typed, known),
            None => Vec::new(),
        },
    }
}

fn first_words() -> Vec<Candidate> {
    let plain = specs().filter(|spec| !spec.name.starts_with(XL));
    let plain = plain.map(|spec| finished(spec.name));
    plain.chain([finished("xl")]).collect()
}

/// Verbs of `xl`; those of later versions are not offered.
fn xl_verbs() -> impl Iterator<Item = Candidate> {
    let verbs = specs().filter_map(|spec| spec.name.strip_prefix(XL));
    verbs.map(finished)
}

fn help_topics() -> Vec<Candidate> {
    let mut all = first_words();
    all.extend(xl_verbs());
    all.extend(LATER.iter().map(|verb| finished(verb)));
    all.push(finished("keys"));
    all
}

fn of_spec(spec: &Spec, given: &[&str], typed: &str, known: Known<'_>) -> Vec<Candidate> {
    let after_option = given.last().and_then(|word| {
        let mut options = spec.options.iter();
        options.find(|option| {
            let short = word.strip_prefix('-');
            short.is_some_and(|name| name.chars().eq([option.short]))
        })
    });
    if let Some((_, kind)) = after_option.and_then(|option| option.value) {
        return of_kind(kind, typed, known);
    }
    if typed.starts_with('-') {
        let options = spec.options.iter().flat_map(|option| {
            let long = Candidate {
                text: match option.value {
                    Some(_) => format!("--{}=", option.long),
                    None => format!("--{}", option.long),
                },
                space: option.value.is_none(),
            };
            [finished(&format!("-{}", option.short)), long]
        });
        return options.collect();
    }
    let position = given.iter().filter(|word| !word.starts_with('-')).count();
    let many = spec
        .arguments
        .iter()
        .position(|argument| argument.count == Count::Any);
    let possible = match many.filter(|at| *at <= position) {
        // Another of these, or what comes behind them.
        Some(at) => &spec.arguments[at..],
        None => spec.arguments.get(position..position + 1).unwrap_or(&[]),
    };
    let kinds = possible.iter().map(|argument| argument.kind);
    kinds.flat_map(|kind| of_kind(kind, typed, known)).collect()
}

fn of_kind(kind: Kind, typed: &str, known: Known<'_>) -> Vec<Candidate> {
    match kind {
        Kind::Domain => known.domains.iter().map(|name| finished(name)).collect(),
        Kind::Config => {
            let files = known.files.iter().map(|path| finished(path));
            files.chain([finished(super::EMPTY_CONFIG)]).collect()
        }
        Kind::File => known.files.iter().map(|path| finished(path)).collect(),
        Kind::Host => known.hosts.iter().map(|name| finished(name)).collect(),
        Kind::Store => known.stores.iter().map(|name| finished(name)).collect(),
        Kind::Volume => known.volumes.iter().map(|name| finished(name)).collect(),
        Kind::Setting => settings(typed, known),
        Kind::Command => help_topics(),
        Kind::Text => Vec::new(),
    }
}

fn settings(typed: &str, known: Known<'_>) -> Vec<Candidate> {
    let Some((key, _)) = typed.split_once('=') else {
        let keys = known.keys.iter().map(|key| Candidate {
            text: format!("{key}="),
            space: false,
        });
        return keys.collect();
    };
    let value = |text: &str| finished(&format!("{key}={text}"));
    match key {
        "kernel" | "ramdisk" => {
            let modules = known.modules.iter();
            let modules = modules.map(|name| value(&format!("module:{name}")));
            modules
                .chain(known.files.iter().map(|path| value(path)))
                .collect()
        }
        "type" => ["pvh", "hvm"].map(value).into(),
        "cpu_policy" => ["portable", "host"].map(value).into(),
        "disk" => {
            let disk = |name: &String| Candidate {
                text: format!("{key}={name},raw,"),
                space: false,
            };
            known.volumes.iter().map(disk).collect()
        }
        "vif" => ["type=bridge", "type=nat"].map(value).into(),
        _ if ACTION_KEYS.contains(&key) => ["destroy", "restart", "preserve"].map(value).into(),
        _ => Vec::new(),
    }
}
