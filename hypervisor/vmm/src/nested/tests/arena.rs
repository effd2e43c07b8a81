//! Table pages in ordinary memory.

use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::super::{ENTRIES_PER_TABLE, TableMemory};
use super::std;
use crate::frames::Frame;

/// Table pages, a limit on them, and a write of the processor that is to happen at the next exchange.
pub(super) struct Arena {
    tables: Vec<Option<Box<[u64; ENTRIES_PER_TABLE]>>>,
    pub(super) limit: usize,
    pub(super) race: Option<(Frame, usize, u64)>,
}

impl Arena {
    pub(super) fn new(limit: usize) -> Arena {
        Arena {
            tables: vec![None],
            limit,
            race: None,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.tables.iter().flatten().count()
    }
}

impl TableMemory for Arena {
    fn read(&self, table: Frame, index: usize) -> u64 {
        self.tables[table.0 as usize]
            .as_ref()
            .expect("reading a freed table")[index]
    }

    fn write(&mut self, table: Frame, index: usize, entry: u64) {
        self.tables[table.0 as usize]
            .as_mut()
            .expect("writing a freed table")[index] = entry;
    }

    fn compare_exchange(
        &mut self,
        table: Frame,
        index: usize,
        current: u64,
        new: u64,
    ) -> Result<(), u64> {
        if let Some((_, _, entry)) = self.race.take_if(|race| (race.0, race.1) == (table, index)) {
            self.write(table, index, entry);
        }
        let now = self.read(table, index);
        if now != current {
            return Err(now);
        }
        self.write(table, index, new);
        Ok(())
    }

    fn allocate_table(&mut self) -> Option<Frame> {
        if self.live() >= self.limit {
            return None;
        }
        let free = self.tables.iter().skip(1).position(|table| table.is_none());
        let index = free.map_or(self.tables.len(), |index| index + 1);
        if index == self.tables.len() {
            self.tables.push(None);
        }
        self.tables[index] = Some(Box::new([0; ENTRIES_PER_TABLE]));
        Some(Frame(index as u64))
    }

    fn free_table(&mut self, table: Frame) {
        assert!(
            self.tables[table.0 as usize].take().is_some(),
            "double free of a table"
        );
    }
}
