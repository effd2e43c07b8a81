//! One request: a chain of descriptors, as a copy and already checked.

use super::setup::{DESCRIPTOR_BYTES, Setup};
use super::{QUEUE_SIZE_MAX, QueueError};
use crate::memory::{GuestMemory, Span};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Most descriptors of a chain, an indirect table's included.
pub const CHAIN_DESCRIPTORS_MAX: usize = QUEUE_SIZE_MAX as usize;
/// Most bytes of a chain.
pub const CHAIN_BYTES_MAX: u64 = 64 << 20;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A descriptor as read (2.7.5).
#[derive(Clone, Copy)]
struct Descriptor {
    gpa: u64,
    bytes: u32,
    flags: u16,
    next: u16,
}

impl Descriptor {
    fn from_bytes(raw: &[u8; DESCRIPTOR_BYTES as usize]) -> Descriptor {
        let raw = u128::from_le_bytes(*raw);
        Descriptor {
            gpa: raw as u64,
            bytes: (raw >> 64) as u32,
            flags: (raw >> 96) as u16,
            next: (raw >> 112) as u16,
        }
    }
}

/// A piece of the guest's memory that a chain names.
#[derive(Clone, Copy)]
struct Piece {
    gpa: u64,
    bytes: u32,
}

/// A request of the driver. Its pages are [held](GuestMemory::hold) until it is dropped.
pub struct Chain {
    memory: Rc<GuestMemory>,
    /// Where it stands in the available ring, counted on.
    position: u16,
    readable: Vec<Span>,
    writable: Vec<Span>,
    /// Guest-physical: the first `readable_pieces` are readable, the others writable.
    pieces: Vec<Piece>,
    readable_pieces: usize,
    readable_bytes: u64,
    writable_bytes: u64,
    /// Some of it has yet to come.
    is_early: bool,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("position", &self.position)
            .field("readable", &self.readable)
            .field("writable", &self.writable)
            .finish_non_exhaustive()
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        for piece in &self.pieces {
            self.memory.let_go(piece.gpa, u64::from(piece.bytes));
        }
    }
}

impl Chain {
    pub(super) fn parse(
        memory: &Rc<GuestMemory>,
        setup: &Setup,
        indirect: bool,
        head: u16,
        position: u16,
    ) -> Result<Chain, QueueError> {
        let mut chain = Chain {
            memory: Rc::clone(memory),
            position,
            readable: Vec::new(),
            writable: Vec::new(),
            pieces: Vec::new(),
            readable_pieces: 0,
            readable_bytes: 0,
            writable_bytes: 0,
            is_early: false,
        };
        let mut index = head;
        loop {
            if index >= setup.size {
                return Err(QueueError::NoSuchDescriptor(index));
            }
            let mut raw = [0; DESCRIPTOR_BYTES as usize];
            let gpa = setup.descriptors + DESCRIPTOR_BYTES * u64::from(index);
            memory.read(gpa, &mut raw)?;
            let descriptor = Descriptor::from_bytes(&raw);
            if descriptor.flags & INDIRECT != 0 {
                if !indirect {
                    return Err(QueueError::IndirectNotNegotiated);
                }
                if descriptor.flags & NEXT != 0 {
                    return Err(QueueError::IndirectContinues);
                }
                chain.append_table(descriptor)?;
                return chain.checked();
            }
            chain.append(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return chain.checked();
            }
            index = descriptor.next;
        }
    }

    /// All of it is here; or nobody looks at any of it yet.
    fn checked(self) -> Result<Chain, QueueError> {
        match self.is_early {
            true => Err(QueueError::NotYet),
            false => Ok(self),
        }
    }

    /// Appends what a table of indirect descriptors names, read as one copy (2.7.5.3).
    fn append_table(&mut self, table: Descriptor) -> Result<(), QueueError> {
        let bytes = u64::from(table.bytes);
        let count = bytes / DESCRIPTOR_BYTES;
        if !bytes.is_multiple_of(DESCRIPTOR_BYTES)
            || !(1..=CHAIN_DESCRIPTORS_MAX as u64).contains(&count)
        {
            return Err(QueueError::IndirectLength(table.bytes));
        }
        if !self.memory.absent().is_here(table.gpa, bytes) {
            return Err(QueueError::NotYet);
        }
        let mut copy = vec![0; bytes as usize];
        self.memory.read(table.gpa, &mut copy)?;
        let (entries, _) = copy.as_chunks::<{ DESCRIPTOR_BYTES as usize }>();
        let mut index = 0;
        loop {
            let raw = entries.get(usize::from(index));
            let raw = raw.ok_or(QueueError::NoSuchDescriptor(index))?;
            let descriptor = Descriptor::from_bytes(raw);
            if descriptor.flags & INDIRECT != 0 {
                return Err(QueueError::NestedIndirect);
            }
            self.append(descriptor)?;
            if descriptor.flags & NEXT == 0 {
                return Ok(());
            }
            index = descriptor.next;
        }
    }

