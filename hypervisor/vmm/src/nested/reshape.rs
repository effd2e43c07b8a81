//! Splitting large leaves and merging small ones. Neither changes what is mapped, nor how.

use super::cursor::{Cursor, Flush, GuestPhysical};
use super::entry::{Entry, Format, Leaf, PageSize, span};
use super::memory::{ENTRIES_PER_TABLE, TableMemory};
use super::walk::Slot;
use super::{NestedError, NestedTables};
use crate::frames::HostPhysical;

impl<F: Format> NestedTables<F> {
    /// Splits the large leaf at an address into 512 of the next smaller size.
    pub fn split(
        &mut self,
        memory: &mut impl TableMemory,
        address: GuestPhysical,
    ) -> Result<Flush, NestedError> {
        // Checks the address too.
        Cursor::over(address, 0)?;
        let slot = self.find(memory, address.0);
        match slot.leaf {
            None => Err(NestedError::NotMapped),
            Some(_) if slot.level == 1 => Err(NestedError::NotLarge),
            Some(_) => self.split_slot(memory, &slot, |leaf| leaf),
        }
    }

    /// Puts larger leaves where a whole table maps contiguous frames in the same way, for the tables the cursor's range touches. Not
    /// while tracking, which needs small leaves. Budget in slots; a table at a time.
    pub fn merge(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        if self.tracking {
            return Err(NestedError::Tracking);
        }
        let mut flush = Flush::None;
        let mut left = budget.max(1);
        while !cursor.is_done() && left > 0 {
            let slot = self.find(memory, cursor.next);
            let (passed, cost) = match slot.level {
                1 => (table_end(&slot), ENTRIES_PER_TABLE),
                _ => (slot.end(), 1),
            };
            if slot.level == 1 || slot.index() + 1 == ENTRIES_PER_TABLE || slot.end() >= cursor.end
            {
                flush = flush.and(self.merge_upwards(memory, &slot));
            }
            cursor.advance_to(passed);
            left = left.saturating_sub(cost);
        }
        Ok(flush)
    }

    /// Replaces a large leaf by a table of smaller ones, each passed through `change`.
    pub(super) fn split_slot(
        &mut self,
        memory: &mut impl TableMemory,
        slot: &Slot,
        change: impl Fn(Leaf) -> Leaf,
    ) -> Result<Flush, NestedError> {
        let size = PageSize::of_level(slot.level - 1).expect("splitting a small leaf");
        let table = memory.allocate_table().ok_or(NestedError::NoMemory)?;
        self.table_count += 1;
        let mut raw = slot.raw;
        loop {
            let Entry::Leaf(leaf) = F::decode(raw, slot.level) else {
                unreachable!("somebody else changed a leaf of the {} tables", F::NAME)
            };
            for index in 0..ENTRIES_PER_TABLE {
                let address = HostPhysical(leaf.address.0 + index as u64 * size.bytes());
                memory.write(
                    table,
                    index,
                    F::leaf(change(Leaf { address, ..leaf }), size),
                );
            }
            let entry = F::table(table.address(), true);
            match memory.compare_exchange(slot.table(), slot.index(), raw, entry) {
                Ok(()) => return Ok(slot.flush()),
                // The processor set its dirty bit meanwhile: the small leaves must have it.
                Err(now) => raw = now,
            }
        }
    }

    /// Merges the table of a slot, then the table above, as far as they are uniform.
    pub(super) fn merge_upwards(&mut self, memory: &mut impl TableMemory, slot: &Slot) -> Flush {
        let mut flush = Flush::None;
        let mut level = slot.level;
        while let Some(size) = PageSize::of_level(level + 1) {
            if size > self.largest {
                break;
            }
            let (table, _) = slot.parent(level);
            let Some(leaf) = uniform::<F>(memory, slot, level) else {
                break;
            };
            let (above, index) = slot.parent(level + 1);
            memory.write(above, index, F::leaf(leaf, size));
            self.retire(memory, table);
            level += 1;
            let start = slot.start & !(span(level) - 1);
            flush = Flush::range(start, start + span(level));
        }
        flush
    }
}

/// Where the table of a slot ends.
fn table_end(slot: &Slot) -> u64 {
    (slot.start & !(span(slot.level + 1) - 1)) + span(slot.level + 1)
}

/// The large leaf that says the same as the whole table of `level` on the way to a slot. It is accessed and dirty: bits that the
/// processor sets while we look would be lost otherwise, and outside of tracking nobody asks.
fn uniform<F: Format>(memory: &impl TableMemory, slot: &Slot, level: u8) -> Option<Leaf> {
    let (table, _) = slot.parent(level);
    let read = |index: usize| match F::decode(memory.read(table, index), level) {
        Entry::Leaf(leaf) => Some(leaf),
        Entry::Table { .. } | Entry::Empty => None,
    };
    let first = Leaf {
        accessed: true,
        dirty: true,
        ..read(0)?
    };
    if first.withheld || first.absent || first.address.0 & (span(level + 1) - 1) != 0 {
        return None;
    }
    // Downwards: a range is merged upwards, so the last entries are the likeliest to differ still.
    let same = (1..ENTRIES_PER_TABLE).rev().all(|index| {
        read(index).is_some_and(|leaf| {
            let expected = Leaf {
                address: HostPhysical(first.address.0 + index as u64 * span(level)),
                accessed: leaf.accessed,
                dirty: leaf.dirty,
                ..first
            };
            leaf == expected
        })
    });
    same.then_some(first)
}
