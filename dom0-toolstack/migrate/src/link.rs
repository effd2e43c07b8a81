//! What carries a migration between two hosts: bytes, in order, both ways.
//!
//! A TCP connection is one, so is an encrypted channel over a TCP connection. A link knows no frames
//! and no time: who waits for it sets the time-out, and drops the link after one, because a future that
//! is dropped half way may have taken or sent any part of its bytes.

use alloc::string::String;
use core::fmt;

/// Why a link carries nothing any more. It is not used again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The other side has ended it, or is gone.
    Closed,
    /// Anything else, in words for the operator.
    Failed(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Closed => f.write_str("the other host has closed the connection"),
            LinkError::Failed(why) => f.write_str(why),
        }
    }
}

/// A connection to another host.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Link {
    /// Waits for bytes and takes some, at least one unless `out` is empty. The orderly end of the other
    /// side is [`LinkError::Closed`].
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError>;

    /// Sends all of `bytes`. They are on their way then, not necessarily there.
    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError>;

    /// Waits until everything written is at the other host. A link that is dropped without it may
    /// lose the last bytes.
    async fn flush(&mut self) -> Result<(), LinkError>;
}

impl<L: Link + ?Sized> Link for &mut L {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        (**self).read(out).await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        (**self).write_all(bytes).await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        (**self).flush().await
    }
}
