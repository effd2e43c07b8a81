//! Numbers and shapes of the NBD protocol, and what can be wrong with a server's bytes.

use alloc::string::String;
use core::fmt;

pub(super) const SERVER_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
pub(super) const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, the same of server and client.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

/// Options.
pub(super) const OPTION_EXPORT_NAME: u32 = 1;
pub(super) const OPTION_ABORT: u32 = 2;
pub(super) const OPTION_LIST: u32 = 3;
pub(super) const OPTION_INFO: u32 = 6;
pub(super) const OPTION_GO: u32 = 7;
pub(super) const OPTION_STRUCTURED: u32 = 8;

/// Replies to options.
pub(super) const REPLY_ACK: u32 = 1;
pub(super) const REPLY_SERVER: u32 = 2;
pub(super) const REPLY_INFO: u32 = 3;
pub(super) const REPLY_ERROR: u32 = 1 << 31;
pub(super) const REPLY_UNSUPPORTED: u32 = REPLY_ERROR | 1;
pub(super) const REPLY_INVALID: u32 = REPLY_ERROR | 3;
pub(super) const REPLY_UNKNOWN: u32 = REPLY_ERROR | 6;
pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// What a server calls its best size of a request where it has no other (proto.md, "Block size constraints").
pub(super) const PREFERRED_BYTES: u32 = 4096;

/// Transmission flags of an export: there are some.
pub const FLAG_HAS_FLAGS: u16 = 1;
/// The export cannot be written.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// The export can be flushed.
pub const FLAG_FLUSH: u16 = 1 << 2;
/// Writes can be made to last before they are answered.
pub const FLAG_FUA: u16 = 1 << 3;
/// The export can be trimmed.
pub const FLAG_TRIM: u16 = 1 << 5;
/// Zeroes can be written without sending them.
pub const FLAG_WRITE_ZEROES: u16 = 1 << 6;

/// Requests.
pub(super) const READ: u16 = 0;
pub(super) const WRITE: u16 = 1;
pub(super) const DISCONNECT: u16 = 2;
pub(super) const FLUSH: u16 = 3;
pub(super) const TRIM: u16 = 4;
pub(super) const WRITE_ZEROES: u16 = 6;
/// Flag of a request: it is answered when what it wrote lasts.
pub(super) const FUA: u16 = 1;
/// Flag of a request: the space must not be given back.
pub(super) const NO_HOLE: u16 = 1 << 1;

/// Structured reply: flag of the last chunk, and kinds of chunks.
pub(super) const CHUNK_DONE: u16 = 1;
pub(super) const CHUNK_NONE: u16 = 0;
pub(super) const CHUNK_DATA: u16 = 1;
pub(super) const CHUNK_HOLE: u16 = 2;
pub(super) const CHUNK_ERROR: u16 = 1 << 15;
pub(super) const CHUNK_ERROR_OFFSET: u16 = CHUNK_ERROR | 2;

/// Error numbers that mean something to us.
pub(super) const EPERM: u32 = 1;
pub(super) const EIO: u32 = 5;
pub(super) const EINVAL: u32 = 22;
pub(super) const ENOSPC: u32 = 28;
pub(super) const ENOTSUP: u32 = 95;
pub(super) const ESHUTDOWN: u32 = 108;

/// Bytes of a request without its data.
pub(super) const REQUEST_BYTES: usize = 28;

/// A request's header.
pub(super) fn request(
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    bytes: u32,
) -> [u8; REQUEST_BYTES] {
    let mut header = [0; REQUEST_BYTES];
    header[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    header[4..6].copy_from_slice(&flags.to_be_bytes());
    header[6..8].copy_from_slice(&command.to_be_bytes());
    header[8..16].copy_from_slice(&cookie.to_be_bytes());
    header[16..24].copy_from_slice(&offset.to_be_bytes());
    header[24..].copy_from_slice(&bytes.to_be_bytes());
    header
}

/// What a server did wrong, or would not do. Ends a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The connection broke, in words.
    Stream(String),
    /// The server closed the connection.
    Closed,
    /// It does not begin as an NBD server does.
    NotNbd,
    /// It knows only the old handshake.
    OldStyle,
    /// A magic number is wrong.
    Magic(u64),
    /// An answer to something that was not asked.
    WrongOption(u32),
    /// An answer of a kind that does not belong here.
    WrongReply(u32),
    /// Longer than any such answer.
    TooLong(u32),
    /// More answers than any such list has.
    TooMany,
    /// Shorter than its own contents.
    TooShort,
    /// The server refuses the option; its number and words.
    Refused {
        /// The error, without the bit that makes it one.
        code: u32,
        /// What the server says.
        message: String,
    },
    /// It agreed to the export without saying its size.
    NoExport,
    /// Its smallest block is larger than 4096 bytes, or its block sizes make no sense.
    BlockSize(u32),
    /// A reply to a request that was not made.
    UnknownCookie(u64),
    /// Data where none, or not this, was asked for.
    UnaskedData,
    /// A read was answered without all of its data.
    DataMissing,
    /// A reply chunk of a kind we have not agreed to.
    UnknownChunk(u16),
    /// It is not the export it was before the connection was made anew.
    Changed(&'static str),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProtocolError::Stream(why) => f.write_str(why),
            ProtocolError::Closed => f.write_str("the server closed the connection"),
            ProtocolError::NotNbd => f.write_str("there is no NBD server at that address"),
            ProtocolError::OldStyle => {
                f.write_str("the server does not speak the fixed newstyle handshake")
            }
            ProtocolError::Magic(magic) => write!(f, "the server sent a wrong number {magic:#x}"),
            ProtocolError::WrongOption(option) => {
                write!(
                    f,
                    "the server answered option {option}, which was not asked"
                )
            }
            ProtocolError::WrongReply(kind) => write!(f, "unexpected answer {kind:#x}"),
            ProtocolError::TooLong(bytes) => write!(f, "an answer of {bytes} bytes is too long"),
            ProtocolError::TooMany => f.write_str("the server's list has no end"),
            ProtocolError::TooShort => f.write_str("an answer is shorter than its contents"),
            ProtocolError::Refused { code, message } => {
                let meaning = match code {
                    1 => "not supported by the server",
                    2 => "forbidden by the server",
                    5 => "the server asks for TLS, which is not implemented",
                    6 => "the server has no such export",
                    7 => "the server is shutting down",
                    _ => "the server refuses",
                };
                write!(f, "{meaning} (code {code}")?;
                match message.is_empty() {
                    true => f.write_str(")"),
                    false => write!(f, ": {message})"),
                }
            }
            ProtocolError::NoExport => f.write_str("the server did not say the export's size"),
            ProtocolError::BlockSize(bytes) => {
                write!(f, "blocks of {bytes} bytes are not supported: 512 or 4096")
            }
            ProtocolError::UnknownCookie(cookie) => {
                write!(f, "an answer to request {cookie:#x}, which was not made")
            }
            ProtocolError::UnaskedData => f.write_str("data that was not asked for"),
            ProtocolError::DataMissing => f.write_str("a read was answered in part only"),
            ProtocolError::UnknownChunk(kind) => write!(f, "unexpected reply chunk {kind}"),
            ProtocolError::Changed(what) => {
                write!(f, "it is another export now: its {what} changed")
            }
        }
    }
}
