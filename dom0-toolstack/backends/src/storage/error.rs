//! Why a store or one of its volumes did not do what was asked.

use super::gpt::{GptError, NAME_UNITS_MAX, NameTooLong, TableError};
use super::volume::User;
use crate::disk::DiskError;
use alloc::string::{String, ToString};
use core::fmt;

/// The reason, in terms an operator can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The partition table or the disk.
    Gpt(GptError),
    /// The disk has partitions, but none is named `GODWIT`.
    NotAStore,
    /// There is no such volume.
    NoSuchVolume(String),
    /// Two partitions have this name.
    Ambiguous(String),
    /// There is such a volume already.
    Exists(String),
    /// Not a name a volume or store can have.
    BadName {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Somebody is using the volume.
    InUse {
        /// The volume.
        volume: String,
        /// Who.
        by: User,
    },
    /// The other disk is smaller than the volume.
    TargetTooSmall {
        /// Bytes of the volume.
        volume_bytes: u64,
        /// Bytes of the other disk.
        target_bytes: u64,
    },
    /// The store has no such partition of its own.
    NoPart(&'static str),
}

impl From<GptError> for StoreError {
    fn from(error: GptError) -> StoreError {
        StoreError::Gpt(error)
    }
}

impl From<DiskError> for StoreError {
    fn from(error: DiskError) -> StoreError {
        StoreError::Gpt(error.into())
    }
}

impl From<TableError> for StoreError {
    fn from(error: TableError) -> StoreError {
        StoreError::Gpt(error.into())
    }
}

impl StoreError {
    pub(super) fn bad_name(name: &str, why: &'static str) -> StoreError {
        let name = name.to_string();
        StoreError::BadName { name, why }
    }

    pub(super) fn too_long(name: &str, _: NameTooLong) -> StoreError {
        const _: () = assert!(NAME_UNITS_MAX == 36);
        StoreError::bad_name(name, "it is longer than 36 UTF-16 units")
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Gpt(error) => error.fmt(f),
            StoreError::NotAStore => {
                f.write_str("the disk is no store: it has no partition named GODWIT")
            }
            StoreError::NoSuchVolume(name) => write!(f, "there is no volume {name:?}"),
            StoreError::Ambiguous(name) => write!(
                f,
                "two partitions are named {name:?}: rename one with a disk tool such as gdisk"
            ),
            StoreError::Exists(name) => write!(f, "there is a volume {name:?} already"),
            StoreError::BadName { name, why } => write!(f, "{name:?} cannot be the name: {why}"),
            StoreError::InUse { volume, by } => write!(
                f,
                "volume {volume:?} is in use by {} for {}",
                by.name, by.access
            ),
            StoreError::TargetTooSmall {
                volume_bytes,
                target_bytes,
            } => write!(
                f,
                "the volume has {volume_bytes} bytes, but there is room for {target_bytes} only"
            ),
            StoreError::NoPart(name) => write!(f, "the store has no partition {name}"),
        }
    }
}
