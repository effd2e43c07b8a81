//! What an entry means, apart from how a format spells it.

use crate::frames::HostPhysical;

/// The size of a leaf; its discriminant is the level of the table that holds it (1 is the lowest).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageSize {
    /// 4 KiB.
    Small4K = 1,
    /// 2 MiB.
    Large2M = 2,
    /// 1 GiB.
    Huge1G = 3,
}

impl PageSize {
    /// Smallest first.
    pub const ALL: [PageSize; 3] = [PageSize::Small4K, PageSize::Large2M, PageSize::Huge1G];

    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        span(self as u8)
    }

    /// The order of a frame block of this size.
    pub const fn order(self) -> u8 {
        9 * (self as u8 - 1)
    }

    pub(super) const fn of_level(level: u8) -> Option<PageSize> {
        match level {
            1 => Some(PageSize::Small4K),
            2 => Some(PageSize::Large2M),
            3 => Some(PageSize::Huge1G),
            _ => None,
        }
    }
}

/// Bytes of guest physical space that one entry of a table of this level covers.
pub(super) const fn span(level: u8) -> u64 {
    1 << (12 + 9 * (level - 1))
}

/// What a guest may do with a page, besides reading it: NPT cannot forbid reading alone, so nor do we.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Access {
    /// Write.
    pub write: bool,
    /// Fetch instructions.
    pub execute: bool,
}

impl Access {
    /// Reading only.
    pub const READ: Access = Access {
        write: false,
        execute: false,
    };
    /// Everything but fetching instructions.
    pub const READ_WRITE: Access = Access {
        write: true,
        execute: false,
    };
    /// Everything.
    pub const ALL: Access = Access {
        write: true,
        execute: true,
    };
}

/// The memory type of a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MemoryType {
    /// Ordinary memory.
    WriteBack,
    /// Device registers.
    Uncacheable,
    /// Frame buffers and the like.
    WriteCombining,
}

/// A leaf: a frame and what the guest may do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Leaf {
    /// Host physical address of its first byte, a multiple of its size.
    pub address: HostPhysical,
    /// What the processor allows now. While writing is `withheld`, `write` is false here.
    pub access: Access,
    /// Memory type.
    pub memory_type: MemoryType,
    /// The processor has used it.
    pub accessed: bool,
    /// The processor, or we, have written to it.
    pub dirty: bool,
    /// Writing is permitted but withheld so that the first write faults.
    pub withheld: bool,
    /// The frame is the guest's, but what is to be in it has not come: every access faults.
    pub absent: bool,
}

impl Leaf {
    /// What the guest is permitted, tracking aside.
    pub fn permitted(&self) -> Access {
        Access {
            write: self.access.write || self.withheld,
            ..self.access
        }
    }
}

/// A decoded entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Maps nothing.
    Empty,
    /// Points at the next lower table.
    Table {
        /// The table page.
        address: HostPhysical,
        /// Meaningful in tables of level 2: false promises that nothing below is dirty, but for what the processor has logged and
        /// nobody has told [`super::NestedTables::logged`].
        dirty_below: bool,
    },
    /// Maps a page.
    Leaf(Leaf),
}

/// How a processor spells entries. The zero entry must be `Empty` in each format.
pub trait Format {
    /// For messages.
    const NAME: &'static str;

    /// Decodes an entry of a table of this level, 1 to 4.
    fn decode(entry: u64, level: u8) -> Entry;

    /// Spells a leaf.
    fn leaf(leaf: Leaf, size: PageSize) -> u64;

    /// Spells a pointer to the next table, with all rights and marked accessed.
    fn table(address: HostPhysical, dirty_below: bool) -> u64;

    /// Hides a link in an entry that the processor takes for empty.
    fn park(link: Option<crate::frames::Frame>) -> u64;

    /// The link hidden by [`Format::park`].
    fn unpark(entry: u64) -> Option<crate::frames::Frame>;
}

/// The plain way to park a link: frame number from bit 12 up, low bits clear. Frame 0 holds real-mode vectors, never a table.
pub(super) fn park_above_flags(link: Option<crate::frames::Frame>) -> u64 {
    link.map_or(0, |frame| frame.address().0)
}

/// Inverse of [`park_above_flags`].
pub(super) fn unpark_above_flags(entry: u64) -> Option<crate::frames::Frame> {
    (entry != 0).then(|| HostPhysical(entry).frame())
}
