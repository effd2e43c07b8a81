//! Help and usage, from the table of commands.

use super::spec::{Count, Opt, Spec, specs};
use crate::table::pad_right;
use alloc::format;
use alloc::string::String;

/// A usage that is longer goes on in another line.
const COLUMNS: usize = 90;

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

/// The usage, in full lines.
pub fn usage(spec: &Spec) -> String {
    let mut out = format!("usage: {}", spec.name);
    let mut column = out.len();
    let options = spec
        .options
        .iter()
        .map(|option| format!("[{}]", option_names(option)));
    let arguments = spec.arguments.iter().map(|argument| {
        let name = argument.name;
        match argument.count {
            Count::One => name.into(),
            Count::Optional => format!("[{name}]"),
            Count::Any => format!("[{name}...]"),
        }
    });
    for word in options.chain(arguments) {
        if column + word.len() >= COLUMNS {
            out.push_str("\n      ");
            column = 6;
        }
        column += word.len() + 1;
        out.push(' ');
        out.push_str(&word);
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
