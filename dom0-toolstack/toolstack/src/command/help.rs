//! Help and usage, from the table of commands.

use super::spec::{Count, Opt, Spec, specs};
use crate::table::pad_right;
use alloc::format;
use alloc::string::String;

/// The list of all commands, one line each.
pub fn overview() -> String {
    let mut out = String::new();
    for spec in specs() {
        out.push_str("  ");
        pad_right(&mut out, spec.name, 20);
        out.push_str(spec.summary);
        out.push('\n');
    }
    out.push_str("help COMMAND says more; commands can be joined by ';'.\n");
    out
}

/// The help of one command.
pub fn of(spec: &Spec) -> String {
    let mut out = format!("{}: {}\n{}", spec.name, spec.summary, usage(spec));
    for option in spec.options {
        out.push_str("  ");
        pad_right(&mut out, &option_names(option), 28);
        out.push_str(option.text);
        out.push('\n');
    }
    out.push_str(spec.details);
    out
}

/// The usage line, ended by a newline.
pub fn usage(spec: &Spec) -> String {
    let mut out = format!("usage: {}", spec.name);
    for option in spec.options {
        out.push_str(&format!(" [{}]", option_names(option)));
    }
    for argument in spec.arguments {
        let name = argument.name;
        out.push_str(&match argument.count {
            Count::One => format!(" {name}"),
            Count::Optional => format!(" [{name}]"),
            Count::Any => format!(" [{name}...]"),
        });
    }
    out.push('\n');
    out
}

fn option_names(option: &Opt) -> String {
    match option.value {
        Some((value, _)) => format!("-{} {value}|--{}={value}", option.short, option.long),
        None => format!("-{}|--{}", option.short, option.long),
    }
}
