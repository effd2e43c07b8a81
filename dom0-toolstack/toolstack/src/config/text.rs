//! The syntax of `xl.cfg`: assignments `key = value`, one a line or separated by `;`, where a value
//! is a number (decimal, `0x…`, `0…`), a text in `"` or `'`, or a list in brackets, which may span
//! lines; `#` begins a comment.
//!
//! Total: an error is noted and the parser goes on behind the next line or `;`, so that all errors
//! of a file are reported at once.

use super::report::{Place, Problem, Source};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// The longest configuration, in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// The most problems reported.
pub const PROBLEMS_MAX: usize = 20;
/// The most settings in a configuration.
pub const SETTINGS_MAX: usize = 256;
/// The most entries of a list.
pub const LIST_ENTRIES_MAX: usize = 256;
/// Lists in lists, at most so deep.
pub const LIST_DEPTH_MAX: usize = 4;

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Value {
    /// A number.
    Number(u64),
    /// A text.
    Text(String),
    /// A list: each entry and where it is.
    List(Vec<(Value, Place)>),
}

/// An assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting {
    /// The key.
    pub key: String,
    /// Where the key is.
    pub key_place: Place,
    /// The value.
    pub value: Value,
    /// Where the value is.
    pub value_place: Place,
}

/// Reads all assignments of a source; problems are added to `problems`.
pub(super) fn read(source: &Source<'_>, index: usize, problems: &mut Vec<Problem>) -> Vec<Setting> {
    let mut reader = Reader {
        text: source.text,
        at: 0,
        source: index,
    };
    let mut settings = Vec::new();
    if source.text.len() > CONFIG_BYTES_MAX {
        let what = format!("longer than {CONFIG_BYTES_MAX} bytes");
        problems.push(reader.problem(0, what));
        return settings;
    }
    loop {
        reader.skip_blank(true);
        if reader.peek() == Some(';') {
            reader.next();
            continue;
        }
        if reader.peek().is_none() || problems.len() >= PROBLEMS_MAX {
            return settings;
        }
        let result = if settings.len() == SETTINGS_MAX {
            Err(reader.problem(reader.at, format!("more than {SETTINGS_MAX} settings")))
        } else {
            reader.setting()
        };
        match result {
            Ok(setting) => settings.push(setting),
            Err(problem) => {
                problems.push(problem);
                reader.recover();
            }
        }
    }
}

