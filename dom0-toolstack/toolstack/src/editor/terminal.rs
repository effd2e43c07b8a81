//! A terminal of one width, for tests: enough of a VT100 to see what the editor draws, and strict
//! about what the editor promises (no question, no wrap, no unknown sequence).

use std::string::String;
use std::vec::Vec;
use unicode_width::UnicodeWidthChar;

pub(crate) struct Terminal {
    columns: usize,
    rows: Vec<Vec<char>>,
    column: usize,
    pub(crate) bells: usize,
    pub(crate) bytes: usize,
}

/// Fills the second column of a wide character.
const WIDE: char = '\u{0}';

impl Terminal {
    pub(crate) fn new(columns: usize) -> Self {
        Self {
            columns,
            rows: std::vec![Vec::new()],
            column: 0,
            bells: 0,
            bytes: 0,
        }
    }

    /// The row the cursor is on, as text.
    pub(crate) fn row(&self) -> String {
        Self::text(self.rows.last().unwrap())
    }

    /// All rows.
    pub(crate) fn screen(&self) -> Vec<String> {
        self.rows.iter().map(|row| Self::text(row)).collect()
    }

    fn text(row: &[char]) -> String {
        row.iter().filter(|c| **c != WIDE).collect()
    }

    pub(crate) fn column(&self) -> usize {
        self.column
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        let text = core::str::from_utf8(bytes).expect("the editor writes UTF-8");
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.rows.push(Vec::new()),
                '\x08' => self.column = self.column.checked_sub(1).expect("left of column 0"),
                '\x07' => self.bells += 1,
                '\x1b' => {
                    assert_eq!(chars.next(), Some('['));
                    let mut number = String::new();
                    let last = loop {
                        match chars.next().expect("a sequence ends") {
                            digit @ '0'..='9' => number.push(digit),
                            last => break last,
                        }
                    };
                    self.sequence(last, &number);
                }
                c => self.put(c),
            }
        }
    }

    fn sequence(&mut self, last: char, number: &str) {
        let count: usize = number.parse().unwrap_or(1);
        match (last, number) {
            ('C', _) => self.column += count,
            ('D', _) => self.column -= count,
            ('K', "") => self.rows.last_mut().unwrap().truncate(self.column),
            ('H', "") => self.column = 0,
            ('J', "2") => self.rows = std::vec![Vec::new()],
            _ => panic!("unexpected sequence {number}{last}"),
        }
        assert!(self.column < self.columns);
    }

    fn put(&mut self, c: char) {
        let width = c.width().unwrap_or(1);
        let row = self.rows.last_mut().unwrap();
        assert!(
            self.column + width < self.columns,
            "the last column was written"
        );
        assert!(width > 0, "combining characters are tested elsewhere");
        if row.len() < self.column + width {
            row.resize(self.column + width, ' ');
        }
        row[self.column] = c;
        if width == 2 {
            row[self.column + 1] = WIDE;
        }
        self.column += width;
    }
}