    fn append(&mut self, descriptor: Descriptor) -> Result<(), QueueError> {
        let Descriptor { gpa, bytes, .. } = descriptor;
        let length = u64::from(bytes);
        if bytes == 0 {
            return Err(QueueError::EmptyDescriptor);
        }
        if self.pieces.len() >= CHAIN_DESCRIPTORS_MAX {
            return Err(QueueError::EndlessChain);
        }
        if self.readable_bytes + self.writable_bytes + length > CHAIN_BYTES_MAX {
            return Err(QueueError::LongChain);
        }
        if descriptor.flags & WRITE != 0 {
            self.memory.spans(gpa, length, &mut self.writable)?;
            self.writable_bytes += length;
        } else {
            if self.writable_bytes > 0 {
                return Err(QueueError::ReadableBehindWritable);
            }
            self.memory.spans(gpa, length, &mut self.readable)?;
            self.readable_bytes += length;
            self.readable_pieces += 1;
        }
        // All are wanted at once.
        self.is_early |= !self.memory.absent().is_here(gpa, length);
        self.memory.hold(gpa, length);
        self.pieces.push(Piece { gpa, bytes });
        Ok(())
    }

    /// Where it stands in the available ring, counted on and wrapping.
    pub fn position(&self) -> u16 {
        self.position
    }

    /// Bytes that the driver gives.
    pub fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// Bytes that the driver takes.
    pub fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// What the driver gives, in memory, from byte `offset` on and `bytes` long. Panics beyond it.
    pub fn readable(&self, offset: u64, bytes: u64) -> Vec<Span> {
        cut(&self.readable, offset, bytes)
    }

    /// Where the driver takes, as [`readable`](Chain::readable). Whoever writes there calls
    /// [`mark_dirty`](Chain::mark_dirty).
    pub fn writable(&self, offset: u64, bytes: u64) -> Vec<Span> {
        cut(&self.writable, offset, bytes)
    }

    /// Copies out what the driver gives, from byte `offset` on. Returns how many bytes there were.
    pub fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let length = self.readable_bytes.saturating_sub(offset);
        let length = length.min(out.len() as u64) as usize;
        let mut at = 0;
        for span in pieces(&self.readable, offset, length as u64) {
            let end = at + span.bytes as usize;
            self.memory.memory().read(span.address, &mut out[at..end]);
            at = end;
        }
        length
    }

    /// Copies to where the driver takes, from byte `offset` on, and marks it dirty. Returns how
    /// many bytes there was room for.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> usize {
        let length = self.writable_bytes.saturating_sub(offset);
        let length = length.min(bytes.len() as u64) as usize;
        let mut at = 0;
        for span in pieces(&self.writable, offset, length as u64) {
            let end = at + span.bytes as usize;
            self.memory.memory().write(span.address, &bytes[at..end]);
            at = end;
        }
        self.mark_dirty(offset, length as u64);
        length
    }

    /// Notes that `bytes` of the writable part were written, from byte `offset` on.
    pub fn mark_dirty(&self, offset: u64, bytes: u64) {
        let (mut skip, mut left) = (offset, bytes);
        for piece in &self.pieces[self.readable_pieces..] {
            let length = u64::from(piece.bytes);
            let here = length.saturating_sub(skip).min(left);
            self.memory.mark_dirty(piece.gpa + skip.min(length), here);
            skip = skip.saturating_sub(length);
            left -= here;
        }
    }
}

/// The part of `spans` from byte `offset` on and `bytes` long, or what there is of it.
fn pieces(spans: &[Span], offset: u64, bytes: u64) -> impl Iterator<Item = Span> {
    let (mut skip, mut left) = (offset, bytes);
    spans.iter().filter_map(move |span| {
        let length = u64::from(span.bytes);
        let skipped = skip.min(length);
        let here = (length - skipped).min(left);
        skip -= skipped;
        left -= here;
        (here > 0).then(|| Span {
            address: span.address + skipped,
            bytes: here as u32,
        })
    })
}

fn cut(spans: &[Span], offset: u64, bytes: u64) -> Vec<Span> {
    let part: Vec<Span> = pieces(spans, offset, bytes).collect();
    let found: u64 = part.iter().map(|span| u64::from(span.bytes)).sum();
    assert_eq!(found, bytes, "beyond the end of a chain");
    part
}
