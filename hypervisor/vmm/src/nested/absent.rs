//! Absent pages: the frame is there and is the guest's, what is to be in it is still on another host (post-copy).
//!
//! ```text
//!   present --make_absent--> absent --make_present--> present      (unmap ends either)
//! ```
//!
//! Every access to one faults, whatever its rights; they are kept, and back when it is present. Absent leaves are small.
//! A page is made present after its contents were put into its frame, so nobody ever sees the frame without them.

use super::cursor::{Flush, GuestPhysical};
use super::entry::{Format, Leaf, MemoryType};
use super::memory::TableMemory;
use super::{NestedError, NestedTables};
use crate::frames::HostPhysical;

impl<F: Format> NestedTables<F> {
    /// Withholds a page of memory until its contents come; large leaves are split. With `NoMemory` a part of the splitting may
    /// have been done: what is mapped is the same, but the caller flushes all the same.
    pub fn make_absent(
        &mut self,
        memory: &mut impl TableMemory,
        address: GuestPhysical,
    ) -> Result<Flush, NestedError> {
        let mut flush = Flush::None;
        loop {
            let slot = self.find(memory, address.0);
            let leaf = slot.leaf.ok_or(NestedError::NotMapped)?;
            if leaf.memory_type != MemoryType::WriteBack {
                return Err(NestedError::Forbidden);
            }
            if slot.level > 1 {
                flush = flush.and(self.split_slot(memory, &slot, |leaf| leaf)?);
                continue;
            }
            self.update(memory, &slot, |leaf| Leaf {
                absent: true,
                ..leaf
            });
            return Ok(flush.and(slot.flush()));
        }
    }

    /// Where the frame of an absent page is. `None`: the page is present, or not mapped.
    pub fn absent_frame(
        &self,
        memory: &impl TableMemory,
        address: GuestPhysical,
    ) -> Option<HostPhysical> {
        let slot = self.find(memory, address.0);
        let leaf = slot.leaf.filter(|leaf| leaf.absent)?;
        Some(HostPhysical(leaf.address.0 + (address.0 - slot.start)))
    }

    /// An absent page's contents are in its frame: lets the guest have it, dirty. The last page of a table that was a large leaf may
    /// become one again; only that owes a flush. NotMapped: the page is not absent.
    pub fn make_present(
        &mut self,
        memory: &mut impl TableMemory,
        address: GuestPhysical,
    ) -> Result<Flush, NestedError> {
        let slot = self.find(memory, address.0);
        if slot.leaf.is_none_or(|leaf| !leaf.absent) {
            return Err(NestedError::NotMapped);
        }
        self.note_dirty_below(memory, &slot);
        self.update(memory, &slot, |leaf| Leaf {
            access: leaf.permitted(),
            dirty: true,
            withheld: false,
            absent: false,
            ..leaf
        });
        Ok(match self.is_tracking() {
            true => Flush::None,
            false => self.merge_upwards(memory, &slot),
        })
    }
}
