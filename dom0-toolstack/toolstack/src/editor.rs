//! The line editor of the serial console: bytes typed go in, bytes for the terminal and finished
//! lines come out. It holds no I/O and asks the terminal nothing.
//!
//! Keys are those of readline's emacs mode: see [`HELP`]. Ctrl-A pressed three times in a row never
//! arrives here, the hypervisor takes it; a single one does.
//!
//! ```text
//!            Ctrl-R                    Enter, any editing key: accept
//!   Editing ---------> Searching ------------------------------------> Editing
//!                                      Ctrl-G, Ctrl-C: as before
//! ```

mod buffer;
mod history;
mod keys;
mod screen;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod tests;

pub use buffer::LINE_CHARS_MAX;
pub use history::HISTORY_LINES_MAX;
pub use keys::{Key, Keys};
pub use screen::{COLUMNS_DEFAULT, COLUMNS_MIN};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use buffer::Buffer;
use history::History;
use screen::Screen;

/// Candidates listed by the second Tab; the rest is counted.
pub const CANDIDATES_SHOWN_MAX: usize = 200;

const BELL: u8 = 7;

/// The keys, for `help keys`.
pub const HELP: &str = "\
Ctrl-A Home / Ctrl-E End   start / end of line    Ctrl-B Left / Ctrl-F Right  a character
Alt-B / Alt-F              a word                  Ctrl-P Up / Ctrl-N Down     history
Ctrl-R                     search the history      Tab                         complete, list
Ctrl-K / Ctrl-U            cut to end / to start   Ctrl-W, Alt-D               cut a word
Ctrl-Y                     put back what was cut   Ctrl-L                      clear the screen
Ctrl-C                     drop the line           Ctrl-D                      delete, end of input
Ctrl-A three times         the hypervisor's debug keys, and back
";

/// What the word before the cursor could become.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Completion {
    /// Byte offset, in the text before the cursor, of what a candidate replaces.
    pub start: usize,
    /// The candidates.
    pub candidates: Vec<Candidate>,
}

/// One possible completion.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    /// What replaces the word.
    pub text: String,
    /// Whether the word is finished then and a space follows.
    pub space: bool,
}

/// Finds completions from the text before the cursor.
pub type Complete<'a> = dyn FnMut(&str) -> Completion + 'a;

/// What came of a byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A line was entered.
    Line(String),
    /// Ctrl-C: the line was dropped.
    Interrupted,
    /// Ctrl-D on an empty line.
    EndOfInput,
}

#[derive(Clone, Debug)]
enum Mode {
    Editing,
    Searching {
        query: String,
        /// The match: lines back, and the line. `None` when nothing matches.
        found: Option<(usize, String)>,
    },
}

/// The editor.
#[derive(Clone, Debug)]
pub struct Editor {
    prompt: String,
    keys: Keys,
    buffer: Buffer,
    history: History,
    screen: Screen,
    mode: Mode,
    /// The last key was a Tab that had nothing to add.
    tabbed: bool,
}

impl Editor {
    /// An editor with an empty line; nothing is shown before [`Self::show`].
    pub fn new(prompt: &str) -> Self {
        Self {
            prompt: prompt.into(),
            keys: Keys::new(),
            buffer: Buffer::default(),
            history: History::default(),
            screen: Screen::default(),
            mode: Mode::Editing,
            tabbed: false,
        }
    }

    /// Takes the terminal to be so many columns wide, at least [`COLUMNS_MIN`].
    pub fn resize(&mut self, columns: usize) {
        self.screen.resize(columns);
    }