/// Reads one value that takes up all of `text`, as after `key=` on a command line.
pub(super) fn read_value(text: &str, source: usize, base: usize) -> Result<Value, Problem> {
    let mut reader = Reader {
        text,
        at: base,
        source,
    };
    let value = reader.value(0)?;
    reader.skip_blank(true);
    match reader.peek() {
        None => Ok(value),
        Some(c) => Err(reader.problem(reader.at, format!("'{c}' after the value"))),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// Byte offset; always at a character border.
    at: usize,
    source: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn problem(&self, at: usize, what: String) -> Problem {
        Problem {
            place: self.place(at),
            what,
        }
    }

    fn place(&self, offset: usize) -> Place {
        Place {
            source: self.source,
            offset,
        }
    }

    /// Skips blanks and comments, and line ends where they mean nothing.
    fn skip_blank(&mut self, lines: bool) {
        while let Some(c) = self.peek() {
            match c {
                '\n' if !lines => return,
                '#' => self.skip_line(),
                c if c.is_whitespace() => self.at += c.len_utf8(),
                _ => return,
            }
        }
    }

    fn skip_line(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find('\n').unwrap_or(rest.len());
    }

    /// Goes on behind what could not be understood: at the next line or `;`.
    fn recover(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.find(['\n', ';']).unwrap_or(rest.len());
    }

    fn setting(&mut self) -> Result<Setting, Problem> {
        let start = self.at;
        let key = self.word(|c| c.is_ascii_alphanumeric() || c == '_');
        if key.is_empty() || key.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.problem(start, "a key is expected here".into()));
        }
        self.skip_blank(false);
        if self.peek() != Some('=') {
            return Err(self.problem(self.at, format!("'=' is expected after '{key}'")));
        }
        self.next();
        self.skip_blank(false);
        let value_at = self.at;
        let value = self.value(0)?;
        self.skip_blank(false);
        match self.peek() {
            None | Some('\n' | ';') => {}
            Some(c) => return Err(self.problem(self.at, format!("'{c}' after the value"))),
        }
        Ok(Setting {
            key,
            key_place: self.place(start),
            value,
            value_place: self.place(value_at),
        })
    }

    fn word(&mut self, inside: impl Fn(char) -> bool) -> String {
        let rest = &self.text[self.at..];
        let length = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        self.at += length;
        rest[..length].into()
    }

    fn value(&mut self, depth: usize) -> Result<Value, Problem> {
        match self.peek() {
            Some(mark @ ('"' | '\'')) => self.quoted(mark),
            Some('[') => self.list(depth),
            Some(c) if c.is_ascii_digit() => self.number(),
            Some('-') => Err(self.problem(self.at, "no number here may be negative".into())),
            Some(_) | None => {
                let what = "a value is expected here: a number, \"text\" or [list]";
                Err(self.problem(self.at, what.into()))
            }
        }
    }

    fn number(&mut self) -> Result<Value, Problem> {
        let start = self.at;
        let word = self.word(|c| c.is_alphanumeric() || c == '_' || c == '.');
        match number(&word) {
            Some(number) => Ok(Value::Number(number)),
            None => Err(self.problem(start, format!("'{word}' is no number below 2^64"))),
        }
    }

    fn quoted(&mut self, mark: char) -> Result<Value, Problem> {
        let start = self.at;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                Some(c) if c == mark => return Ok(Value::Text(text)),
                None | Some('\n') => {
                    return Err(self.problem(start, format!("the quote {mark} is not closed")));
                }
                Some('\\') => match self.next() {
                    Some(c @ ('\\' | '"' | '\'')) => text.push(c),
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some(_) | None => {
                        let what = "after \\ only \\ \" ' n and t have a meaning";
                        return Err(self.problem(self.at.min(self.text.len()), what.into()));
                    }
                },
                Some(c) => text.push(c),
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let start = self.at;
        if depth == LIST_DEPTH_MAX {
            let what = format!("lists are nested deeper than {LIST_DEPTH_MAX}");
            return Err(self.problem(start, what));
        }
        self.next();
        let mut entries = Vec::new();
        loop {
            self.skip_blank(true);
            match self.peek() {
                Some(']') => break,
                None => return Err(self.problem(start, "the list is not closed".into())),
                Some(_) if entries.len() == LIST_ENTRIES_MAX => {
                    let what = format!("more than {LIST_ENTRIES_MAX} entries");
                    return Err(self.problem(self.at, what));
                }
                Some(_) => {
                    let place = self.place(self.at);
                    entries.push((self.value(depth + 1)?, place));
                }
            }
            self.skip_blank(true);
            match self.peek() {
                Some(',') => {
                    self.next();
                }
                Some(']') => break,
                Some(_) | None => {
                    let what = "',' or ']' is expected here";
                    return Err(self.problem(self.at, what.into()));
                }
            }
        }
        self.next();
        Ok(Value::List(entries))
    }
}

/// A number as `xl.cfg` writes it: decimal, hexadecimal or, with a leading zero, octal.
pub(super) fn number(word: &str) -> Option<u64> {
    let (digits, radix) = match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&word[2..], 16),
        [b'0', _, ..] => (&word[1..], 8),
        _ => (word, 10),
    };
    let plain = digits.chars().all(|c| c.is_digit(radix));
    (plain && !digits.is_empty()).then(|| u64::from_str_radix(digits, radix).ok())?
}
