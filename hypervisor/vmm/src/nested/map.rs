//! Map, unmap, protect.

use super::cursor::{Cursor, Flush, GUEST_PHYSICAL_END, GuestPhysical};
use super::dirty::withholds;
use super::entry::{Access, Entry, Format, Leaf, MemoryType, PageSize, span};
use super::memory::{ENTRIES_PER_TABLE, TableMemory};
use super::walk::{Mapping, ROOT_LEVEL, Slot, Visit};
use super::{NestedError, NestedTables};
use crate::frames::{FRAME_SIZE_BYTES, Frame, HostPhysical};

/// End of host physical space: 52 bits of address fit an entry.
const HOST_PHYSICAL_END: u64 = 1 << 52;

/// A run that is being mapped: how far it has come, and how.
#[derive(Clone, Copy)]
struct Run {
    guest: u64,
    host: u64,
    end: u64,
    largest: PageSize,
}

impl Run {
    /// The largest leaf that fits here.
    fn size(&self) -> PageSize {
        let fits = |size: &PageSize| {
            let bytes = size.bytes();
            *size <= self.largest
                && (self.guest | self.host) & (bytes - 1) == 0
                && self.end - self.guest >= bytes
        };
        PageSize::ALL
            .into_iter()
            .rev()
            .find(fits)
            .expect("a run is made of whole pages")
    }

    fn advance(&mut self, bytes: u64) {
        self.guest += bytes;
        self.host += bytes;
    }

    /// Tables needed to map what of the run lies in an empty slot of `level`, ending at `slot_end`; passes that part.
    fn tables_in(&mut self, level: u8, slot_end: u64) -> u64 {
        let stop = slot_end.min(self.end);
        if level == 1 || self.size() as u8 == level {
            self.advance(stop - self.guest);
            return 0;
        }
        let mut tables = 1;
        if level == 2 {
            self.advance(stop - self.guest);
        }
        while self.guest < stop {
            let below = span(level - 1);
            let end = (self.guest & !(below - 1)) + below;
            tables += self.tables_in(level - 1, end);
        }
        tables
    }
}

impl<F: Format> NestedTables<F> {
    /// Maps `length` bytes from `guest` to `host` (multiples of 4 KiB) with the largest leaves that fit; with 4 KiB leaves of
    /// write-back memory while tracking, so that new pages are dirty ones. All or nothing.
    pub fn map(
        &mut self,
        memory: &mut impl TableMemory,
        guest: GuestPhysical,
        host: HostPhysical,
        length: u64,
        access: Access,
        memory_type: MemoryType,
    ) -> Result<Flush, NestedError> {
        if (guest.0 | host.0 | length) & (FRAME_SIZE_BYTES - 1) != 0 {
            return Err(NestedError::Misaligned);
        }
        let fits =
            |start: u64, limit: u64| start.checked_add(length).is_some_and(|end| end <= limit);
        if !fits(guest.0, GUEST_PHYSICAL_END) || !fits(host.0, HOST_PHYSICAL_END) {
            return Err(NestedError::OutOfRange);
        }
        let small_only = self.tracking && memory_type == MemoryType::WriteBack;
        let run = Run {
            guest: guest.0,
            host: host.0,
            end: guest.0 + length,
            largest: if small_only {
                PageSize::Small4K
            } else {
                self.largest
            },
        };
        let tables = self.survey(memory, run)?;
        let mut stock = self.stock_up(memory, tables)?;
        self.fill(memory, run, &mut stock, access, memory_type);
        assert_eq!(
            stock, None,
            "the survey counted more tables than were needed"
        );
        // The processors cache no empty entries (SDM 3C 28.4.2, APM 2 15.16).
        Ok(Flush::None)
    }

    /// Checks that a run is unmapped, and counts the tables that mapping it takes.
    fn survey(&self, memory: &impl TableMemory, mut run: Run) -> Result<u64, NestedError> {
        let mut tables = 0;
        while run.guest < run.end {
            let slot = self.find(memory, run.guest);
            // A lower table where a leaf would fit holds something: tables are never empty.
            if slot.leaf.is_some() || run.size() as u8 > slot.level {
                return Err(NestedError::Overlap);
            }
            tables += run.tables_in(slot.level, slot.end());
        }
        Ok(tables)
    }

    /// Allocates `count` tables, chained through their first entries; all or none.
    fn stock_up(
        &mut self,
        memory: &mut impl TableMemory,
        count: u64,
    ) -> Result<Option<Frame>, NestedError> {
        let mut stock = None;
        for _ in 0..count {
            let Some(table) = memory.allocate_table() else {
                while let Some(table) = stock {
                    stock = F::unpark(memory.read(table, 0));
                    memory.free_table(table);
                }
                return Err(NestedError::NoMemory);
            };
            memory.write(table, 0, F::park(stock));
            stock = Some(table);
        }
        self.table_count += count;
        Ok(stock)
    }

