//! Dirty tracking: arm, mark, harvest, put back, disarm. The module head says what dirty and clean mean.
//!
//! The order that loses nothing: arm all of a domain's memory, flush, copy everything; then again and again: harvest, flush, copy
//! what was harvested. A write before the flush is in the copy; a write after it is in the next harvest. After a failed copy, put the
//! harvested bits back, or the next attempt skips those pages.
//!
//! Large leaves are made clean whole, by withholding writes whatever the method, and are split by the first write: arming costs what
//! the leaves cost, and memory that nobody writes to stays large. Only where there is no memory for a table the large leaf becomes
//! dirty whole.
//!
//! With a page-modification log the processor sets dirty bits behind our back. What it has logged must be told here
//! ([`NestedTables::logged`]) some time before the harvest that is to find it: pages are looked for only below directory entries that
//! do not promise that nothing below is dirty. A page logged and not told yet is found by the next harvest.

use super::cursor::{Bitmap, Cursor, Flush, GUEST_PHYSICAL_END, GuestPhysical};
use super::entry::{Access, Entry, Format, Leaf, MemoryType, PageSize};
use super::memory::{ENTRIES_PER_TABLE, TableMemory};
use super::walk::{Slot, Visit};
use super::{Method, NestedError, NestedTables};
use crate::frames::FRAME_SIZE_BYTES;

impl<F: Format> NestedTables<F> {
    /// Starts tracking in the cursor's range: makes every page clean. From the first call on, new mappings anywhere are small and
    /// dirty.
    pub fn arm(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        self.tracking = true;
        self.sweep(
            memory,
            cursor,
            budget,
            |tables, memory, slot, leaf, cursor| {
                if leaf.memory_type != MemoryType::WriteBack {
                    return Ok(Visit::Next(Flush::None));
                }
                if !slot.is_inside(cursor) {
                    return tables
                        .split_slot(memory, slot, |leaf| leaf)
                        .map(Visit::Again);
                }
                Ok(Visit::Next(tables.clean(memory, slot, leaf)))
            },
        )
    }

    /// Makes a page dirty and gives withheld write access back: on a write fault that [`NestedTables::translate`] calls `Withheld`,
    /// and when dom0 or the hypervisor writes to guest memory. Of a large leaf it makes small ones first. What processors remember
    /// of the old leaf says the same as the new one but for rights that the new one has and a fault drops it: no flush is owed.
    pub fn mark_dirty(
        &mut self,
        memory: &mut impl TableMemory,
        address: GuestPhysical,
    ) -> Result<Flush, NestedError> {
        Cursor::over(
            GuestPhysical(address.0 & !(FRAME_SIZE_BYTES - 1)),
            FRAME_SIZE_BYTES,
        )?;
        let mut slot = self.find(memory, address.0);
        while let Some(leaf) = slot.leaf
            && self.tracking
            && slot.level > 1
            && leaf.withheld
        {
            let below = PageSize::of_level(slot.level - 1).expect("splitting a small leaf");
            let method = self.method;
            let clean = |leaf| cleaned(method, dirtied(leaf), below);
            // Without memory for a table all of the large leaf becomes dirty.
            let Ok(_) = self.split_slot(memory, &slot, clean) else {
                break;
            };
            slot = self.find(memory, address.0);
        }
        if slot.leaf.is_none() {
            return Err(NestedError::NotMapped);
        }
        self.note_dirty_below(memory, &slot);
        self.update(memory, &slot, dirtied);
        Ok(Flush::None)
    }

    /// The processor has logged a write to this page. Large leaves are looked at by every harvest.
    pub fn logged(&mut self, memory: &mut impl TableMemory, address: GuestPhysical) {
        if address.0 < GUEST_PHYSICAL_END {
            let slot = self.find(memory, address.0);
            self.note_dirty_below(memory, &slot);
        }
    }

