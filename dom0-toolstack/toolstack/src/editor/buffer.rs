//! The line being edited: characters, a cursor, and what was cut last.
//!
//! Invariant: `cursor <= text.len() <= LINE_CHARS_MAX`.

use alloc::string::String;
use alloc::vec::Vec;

/// The longest line, in characters; more is refused with a bell.
pub const LINE_CHARS_MAX: usize = 1024;

/// The line.
#[derive(Clone, Default, Debug)]
pub(super) struct Buffer {
    text: Vec<char>,
    cursor: usize,
    cut: Vec<char>,
    /// The last change was a cut too, so that the next one adds to it.
    cutting: bool,
}

impl Buffer {
    /// The characters.
    pub(super) fn chars(&self) -> &[char] {
        &self.text
    }

    /// The cursor: an index into [`Self::chars`], or their number at the end.
    pub(super) fn cursor(&self) -> usize {
        self.cursor
    }

    /// The line as text.
    pub(super) fn line(&self) -> String {
        self.text.iter().collect()
    }

    /// The text before the cursor.
    pub(super) fn before_cursor(&self) -> String {
        self.text[..self.cursor].iter().collect()
    }

    /// Replaces the line, with the cursor at its end. What does not fit is cut off.
    pub(super) fn set(&mut self, line: &str) {
        self.text = line.chars().take(LINE_CHARS_MAX).collect();
        self.cursor = self.text.len();
    }

    /// Inserts at the cursor. False, and nothing inserted, when it does not fit.
    pub(super) fn insert(&mut self, text: &[char]) -> bool {
        if self.text.len() + text.len() > LINE_CHARS_MAX {
            return false;
        }
        let at = self.cursor;
        self.text.splice(at..at, text.iter().copied());
        self.cursor += text.len();
        true
    }

    /// Replaces what is from character `start` to the cursor. False when it does not fit.
    pub(super) fn replace_before(&mut self, start: usize, text: &str) -> bool {
        let start = start.min(self.cursor);
        let new: Vec<char> = text.chars().collect();
        if self.text.len() - (self.cursor - start) + new.len() > LINE_CHARS_MAX {
            return false;
        }
        let end = self.cursor;
        self.cursor = start + new.len();
        self.text.splice(start..end, new);
        true
    }

    /// Moves the cursor, held within the line.
    pub(super) fn move_to(&mut self, cursor: usize) {
        self.cursor = cursor.min(self.text.len());
    }

    /// Deletes from `start` to `end`, held within the line. Whether anything went.
    pub(super) fn delete(&mut self, start: usize, end: usize) -> bool {
        let end = end.min(self.text.len());
        let start = start.min(end);
        self.text.drain(start..end);
        self.cursor = start;
        start < end
    }

    /// Cuts from `start` to `end` for [`Self::paste`]; cuts in a row add up.
    pub(super) fn cut(&mut self, start: usize, end: usize) -> bool {
        let end = end.min(self.text.len());
        let start = start.min(end);
        if !self.cutting {
            self.cut.clear();
        }
        let piece = &self.text[start..end];
        let at = if end <= self.cursor {
            0
        } else {
            self.cut.len()
        };
        self.cut.splice(at..at, piece.iter().copied());
        self.cut.truncate(LINE_CHARS_MAX);
        self.cutting = true;
        self.delete(start, end)
    }

    /// Something else than a cut was done: the next cut begins anew.
    pub(super) fn end_cut(&mut self) {
        self.cutting = false;
    }

    /// Inserts what was cut last. False when there is nothing or it does not fit.
    pub(super) fn paste(&mut self) -> bool {
        let cut = core::mem::take(&mut self.cut);
        let done = !cut.is_empty() && self.insert(&cut);
        self.cut = cut;
        done
    }

    /// Start of the word (letters and digits) before the cursor.
    pub(super) fn word_left(&self) -> usize {
        self.back(|c| !c.is_alphanumeric(), char::is_alphanumeric)
    }

    /// Start of the blank-separated word before the cursor.
    pub(super) fn blank_left(&self) -> usize {
        self.back(char::is_whitespace, |c| !c.is_whitespace())
    }

    /// End of the word after the cursor.
    pub(super) fn word_right(&self) -> usize {
        let skip = |from: usize, wanted: bool| {
            let rest = &self.text[from..];
            let length = rest.iter().position(|c| c.is_alphanumeric() != wanted);
            from + length.unwrap_or(rest.len())
        };
        skip(skip(self.cursor, false), true)
    }

    fn back(&self, between: impl Fn(char) -> bool, inside: impl Fn(char) -> bool) -> usize {
        let mut at = self.cursor;
        while at > 0 && between(self.text[at - 1]) {
            at -= 1;
        }
        while at > 0 && inside(self.text[at - 1]) {
            at -= 1;
        }
        at
    }
}