    fn fill(
        &mut self,
        memory: &mut impl TableMemory,
        mut run: Run,
        stock: &mut Option<Frame>,
        access: Access,
        memory_type: MemoryType,
    ) {
        while run.guest < run.end {
            let size = run.size();
            let mut slot = self.find(memory, run.guest);
            while slot.level > size as u8 {
                let table = stock.expect("the survey counted fewer tables than are needed");
                *stock = F::unpark(memory.read(table, 0));
                memory.write(table, 0, 0);
                memory.write(slot.table(), slot.index(), F::table(table.address(), true));
                slot = self.find(memory, run.guest);
            }
            self.note_dirty_below(memory, &slot);
            loop {
                let leaf = Leaf {
                    address: HostPhysical(run.host),
                    access,
                    memory_type,
                    accessed: true,
                    dirty: true,
                    withheld: false,
                    absent: false,
                };
                memory.write(slot.table(), slot.index(), F::leaf(leaf, size));
                run.advance(size.bytes());
                if run.guest >= run.end || run.size() != size {
                    break;
                }
                match self.sibling(memory, &slot) {
                    Some(next) => slot = next,
                    None => break,
                }
            }
        }
    }

    /// Unmaps the cursor's range, reporting each leaf with its last dirty bit. Holes are passed over; leaves that reach out of the
    /// range are split. The frames reported may be used again only after the flush.
    pub fn unmap(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        budget: usize,
        mut report: impl FnMut(Mapping),
    ) -> Result<Flush, NestedError> {
        self.sweep(memory, cursor, budget, |tables, memory, slot, _, cursor| {
            if !slot.is_inside(cursor) {
                return tables
                    .split_slot(memory, slot, |leaf| leaf)
                    .map(Visit::Again);
            }
            let leaf = tables.replace(memory, slot, |_| 0);
            report(slot.mapping(leaf));
            Ok(match tables.prune(memory, slot) {
                Flush::None => Visit::Next(slot.flush()),
                owed @ Flush::Range { .. } => Visit::Moved(owed.and(slot.flush())),
            })
        })
    }

    /// Unlinks and retires the table of a slot just emptied, and those above it, as far as they are empty.
    fn prune(&mut self, memory: &mut impl TableMemory, slot: &Slot) -> Flush {
        let mut flush = Flush::None;
        let mut level = slot.level;
        while level < ROOT_LEVEL {
            let (table, index) = slot.parent(level);
            // From the next entry on: a range is emptied upwards, so the next is the likeliest to be in use.
            let others = (1..ENTRIES_PER_TABLE).map(|n| (index + n) % ENTRIES_PER_TABLE);
            let mut entries = others.map(|index| F::decode(memory.read(table, index), level));
            if !entries.all(|entry| entry == Entry::Empty) {
                break;
            }
            level += 1;
            let (above, index) = slot.parent(level);
            memory.write(above, index, 0);
            self.retire(memory, table);
            let start = slot.start & !(span(level) - 1);
            flush = Flush::range(start, start + span(level));
        }
        flush
    }

    /// Sets what the guest may do in the cursor's range. Holes are passed over; leaves that reach out of the range are split. Pages
    /// stay as dirty, or as clean, as they were, but a page made writable outside of tracking is dirty by being writable.
    pub fn protect(
        &mut self,
        memory: &mut impl TableMemory,
        cursor: &mut Cursor,
        access: Access,
        budget: usize,
    ) -> Result<Flush, NestedError> {
        self.sweep(
            memory,
            cursor,
            budget,
            |tables, memory, slot, leaf, cursor| {
                if leaf.permitted() == access {
                    return Ok(Visit::Next(Flush::None));
                }
                if !slot.is_inside(cursor) {
                    return tables
                        .split_slot(memory, slot, |leaf| leaf)
                        .map(Visit::Again);
                }
                let old = tables.update(memory, slot, |leaf| {
                    tables.with_access(leaf, access, slot.size())
                });
                if access.write {
                    tables.note_dirty_below(memory, slot);
                }
                let lost =
                    (old.access.write && !access.write) || (old.access.execute && !access.execute);
                Ok(Visit::Next(if lost { slot.flush() } else { Flush::None }))
            },
        )
    }

    fn with_access(&self, leaf: Leaf, access: Access, size: PageSize) -> Leaf {
        let dirty = self.is_dirty(&leaf);
        let tracked = self.tracking && leaf.memory_type == MemoryType::WriteBack;
        let withheld = access.write && tracked && !dirty && withholds(self.method, size);
        Leaf {
            access: Access {
                write: access.write && !withheld,
                ..access
            },
            dirty,
            withheld,
            ..leaf
        }
    }
}
