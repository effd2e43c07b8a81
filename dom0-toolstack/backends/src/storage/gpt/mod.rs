//! GUID partition tables: read, repaired and changed so that a power cut never loses the table.
//!
//! There are two copies: primary (block 1) and backup (last block). *In use* is the primary when
//! it is whole, otherwise the backup; every tool decides so. A change writes the copy that is
//! *not* in use first, flushes, then the copy in use, and flushes again:
//!
//! - cut while the first is written: the copy in use is still whole, with the old table;
//! - cut between: both are whole; the copy in use decides, so nothing has happened yet, or, when
//!   the backup was in use, everything has;
//! - cut while the second is written: the first is whole, with the new table.
//!
//! So one copy is whole at any moment, and a change either happened or did not.

mod guid;
mod layout;
mod name;
mod table;
#[cfg(test)]
mod tests;

pub use guid::{Guid, Random};
pub use layout::{Damage, ENTRIES, ENTRIES_MAX};
pub use name::{NAME_UNITS_MAX, Name, NameTooLong};
pub use table::{ALIGNMENT_BYTES, Blocks as BlockRange, Partition, Table, TableError};

use super::blocks::Blocks;
use crate::disk::DiskError;
use alloc::string::String;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use layout::PRIMARY;

/// Fewest bytes of a disk that is given a table: both copies and one aligned partition.
pub const DISK_BYTES_MIN: u64 = 3 << 20;

/// Which copy of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copy {
    /// At the start of the disk.
    Primary,
    /// At its end.
    Backup,
}

/// What is wrong on a disk whose table can be used all the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The primary copy is damaged.
    pub primary: Option<Damage>,
    /// The backup is damaged.
    pub backup: Option<Damage>,
    /// Both are whole, but the backup says something else: a change was interrupted.
    pub backup_differs: bool,
    /// Block 0 has no protective MBR.
    pub no_protective_mbr: bool,
    /// The backup is not in the last block: the disk has grown.
    pub backup_not_last: bool,
}

impl Health {
    /// What is wrong, in words; empty when nothing is.
    pub fn findings(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(damage) = &self.primary {
            found.push(alloc::format!("primary partition table: {damage}"));
        }
        if let Some(damage) = &self.backup {
            found.push(alloc::format!("backup partition table: {damage}"));
        }
        let flags = [
            (
                self.backup_differs,
                "backup partition table: differs from the primary",
            ),
            (self.no_protective_mbr, "no protective MBR"),
            (
                self.backup_not_last,
                "backup partition table: not at the end of the disk, which has grown",
            ),
        ];
        let set = flags.iter().filter(|(is, _)| *is);
        found.extend(set.map(|(_, words)| words.to_string()));
        found
    }
}

/// Why there is no table, or why it was not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GptError {
    /// The disk did not do it.
    Disk(DiskError),
    /// Neither copy has so much as a signature.
    NotGpt,
    /// Neither copy is whole.
    BothDamaged {
        /// The primary's.
        primary: Damage,
        /// The backup's.
        backup: Damage,
    },
    /// A table that is right, but of a kind that is not supported.
    Foreign(&'static str),
    /// A disk too small for a table.
    TooSmall {
        /// Its size.
        bytes: u64,
    },
    /// The disk has a partition table already.
    HasTable,
    /// The change makes no sense.
    Table(TableError),
}

impl From<DiskError> for GptError {
    fn from(error: DiskError) -> GptError {
        GptError::Disk(error)
    }
}

impl From<TableError> for GptError {
    fn from(error: TableError) -> GptError {
        GptError::Table(error)
    }
}

impl fmt::Display for GptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GptError::Disk(error) => error.fmt(f),
            GptError::NotGpt => f.write_str("the disk has no GUID partition table"),
            GptError::BothDamaged { primary, backup } => write!(
                f,
                "both partition tables are damaged (primary: {primary}; backup: {backup}): \
                 restore one with a disk tool such as gdisk"
            ),
            GptError::Foreign(what) => {
                write!(f, "GUID partition tables with {what} are not supported")
            }
            GptError::TooSmall { bytes } => write!(
                f,
                "a disk of {bytes} bytes is too small: it takes {DISK_BYTES_MIN}"
            ),
            GptError::HasTable => {
                f.write_str("the disk has partitions already: say that they may be overwritten")
            }
            GptError::Table(error) => error.fmt(f),
        }
    }
}

/// A disk's partition table.
pub struct Gpt {
    blocks: Blocks,
    table: Table,
    in_use: Copy,
    health: Health,
    /// A write failed: what is on the disk must be read again before it is changed.
    stale: bool,
}

