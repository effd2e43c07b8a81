//! A host's memory: frames that `vmm`'s allocator gives out, the nested tables' entries, and whose page is in which frame. What
//! is in a page is with the fake; here is where it is.

use godwit_abi::DomainId;
use godwit_vmm::frames::{Frame, FrameInfo, Frames, ORDER_4K, Owner, Zone};
use godwit_vmm::nested::{ENTRIES_PER_TABLE, TableMemory};
use std::collections::BTreeMap;

/// Frames there are: more than all guests have, so that the fake's count decides.
const FRAMES: usize = 1 << 14;
/// Real-mode memory is left alone.
const FIRST_FRAME: u64 = 1 << 8;

/// A table of nested paging.
type Table = [u64; ENTRIES_PER_TABLE];

/// The machine.
pub(super) struct Machine {
    frames: Frames<Vec<FrameInfo>>,
    tables: BTreeMap<u64, Box<Table>>,
    holds: BTreeMap<u64, (DomainId, u64)>,
}

impl Default for Machine {
    fn default() -> Self {
        let mut frames = Frames::new(vec![FrameInfo::RESERVED; FRAMES]);
        let added = frames.add_region(Frame(FIRST_FRAME), Frame(FRAMES as u64));
        added.expect("the table has that many");
        Self {
            frames,
            tables: BTreeMap::new(),
            holds: BTreeMap::new(),
        }
    }
}

impl Machine {
    /// Gives a domain a frame for one of its pages.
    pub(super) fn give(&mut self, domain: DomainId, page: u64) -> Frame {
        let given = self
            .frames
            .allocate(ORDER_4K, Owner::Domain(domain), Zone::Any);
        let frame = given.expect("there are enough");
        let before = self.holds.insert(frame.0, (domain, page));
        assert_eq!(before, None, "frame {:#x} is given out twice", frame.0);
        frame
    }

    /// Takes it back.
    pub(super) fn take(&mut self, frame: Frame, domain: DomainId, page: u64) {
        assert_eq!(self.holds.remove(&frame.0), Some((domain, page)));
        let freed = self.frames.free(frame, ORDER_4K, Owner::Domain(domain));
        assert_eq!(freed.map(|freed| (freed.now, freed.deferred)), Ok((1, 0)));
    }

    /// Whose page is in a frame.
    pub(super) fn holds(&self, frame: Frame) -> Option<(DomainId, u64)> {
        self.holds.get(&frame.0).copied()
    }

    /// What belongs to somebody, tables included.
    pub(super) fn in_use(&self) -> u64 {
        let counts = self.frames.counts();
        counts.total - counts.free
    }
}

impl TableMemory for Machine {
    fn read(&self, table: Frame, index: usize) -> u64 {
        self.tables[&table.0][index]
    }

    fn write(&mut self, table: Frame, index: usize, entry: u64) {
        let table = self.tables.get_mut(&table.0);
        table.expect("it is a table")[index] = entry;
    }

    fn compare_exchange(
        &mut self,
        table: Frame,
        index: usize,
        current: u64,
        new: u64,
    ) -> Result<(), u64> {
        match self.read(table, index) {
            read if read == current => {
                self.write(table, index, new);
                Ok(())
            }
            read => Err(read),
        }
    }

    fn allocate_table(&mut self) -> Option<Frame> {
        let given = self.frames.allocate(ORDER_4K, Owner::Hypervisor, Zone::Any);
        let frame = given.ok()?;
        self.tables
            .insert(frame.0, Box::new([0; ENTRIES_PER_TABLE]));
        Some(frame)
    }

    fn free_table(&mut self, table: Frame) {
        assert!(self.tables.remove(&table.0).is_some(), "it is a table");
        let freed = self.frames.free(table, ORDER_4K, Owner::Hypervisor);
        assert!(freed.is_ok(), "{freed:?}");
    }
}
