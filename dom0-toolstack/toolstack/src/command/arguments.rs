//! Words after a command into options and arguments, as its row of the table says.

use super::CommandError;
use super::spec::{Count, Opt, Spec};
use super::words::Word;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

/// Checked words of one command.
pub(super) struct Arguments {
    spec: &'static Spec,
    options: Vec<(char, String)>,
    positional: Vec<String>,
}

pub(super) fn usage_error(spec: &'static Spec, what: String) -> CommandError {
    CommandError::Usage { spec, what }
}

impl Arguments {
    /// Takes the words apart. `--` ends the options.
    pub(super) fn parse(spec: &'static Spec, words: &[Word]) -> Result<Self, CommandError> {
        let mut parsed = Self {
            spec,
            options: Vec::new(),
            positional: Vec::new(),
        };
        let mut words = words.iter().map(|word| word.text.as_str());
        let mut options_end = spec.options.is_empty() && spec.arguments.iter().any(takes_any);
        while let Some(word) = words.next() {
            if options_end || word == "-" || !word.starts_with('-') {
                parsed.positional.push(word.into());
            } else if word == "--" {
                options_end = true;
            } else {
                parsed.option(word, &mut words)?;
            }
        }
        parsed.check_count()?;
        Ok(parsed)
    }

    fn option<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<(), CommandError> {
        let spec = self.spec;
        let (name, attached) = split_option(word);
        let found = spec.options.iter().find(|option| is_called(option, name));
        let Some(option) = found else {
            return Err(usage_error(spec, format!("unknown option '{name}'")));
        };
        if self.has(option.short) && !option.repeats {
            return Err(usage_error(spec, format!("option '{name}' is given twice")));
        }
        let value = match (option.value, attached) {
            (None, None) => String::new(),
            (None, Some(_)) => {
                return Err(usage_error(spec, format!("option '{name}' takes no value")));
            }
            (Some(_), Some(value)) => value.into(),
            (Some((value, _)), None) => match rest.next() {
                Some(next) => next.into(),
                None => return Err(usage_error(spec, format!("option '{name}' needs {value}"))),
            },
        };
        self.options.push((option.short, value));
        Ok(())
    }

    fn check_count(&self) -> Result<(), CommandError> {
        let wanted = self.spec.arguments;
        let needed = wanted
            .iter()
            .filter(|argument| argument.count == Count::One);
        if let Some(missing) = needed.clone().nth(self.positional.len()) {
            return Err(usage_error(
                self.spec,
                format!("{} is missing", missing.name),
            ));
        }
        match self.positional.get(wanted.len()) {
            Some(extra) if !wanted.iter().any(takes_any) => Err(usage_error(
                self.spec,
                format!("'{extra}' is one argument too many"),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether an option was given.
    pub(super) fn has(&self, short: char) -> bool {
        self.value(short).is_some()
    }

    /// The value of an option.
    pub(super) fn value(&self, short: char) -> Option<&str> {
        let mut options = self.options.iter();
        options
            .find(|(name, _)| *name == short)
            .map(|(_, value)| value.as_str())
    }

    /// All values of an option that repeats.
    pub(super) fn values(&self, short: char) -> impl Iterator<Item = &str> {
        let options = self.options.iter();
        let wanted = options.filter(move |(name, _)| *name == short);
        wanted.map(|(_, value)| value.as_str())
    }

    /// The value of an option as a number in a range.
    pub(super) fn number(
        &self,
        short: char,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, CommandError> {
        let Some(value) = self.value(short) else {
            return Ok(None);
        };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            Ok(_) | Err(_) => {
                let (least, most) = (range.start(), range.end());
                let what = format!("'-{short} {value}' is no number from {least} to {most}");
                Err(usage_error(self.spec, what))
            }
        }
    }

    /// The argument of a command that has exactly one.
    pub(super) fn one(self) -> String {
        let [one] = self.all();
        one
    }

    /// The arguments of a command that has exactly so many.
    pub(super) fn all<const N: usize>(self) -> [String; N] {
        let all = <[String; N]>::try_from(self.positional);
        all.expect("the number of arguments was checked")
    }

    /// The arguments, checked for their number.
    pub(super) fn positional(self) -> Vec<String> {
        self.positional
    }
}

fn takes_any(argument: &super::spec::Argument) -> bool {
    argument.count == Count::Any
}

/// `--name=value`, `--name`, `-n` or `-nVALUE`.
fn split_option(word: &str) -> (&str, Option<&str>) {
    if word.starts_with("--") {
        return match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
    }
    let letter = word[1..].chars().next().map_or(0, char::len_utf8);
    match word.split_at(1 + letter) {
        (name, "") => (name, None),
        (name, value) => (name, Some(value)),
    }
}

fn is_called(option: &Opt, name: &str) -> bool {
    match name.strip_prefix("--") {
        Some(long) => long == option.long,
        None => name[1..].chars().eq([option.short]),
    }
}
