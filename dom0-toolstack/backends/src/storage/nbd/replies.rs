//! Replies, decoded from whatever pieces the stream gives: pure, with limits.
//!
//! ```text
//!            simple, of a read            bytes all there
//!   Head ─────────────────────────▶ Data ───────────────▶ Finish ──▶ Head
//!    │ structured                    ▲                      ▲
//!    └──────────▶ Payload ───────────┘ data chunk           │ last chunk
//!                    └──────────────────────────────────────┘
//! ```

use super::haggle::printable;
use super::wire::*;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of an error chunk: its numbers, the longest string of the protocol, an offset.
const ERROR_BYTES_MAX: u32 = 4 + 2 + 4096 + 8;

/// What a request may be answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// These bytes of the export.
    Data {
        /// First byte.
        offset: u64,
        /// How many.
        bytes: u32,
    },
    /// Only success or failure.
    Nothing,
}

/// One thing a server has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A range that [`Event::Bytes`] will fill, or, if `hole`, that is zeroes.
    Range {
        /// The request.
        cookie: u64,
        /// From the start of the request's range.
        at: u32,
        /// Length, not 0.
        bytes: u32,
        /// No bytes follow: zeroes.
        hole: bool,
    },
    /// A piece of the last range.
    Bytes {
        /// The request.
        cookie: u64,
        /// From the start of the request's range.
        at: u32,
        /// The piece.
        data: &'a [u8],
    },
    /// The request failed; its end still follows.
    Error {
        /// The request.
        cookie: u64,
        /// Error number, as of Linux.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// The request is done.
    Done {
        /// The request.
        cookie: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum State {
    Head,
    /// A structured reply's header was read.
    Payload {
        cookie: u64,
        kind: u16,
        bytes: u32,
        last: bool,
    },
    Data {
        cookie: u64,
        at: u32,
        left: u32,
        last: bool,
    },
    Finish {
        cookie: u64,
    },
}

/// What came of a piece of input.
enum Step<'a> {
    More,
    Again,
    Said(Event<'a>),
}

/// The decoder of one connection.
pub struct Replies {
    structured: bool,
    state: State,
    /// What was read of a header or a short payload.
    head: Vec<u8>,
}

impl Replies {
    /// `structured`: what was agreed on.
    pub fn new(structured: bool) -> Replies {
        Replies {
            structured,
            state: State::Head,
            head: Vec::new(),
        }
    }

    /// The next event out of `input`, which is shortened. `None`: more input is needed.
    /// `expected` says what a request asked for, `None` that there is no such request.
    pub fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
        expected: impl Fn(u64) -> Option<Expected>,
    ) -> Result<Option<Event<'a>>, ProtocolError> {
        loop {
            match self.state {
                State::Finish { cookie } => {
                    self.state = State::Head;
                    return Ok(Some(Event::Done { cookie }));
                }
                State::Data {
                    cookie,
                    left: 0,
                    last,
                    ..
                } => self.finish(cookie, last),
                State::Data {
                    cookie,
                    at,
                    left,
                    last,
                } => {
                    let (data, rest) = input.split_at(input.len().min(left as usize));
                    if data.is_empty() {
                        return Ok(None);
                    }
                    *input = rest;
                    let bytes = data.len() as u32;
                    self.state = State::Data {
                        cookie,
                        at: at + bytes,
                        left: left - bytes,
                        last,
                    };
                    return Ok(Some(Event::Bytes { cookie, at, data }));
                }
                State::Head => match self.head(input, &expected)? {
                    Step::More => return Ok(None),
                    Step::Again => {}
                    Step::Said(event) => return Ok(Some(event)),
                },
                State::Payload {
                    cookie,
                    kind,
                    bytes,
                    last,
                } => match self.payload(input, (cookie, kind, bytes, last), &expected)? {
                    Step::More => return Ok(None),
                    Step::Again => {}
                    Step::Said(event) => return Ok(Some(event)),
                },
            }
        }
    }

    /// The start of a reply.
    fn head<'a>(
        &mut self,
        input: &mut &'a [u8],
        expected: impl Fn(u64) -> Option<Expected>,
    ) -> Result<Step<'a>, ProtocolError> {
        if !self.collect(input, 4) {
            return Ok(Step::More);
        }
        let magic = number::<4>(&self.head, 0) as u32;
        let bytes = match magic {
            SIMPLE_MAGIC => 16,
            STRUCTURED_MAGIC if self.structured => 20,
            magic => return Err(ProtocolError::Magic(magic.into())),
        };
        if !self.collect(input, bytes) {
            return Ok(Step::More);
        }
        if magic == SIMPLE_MAGIC {
            return self.simple(expected).map(Step::Said);
        }
        self.structured(expected)?;
        Ok(Step::Again)
    }

    /// What follows a structured reply's header.
    fn payload<'a>(
        &mut self,
        input: &mut &'a [u8],
        (cookie, kind, bytes, last): (u64, u16, u32, bool),
        expected: impl Fn(u64) -> Option<Expected>,
    ) -> Result<Step<'a>, ProtocolError> {
        // Of data only the offset is collected; the rest is passed on as it comes.
        let short = if kind == CHUNK_DATA { 8 } else { bytes };
        if !self.collect(input, short as usize) {
            return Ok(Step::More);
        }
        let payload = core::mem::take(&mut self.head);
        self.finish(cookie, last);
        if kind == CHUNK_NONE {
            return Ok(Step::Again);
        }
        let asked = expected(cookie).ok_or(ProtocolError::UnknownCookie(cookie))?;
        let chunk = (cookie, kind, bytes, last);
        self.chunk(chunk, &payload, asked).map(Step::Said)
    }

    /// Moves bytes until `head` has `bytes` of them.
    fn collect(&mut self, input: &mut &[u8], bytes: usize) -> bool {
        let missing = bytes.saturating_sub(self.head.len());
        let (taken, rest) = input.split_at(missing.min(input.len()));
        self.head.extend_from_slice(taken);
        *input = rest;
        self.head.len() >= bytes
    }

    fn finish(&mut self, cookie: u64, last: bool) {
        self.state = match last {
            true => State::Finish { cookie },
            false => State::Head,
        };
    }

    fn simple<'a>(
        &mut self,
        expected: impl Fn(u64) -> Option<Expected>,
    ) -> Result<Event<'a>, ProtocolError> {
        let code = number::<4>(&self.head, 4) as u32;
        let cookie = number::<8>(&self.head, 8);
        self.head.clear();
        let asked = expected(cookie).ok_or(ProtocolError::UnknownCookie(cookie))?;
        self.state = State::Finish { cookie };
        if code != 0 {
            let message = String::new();
            return Ok(Event::Error {
                cookie,
                code,
                message,
            });
        }
        match asked {
            Expected::Nothing => {
                self.state = State::Head;
                Ok(Event::Done { cookie })
            }
            // proto.md: with structured replies agreed on, reads are answered by them.
            Expected::Data { .. } if self.structured => Err(ProtocolError::UnaskedData),
            Expected::Data { bytes, .. } => {
                self.state = State::Data {
                    cookie,
                    at: 0,
                    left: bytes,
                    last: true,
                };
                Ok(Event::Range {
                    cookie,
                    at: 0,
                    bytes,
                    hole: false,
                })
            }
        }
    }

    fn structured(
        &mut self,
        expected: impl Fn(u64) -> Option<Expected>,
    ) -> Result<(), ProtocolError> {
        let flags = number::<2>(&self.head, 4) as u16;
        let kind = number::<2>(&self.head, 6) as u16;
        let cookie = number::<8>(&self.head, 8);
        let bytes = number::<4>(&self.head, 16) as u32;
        self.head.clear();
        expected(cookie).ok_or(ProtocolError::UnknownCookie(cookie))?;
        let last = flags & CHUNK_DONE != 0;
        let fits = match kind {
            CHUNK_NONE => bytes == 0 && last,
            CHUNK_DATA => bytes > 8,
            CHUNK_HOLE => bytes == 12,
            kind if kind & CHUNK_ERROR != 0 => (6..=ERROR_BYTES_MAX).contains(&bytes),
            kind => return Err(ProtocolError::UnknownChunk(kind)),
        };
        if !fits {
            return Err(ProtocolError::TooLong(bytes));
        }
        self.state = State::Payload {
            cookie,
            kind,
            bytes,
            last,
        };
        Ok(())
    }

    fn chunk<'a>(
        &mut self,
        (cookie, kind, bytes, last): (u64, u16, u32, bool),
        payload: &[u8],
        asked: Expected,
    ) -> Result<Event<'a>, ProtocolError> {
        if kind & CHUNK_ERROR != 0 {
            let code = number::<4>(payload, 0) as u32;
            let length = number::<2>(payload, 4) as usize;
            let message = payload[6..].get(..length);
            let message = message.ok_or(ProtocolError::TooShort)?;
            if kind == CHUNK_ERROR_OFFSET && payload.len() != 6 + length + 8 {
                return Err(ProtocolError::TooShort);
            }
            return Ok(Event::Error {
                cookie,
                // An error without a number is still one.
                code: if code == 0 { EIO } else { code },
                message: printable(message),
            });
        }
        let hole = kind == CHUNK_HOLE;
        let length = match hole {
            true => number::<4>(payload, 8) as u32,
            false => bytes - 8,
        };
        let at = place(asked, number::<8>(payload, 0), length)?;
        if !hole {
            self.state = State::Data {
                cookie,
                at,
                left: length,
                last,
            };
        }
        Ok(Event::Range {
            cookie,
            at,
            bytes: length,
            hole,
        })
    }
}

/// Where a chunk lies in what was asked for.
fn place(asked: Expected, offset: u64, bytes: u32) -> Result<u32, ProtocolError> {
    let Expected::Data {
        offset: first,
        bytes: all,
    } = asked
    else {
        return Err(ProtocolError::UnaskedData);
    };
    let at = offset
        .checked_sub(first)
        .ok_or(ProtocolError::UnaskedData)?;
    match at.checked_add(bytes.into()) {
        Some(end) if end <= all.into() && bytes > 0 => Ok(at as u32),
        Some(_) | None => Err(ProtocolError::UnaskedData),
    }
}

/// A big-endian number of `N` bytes at `at`, which were collected before.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let bytes = bytes[at..at + N].iter();
    bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
}
