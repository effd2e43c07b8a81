//! Columns of text, and numbers in the forms that `xl` prints.
//!
//! Widths count characters, so that names in any script line up as far as a terminal shows them
//! one column each. Nothing here is ever cut: what is longer than its column pushes the rest.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;

/// Where a cell's text goes in its column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table that gives each column the width of its widest cell, at least a given one.
pub struct Table {
    columns: Vec<(Align, usize)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a header: title, alignment and least width in characters of each column.
    pub fn new(columns: &[(&str, Align, usize)]) -> Self {
        let header = columns.iter().map(|(title, _, _)| String::from(*title));
        Self {
            rows: alloc::vec![header.collect()],
            columns: columns.iter().map(|column| (column.1, column.2)).collect(),
        }
    }

    /// Adds a row, one cell a column.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The lines, header first, columns one space apart, each line ended by a newline.
    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.1).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in &self.rows {
            let line = out.len();
            for (index, cell) in row.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                match self.columns[index].0 {
                    Align::Left => pad_right(&mut out, cell, widths[index]),
                    Align::Right => pad_left(&mut out, cell, widths[index]),
                }
            }
            let text = out[line..].trim_end().len();
            out.truncate(line + text);
            out.push('\n');
        }
        out
    }
}

/// Appends `text` and then spaces up to `width` characters.
pub fn pad_right(out: &mut String, text: &str, width: usize) {
    out.push_str(text);
    spaces(out, width.saturating_sub(text.chars().count()));
}

/// Appends spaces and then `text`, `width` characters in all.
pub fn pad_left(out: &mut String, text: &str, width: usize) {
    spaces(out, width.saturating_sub(text.chars().count()));
    out.push_str(text);
}

fn spaces(out: &mut String, count: usize) {
    out.extend(core::iter::repeat_n(' ', count));
}

/// Nanoseconds as seconds with one decimal, rounded: `12.3`.
pub fn seconds(nanoseconds: u64) -> String {
    let tenths = nanoseconds.saturating_add(50_000_000) / 100_000_000;
    tenth(tenths)
}

/// Tenths as a decimal number: 123 is `12.3`.
pub fn tenth(tenths: u64) -> String {
    let mut out = String::new();
    let _ = write!(out, "{}.{}", tenths / 10, tenths % 10);
    out
}

/// `key                    : value`, as `xl info` prints.
pub fn pair(out: &mut String, key: &str, value: &str) {
    pad_right(out, key, 22);
    let _ = writeln!(out, " : {value}");
}

/// Ticks of a clock of `hz` as nanoseconds; 0 when the clock is not known.
pub fn ticks_to_ns(ticks: u64, hz: u64) -> u64 {
    if hz == 0 {
        return 0;
    }
    let ns = u128::from(ticks) * 1_000_000_000 / u128::from(hz);
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// Seconds as a length of time: `2 days, 03:04:05`.
pub fn duration(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let mut out = String::new();
    if days > 0 {
        let plural = if days == 1 { "" } else { "s" };
        let _ = write!(out, "{days} day{plural}, ");
    }
    let (hours, minutes) = (rest / 3600, rest / 60 % 60);
    let _ = write!(out, "{hours:02}:{minutes:02}:{:02}", rest % 60);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_grow() {
        let mut table = Table::new(&[("Name", Align::Left, 6), ("ID", Align::Right, 4)]);
        table.row(alloc::vec!["é".into(), "1".into()]);
        table.row(alloc::vec!["long-name".into(), "12345".into()]);
        let want = "Name         ID\né             1\nlong-name 12345\n";
        assert_eq!(table.render(), want);
    }

    #[test]
    fn numbers_read_as_xl_prints_them() {
        assert_eq!(seconds(12_349_999_999), "12.3");
        assert_eq!(seconds(12_350_000_000), "12.4");
        assert_eq!(seconds(u64::MAX), "18446744073.7");
        assert_eq!(ticks_to_ns(u64::MAX, 1), u64::MAX);
        assert_eq!(ticks_to_ns(5, 0), 0);
        assert_eq!(ticks_to_ns(3_000_000_000, 2_000_000_000), 1_500_000_000);
        assert_eq!(
            duration(2 * 86_400 + 3 * 3600 + 4 * 60 + 5),
            "2 days, 03:04:05"
        );
        assert_eq!(duration(86_400), "1 day, 00:00:00");
    }
}
