//! What a partition table says, and how it may change: pure.
//!
//! Invariants: partitions lie within the usable blocks and do not overlap, each in a slot of its
//! own; they are kept in the order of their slots.

use super::guid::Guid;
use super::name::Name;
use alloc::vec::Vec;
use core::fmt;

/// Where partitions begin: multiples of this many bytes.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its place in the entry array, from 0.
    pub slot: u32,
    /// What it is for.
    pub kind: Guid,
    /// Its own GUID.
    pub guid: Guid,
    /// Its blocks.
    pub blocks: Blocks,
    /// Attribute bits, kept as they are.
    pub attributes: u64,
    /// Its name.
    pub name: Name,
}

/// A run of blocks of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first.
    pub first: u64,
    /// How many, not 0.
    pub count: u64,
}

impl Blocks {
    /// The block behind the last.
    pub fn end(&self) -> u64 {
        self.first + self.count
    }

    /// Whether the two share a block.
    pub fn overlaps(&self, other: &Blocks) -> bool {
        self.first < other.end() && other.first < self.end()
    }
}

/// The partitions of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The disk's own GUID.
    pub disk_guid: Guid,
    /// Entries the array has room for.
    pub slots: u32,
    /// First block a partition may have.
    pub first_usable: u64,
    /// Last block a partition may have.
    pub last_usable: u64,
    partitions: Vec<Partition>,
}

/// Why a table cannot be changed so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableError {
    /// No free run is long enough.
    NoSpace {
        /// Blocks that were wanted.
        wanted: u64,
        /// Longest free run in blocks, as far as alignment lets it be used.
        longest: u64,
    },
    /// Every entry is used.
    NoSlot {
        /// How many there are.
        slots: u32,
    },
    /// No partition in this slot.
    NoPartition {
        /// The slot.
        slot: u32,
    },
    /// What is behind the partition is not free.
    NoRoomBehind {
        /// Blocks that were wanted.
        wanted: u64,
        /// Blocks it could have.
        possible: u64,
    },
    /// A partition has at least one block.
    Empty,
    /// Outside of the usable blocks, or on another partition.
    Misplaced {
        /// The slot.
        slot: u32,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TableError::NoSpace { wanted, longest } => write!(
                f,
                "no free run of {wanted} blocks: the longest has {longest}"
            ),
            TableError::NoSlot { slots } => {
                write!(f, "all {slots} entries of the partition table are used")
            }
            TableError::NoPartition { slot } => write!(f, "there is no partition {}", slot + 1),
            TableError::NoRoomBehind { wanted, possible } => write!(
                f,
                "it cannot grow to {wanted} blocks: there is room for {possible} where it lies"
            ),
            TableError::Empty => f.write_str("a partition has at least one block"),
            TableError::Misplaced { slot } => write!(
                f,
                "partition {} lies outside of the usable blocks or on another one",
                slot + 1
            ),
        }
    }
}

impl Table {
    /// A table without partitions.
    pub fn new(disk_guid: Guid, slots: u32, first_usable: u64, last_usable: u64) -> Table {
        Table {
            disk_guid,
            slots,
            first_usable,
            last_usable,
            partitions: Vec::new(),
        }
    }

    /// The partitions by slot.
    pub fn partitions(&self) -> &[Partition] {
        &self.partitions
    }

    /// The partition in a slot.
    pub fn partition(&self, slot: u32) -> Option<&Partition> {
        self.partitions.iter().find(|one| one.slot == slot)
    }

    fn partition_mut(&mut self, slot: u32) -> Result<&mut Partition, TableError> {
        let found = self.partitions.iter_mut().find(|one| one.slot == slot);
        found.ok_or(TableError::NoPartition { slot })
    }

    /// Puts a partition into its slot.
    pub fn insert(&mut self, partition: Partition) -> Result<(), TableError> {
        let slot = partition.slot;
        let blocks = partition.blocks;
        if blocks.count == 0 {
            return Err(TableError::Empty);
        }
        let end = blocks.first.checked_add(blocks.count);
        let inside = slot < self.slots
            && blocks.first >= self.first_usable
            && end.is_some_and(|end| end - 1 <= self.last_usable);
        let taken = |one: &Partition| one.slot == slot || one.blocks.overlaps(&blocks);
        if !inside || self.partitions.iter().any(taken) {
            return Err(TableError::Misplaced { slot });
        }
        let place = self.partitions.partition_point(|one| one.slot < slot);
        self.partitions.insert(place, partition);
        Ok(())
    }

    /// The first slot that is free.
    pub fn free_slot(&self) -> Result<u32, TableError> {
        let free = (0..self.slots).find(|slot| self.partition(*slot).is_none());
        free.ok_or(TableError::NoSlot { slots: self.slots })
    }

    /// Takes a partition out.
    pub fn delete(&mut self, slot: u32) -> Result<Partition, TableError> {
        let place = self.partitions.iter().position(|one| one.slot == slot);
        let place = place.ok_or(TableError::NoPartition { slot })?;
        Ok(self.partitions.remove(place))
    }

    /// Gives a partition another name.
    pub fn rename(&mut self, slot: u32, name: Name) -> Result<(), TableError> {
        self.partition_mut(slot)?.name = name;
        Ok(())
    }

    /// Changes a partition's length where it lies. `reserved`: blocks promised to others.
    pub fn resize(&mut self, slot: u32, count: u64, reserved: &[Blocks]) -> Result<(), TableError> {
        let blocks = self.partition_mut(slot)?.blocks;
        if count == 0 {
            return Err(TableError::Empty);
        }
        let others = self.partitions.iter().filter(|one| one.slot != slot);
        let behind = others
            .map(|one| one.blocks)
            .chain(reserved.iter().copied())
            .map(|other| other.first)
            .filter(|first| *first >= blocks.end());
        let limit = behind.min().unwrap_or(self.last_usable + 1);
        let possible = limit - blocks.first;
        if count > possible {
            return Err(TableError::NoRoomBehind {
                wanted: count,
                possible,
            });
        }
        self.partition_mut(slot)?.blocks.count = count;
        Ok(())
    }

    /// The free runs, each from an aligned block on. `align`: in blocks.
    pub fn free(&self, align: u64, reserved: &[Blocks]) -> Vec<Blocks> {
        let taken = self.partitions.iter().map(|one| one.blocks);
        let mut taken: Vec<Blocks> = taken.chain(reserved.iter().copied()).collect();
        taken.sort_unstable_by_key(|blocks| blocks.first);
        let mut free = Vec::new();
        let mut at = self.first_usable;
        let mut add = |from: u64, to: u64| {
            let first = from.next_multiple_of(align);
            if first < to {
                let count = to - first;
                free.push(Blocks { first, count });
            }
        };
        for blocks in taken {
            add(at, blocks.first);
            at = at.max(blocks.end());
        }
        add(at, self.last_usable + 1);
        free
    }

    /// The first free run that holds `count` blocks.
    pub fn first_fit(
        &self,
        count: u64,
        align: u64,
        reserved: &[Blocks],
    ) -> Result<Blocks, TableError> {
        if count == 0 {
            return Err(TableError::Empty);
        }
        let free = self.free(align, reserved);
        let longest = free.iter().map(|run| run.count).max().unwrap_or(0);
        let found = free.into_iter().find(|run| run.count >= count);
        let Some(Blocks { first, count: _ }) = found else {
            return Err(TableError::NoSpace {
                wanted: count,
                longest,
            });
        };
        Ok(Blocks { first, count })
    }
}
