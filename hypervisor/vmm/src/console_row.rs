//! The row of the serial console that dom0 is in the middle of: a prompt and what is typed behind
//! it, or an unfinished line of output.
//!
//! The hypervisor's own lines come at any moment. One in the middle of a row would tear it apart
//! for whoever reads it, person or program; so the row is rubbed out before such a line and written
//! again behind it.

/// Bytes of a row that are remembered: what an 80-column editor sends for one, several times over.
pub const ROW_BYTES: usize = 512;

/// Rubs out what stands in the row: to its begin, and erase to its end (ECMA-48, CR and EL).
const RUB_OUT: &[u8] = b"\r\x1b[K";
/// Leaves a row that cannot be written again as it is.
const LEAVE: &[u8] = b"\r\n";

/// What dom0 sent since the last line feed.
#[derive(Debug)]
pub struct Row {
    bytes: [u8; ROW_BYTES],
    length: usize,
    /// More came than is remembered.
    overflowed: bool,
}

impl Row {
    /// An empty row.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; ROW_BYTES],
            length: 0,
            overflowed: false,
        }
    }

    /// Notes what dom0 sent.
    pub fn sent(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => (self.length, self.overflowed) = (0, false),
                // The editor begins at the left margin whenever it draws a row anew. An output that
                // overwrites only part of its row this way loses the rest when it is written again.
                b'\r' => (self.length, self.overflowed) = (0, false),
                _ if self.length == ROW_BYTES => self.overflowed = true,
                _ => {
                    self.bytes[self.length] = byte;
                    self.length += 1;
                }
            }
        }
    }

    /// What to send before a line of the hypervisor's, and what behind it.
    #[must_use]
    pub fn around(&self) -> (&[u8], &[u8]) {
        if self.overflowed {
            (LEAVE, &[])
        } else if self.length > 0 {
            (RUB_OUT, &self.bytes[..self.length])
        } else {
            (&[], &[])
        }
    }
}

impl Default for Row {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{ROW_BYTES, Row};

    fn row(parts: &[&[u8]]) -> Row {
        let mut row = Row::new();
        for part in parts {
            row.sent(part);
        }
        row
    }

    #[test]
    fn a_line_between_rows_is_not_touched() {
        assert_eq!(row(&[]).around(), (&b""[..], &b""[..]));
        assert_eq!(row(&[b"done\r\n"]).around(), (&b""[..], &b""[..]));
    }

    #[test]
    fn what_is_being_typed_is_written_again() {
        let typed = row(&[b"done\r\nhost-a# ", b"xl con"]);
        assert_eq!(typed.around(), (&b"\r\x1b[K"[..], &b"host-a# xl con"[..]));
        let redrawn = row(&[b"host-a# xl con", b"\r\x1b[Khost-a# xl"]);
        assert_eq!(redrawn.around().1, b"\x1b[Khost-a# xl");
    }

    #[test]
    fn a_row_too_long_to_remember_is_left_alone() {
        let mut long = row(&[&[b'x'; ROW_BYTES]]);
        assert_eq!(long.around().1.len(), ROW_BYTES);
        long.sent(b"y");
        assert_eq!(long.around(), (&b"\r\n"[..], &b""[..]));
        long.sent(b"\nz");
        assert_eq!(long.around().1, b"z");
    }
}
