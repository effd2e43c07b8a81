//! FAT16 and FAT32, as much as the configuration partition needs, in an order of writes that a
//! power cut cannot hurt. [`super::files::Files`] is what others use.

pub(super) mod directory;
pub(super) mod layout;
pub(super) mod table;
pub(super) mod volume;

pub use directory::NAME_UNITS_MAX;
pub use layout::CLUSTERS_MAX;

use crate::disk::DiskError;
use alloc::string::String;
use core::fmt;

/// Why a file was not read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FatError {
    /// The disk did not do it.
    Disk(DiskError),
    /// There is no FAT file system.
    NotFat,
    /// There is one, but its boot sector makes no sense, or it is of a kind nobody makes.
    BootSector,
    /// It is FAT12.
    Fat12,
    /// The partition is too small for FAT16.
    TooSmall,
    /// The partition is too large.
    TooLarge,
    /// The chain of clusters that begins here is broken, or one of its clusters is in two chains.
    Chain(u32),
    /// Directories are nested too deeply, or one is too large.
    Directory(String),
    /// Something is wrong with the file system, so nothing is written to it.
    Damaged(String),
    /// There is no such file or directory.
    NotFound(String),
    /// It is there already.
    Exists(String),
    /// It is a directory, and should be a file, or the other way round.
    WrongKind(String),
    /// The directory is not empty.
    NotEmpty(String),
    /// Not a name a file can have.
    Name(String),
    /// The file is longer than allowed here.
    TooLong {
        /// Its length.
        bytes: u64,
        /// What is allowed.
        most: u64,
    },
    /// The file is longer than there is memory for.
    NoMemory {
        /// Its length.
        bytes: u64,
    },
    /// No space is left.
    Full,
}

impl From<DiskError> for FatError {
    fn from(error: DiskError) -> FatError {
        FatError::Disk(error)
    }
}

impl fmt::Display for FatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FatError::Disk(error) => error.fmt(f),
            FatError::NotFat => f.write_str("the partition has no FAT file system: format it"),
            FatError::BootSector => f.write_str("the FAT boot sector is damaged or unusual"),
            FatError::Fat12 => f.write_str("FAT12 is not supported: use FAT16 or FAT32"),
            FatError::TooSmall => f.write_str("the partition is too small: FAT16 takes 16 MiB"),
            FatError::TooLarge => f.write_str("the partition is too large for FAT here"),
            FatError::Chain(cluster) => write!(
                f,
                "the file of cluster {cluster} is damaged: run fsck.fat on the partition"
            ),
            FatError::Directory(path) => write!(f, "{path}: too large or too deep a directory"),
            FatError::Damaged(why) => write!(
                f,
                "the file system is damaged ({why}) and is not written to: run fsck.fat on it"
            ),
            FatError::NotFound(path) => write!(f, "{path}: no such file or directory"),
            FatError::Exists(path) => write!(f, "{path}: exists already"),
            FatError::WrongKind(path) => write!(
                f,
                "{path}: a directory where a file should be, or a file where a directory should be"
            ),
            FatError::NotEmpty(path) => write!(f, "{path}: the directory is not empty"),
            FatError::Name(name) => write!(f, "{name:?} is no file name"),
            FatError::TooLong { bytes, most } => {
                write!(f, "a file of {bytes} bytes is too long: at most {most}")
            }
            FatError::NoMemory { bytes } => write!(
                f,
                "{bytes} bytes are more than dom0 has memory for: boot with a larger dom0_mem="
            ),
            FatError::Full => f.write_str("no space is left for files in the store"),
        }
    }
}
