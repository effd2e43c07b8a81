//! What a disk can do, whatever it is: a drive of the host, a volume on one, an NBD export, a mirror.

use crate::memory::Span;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;
use core::future::Future;
use core::pin::Pin;

/// An operation under way. Dropping it does not stop what a device has begun: implementations keep
/// the memory of a dropped operation out of use until the device is done with it.
pub type Pending<'a> = Pin<Box<dyn Future<Output = Result<(), DiskError>> + 'a>>;

/// What a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in blocks.
    pub blocks: u64,
    /// Bytes of a block: 512 or 4096.
    pub block_bytes: u32,
    /// Writes are refused.
    pub read_only: bool,
    /// What was written may be lost until it is flushed.
    pub needs_flush: bool,
    /// `discard` does something.
    pub can_discard: bool,
    /// `write_zeroes` costs less than writing zeroes.
    pub can_write_zeroes: bool,
    /// Most bytes of one read or write; callers split what is longer.
    pub transfer_bytes_max: u32,
}

impl Geometry {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.blocks * u64::from(self.block_bytes)
    }
}

/// Why a disk did not do it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// Beyond the end, or not a whole number of blocks.
    OutOfRange,
    /// The disk cannot be written.
    ReadOnly,
    /// The disk cannot do this at all.
    Unsupported,
    /// No space is left behind it.
    NoSpace,
    /// The medium or the device failed; in words, with the device's own code.
    Failed(String),
    /// The disk is gone: unplugged, connection lost for good.
    Gone(String),
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskError::OutOfRange => f.write_str("beyond the end of the disk"),
            DiskError::ReadOnly => f.write_str("the disk is read-only"),
            DiskError::Unsupported => f.write_str("the disk cannot do this"),
            DiskError::NoSpace => f.write_str("no space is left"),
            DiskError::Failed(why) => write!(f, "the disk failed: {why}"),
            DiskError::Gone(why) => write!(f, "the disk is gone: {why}"),
        }
    }
}

/// A disk. Several operations may be under way at once and finish in any order; a flush covers what
/// had finished when it was called. Spans add up to a whole number of blocks.
pub trait Disk {
    /// What it is. Its size may grow, nothing else changes.
    fn geometry(&self) -> Geometry;
    /// Reads from `block` on into memory.
    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a>;
    /// Writes from memory to `block` on.
    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a>;
    /// Makes what was written last.
    fn flush(&self) -> Pending<'_>;
    /// The contents are not needed any more.
    fn discard(&self, block: u64, blocks: u64) -> Pending<'_>;
    /// Writes zeroes; with `may_discard` the space may be given back as well.
    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_>;
}
