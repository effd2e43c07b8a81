//! Disks on other machines: the NBD protocol, fixed newstyle, without TLS. A client, and in [`serve`] a server of
//! one disk.
//!
//! [`url::NbdUrl`] names an export; [`NbdDisk::connect`] makes a [`crate::disk::Disk`] of it over
//! any byte stream a [`Connector`] opens. What comes with it is to be polled as a task of its own;
//! it owns the connection, makes it anew when it breaks, and sends again what was not answered.
//! A server that hangs or is gone makes requests wait, not fail: [`NbdDisk::link`] says so.
//!
//! Reference: the NBD protocol, doc/proto.md of the NBD project.

pub mod disk;
mod driver;
pub mod haggle;
mod queue;
pub mod replies;
#[cfg(test)]
mod scripted_tests;
pub mod serve;
#[cfg(test)]
mod server_tests;
pub mod url;
pub mod wire;

pub use disk::{Link, NbdDisk};

use alloc::boxed::Box;
use alloc::string::String;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// A connection that carries bytes both ways, in order. Dropping it closes it.
pub trait Stream {
    /// Reads at least one byte; 0: the peer has closed. An error in words ends the connection.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        out: &mut [u8],
    ) -> Poll<Result<usize, String>>;
    /// Takes at least one of the bytes.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, String>>;
}

/// What [`Connector::connect`] gives.
pub type Connecting<'a> = Pin<Box<dyn Future<Output = Result<Box<dyn Stream>, String>> + 'a>>;

/// Opens connections to one server.
pub trait Connector {
    /// Opens one; an error in words. Its time is limited by the caller.
    fn connect(&self) -> Connecting<'_>;
}

/// Time, for time-outs.
pub trait Timer {
    /// Milliseconds since some moment; never goes back.
    fn now_ms(&self) -> u64;
    /// Ready after this many milliseconds.
    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>>;
}
