//! Sets of CPUs as `xl` writes them: `all`, `0-3,5`, `0-7,^2`.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;

/// CPUs a set can name.
pub const CPUS_MAX: u32 = 64;

/// Reads a set, a bit each CPU; not empty. The error says what is wrong.
pub fn parse(text: &str) -> Result<u64, String> {
    let mut set = 0u64;
    for part in text.split(',').map(str::trim) {
        let (range, without) = match part.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (part, false),
        };
        let bits = match range {
            "all" => u64::MAX,
            range => bits(range).ok_or_else(|| {
                format!(
                    "'{part}' is no CPU from 0 to {}, no range of them and not 'all'",
                    CPUS_MAX - 1
                )
            })?,
        };
        match without {
            true => set &= !bits,
            false => set |= bits,
        }
    }
    match set {
        0 => Err(format!("'{text}' leaves no CPU")),
        set => Ok(set),
    }
}

fn bits(range: &str) -> Option<u64> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|cpu| *cpu < CPUS_MAX);
    let (first, last) = match range.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(range)?, number(range)?),
    };
    (first <= last).then(|| (first..=last).fold(0, |set, cpu| set | 1 << cpu))
}

/// A set as ranges: `0-3,7`; `all` when every bit is set.
pub fn show(cpus: u64) -> String {
    if cpus == u64::MAX {
        return "all".into();
    }
    let mut out = String::new();
    let mut cpu = 0;
    while cpu < CPUS_MAX {
        if cpus >> cpu & 1 == 0 {
            cpu += 1;
            continue;
        }
        let length = (!(cpus >> cpu)).trailing_zeros();
        let comma = if out.is_empty() { "" } else { "," };
        let _ = match length {
            1 => write!(out, "{comma}{cpu}"),
            _ => write!(out, "{comma}{cpu}-{}", cpu + length - 1),
        };
        cpu += length;
    }
    if out.is_empty() { "none".into() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_cpus_are_ranges() {
        for (cpus, want) in [(1, "0"), (0b1011, "0-1,3"), (!0, "all"), (!1, "1-63")] {
            assert_eq!(show(cpus), want);
            assert_eq!(parse(want), Ok(cpus));
        }
        assert_eq!(show(0), "none");
        assert_eq!(parse(" 0-7, ^2 ,9"), Ok(0b10_1111_1011));
        for text in ["", "64", "3-1", "a", "0-", "^0", "0,^all", "-1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
