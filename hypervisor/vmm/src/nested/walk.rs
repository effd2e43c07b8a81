//! Walking: finding the slot that decides about an address, sweeping over a range, and the read-only operations.

use super::cursor::{Cursor, Flush, GUEST_PHYSICAL_END, GuestPhysical};
use super::entry::{Entry, Format, Leaf, MemoryType, PageSize, span};
use super::memory::{ENTRIES_PER_TABLE, TableMemory};
use super::{NestedError, NestedTables};
use crate::frames::{Frame, HostPhysical};

/// Level of the root table.
pub(super) const ROOT_LEVEL: u8 = 4;

/// A leaf and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First guest physical address.
    pub guest: GuestPhysical,
    /// Its size.
    pub size: PageSize,
    /// What it maps to and how.
    pub leaf: Leaf,
}

/// An access to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Execute,
}

/// Where an access that is allowed goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The host physical address of the byte.
    pub address: HostPhysical,
    /// Memory type.
    pub memory_type: MemoryType,
    /// Size of the leaf.
    pub size: PageSize,
}

/// The last entry of a walk: a leaf, or an empty slot that leaves its whole span unmapped.
#[derive(Clone, Copy)]
pub(super) struct Slot {
    /// First guest physical address it stands for.
    pub(super) start: u64,
    /// Level of the table that holds it.
    pub(super) level: u8,
    pub(super) raw: u64,
    /// `None`: empty.
    pub(super) leaf: Option<Leaf>,
    /// The tables walked, by level; those above `level` hold the entries that lead here.
    pub(super) tables: [Frame; ROOT_LEVEL as usize + 1],
}

impl Slot {
    pub(super) fn end(&self) -> u64 {
        self.start + span(self.level)
    }

    pub(super) fn table(&self) -> Frame {
        self.tables[usize::from(self.level)]
    }

    pub(super) fn index(&self) -> usize {
        index(self.start, self.level)
    }

    /// Page and index of the entry of a higher level that leads here.
    pub(super) fn parent(&self, level: u8) -> (Frame, usize) {
        (self.tables[usize::from(level)], index(self.start, level))
    }

    /// Size of the leaf. Empty slots of the root have none.
    pub(super) fn size(&self) -> PageSize {
        PageSize::of_level(self.level).expect("no leaf in the root table")
    }

    pub(super) fn mapping(&self, leaf: Leaf) -> Mapping {
        Mapping {
            guest: GuestPhysical(self.start),
            size: self.size(),
            leaf,
        }
    }

    pub(super) fn flush(&self) -> Flush {
        Flush::range(self.start, self.end())
    }

    /// Whether the cursor's rest covers all of it.
    pub(super) fn is_inside(&self, cursor: &Cursor) -> bool {
        cursor.next <= self.start && self.end() <= cursor.end
    }
}

pub(super) fn index(address: u64, level: u8) -> usize {
    (address / span(level)) as usize % ENTRIES_PER_TABLE
}

/// What a visit did to a leaf, and how a sweep goes on.
pub(super) enum Visit {
    /// Finished with it; its table still stands.
    Next(Flush),
    /// Finished with it, but tables around it changed.
    Moved(Flush),
    /// It was split: look again. Costs a table's worth of budget.
    Again(Flush),
}

impl<F: Format> NestedTables<F> {
    /// What an access comes to. `Withheld` and `Forbidden` tell dirty tracking from a violation; `Ok` after a fault means that
    /// the fault was stale and the access is to be tried again.
    pub fn translate(
        &self,
        memory: &impl TableMemory,
        address: GuestPhysical,
        wanted: Wanted,
    ) -> Result<Translation, NestedError> {
        if address.0 >= GUEST_PHYSICAL_END {
            return Err(NestedError::OutOfRange);
        }
        let slot = self.find(memory, address.0);
        let leaf = slot.leaf.ok_or(NestedError::NotMapped)?;
        if leaf.absent {
            return Err(NestedError::Absent);
        }
        match wanted {
            Wanted::Write if leaf.withheld => return Err(NestedError::Withheld),
            Wanted::Write if !leaf.access.write => return Err(NestedError::Forbidden),
            Wanted::Execute if !leaf.access.execute => return Err(NestedError::Forbidden),
            Wanted::Read | Wanted::Write | Wanted::Execute => {}
        }
        Ok(Translation {
            address: HostPhysical(leaf.address.0 + (address.0 - slot.start)),
            memory_type: leaf.memory_type,
            size: slot.size(),
        })
    }

