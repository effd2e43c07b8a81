//! The one row of the terminal that the editor owns.
//!
//! A line longer than the row is shown through a window that follows the cursor, so nothing depends
//! on how a terminal wraps and nothing is ever asked of it. What is on the row is remembered and
//! only the difference is sent. Invariant: the last column is never written, so no terminal wraps.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use unicode_width::UnicodeWidthChar;

/// Columns of a terminal that was not described: what a serial line can count on.
pub const COLUMNS_DEFAULT: usize = 80;
/// Fewer columns are taken as so many.
pub const COLUMNS_MIN: usize = 20;

/// What the row shows.
#[derive(Clone, Debug)]
pub(super) struct Screen {
    columns: usize,
    row: Vec<char>,
    /// Where the terminal's cursor is.
    column: usize,
    /// First character of the line that is shown.
    from: usize,
}

impl Default for Screen {
    fn default() -> Self {
        Self {
            columns: COLUMNS_DEFAULT,
            row: Vec::new(),
            column: 0,
            from: 0,
        }
    }
}

/// Columns a character takes.
fn width(c: char) -> usize {
    c.width().unwrap_or(1)
}

fn width_of(chars: &[char]) -> usize {
    chars.iter().copied().map(width).sum()
}

impl Screen {
    /// Takes the terminal to be so many columns wide.
    pub(super) fn resize(&mut self, columns: usize) {
        self.columns = columns.max(COLUMNS_MIN);
    }

    /// Columns of the terminal.
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    /// Something else was written, or the cursor is at the start of a new row: what was shown is
    /// not there any more.
    pub(super) fn forget(&mut self) {
        self.row.clear();
        self.column = 0;
        self.from = 0;
    }

    /// Erases the row, whatever is on it.
    pub(super) fn erase(&mut self, out: &mut Vec<u8>) {
        out.extend(b"\r\x1b[K");
        self.forget();
    }

    /// Shows `prompt` and `text` with the cursor before character `cursor` of the text.
    pub(super) fn draw(&mut self, prompt: &str, text: &[char], cursor: usize, out: &mut Vec<u8>) {
        let mut row = Vec::new();
        let mut prompt_width = 0;
        for c in prompt.chars() {
            if prompt_width + width(c) > self.columns / 2 {
                break;
            }
            prompt_width += width(c);
            row.push(c);
        }
        let room = self.columns - 1 - prompt_width;
        self.follow(text, cursor, room);
        let mut used = 0;
        for c in &text[self.from..] {
            used += width(*c);
            if used > room {
                break;
            }
            row.push(*c);
        }
        let column = prompt_width + width_of(&text[self.from..cursor]);
        self.send(row, column, out);
    }

    /// Moves the window so that the cursor, with a column for it to stand on, is within `room`.
    fn follow(&mut self, text: &[char], cursor: usize, room: usize) {
        self.from = self.from.min(text.len());
        let fits = |from: usize| width_of(&text[from..cursor]) < room;
        if width_of(text) < room {
            self.from = 0;
        } else if cursor < self.from || !fits(self.from) {
            // Half a row of context, so that the window does not move with every key.
            let mut from = cursor;
            while from > 0 && width_of(&text[from - 1..cursor]) <= room / 2 {
                from -= 1;
            }
            self.from = from;
        }
    }

    /// Sends what turns the row into `row` with the cursor on `column`.
    fn send(&mut self, row: Vec<char>, column: usize, out: &mut Vec<u8>) {
        let mut same = 0;
        while same < row.len().min(self.row.len()) && row[same] == self.row[same] {
            same += 1;
        }
        if same < row.len() || same < self.row.len() {
            // A combining character is never sent without its base.
            let joined = |row: &[char]| row.get(same).is_some_and(|c| width(*c) == 0);
            if same > 0 && (joined(&row) || joined(&self.row)) {
                same -= 1;
                while same > 0 && width(row[same]) == 0 {
                    same -= 1;
                }
            }
            self.go(width_of(&row[..same]), out);
            let rest: String = row[same..].iter().collect();
            out.extend(rest.as_bytes());
            self.column += width_of(&row[same..]);
            if width_of(&self.row) > self.column {
                out.extend(b"\x1b[K");
            }
            self.row = row;
        }
        self.go(column, out);
    }

    fn go(&mut self, column: usize, out: &mut Vec<u8>) {
        let mut text = String::new();
        if column == 0 && self.column > 0 {
            text.push('\r');
        } else if column < self.column {
            match self.column - column {
                back @ 1..=3 => text.extend(core::iter::repeat_n('\x08', back)),
                back => {
                    let _ = write!(text, "\x1b[{back}D");
                }
            }
        } else if column > self.column {
            let _ = write!(text, "\x1b[{}C", column - self.column);
        }
        out.extend(text.as_bytes());
        self.column = column;
    }
}

/// Words in columns, as wide as the terminal allows, rows ended by CR LF.
pub(super) fn in_columns(words: &[&str], columns: usize) -> String {
    let text_width = |word: &str| word.chars().map(width).sum::<usize>();
    let widest = words.iter().map(|word| text_width(word)).max().unwrap_or(0) + 2;
    let across = ((columns - 1) / widest).max(1);
    let down = words.len().div_ceil(across);
    let mut out = String::new();
    for row in 0..down {
        let mut gap = 0;
        for word in words.iter().skip(row).step_by(down) {
            out.extend(core::iter::repeat_n(' ', gap));
            out.push_str(word);
            gap = widest - text_width(word);
        }
        out.push_str("\r\n");
    }
    out
}
