//! Bytes from a terminal into keys: UTF-8, control characters and escape sequences (ECMA-48 CSI and
//! SS3 forms, and Alt as a leading ESC).
//!
//! Total: bytes that mean nothing are dropped, and no sequence keeps the decoder waiting for more
//! than [`SEQUENCE_BYTES_MAX`] bytes.

/// Longer escape sequences are dropped.
pub(super) const SEQUENCE_BYTES_MAX: usize = 16;

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Key {
    /// A printable character.
    Char(char),
    /// Ctrl and a letter, as its lower case; also `\\`, `]`, `^` and `_`.
    Ctrl(char),
    /// Alt and a character.
    Alt(char),
    /// CR, LF or CR LF.
    Enter,
    /// Tab.
    Tab,
    /// Backspace (0x7F or 0x08).
    Backspace,
    /// Alt and Backspace.
    AltBackspace,
    /// Delete.
    Delete,
    /// Cursor left.
    Left,
    /// Cursor right.
    Right,
    /// Ctrl or Alt and cursor left.
    WordLeft,
    /// Ctrl or Alt and cursor right.
    WordRight,
    /// Cursor up.
    Up,
    /// Cursor down.
    Down,
    /// Home.
    Home,
    /// End.
    End,
    /// Escape followed by something that is no sequence.
    Escape,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ground,
    /// After ESC.
    Escape,
    /// In `ESC [`, or `ESC O`: bytes so far, first parameter, second parameter.
    Sequence {
        bytes: usize,
        parameters: [u8; 2],
        index: usize,
    },
    /// In a UTF-8 character of `length` bytes.
    Character {
        bytes: [u8; 4],
        have: usize,
        length: usize,
    },
}

