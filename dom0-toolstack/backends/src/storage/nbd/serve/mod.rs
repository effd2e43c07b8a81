//! The other side: a disk of this host for one NBD client, fixed newstyle, over any [`Stream`].
//!
//! ```text
//!   client ── stream ── Conversation ── haggling: LIST, INFO, GO, EXPORT_NAME, ABORT
//!                                    └─ requests: READ, WRITE, FLUSH, TRIM, WRITE_ZEROES ── Disk
//! ```
//!
//! Who may connect is decided before: the stream is an authenticated one, or the export is for anybody. There
//! is one export, by its exact name, so a name that was agreed on for one purpose gives nothing to others.
//!
//! Invariants: requests are carried out one after the other and answered in their order, so a flush covers
//! whatever was answered before it, and once a client was answered nothing of it is under way. Nothing is
//! acknowledged that the disk has not done. A request that is wrong touches nothing of the disk; one that
//! makes it unclear where the next begins ends the connection. Whatever a client sends, no more memory follows
//! from it than a request, its answer and one transfer of the disk take, each at most [`TRANSFER_BYTES_MAX`].
//!
//! Reference: the NBD protocol, doc/proto.md of the NBD project. Entry point for bytes nobody vouches for.

mod conversation;
mod haggling;
mod requests;
#[cfg(test)]
mod tests;

use super::Stream;
use crate::disk::Disk;
use crate::memory::Memory;
use crate::storage::blocks::Blocks;
use alloc::rc::Rc;
use alloc::string::String;
use conversation::Conversation;
use core::fmt;

/// Most bytes of one read or write; a client is told so.
pub const TRANSFER_BYTES_MAX: u32 = 256 << 10;

/// A disk that is served.
pub struct Served {
    name: String,
    blocks: Blocks,
    read_only: bool,
}

/// Why a client is served no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// The connection broke, in words.
    Stream(String),
    /// The client closed it without taking leave.
    Closed,
    /// It does not speak the fixed newstyle handshake.
    NotNbd,
    /// More bytes than such a message has.
    TooLong(u32),
    /// It haggles without end.
    TooMany,
    /// It asks for an export by another name, in the way that knows no answer to that.
    NoExport,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Stream(why) => f.write_str(why),
            ServeError::Closed => f.write_str("the client closed the connection"),
            ServeError::NotNbd => f.write_str("the client is no NBD client of the fixed newstyle"),
            ServeError::TooLong(bytes) => write!(f, "a message of {bytes} bytes is too long"),
            ServeError::TooMany => f.write_str("the client asks without end"),
            ServeError::NoExport => f.write_str("the client asks for another export"),
        }
    }
}

impl Served {
    /// A disk by a name; with `read_only` nobody can write to it, even if the disk could.
    pub fn new(name: &str, disk: Rc<dyn Disk>, memory: Rc<dyn Memory>, read_only: bool) -> Served {
        Served {
            name: name.into(),
            read_only: read_only || disk.geometry().read_only,
            blocks: Blocks::new(disk, memory),
        }
    }

    /// Serves one client until it takes leave. Nothing here limits how long it may be silent: who calls
    /// drops this, and the stream with it, when it has to end. What the disk had begun then still happens.
    pub async fn serve(&self, stream: &mut dyn Stream) -> Result<(), ServeError> {
        let mut client = Conversation::new(stream);
        match haggling::agree(self, &mut client).await? {
            haggling::Agreed::Transmission => requests::answer(self, &mut client).await,
            haggling::Agreed::Leave => Ok(()),
        }
    }
}
