//! The stream that a domain travels in, to a volume or to another host: frames with checksums.
//!
//! ```text
//!  preamble, 32 octets                         frame, 16 octets + body
//!  0   magic "GODWITms"                        0   kind      u16   below 0x8000 mandatory
//!  8   version        u16                      2   version   u16   of this kind
//!  10  readable since u16                      4   length    u32   of the body
//!  12  0              u32                      8   sequence  u32   0, 1, 2, ...
//!  16  stream id      u64                      12  CRC-32    u32
//!  24  CRC-32         u32, of octets 0..24     16  body
//!  28  0              u32
//! ```
//!
//! Everything is little endian. A frame's CRC-32 (IEEE 802.3) covers the stream's id, octets 0 to 11 of
//! the frame and the body: a frame of an older stream that was in the same place does not pass for one of
//! this. A stream ends with an END frame; one without is truncated. `docs/migration.md` has the kinds.
//!
//! Entry point for bytes nobody vouches for: [`Reader`], total and bounded.

mod digest;
mod frame;
mod memory;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use digest::{BLOCK_BYTES, DIGEST_BYTES, MemoryDigest};
pub use frame::{Frame, FrameKind, PREAMBLE_BYTES, Preamble};
pub use memory::{BadPages, PAGES_PER_FRAME_MAX, Pages, Zeroes, encode_pages, encode_zeroes};
pub use reader::{Reader, StreamError};
pub use writer::Writer;

use alloc::string::String;

/// The version written, and the newest that is read.
pub const VERSION: u16 = 1;
/// The oldest version that is read, and the oldest reader that can read what is written.
pub const OLDEST: u16 = 1;
/// Octets of a frame before its body.
pub const FRAME_HEADER_BYTES: usize = 16;
/// Most octets of a body.
pub const BODY_BYTES_MAX: usize = 2 << 20;

/// Where a stream goes. Errors are in words.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Sink {
    /// Takes all of `bytes`.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String>;
    /// Makes everything written last.
    async fn finish(&mut self) -> Result<(), String>;
}

/// Where a stream comes from.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Source {
    /// Fills all of `out`.
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError>;
}

/// Why a source gave nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SourceError {
    /// It ends before.
    End,
    /// It failed, in words.
    Failed(String),
}
