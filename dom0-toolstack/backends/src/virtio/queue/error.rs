//! What a driver can do wrong with a queue. All of it is the guest's doing.

use crate::memory::NotGuestMemory;
use core::fmt;

/// Why a queue cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// Not a power of two, or more than the device allows.
    Size(u16),
    /// A part of the queue is not aligned as 2.7 demands.
    Misaligned(u64),
    /// Not the driver's fault: some of what a chain names has yet to come from another host.
    NotYet,
    /// An address is not (all) memory of the guest.
    NotMemory {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        bytes: u64,
    },
    /// `avail.idx` is ahead by more than the queue has entries that are not in use.
    IndexJumped {
        /// Where the device was.
        from: u16,
        /// Where the driver says it is.
        to: u16,
    },
    /// A descriptor number that the table does not have.
    NoSuchDescriptor(u16),
    /// A chain of more than [`super::CHAIN_DESCRIPTORS_MAX`] descriptors: probably a loop.
    EndlessChain,
    /// A chain of more than [`super::CHAIN_BYTES_MAX`] bytes.
    LongChain,
    /// A descriptor of no bytes.
    EmptyDescriptor,
    /// A readable descriptor behind a writable one.
    ReadableBehindWritable,
    /// An indirect descriptor though the feature was not negotiated.
    IndirectNotNegotiated,
    /// An indirect descriptor within an indirect table.
    NestedIndirect,
    /// An indirect descriptor that continues.
    IndirectContinues,
    /// An indirect table whose length is not that of 1 to 256 descriptors.
    IndirectLength(u32),
}

impl From<NotGuestMemory> for QueueError {
    fn from(error: NotGuestMemory) -> Self {
        let NotGuestMemory { gpa, bytes } = error;
        QueueError::NotMemory { gpa, bytes }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueueError::Size(size) => write!(f, "a queue cannot have {size} entries"),
            QueueError::Misaligned(gpa) => write!(f, "a part of a queue is misaligned: {gpa:#x}"),
            QueueError::NotMemory { gpa, bytes } => {
                write!(f, "{bytes} bytes at {gpa:#x} are not the guest's memory")
            }
            QueueError::NotYet => f.write_str("memory has yet to come"),
            QueueError::IndexJumped { from, to } => {
                write!(f, "the available index jumped from {from} to {to}")
            }
            QueueError::NoSuchDescriptor(index) => write!(f, "there is no descriptor {index}"),
            QueueError::EndlessChain => f.write_str("a chain does not end"),
            QueueError::LongChain => f.write_str("a chain has too many bytes"),
            QueueError::EmptyDescriptor => f.write_str("a descriptor has no bytes"),
            QueueError::ReadableBehindWritable => {
                f.write_str("a readable descriptor is behind a writable one")
            }
            QueueError::IndirectNotNegotiated => {
                f.write_str("indirect descriptors were not negotiated")
            }
            QueueError::NestedIndirect => f.write_str("an indirect table within another"),
            QueueError::IndirectContinues => f.write_str("an indirect descriptor continues"),
            QueueError::IndirectLength(bytes) => {
                write!(f, "an indirect table cannot have {bytes} bytes")
            }
        }
    }
}