/// The decoder.
#[derive(Clone, Debug)]
pub struct Keys {
    state: State,
    after_return: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Keys {
    /// A decoder between keys.
    pub const fn new() -> Self {
        Self {
            state: State::Ground,
            after_return: false,
        }
    }

    /// Takes a byte; returns a key when one is complete.
    pub fn feed(&mut self, byte: u8) -> Option<Key> {
        let after_return = core::mem::take(&mut self.after_return);
        match self.state {
            State::Ground => self.ground(byte, after_return),
            State::Escape => {
                self.state = State::Ground;
                match byte {
                    b'[' | b'O' => {
                        self.state = State::Sequence {
                            bytes: 0,
                            parameters: [0; 2],
                            index: 0,
                        };
                        None
                    }
                    0x1b => {
                        self.state = State::Escape;
                        None
                    }
                    0x7f | 0x08 => Some(Key::AltBackspace),
                    0x20..=0x7e => Some(Key::Alt(char::from(byte))),
                    0x00..=0x1f | 0x80..=0xff => Some(Key::Escape),
                }
            }
            State::Sequence {
                bytes,
                parameters,
                index,
            } => self.sequence(byte, bytes, parameters, index),
            State::Character {
                mut bytes,
                have,
                length,
            } => {
                if byte & 0xc0 != 0x80 {
                    // A broken character is dropped; the byte begins anew.
                    self.state = State::Ground;
                    return self.ground(byte, false);
                }
                bytes[have] = byte;
                if have + 1 < length {
                    self.state = State::Character {
                        bytes,
                        have: have + 1,
                        length,
                    };
                    return None;
                }
                self.state = State::Ground;
                let text = core::str::from_utf8(&bytes[..length]).ok()?;
                let c = text.chars().next()?;
                (!c.is_control()).then_some(Key::Char(c))
            }
        }
    }

    fn ground(&mut self, byte: u8, after_return: bool) -> Option<Key> {
        match byte {
            b'\n' if after_return => None,
            b'\r' | b'\n' => {
                self.after_return = byte == b'\r';
                Some(Key::Enter)
            }
            b'\t' => Some(Key::Tab),
            0x08 | 0x7f => Some(Key::Backspace),
            0x1b => {
                self.state = State::Escape;
                None
            }
            0x00 => None,
            0x01..=0x1a => Some(Key::Ctrl(char::from(byte + 0x60))),
            0x1c..=0x1f => Some(Key::Ctrl(char::from(byte + 0x40))),
            0x20..=0x7e => Some(Key::Char(char::from(byte))),
            0xc2..=0xf4 => {
                let length = match byte {
                    0xc2..=0xdf => 2,
                    0xe0..=0xef => 3,
                    _ => 4,
                };
                self.state = State::Character {
                    bytes: [byte, 0, 0, 0],
                    have: 1,
                    length,
                };
                None
            }
            0x80..=0xc1 | 0xf5..=0xff => None,
        }
    }

    fn sequence(
        &mut self,
        byte: u8,
        bytes: usize,
        mut parameters: [u8; 2],
        mut index: usize,
    ) -> Option<Key> {
        match byte {
            b'0'..=b'9' => {
                if let Some(parameter) = parameters.get_mut(index) {
                    *parameter = parameter.saturating_mul(10).saturating_add(byte - b'0');
                }
            }
            b';' => index += 1,
            0x20..=0x3f => {}
            0x40..=0x7e => {
                self.state = State::Ground;
                return sequence_key(byte, parameters);
            }
            0x1b => {
                self.state = State::Escape;
                return None;
            }
            0x00..=0x1a | 0x1c..=0x1f | 0x7f..=0xff => {
                self.state = State::Ground;
                return self.ground(byte, false);
            }
        }
        self.state = if bytes + 1 == SEQUENCE_BYTES_MAX {
            State::Ground
        } else {
            State::Sequence {
                bytes: bytes + 1,
                parameters,
                index,
            }
        };
        None
    }
}

/// The key of a complete sequence: final byte and parameters. The second parameter is 1 plus
/// the modifiers (2 Alt, 4 Ctrl).
fn sequence_key(last: u8, [first, second]: [u8; 2]) -> Option<Key> {
    let word = second.saturating_sub(1) & 0b110 != 0;
    Some(match (last, first) {
        (b'A', _) => Key::Up,
        (b'B', _) => Key::Down,
        (b'C', _) if word => Key::WordRight,
        (b'C', _) => Key::Right,
        (b'D', _) if word => Key::WordLeft,
        (b'D', _) => Key::Left,
        (b'H', _) | (b'~', 1 | 7) => Key::Home,
        (b'F', _) | (b'~', 4 | 8) => Key::End,
        (b'~', 3) => Key::Delete,
        (_, _) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::new();
        bytes.iter().filter_map(|byte| keys.feed(*byte)).collect()
    }

    #[test]
    fn sequences_of_common_terminals() {
        let bytes = b"\x1b[A\x1bOB\x1b[1;5C\x1b[1;3D\x1b[3~\x1b[7~\x1b[F\x1bb\x1b\x7f\x1b[200~";
        let want = [
            Key::Up,
            Key::Down,
            Key::WordRight,
            Key::WordLeft,
            Key::Delete,
            Key::Home,
            Key::End,
            Key::Alt('b'),
            Key::AltBackspace,
        ];
        assert_eq!(keys(bytes), want);
    }

    #[test]
    fn line_ends_of_all_kinds_are_one_enter() {
        assert_eq!(keys(b"\r\n\n\r\r"), [Key::Enter; 4]);
    }

    #[test]
    fn broken_characters_are_dropped_and_cost_nothing_else() {
        let bytes = b"\xe2\x82x\xff\xc3\xa9\xe2\x82\xac\xc2\x9by";
        let want = ['x', 'é', '€', 'y'].map(Key::Char);
        assert_eq!(keys(bytes), want);
    }

    #[test]
    fn an_endless_sequence_ends() {
        let mut bytes = b"\x1b[".to_vec();
        bytes.extend([b'1'; SEQUENCE_BYTES_MAX]);
        bytes.push(b'x');
        assert_eq!(keys(&bytes), [Key::Char('x')]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(keys(&bytes).len() <= bytes.len());
        }

        #[test]
        fn any_text_comes_through(text in "\\PC{0,50}") {
            let want: Vec<Key> = text.chars().map(Key::Char).collect();
            prop_assert_eq!(keys(text.as_bytes()), want);
        }
    }
}