    /// Collects the dirty pages of the cursor's range into the bitmap, and makes them clean. A large leaf that reaches out of the
    /// range stays dirty. The bitmap must cover the range. Budget in slots, a table at a time; a table
    /// with nothing dirty counts as one.
    pub fn harvest(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        bitmap: &mut Bitmap<'_>,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        if !self.tracking {
            return Err(NestedError::NotTracking);
        }
        if !bitmap.covers(cursor) {
            return Err(NestedError::OutOfRange);
        }
        let mut flush = Flush::None;
        let mut left = budget.max(1);
        while !cursor.is_done() && left > 0 {
            let slot = self.find(memory, cursor.next);
            if slot.level == 1 {
                let (slots, owed) = self.harvest_table(memory, slot, cursor, bitmap);
                flush = flush.and(owed);
                left = left.saturating_sub(slots);
                continue;
            }
            let end = slot.end().min(cursor.end);
            if let Some(leaf) = slot.leaf.filter(|leaf| self.is_tracked_dirty(leaf)) {
                bitmap.set(cursor.next, end);
                if slot.is_inside(cursor) {
                    flush = flush.and(self.clean(memory, &slot, leaf));
                }
            }
            cursor.advance_to(end);
            left -= 1;
        }
        Ok(flush)
    }

    /// Harvests from a slot of a lowest table to the table's or the range's end. Returns how many slots that has cost, too.
    fn harvest_table(
        &mut self,
        memory: &mut impl TableMemory,
        first: Slot,
        cursor: &mut Cursor,
        bitmap: &mut Bitmap<'_>,
    ) -> (usize, Flush) {
        let (directory, entry) = first.parent(2);
        let table_end = first.start + (ENTRIES_PER_TABLE - first.index()) as u64 * FRAME_SIZE_BYTES;
        let raw = memory.read(directory, entry);
        if !is_dirty_below::<F>(raw) {
            cursor.advance_to(table_end);
            return (1, Flush::None);
        }
        let mut flush = Flush::None;
        let slots = (cursor.end.min(table_end) - first.start).div_ceil(FRAME_SIZE_BYTES);
        for n in 0..slots {
            // Few of them are dirty: the walk to one is copied only then.
            let raw = memory.read(first.table(), first.index() + n as usize);
            let Entry::Leaf(leaf) = F::decode(raw, 1) else {
                continue;
            };
            if self.is_tracked_dirty(&leaf) {
                let slot = Slot {
                    start: first.start + n * FRAME_SIZE_BYTES,
                    raw,
                    leaf: Some(leaf),
                    ..first
                };
                bitmap.set(slot.start, slot.end());
                flush = flush.and(self.clean(memory, &slot, leaf));
            }
        }
        if first.index() == 0 && table_end <= cursor.end {
            memory.write(directory, entry, F::table(first.table().address(), false));
        }
        cursor.advance_to(table_end);
        (slots as usize, flush)
    }

    /// Makes the pages dirty again whose bits are set, in the cursor's range, which the bitmap must cover. Pages unmapped since are
    /// passed over. Budget in pages.
    pub fn put_back(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        bitmap: &Bitmap<'_>,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        if !bitmap.covers(cursor) {
            return Err(NestedError::OutOfRange);
        }
        for _ in 0..budget.max(1) {
            if cursor.is_done() {
                break;
            }
            let Some(page) = bitmap.next_set(cursor.next, cursor.end) else {
                cursor.advance_to(cursor.end);
                break;
            };
            match self.mark_dirty(memory, GuestPhysical(page)) {
                Ok(_) | Err(NestedError::NotMapped) => {}
                Err(other) => unreachable!("a covered page refused: {other:?}"),
            }
            cursor.advance_to(page + FRAME_SIZE_BYTES);
        }
        Ok(Flush::None)
    }

    /// Ends tracking, from the first call on, and in the cursor's range gives withheld access back and merges leaves.
    pub fn disarm(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        self.tracking = false;
        self.sweep(memory, cursor, budget, |tables, memory, slot, _, cursor| {
            tables.note_dirty_below(memory, slot);
            tables.update(memory, slot, dirtied);
            let last = slot.index() + 1 == ENTRIES_PER_TABLE || slot.end() >= cursor.end;
            Ok(match last.then(|| tables.merge_upwards(memory, slot)) {
                Some(flush) => Visit::Moved(flush),
                None => Visit::Next(Flush::None),
            })
        })
    }

    pub(super) fn is_dirty(&self, leaf: &Leaf) -> bool {
        leaf.dirty || (self.method == Method::WriteProtect && leaf.access.write)
    }

    fn is_tracked_dirty(&self, leaf: &Leaf) -> bool {
        leaf.memory_type == MemoryType::WriteBack && self.is_dirty(leaf)
    }

    /// Keeps the promise of `dirty_below` before something below a slot's directory entry becomes dirty.
    pub(super) fn note_dirty_below(&self, memory: &mut impl TableMemory, slot: &Slot) {
        if slot.level == 1 {
            let (directory, entry) = slot.parent(2);
            if !is_dirty_below::<F>(memory.read(directory, entry)) {
                memory.write(directory, entry, F::table(slot.table().address(), true));
            }
        }
    }

    fn clean(&self, memory: &mut impl TableMemory, slot: &Slot, leaf: Leaf) -> Flush {
        if cleaned(self.method, leaf, slot.size()) == leaf {
            return Flush::None;
        }
        self.update(memory, slot, |leaf| cleaned(self.method, leaf, slot.size()));
        slot.flush()
    }
}

/// Whether the first write to a clean leaf is to fault.
pub(super) fn withholds(method: Method, size: PageSize) -> bool {
    method == Method::WriteProtect || size > PageSize::Small4K
}

fn cleaned(method: Method, leaf: Leaf, size: PageSize) -> Leaf {
    let withhold = leaf.access.write && withholds(method, size);
    Leaf {
        access: Access {
            write: leaf.access.write && !withhold,
            ..leaf.access
        },
        dirty: false,
        withheld: leaf.withheld || withhold,
        ..leaf
    }
}

fn dirtied(leaf: Leaf) -> Leaf {
    Leaf {
        access: leaf.permitted(),
        dirty: true,
        withheld: false,
        ..leaf
    }
}

fn is_dirty_below<F: Format>(entry: u64) -> bool {
    match F::decode(entry, 2) {
        Entry::Table { dirty_below, .. } => dirty_below,
        Entry::Leaf(_) | Entry::Empty => unreachable!("a walk came through here"),
    }
}
