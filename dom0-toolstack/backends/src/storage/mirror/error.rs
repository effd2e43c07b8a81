//! Why a disk was not moved.

use super::TARGET_LIMIT_MS;
use crate::disk::DiskError;
use alloc::string::String;
use core::fmt;

/// The reason; the guest's disk is the source as before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorError {
    /// The source cannot be read.
    Source {
        /// Where, in bytes.
        offset: u64,
        /// What it says.
        error: DiskError,
    },
    /// The target failed.
    Target {
        /// Where, in bytes.
        offset: u64,
        /// What it says.
        error: DiskError,
    },
    /// The target does not answer.
    TooSlow,
    /// A region of the target was not what was written to it, twice.
    Unequal {
        /// Where, in bytes.
        offset: u64,
    },
    /// The target cannot stand in for the source.
    Unfit(&'static str),
    /// dom0 has no memory for it.
    NoMemory,
    /// Whoever asked for it wants it no more, for this reason.
    Stopped(String),
}

impl fmt::Display for MirrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MirrorError::Source { offset, error } => {
                write!(f, "the source cannot be read at byte {offset}: {error}")
            }
            MirrorError::Target { offset, error } => {
                write!(f, "the target failed at byte {offset}: {error}")
            }
            MirrorError::TooSlow => write!(
                f,
                "the target has not answered for {} seconds",
                TARGET_LIMIT_MS / 1000
            ),
            MirrorError::Unequal { offset } => write!(
                f,
                "the target gives other bytes back than were written, at byte {offset}: do not trust it"
            ),
            MirrorError::Unfit(why) => write!(f, "the target does not fit: {why}"),
            MirrorError::NoMemory => f.write_str("dom0 has no memory left for a copy"),
            MirrorError::Stopped(why) => f.write_str(why),
        }
    }
}