    /// Lines entered, oldest first.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.history.lines()
    }

    /// Shows prompt and line on the row the cursor is at the start of.
    pub fn show(&mut self, out: &mut Vec<u8>) {
        self.screen.forget();
        self.draw(out);
    }

    /// Takes prompt and line off the screen, so that something else can be written; then
    /// [`Self::show`] puts them back.
    pub fn hide(&mut self, out: &mut Vec<u8>) {
        self.screen.erase(out);
    }

    /// Takes a byte. After an event the line is empty and the terminal's cursor at the start of a
    /// new row; the caller writes what it has to say and calls [`Self::show`].
    pub fn feed(
        &mut self,
        byte: u8,
        complete: &mut Complete<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Event> {
        let key = self.keys.feed(byte)?;
        let event = self.key(key, complete, out);
        if event.is_none() {
            self.draw(out);
        }
        event
    }

    fn draw(&mut self, out: &mut Vec<u8>) {
        match &self.mode {
            Mode::Editing => {
                let (text, cursor) = (self.buffer.chars(), self.buffer.cursor());
                self.screen.draw(&self.prompt, text, cursor, out);
            }
            Mode::Searching { query, found } => {
                let failed = if found.is_some() { "" } else { "failed " };
                let prompt = format!("({failed}reverse-i-search)`{query}': ");
                let line = found.as_ref().map_or("", |(_, line)| line);
                let text: Vec<char> = line.chars().collect();
                let at = line.find(query.as_str()).unwrap_or(0);
                let cursor = line[..at].chars().count();
                self.screen.draw(&prompt, &text, cursor, out);
            }
        }
    }

    fn key(&mut self, key: Key, complete: &mut Complete<'_>, out: &mut Vec<u8>) -> Option<Event> {
        if matches!(self.mode, Mode::Searching { .. }) && self.search_key(key, out) {
            return None;
        }
        let tabbed = core::mem::take(&mut self.tabbed);
        if !matches!(
            key,
            Key::Ctrl('k' | 'u' | 'w') | Key::Alt('d') | Key::AltBackspace
        ) {
            self.buffer.end_cut();
        }
        match key {
            Key::Enter => return Some(self.enter(out)),
            Key::Ctrl('c') => {
                out.extend(b"^C");
                self.end_line(out);
                return Some(Event::Interrupted);
            }
            Key::Ctrl('d') if self.buffer.chars().is_empty() => {
                self.end_line(out);
                return Some(Event::EndOfInput);
            }
            Key::Ctrl('l') => {
                out.extend(b"\x1b[H\x1b[2J");
                self.screen.forget();
            }
            Key::Ctrl('r') => {
                self.mode = Mode::Searching {
                    query: String::new(),
                    found: Some((0, self.buffer.line())),
                };
            }
            Key::Tab => self.complete(complete, tabbed, out),
            Key::Up | Key::Ctrl('p') => {
                let line = self.buffer.line();
                let older = self.history.older(&line).map(String::from);
                self.take_line(older, out);
            }
            Key::Down | Key::Ctrl('n') => {
                let newer = self.history.newer().map(String::from);
                self.take_line(newer, out);
            }
            key => {
                if !self.edit(key) {
                    out.push(BELL);
                }
            }
        }
        None
    }

    /// Keys that move or change the line and nothing else. False: not possible, or no such key.
    fn edit(&mut self, key: Key) -> bool {
        let buffer = &mut self.buffer;
        let (cursor, end) = (buffer.cursor(), buffer.chars().len());
        let target = match key {
            Key::Char(c) => return buffer.insert(&[c]),
            Key::Backspace => return cursor > 0 && buffer.delete(cursor - 1, cursor),
            Key::Delete | Key::Ctrl('d') => return buffer.delete(cursor, cursor + 1),
            Key::Ctrl('k') => return buffer.cut(cursor, end),
            Key::Ctrl('u') => return buffer.cut(0, cursor),
            Key::Ctrl('w') => return buffer.cut(buffer.blank_left(), cursor),
            Key::AltBackspace => return buffer.cut(buffer.word_left(), cursor),
            Key::Alt('d') => return buffer.cut(cursor, buffer.word_right()),
            Key::Ctrl('y') => return buffer.paste(),
            Key::Left | Key::Ctrl('b') => cursor.saturating_sub(1),
            Key::Right | Key::Ctrl('f') => cursor + 1,
            Key::Home | Key::Ctrl('a') => 0,
            Key::End | Key::Ctrl('e') => end,
            Key::WordLeft | Key::Alt('b') => buffer.word_left(),
            Key::WordRight | Key::Alt('f') => buffer.word_right(),
            Key::Ctrl(_) | Key::Alt(_) | Key::Escape => return false,
            Key::Enter | Key::Tab | Key::Up | Key::Down => unreachable!("handled by the caller"),
        };
        buffer.move_to(target);
        true
    }

    fn enter(&mut self, out: &mut Vec<u8>) -> Event {
        let line = self.buffer.line();
        self.history.add(&line);
        self.end_line(out);
        Event::Line(line)
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        self.mode = Mode::Editing;
        self.buffer.set("");
        self.history.leave();
        self.screen.forget();
        out.extend(b"\r\n");
    }

    fn take_line(&mut self, line: Option<String>, out: &mut Vec<u8>) {
        match line {
            Some(line) => self.buffer.set(&line),
            None => out.push(BELL),
        }
    }

    /// A key while searching. True: it was about the search; else the match has become the line
    /// and the key is still to be handled.
    fn search_key(&mut self, key: Key, out: &mut Vec<u8>) -> bool {
        let Mode::Searching { query, found } = &mut self.mode else {
            unreachable!("only called while searching");
        };
        let skip = match key {
            Key::Char(c) => {
                if query.chars().count() < LINE_CHARS_MAX {
                    query.push(c);
                }
                found.as_ref().map_or(0, |(back, _)| *back)
            }
            Key::Backspace => {
                query.pop();
                0
            }
            // Before anything was typed the line itself is shown, which is no line back.
            Key::Ctrl('r') if query.is_empty() => return true,
            Key::Ctrl('r') => found.as_ref().map_or(0, |(back, _)| back + 1),
            Key::Ctrl('g' | 'c') => {
                self.mode = Mode::Editing;
                return true;
            }
            Key::Enter
            | Key::Tab
            | Key::AltBackspace
            | Key::Delete
            | Key::Escape
            | Key::Left
            | Key::Right
            | Key::WordLeft
            | Key::WordRight
            | Key::Up
            | Key::Down
            | Key::Home
            | Key::End
            | Key::Ctrl(_)
            | Key::Alt(_) => {
                if let Some((_, line)) = found.take() {
                    let at = line.find(query.as_str()).unwrap_or(0);
                    let cursor = line[..at].chars().count();
                    self.buffer.set(&line);
                    self.buffer.move_to(cursor);
                }
                self.mode = Mode::Editing;
                return false;
            }
        };
        let next = self.history.search(query, skip);
        let next = next.map(|(back, line)| (back, String::from(line)));
        match (next, key) {
            (Some(next), _) => *found = Some(next),
            // No older match: the one on the screen stays.
            (None, Key::Ctrl(_)) => out.push(BELL),
            (None, _) => {
                *found = None;
                out.push(BELL);
            }
        }
        true
    }

    fn complete(&mut self, complete: &mut Complete<'_>, tabbed: bool, out: &mut Vec<u8>) {
        let before = self.buffer.before_cursor();
        let Completion { start, candidates } = complete(&before);
        let Some((kept, word)) = before.split_at_checked(start) else {
            return out.push(BELL);
        };
        let start = kept.chars().count();
        let done = match candidates.as_slice() {
            [] => false,
            [only] => {
                let next = self.buffer.chars().get(self.buffer.cursor());
                let space = only.space && next.is_none_or(|c| !c.is_whitespace());
                let text = format!("{}{}", only.text, if space { " " } else { "" });
                self.buffer.replace_before(start, &text)
            }
            [first, rest @ ..] => {
                let common = rest.iter().fold(first.text.as_str(), |common, other| {
                    common_prefix(common, &other.text)
                });
                if common.len() > word.len() {
                    self.buffer.replace_before(start, common)
                } else if tabbed {
                    self.list(&candidates, out);
                    true
                } else {
                    self.tabbed = true;
                    false
                }
            }
        };
        if !done {
            out.push(BELL);
        }
    }

    fn list(&mut self, candidates: &[Candidate], out: &mut Vec<u8>) {
        let shown = candidates.iter().take(CANDIDATES_SHOWN_MAX);
        let words: Vec<&str> = shown.map(|candidate| candidate.text.as_str()).collect();
        out.extend(b"\r\n");
        out.extend(screen::in_columns(&words, self.screen.columns()).as_bytes());
        if candidates.len() > words.len() {
            let more = candidates.len() - words.len();
            out.extend(format!("and {more} more\r\n").as_bytes());
        }
        self.screen.forget();
    }
}

fn common_prefix<'a>(left: &'a str, right: &str) -> &'a str {
    let pairs = left.char_indices().zip(right.chars());
    let same = pairs.take_while(|((_, a), b)| a == b);
    let end = same.last().map_or(0, |((at, c), _)| at + c.len_utf8());
    &left[..end]
}