impl Gpt {
    /// Reads the table of a disk; writes nothing.
    pub async fn open(blocks: Blocks) -> Result<Gpt, GptError> {
        let geometry = blocks.disk().geometry();
        if geometry.bytes() < DISK_BYTES_MIN {
            return Err(GptError::NotGpt);
        }
        let last = geometry.blocks - 1;
        let primary = read_copy(&blocks, PRIMARY).await;
        // A primary that is whole says where its backup is; otherwise it can only be at the end.
        let backup_at = match &primary {
            Ok((header, _)) if header.other > PRIMARY && header.other <= last => header.other,
            Ok(_) | Err(_) => last,
        };
        let backup = read_copy(&blocks, backup_at).await;
        let mut mbr = vec![0; blocks.block_bytes()];
        blocks.read(0, &mut mbr).await?;
        let mut health = Health {
            no_protective_mbr: !layout::is_protective(&mbr),
            backup_not_last: backup_at != last,
            ..Health::default()
        };
        let (table, in_use) = match (primary, backup) {
            (Ok((_, table)), Ok((_, other))) => {
                health.backup_differs = table != other;
                (table, Copy::Primary)
            }
            (Err(Damage::Foreign(what)), _) => return Err(GptError::Foreign(what)),
            (Ok((_, table)), Err(damage)) => {
                health.backup = Some(damage);
                (table, Copy::Primary)
            }
            (Err(damage), Ok((_, table))) => {
                health.primary = Some(damage);
                (table, Copy::Backup)
            }
            (Err(Damage::NoSignature), Err(Damage::NoSignature)) => return Err(GptError::NotGpt),
            (Err(primary), Err(backup)) => {
                return Err(GptError::BothDamaged { primary, backup });
            }
        };
        Ok(Gpt {
            blocks,
            table,
            in_use,
            health,
            stale: false,
        })
    }

    /// Makes an empty table. An existing one, or an MBR with partitions, is only overwritten when
    /// told so.
    pub async fn create(blocks: Blocks, disk_guid: Guid, overwrite: bool) -> Result<Gpt, GptError> {
        let geometry = blocks.disk().geometry();
        if geometry.bytes() < DISK_BYTES_MIN {
            return Err(GptError::TooSmall {
                bytes: geometry.bytes(),
            });
        }
        let size = blocks.block_bytes();
        if !overwrite {
            let mut mbr = vec![0; size];
            blocks.read(0, &mut mbr).await?;
            let has_mbr = mbr[510..512] == [0x55, 0xaa];
            match Gpt::open(blocks.clone()).await {
                Err(GptError::NotGpt) if !has_mbr => {}
                Err(GptError::Disk(error)) => return Err(error.into()),
                Ok(_) | Err(_) => return Err(GptError::HasTable),
            }
        }
        let array = layout::entry_blocks(ENTRIES, size);
        let last_usable = geometry.blocks - 2 - array;
        let table = Table::new(disk_guid, ENTRIES, PRIMARY + 1 + array, last_usable);
        let mut gpt = Gpt {
            blocks,
            table: table.clone(),
            in_use: Copy::Primary,
            health: Health {
                no_protective_mbr: true,
                ..Health::default()
            },
            stale: false,
        };
        gpt.write(table).await?;
        Ok(gpt)
    }

    /// The table in use.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// What was wrong with the disk when it was read.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The disk it is on.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Alignment of partitions in blocks.
    pub fn align(&self) -> u64 {
        ALIGNMENT_BYTES / self.blocks.block_bytes() as u64
    }

    /// Makes `table` the disk's table; both copies are written, so damage is repaired as well.
    /// After an error of the disk the table is the old or the new one: [`Gpt::reload`] tells.
    pub async fn commit(&mut self, table: Table) -> Result<(), GptError> {
        assert!(!self.stale, "a table is changed that must be read again");
        self.write(table).await
    }

    /// Reads the disk again when a write has failed.
    pub async fn reload(&mut self) -> Result<(), GptError> {
        if self.stale {
            *self = Gpt::open(self.blocks.clone()).await?;
        }
        Ok(())
    }

    /// Writes both copies and the protective MBR anew when something is wrong with one of them.
    /// Gives what was wrong.
    pub async fn repair(&mut self) -> Result<Vec<String>, GptError> {
        self.reload().await?;
        let found = self.health.findings();
        if !found.is_empty() {
            self.write(self.table.clone()).await?;
        }
        Ok(found)
    }

    async fn write(&mut self, mut table: Table) -> Result<(), GptError> {
        let size = self.blocks.block_bytes();
        let disk_blocks = self.blocks.disk().geometry().blocks;
        let array = layout::entry_blocks(table.slots, size);
        // A disk that has grown gives its new blocks to the table.
        table.last_usable = disk_blocks - 2 - array;
        self.stale = true;
        if self.health.no_protective_mbr {
            let mbr = layout::encode_mbr(disk_blocks, size);
            self.blocks.write(0, &mbr).await?;
        }
        let order = match self.in_use {
            Copy::Primary => [Copy::Backup, Copy::Primary],
            Copy::Backup => [Copy::Primary, Copy::Backup],
        };
        let entries = layout::encode_entries(&table, size);
        let last = disk_blocks - 1;
        for copy in order {
            let (block, other, entries_at) = match copy {
                Copy::Primary => (PRIMARY, last, PRIMARY + 1),
                Copy::Backup => (last, PRIMARY, last - array),
            };
            let header = layout::encode_header(&table, &entries, size, (block, other, entries_at));
            self.blocks.write(entries_at, &entries).await?;
            self.blocks.write(block, &header).await?;
            self.blocks.flush().await?;
        }
        self.table = table;
        self.in_use = Copy::Primary;
        self.health = Health::default();
        self.stale = false;
        Ok(())
    }
}

async fn read_copy(blocks: &Blocks, block: u64) -> Result<(layout::Checked, Table), Damage> {
    let size = blocks.block_bytes();
    let mut header = vec![0; size];
    let unreadable = Damage::Unreadable;
    blocks.read(block, &mut header).await.map_err(unreadable)?;
    let checked = layout::check_header(&header, block, blocks.disk().geometry().blocks)?;
    let mut entries = vec![0; checked.entry_blocks as usize * size];
    let read = blocks.read(checked.entries, &mut entries).await;
    read.map_err(unreadable)?;
    let table = checked.table(&entries)?;
    Ok((checked, table))
}
