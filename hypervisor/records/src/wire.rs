//! Bytes: the header of a record, a writer into the caller's buffer, a bounded reader, and what
//! can be wrong with what was read.
//!
//! ```text
//!      0       2        4              8
//!     +-------+--------+--------------+-----------------------+
//!     | kind  | version| body length  | body: fields in order |    all little endian
//!     +-------+--------+--------------+-----------------------+
//! ```

use crate::kind::Kind;
use core::fmt;

/// Bytes before a record's body.
pub const HEADER_BYTES: usize = 8;

/// What stands before a record's body, not yet checked against what the kind says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the record is about.
    pub kind: Kind,
    /// Version of the body's layout, from 1.
    pub version: u16,
    /// Bytes of the body.
    pub length_bytes: u32,
}

impl Header {
    /// The header at the start of `bytes`, for finding a record in a stream; `None` while there
    /// are fewer than [`HEADER_BYTES`]. Decoding checks everything again.
    pub fn peek(bytes: &[u8]) -> Option<Header> {
        let [k0, k1, v0, v1, l0, l1, l2, l3] = *bytes.first_chunk::<HEADER_BYTES>()?;
        Some(Header {
            kind: Kind(u16::from_le_bytes([k0, k1])),
            version: u16::from_le_bytes([v0, v1]),
            length_bytes: u32::from_le_bytes([l0, l1, l2, l3]),
        })
    }

    /// Header and body together.
    pub const fn record_bytes(self) -> u64 {
        HEADER_BYTES as u64 + self.length_bytes as u64
    }
}

/// Why a record was not written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodeError {
    /// The buffer is too small.
    NoSpace {
        /// Bytes the record takes.
        needed: usize,
    },
    /// The record has no such version.
    UnknownVersion {
        /// The version asked for.
        version: u16,
    },
    /// The older version cannot say this: the field has another value than that version implies.
    NotExpressible {
        /// The later field.
        field: &'static str,
    },
}

/// What is wrong at one place of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The bytes end before the value does.
    Truncated,
    /// Bytes follow the last value.
    TrailingBytes,
    /// The header names another kind.
    WrongKind(Kind),
    /// A version later than this program, or 0.
    UnknownVersion(u16),
    /// A boolean or presence byte that is neither 0 nor 1.
    NotBoolean(u8),
    /// A number that stands for nothing.
    UnknownValue(u8),
    /// A byte string longer than it may be.
    TooLong(u32),
}

/// Why bytes are not a record: whoever sent or stored them is to blame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecodeError {
    /// The record that was expected.
    pub record: &'static str,
    /// The field, or `kind`, `version`, `length`, `end`.
    pub field: &'static str,
    /// Offset of the value from the record's first byte.
    pub offset: usize,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "record {}, field {}, byte {}: ",
            self.record, self.field, self.offset
        )?;
        match self.fault {
            Fault::Truncated => f.write_str("the record ends too early"),
            Fault::TrailingBytes => f.write_str("bytes follow the end of the record"),
            Fault::WrongKind(kind) => write!(f, "this is a record of another kind, {kind:?}"),
            Fault::UnknownVersion(version) => write!(f, "version {version} is not known here"),
            Fault::NotBoolean(byte) => write!(f, "{byte:#04x} is neither 0 nor 1"),
            Fault::UnknownValue(byte) => write!(f, "{byte:#04x} stands for nothing"),
            Fault::TooLong(length) => write!(f, "{length} bytes are more than it may have"),
        }
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EncodeError::NoSpace { needed } => {
                write!(f, "the record needs a buffer of {needed} bytes")
            }
            EncodeError::UnknownVersion { version } => {
                write!(f, "the record has no version {version}")
            }
            EncodeError::NotExpressible { field } => {
                write!(f, "the older version cannot express the value of {field}")
            }
        }
    }
}

/// Writes values one after another; past the end of the buffer it only counts.
pub struct Writer<'a> {
    buffer: &'a mut [u8],
    position: usize,
}

impl<'a> Writer<'a> {
    /// A record begins in `buffer`.
    pub fn begin(buffer: &'a mut [u8], kind: Kind, version: u16) -> Self {
        let mut writer = Self {
            buffer,
            position: 0,
        };
        writer.put(&kind.0.to_le_bytes());
        writer.put(&version.to_le_bytes());
        writer.put(&[0; 4]);
        writer
    }

    /// Appends bytes.
    pub fn put(&mut self, bytes: &[u8]) {
        let end = self.position + bytes.len();
        if let Some(place) = self.buffer.get_mut(self.position..end) {
            place.copy_from_slice(bytes);
        }
        self.position = end;
    }

    /// The record ends here. Returns its bytes, header included.
    pub fn finish(self) -> Result<usize, EncodeError> {
        let needed = self.position;
        let length = u32::try_from(needed - HEADER_BYTES).expect("bounded by the record's type");
        if needed > self.buffer.len() {
            return Err(EncodeError::NoSpace { needed });
        }
        self.buffer[4..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(needed)
    }
}

/// Reads values one after another and remembers where the last one began.
pub struct Reader<'a> {
    record: &'static str,
    bytes: &'a [u8],
    position: usize,
    last: usize,
}

impl<'a> Reader<'a> {
    /// Opens exactly one record: checks kind, version and length. Returns its version.
    pub fn open(
        record: &'static str,
        bytes: &'a [u8],
        kind: Kind,
        newest: u16,
    ) -> Result<(u16, Self), DecodeError> {
        let fail = |field, offset, fault| DecodeError {
            record,
            field,
            offset,
            fault,
        };
        let Some(header) = Header::peek(bytes) else {
            return Err(fail("kind", 0, Fault::Truncated));
        };
        if header.kind != kind {
            return Err(fail("kind", 0, Fault::WrongKind(header.kind)));
        }
        if header.version == 0 || header.version > newest {
            return Err(fail("version", 2, Fault::UnknownVersion(header.version)));
        }
        match header.record_bytes().cmp(&(bytes.len() as u64)) {
            core::cmp::Ordering::Equal => {}
            core::cmp::Ordering::Greater => return Err(fail("length", 4, Fault::Truncated)),
            core::cmp::Ordering::Less => return Err(fail("length", 4, Fault::TrailingBytes)),
        }
        let reader = Self {
            record,
            bytes,
            position: HEADER_BYTES,
            last: HEADER_BYTES,
        };
        Ok((header.version, reader))
    }

    /// The next `N` bytes.
    pub fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        self.last = self.position;
        let chunk = self.bytes[self.position..]
            .first_chunk::<N>()
            .ok_or(Fault::Truncated)?;
        self.position += N;
        Ok(*chunk)
    }

    /// The next `length` bytes.
    pub fn take_slice(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        self.last = self.position;
        let (slice, _) = self.bytes[self.position..]
            .split_at_checked(length)
            .ok_or(Fault::Truncated)?;
        self.position += length;
        Ok(slice)
    }

    /// The next value, a field of the record.
    pub fn field<T: crate::Field>(&mut self, field: &'static str) -> Result<T, DecodeError> {
        T::take(self).map_err(|fault| DecodeError {
            record: self.record,
            field,
            offset: self.last,
            fault,
        })
    }

    /// Nothing may be left.
    pub fn close(self) -> Result<(), DecodeError> {
        if self.position == self.bytes.len() {
            return Ok(());
        }
        Err(DecodeError {
            record: self.record,
            field: "end",
            offset: self.position,
            fault: Fault::TrailingBytes,
        })
    }
}
