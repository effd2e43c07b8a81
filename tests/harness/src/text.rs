//! Turns what a serial line carries into plain text to search in: terminal control sequences,
//! carriage returns and NULs go, line feeds and everything printable stay.

/// Incremental: sequences may be split between reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cleaner {
    /// Between sequences.
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// Inside `ESC [ ...`, until a final byte 0x40..=0x7e.
    Control,
    /// After `ESC (` and the like: one more byte belongs to the sequence.
    Charset,
}

impl Cleaner {
    /// Appends the plain text of `bytes` to `text`. Bytes that are not ASCII become `?`.
    pub(crate) fn feed(&mut self, bytes: &[u8], text: &mut String) {
        for &byte in bytes {
            *self = match self {
                Cleaner::Text => plain(byte, text),
                Cleaner::Escape => match byte {
                    b'[' => Cleaner::Control,
                    b'(' | b')' | b'#' => Cleaner::Charset,
                    _ => Cleaner::Text,
                },
                Cleaner::Control if (0x40..=0x7e).contains(&byte) => Cleaner::Text,
                Cleaner::Control => Cleaner::Control,
                Cleaner::Charset => Cleaner::Text,
            };
        }
    }
}

fn plain(byte: u8, text: &mut String) -> Cleaner {
    match byte {
        0x1b => return Cleaner::Escape,
        b'\n' | b'\t' | 0x20..=0x7e => text.push(byte as char),
        0x08 => {
            // A line editor that rubs out: follow it, but never across a line.
            if !text.ends_with('\n') {
                text.pop();
            }
        }
        0x80.. => text.push('?'),
        _ => {}
    }
    Cleaner::Text
}

#[cfg(test)]
mod tests {
    use super::Cleaner;

    fn clean(parts: &[&[u8]]) -> String {
        let (mut cleaner, mut text) = (Cleaner::default(), String::new());
        for part in parts {
            cleaner.feed(part, &mut text);
        }
        text
    }

    #[test]
    fn sequences_split_between_reads_vanish() {
        assert_eq!(clean(&[b"a\x1b", b"[1", b";31mb\x1b(", b"Bc\r\n"]), "abc\n");
    }

    #[test]
    fn backspace_rubs_out_but_not_across_lines() {
        assert_eq!(clean(&[b"xz\x08l\n\x08y"]), "xl\ny");
    }

    #[test]
    fn binary_noise_stays_visible() {
        assert_eq!(clean(&[b"\x00\xffok"]), "?ok");
    }
}