    /// Reports the leaves in the cursor's range, looking at up to `budget` slots.
    pub fn leaves(
        &self,
        memory: &impl TableMemory,
        cursor: &mut Cursor,
        budget: usize,
        mut report: impl FnMut(Mapping),
    ) {
        for _ in 0..budget {
            if cursor.is_done() {
                return;
            }
            let slot = self.find(memory, cursor.next);
            if let Some(leaf) = slot.leaf {
                report(slot.mapping(leaf));
            }
            cursor.advance_to(slot.end());
        }
    }

    /// Walks to the entry that decides about an address.
    pub(super) fn find(&self, memory: &impl TableMemory, address: u64) -> Slot {
        let mut tables = [self.root; ROOT_LEVEL as usize + 1];
        let mut level = ROOT_LEVEL;
        loop {
            let raw = memory.read(tables[usize::from(level)], index(address, level));
            let leaf = match F::decode(raw, level) {
                Entry::Table { address, .. } => {
                    level -= 1;
                    tables[usize::from(level)] = address.frame();
                    continue;
                }
                Entry::Leaf(leaf) => Some(leaf),
                Entry::Empty => None,
            };
            return Slot {
                start: address & !(span(level) - 1),
                level,
                raw,
                leaf,
                tables,
            };
        }
    }

    /// The next slot of the same table, unless the table ends or a lower table is there.
    pub(super) fn sibling(&self, memory: &impl TableMemory, slot: &Slot) -> Option<Slot> {
        if slot.index() + 1 == ENTRIES_PER_TABLE {
            return None;
        }
        let raw = memory.read(slot.table(), slot.index() + 1);
        let leaf = match F::decode(raw, slot.level) {
            Entry::Table { .. } => return None,
            Entry::Leaf(leaf) => Some(leaf),
            Entry::Empty => None,
        };
        Some(Slot {
            start: slot.end(),
            raw,
            leaf,
            ..*slot
        })
    }

    /// Visits the leaves of the cursor's range until the budget (in slots) is used up. An error of `visit` is passed on only if
    /// nothing was done before it; else the next call will meet it.
    pub(super) fn sweep<M: TableMemory>(
        &mut self,
        memory: &mut M,
        cursor: &mut Cursor,
        budget: usize,
        mut visit: impl FnMut(&mut Self, &mut M, &Slot, Leaf, &Cursor) -> Result<Visit, NestedError>,
    ) -> Result<Flush, NestedError> {
        let begin = cursor.next;
        let mut flush = Flush::None;
        let mut left = budget.max(1);
        let mut at_hand = None;
        while !cursor.is_done() && left > 0 {
            let slot = at_hand
                .take()
                .unwrap_or_else(|| self.find(memory, cursor.next));
            let visited = match slot.leaf {
                Some(leaf) => visit(self, memory, &slot, leaf, cursor),
                None => Ok(Visit::Next(Flush::None)),
            };
            let cost = match visited {
                Ok(Visit::Next(owed)) => {
                    flush = flush.and(owed);
                    cursor.advance_to(slot.end());
                    at_hand = self.sibling(memory, &slot);
                    1
                }
                Ok(Visit::Moved(owed)) => {
                    flush = flush.and(owed);
                    cursor.advance_to(slot.end());
                    ENTRIES_PER_TABLE
                }
                Ok(Visit::Again(owed)) => {
                    flush = flush.and(owed);
                    ENTRIES_PER_TABLE
                }
                Err(error) if flush.is_none() && cursor.next == begin => return Err(error),
                Err(_) => return Ok(flush),
            };
            left = left.saturating_sub(cost);
        }
        Ok(flush)
    }

    /// Changes a live leaf without losing an accessed or dirty bit. Returns the leaf that was replaced.
    pub(super) fn update(
        &self,
        memory: &mut impl TableMemory,
        slot: &Slot,
        change: impl Fn(Leaf) -> Leaf,
    ) -> Leaf {
        self.replace(memory, slot, |leaf| F::leaf(change(leaf), slot.size()))
    }

    /// Replaces a live leaf by any entry, likewise.
    pub(super) fn replace(
        &self,
        memory: &mut impl TableMemory,
        slot: &Slot,
        new: impl Fn(Leaf) -> u64,
    ) -> Leaf {
        let mut raw = slot.raw;
        loop {
            let Entry::Leaf(leaf) = F::decode(raw, slot.level) else {
                unreachable!("somebody else changed a leaf of the {} tables", F::NAME)
            };
            let entry = new(leaf);
            if entry == raw {
                return leaf;
            }
            match memory.compare_exchange(slot.table(), slot.index(), raw, entry) {
                Ok(()) => return leaf,
                Err(now) => raw = now,
            }
        }
    }
}
