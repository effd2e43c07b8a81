//! What a store is made of, and what it tells of itself.

use super::gpt::Guid;
use super::volume::User;
use alloc::string::String;
use alloc::vec::Vec;

/// Name of the partition that makes a disk a store; a label may follow after a colon.
pub const STORE_PARTITION: &str = "GODWIT";
/// Name of the partition that holds the journal.
pub const JOURNAL_PARTITION: &str = "GODWIT-JOURNAL";
/// Size of the configuration partition of a store that is made here.
pub const FILES_BYTES: u64 = 256 << 20;
/// Size of the journal partition of a store that is made here.
pub const JOURNAL_BYTES: u64 = 4 << 20;

/// Whether the zeroes of a new volume take space where the disk could do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Given back to the disk where it can: space is taken as it is written to.
    Sparse,
    /// All of it is taken at once.
    Whole,
}

/// What a new store is made of.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its name; none: the name of its device.
    pub label: Option<String>,
    /// Bytes of the configuration partition.
    pub files_bytes: u64,
    /// Bytes of the journal partition.
    pub journal_bytes: u64,
    /// A partition table that is there is lost.
    pub overwrite: bool,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            label: None,
            files_bytes: FILES_BYTES,
            journal_bytes: JOURNAL_BYTES,
            overwrite: false,
        }
    }
}

/// What there is to know about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Partition type.
    pub kind: Guid,
    /// Its own GUID, which stays when it is renamed.
    pub guid: Guid,
    /// Who uses it.
    pub users: Vec<User>,
}

/// Space no volume has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeSpace {
    /// All of it in bytes.
    pub bytes: u64,
    /// The largest volume that could be made, in bytes.
    pub largest_bytes: u64,
}
