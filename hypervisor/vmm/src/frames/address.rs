//! Host physical addresses and frame numbers.

/// Size of a frame.
pub const FRAME_SIZE_BYTES: u64 = 4096;

const FRAME_SHIFT: u32 = FRAME_SIZE_BYTES.trailing_zeros();

/// A host physical address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPhysical(pub u64);

/// The number of a 4 KiB frame of host physical memory: address / 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(pub u64);

impl HostPhysical {
    /// The frame this address lies in.
    pub const fn frame(self) -> Frame {
        Frame(self.0 >> FRAME_SHIFT)
    }

    /// Bytes past the start of the frame.
    pub const fn offset(self) -> u64 {
        self.0 & (FRAME_SIZE_BYTES - 1)
    }
}

impl Frame {
    /// The address of the first byte.
    pub const fn address(self) -> HostPhysical {
        HostPhysical(self.0 << FRAME_SHIFT)
    }

    /// The frame `count` further on.
    pub const fn plus(self, count: u64) -> Frame {
        Frame(self.0 + count)
    }

    /// Whether this is the first frame of an aligned block of 2^order frames.
    pub const fn is_aligned(self, order: u8) -> bool {
        self.0 & ((1 << order) - 1) == 0
    }
}
