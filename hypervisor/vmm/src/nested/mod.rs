//! Nested page tables: guest physical to host physical, one algorithm for EPT, NPT and a fake third format.
//!
//! [`NestedTables`] is generic over a [`Format`] (how one entry is spelt) and, in each call, over a [`TableMemory`]
//! (how entries are reached, and where table pages come from). Four levels, 48-bit guest physical addresses.
//!
//! Invariants:
//! * No table but the root is empty: what becomes empty is unlinked at once, so an empty slot is an empty range.
//! * The processor sets accessed and dirty bits behind our back, in live entries only: a live entry is changed by
//!   compare-and-exchange, so that no dirty bit is lost. Other writers are kept out by `&mut self`.
//! * A table page that is unlinked is *retired*, not freed: a processor may still walk it. The caller performs the flush it
//!   was told it owes and then calls [`NestedTables::release_retired`]. The same goes for leaf frames that unmap reports.
//! * `Err` means that nothing was changed and nothing is owed. Operations that take a [`Cursor`] do part of the work, move the
//!   cursor past it, and return what they owe for that part; they refuse only if they could do nothing at all.
//!
//! Dirty tracking: a leaf is *dirty* if its dirty bit is set or, with [`Method::WriteProtect`], if it is writable. So a page
//! nobody armed counts as dirty, never the reverse. *Clean* means dirty bit clear and, with `WriteProtect` and for large leaves,
//! write access withheld: a write to it faults, and [`NestedTables::mark_dirty`] grants it again. Only write-back memory is
//! tracked; uncacheable and write-combining leaves are devices.
//!
//! Absent pages: see `absent`. No access is allowed to one, and no operation but those of that file makes one present.

mod absent;
mod cursor;
mod dirty;
mod entry;
mod ept;
#[cfg(test)]
mod fake;
mod map;
mod memory;
mod npt;
mod reshape;
#[cfg(test)]
mod tests;
mod walk;

pub use cursor::{Bitmap, Cursor, Flush, GUEST_PHYSICAL_END, GuestPhysical};
pub use entry::{Access, Entry, Format, Leaf, MemoryType, PageSize};
pub use ept::Ept;
pub use memory::{ENTRIES_PER_TABLE, TableMemory};
pub use npt::{HOST_PAT, Npt};
pub use walk::{Mapping, Translation, Wanted};

use core::marker::PhantomData;

use crate::frames::Frame;

/// Why an operation on nested tables refused. Nothing has changed then, and no flush is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NestedError {
    /// Part of the range is mapped already.
    Overlap,
    /// The page is not mapped.
    NotMapped,
    /// The page is mapped, but not for this access.
    Forbidden,
    /// The page is mapped and writable, but write access is withheld for dirty tracking: mark it dirty and retry.
    Withheld,
    /// The page is mapped, but what is in it is still elsewhere.
    Absent,
    /// An address or length is not a multiple of 4 KiB.
    Misaligned,
    /// Beyond the 48-bit guest physical or 52-bit host physical space, or beyond the bitmap given.
    OutOfRange,
    /// No page for a table; give memory and call again.
    NoMemory,
    /// The leaf is no larger than a page.
    NotLarge,
    /// Merging while dirty tracking is on: disarm first.
    Tracking,
    /// Harvesting while dirty tracking is off: arm first.
    NotTracking,
}

/// How writes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Clean pages are write-protected; the first write faults.
    WriteProtect,
    /// The processor sets dirty bits and logs it (EPT with accessed and dirty flags and page-modification logging). Its log is told
    /// by [`NestedTables::logged`].
    DirtyLog,
}

/// One domain's nested page tables.
#[derive(Debug)]
pub struct NestedTables<F> {
    root: Frame,
    largest: PageSize,
    method: Method,
    tracking: bool,
    /// Unlinked tables, chained through their first entries.
    retired: Option<Frame>,
    table_count: u64,
    format: PhantomData<F>,
}

impl<F: Format> NestedTables<F> {
    /// Empty tables. `largest`: the largest leaf the processor can use.
    pub fn new(
        memory: &mut impl TableMemory,
        largest: PageSize,
        method: Method,
    ) -> Result<Self, NestedError> {
        let root = memory.allocate_table().ok_or(NestedError::NoMemory)?;
        Ok(NestedTables {
            root,
            largest,
            method,
            tracking: false,
            retired: None,
            table_count: 1,
            format: PhantomData,
        })
    }

    /// The root table, for the EPT pointer or nCR3.
    pub fn root(&self) -> Frame {
        self.root
    }

    /// Table pages held: linked ones and retired ones not yet released.
    pub fn table_count(&self) -> u64 {
        self.table_count
    }

    /// Whether new mappings and permissions are made for dirty tracking.
    pub fn is_tracking(&self) -> bool {
        self.tracking
    }

    /// Returns retired tables to memory. Call after the flush that was owed has been done on all processors.
    pub fn release_retired(&mut self, memory: &mut impl TableMemory) {
        while let Some(table) = self.retired {
            self.retired = F::unpark(memory.read(table, 0));
            memory.free_table(table);
            self.table_count -= 1;
        }
    }

    /// Frees the root. Everything must have been unmapped, flushed and released before.
    pub fn destroy(mut self, memory: &mut impl TableMemory) {
        self.release_retired(memory);
        assert_eq!(
            self.table_count, 1,
            "destroying nested tables that still map something"
        );
        memory.free_table(self.root);
    }

    fn retire(&mut self, memory: &mut impl TableMemory, table: Frame) {
        memory.write(table, 0, F::park(self.retired));
        self.retired = Some(table);
    }
}
