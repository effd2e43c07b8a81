//! Where a configuration comes from, and what is wrong in it, with the line and a caret.

use super::Spot;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

/// A named text that settings come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    /// A file's path, or `argument 2`.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

/// A place in a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Which source.
    pub source: usize,
    /// Byte offset in its text.
    pub offset: usize,
}

/// Where the settings of a configuration are.
#[derive(Clone, Default, Debug)]
pub(super) struct Places {
    /// By key.
    pub keys: Vec<(String, Place)>,
    /// The entries of `disk`, in the order of `Config::disks`.
    pub disks: Vec<Place>,
    /// The entries of `vif`.
    pub vifs: Vec<Place>,
}

impl Places {
    /// Where something is set; the beginning of the first source if it is not.
    pub(super) fn find(&self, spot: Spot) -> Place {
        let found = match spot {
            Spot::Key(key) => {
                let mut keys = self.keys.iter();
                keys.find(|(name, _)| name == key).map(|(_, place)| place)
            }
            Spot::Disk(index) => self.disks.get(index),
            Spot::Vif(index) => self.vifs.get(index),
        };
        let start = Place {
            source: 0,
            offset: 0,
        };
        found.copied().unwrap_or(start)
    }
}

/// Something wrong at a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what to do.
    pub what: String,
}

/// A problem with the text around it: what an operator is shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Name of the source.
    pub source: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// The line's text.
    pub text: String,
    /// What is wrong.
    pub what: String,
}

/// Why a configuration is refused: at least one finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    /// All of them, in the order of the text.
    pub findings: Vec<Finding>,
}

/// Characters of a line that are shown around a problem.
const EXCERPT_CHARS_MAX: usize = 120;

impl ConfigError {
    /// Looks up where the problems are.
    pub(super) fn new(sources: &[Source<'_>], mut problems: Vec<Problem>) -> Self {
        assert!(!problems.is_empty());
        problems.sort_by_key(|problem| (problem.place.source, problem.place.offset));
        let findings = problems
            .into_iter()
            .map(|problem| locate(&sources[problem.place.source], problem));
        Self {
            findings: findings.collect(),
        }
    }
}

fn locate(source: &Source<'_>, problem: Problem) -> Finding {
    let before = &source.text[..problem.place.offset];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_text = source.text[start..].lines().next().unwrap_or("");
    Finding {
        source: source.name.into(),
        line: before.matches('\n').count() + 1,
        column: before[start..].chars().count() + 1,
        text: line_text.chars().take(EXCERPT_CHARS_MAX).collect(),
        what: problem.what,
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, finding) in self.findings.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let (line, column) = (finding.line, finding.column);
            write!(f, "{}:{line}:{column}: {}", finding.source, finding.what)?;
            if column <= EXCERPT_CHARS_MAX + 1 && !finding.text.is_empty() {
                // Tabs and other control characters would move the caret.
                let clean = |c: char| if c.is_control() { ' ' } else { c };
                let text: String = finding.text.chars().map(clean).collect();
                write!(f, "\n    {text}\n    {:>column$}", '^')?;
            }
        }
        Ok(())
    }
}
