//! Lines entered before, oldest first: at most [`HISTORY_LINES_MAX`], none empty, none twice in a
//! row.

use alloc::collections::VecDeque;
use alloc::string::String;

/// Lines kept.
pub const HISTORY_LINES_MAX: usize = 100;

/// The history and a place in it.
#[derive(Clone, Default, Debug)]
pub(super) struct History {
    lines: VecDeque<String>,
    /// Steps back from the line being edited; 0 is that line itself.
    back: usize,
    /// The line being edited, kept while older ones are looked at.
    draft: String,
}

impl History {
    /// Lines kept, oldest first.
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// Adds an entered line and goes back to the present.
    pub(super) fn add(&mut self, line: &str) {
        self.leave();
        if line.trim().is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == HISTORY_LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.into());
    }

    /// Back to the present, the draft forgotten.
    pub(super) fn leave(&mut self) {
        self.back = 0;
        self.draft.clear();
    }

    /// One line older; `current` is what is being edited. `None` at the oldest.
    pub(super) fn older(&mut self, current: &str) -> Option<&str> {
        if self.back == self.lines.len() {
            return None;
        }
        if self.back == 0 {
            self.draft = current.into();
        }
        self.back += 1;
        self.at()
    }

    /// One line newer, in the end the draft. `None` at the draft.
    pub(super) fn newer(&mut self) -> Option<&str> {
        self.back = self.back.checked_sub(1)?;
        self.at()
    }

    fn at(&self) -> Option<&str> {
        match self.lines.len().checked_sub(self.back) {
            Some(index) if self.back > 0 => self.lines.get(index).map(String::as_str),
            Some(_) | None => Some(&self.draft),
        }
    }

    /// The newest line at least `skip` lines back that contains `query`: how far back it is, and
    /// the line.
    pub(super) fn search(&self, query: &str, skip: usize) -> Option<(usize, &str)> {
        let newest_first = self.lines.iter().rev().enumerate().skip(skip);
        newest_first
            .map(|(back, line)| (back, line.as_str()))
            .find(|(_, line)| line.contains(query))
    }
}
