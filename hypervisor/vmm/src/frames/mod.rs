//! Host physical memory: which 4 KiB frame belongs to whom, and a buddy allocator over the free ones.
//!
//! Everything is kept in one table of 16 bytes a frame (0.4 % of memory), indexed by frame number, that the caller
//! places. There is no other storage: free lists and mapping counts are links and numbers inside the table.
//!
//! Invariants:
//! * Memory is a set of disjoint *blocks*, aligned runs of 2^order frames. Only the first entry of a block, its head,
//!   says anything; an entry that no head covers is [`Owner::Reserved`]. So an all-zero table is "everything reserved",
//!   and adding a region of many GiB touches one entry for each maximal aligned block.
//! * Free blocks are as large as they can be: two free buddies of one zone never stand side by side.
//! * Foreign mappings are counted in a Fenwick-like sum inside the block: entry `s` counts the mappings in the largest
//!   aligned run that starts at `s` and stays in its block. Splitting a block is then one subtraction.
//! * Nothing is free while it is mapped: freeing a mapped block makes it *dying*, and its last unmap frees it.
//!
//! Cost: all but [`Frames::allocate_run`] and [`Frames::scan`] are O(log n). No locking here: the caller holds the lock.

mod address;
mod buddy;
mod info;
mod mapped_run;
mod ownership;
mod run;
#[cfg(test)]
mod tests;

pub use godwit_abi::DomainId;

pub use address::{FRAME_SIZE_BYTES, Frame, HostPhysical};
pub use buddy::{Counts, Frames, ORDER_1G, ORDER_2M, ORDER_4K, ORDER_MAX, REGIONS_MAX, Zone};
pub use info::FrameInfo;
pub use ownership::{Freed, Unmapped};
pub use run::{Block, SCAN_MAX, Scan};

/// To whom a frame belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// Firmware, device memory, or a hole: never handed out.
    Reserved,
    /// In a free list.
    Free,
    /// The hypervisor itself: image, tables, heap.
    Hypervisor,
    /// Memory of a domain.
    Domain(DomainId),
    /// Given up by this domain but still mapped by a foreign one; free at the last unmap.
    Dying(DomainId),
    /// Given up by the hypervisor but still mapped by dom0; free at the last unmap.
    DyingHypervisor,
}

/// Why the frame table refused. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The frame number lies outside the table.
    OutOfTable,
    /// An order above [`ORDER_MAX`], or a run of no frames.
    BadSize,
    /// A block that does not start at a multiple of its size.
    Misaligned,
    /// No free block or run is large enough; free memory or ask for less.
    OutOfMemory,
    /// The range contains frames that are not free (they are reserved or in use).
    NotFree,
    /// The frame is free or reserved already: a double free.
    NotAllocated,
    /// The frame belongs to somebody else.
    NotOwner(Owner),
    /// The frame is given up and only waits for its last unmap.
    Dying,
    /// The operation needs a frame that nobody maps.
    Mapped,
    /// Unmap without map.
    NotMapped,
    /// The mapping count of the block would overflow.
    TooManyMappings,
    /// The region overlaps one that was added before.
    Overlap,
    /// More than [`REGIONS_MAX`] disjoint regions.
    TooManyRegions,
    /// Only the hypervisor or a domain may be given memory.
    BadOwner,
}
