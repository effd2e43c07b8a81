//! How table pages are reached: the one thing the algorithm needs from the machine.

use crate::frames::Frame;

/// Entries of 8 bytes in a 4 KiB table.
pub const ENTRIES_PER_TABLE: usize = 512;

/// Access to table pages. `index` is below [`ENTRIES_PER_TABLE`], `table` a page that [`TableMemory::allocate_table`] gave
/// and `free_table` did not take back.
pub trait TableMemory {
    /// Reads an entry (one atomic load).
    fn read(&self, table: Frame, index: usize) -> u64;

    /// Writes an entry in which the processor sets no bits (one atomic store): of a table not linked yet, an empty one, or a
    /// pointer to a table, which is always marked accessed.
    fn write(&mut self, table: Frame, index: usize, entry: u64);

    /// Replaces a live entry if it still reads `current`; else returns what it reads now.
    fn compare_exchange(
        &mut self,
        table: Frame,
        index: usize,
        current: u64,
        new: u64,
    ) -> Result<(), u64>;

    /// A page of zeroes, or `None` if there is no memory for tables.
    fn allocate_table(&mut self) -> Option<Frame>;

    /// Takes a table page back, with whatever it contains. No processor walks it any more.
    fn free_table(&mut self, table: Frame);
}
