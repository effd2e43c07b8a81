//! Guest physical ranges, what is left of them, what flushes they cost, and bitmaps over their pages.

use super::NestedError;
use crate::frames::FRAME_SIZE_BYTES;

/// End of guest physical space: four levels translate 48 bits.
pub const GUEST_PHYSICAL_END: u64 = 1 << 48;

/// A guest physical address, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestPhysical(pub u64);

/// The part of a guest physical range that is still to be worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(super) next: u64,
    pub(super) end: u64,
}

impl Cursor {
    /// Over `length` bytes from `start`, both multiples of 4 KiB.
    pub fn over(start: GuestPhysical, length: u64) -> Result<Cursor, NestedError> {
        if (start.0 | length) & (FRAME_SIZE_BYTES - 1) != 0 {
            return Err(NestedError::Misaligned);
        }
        match start.0.checked_add(length) {
            Some(end) if end <= GUEST_PHYSICAL_END => Ok(Cursor { next: start.0, end }),
            Some(_) | None => Err(NestedError::OutOfRange),
        }
    }

    /// Over all of guest physical space.
    pub const fn all() -> Cursor {
        Cursor {
            next: 0,
            end: GUEST_PHYSICAL_END,
        }
    }

    /// Over nothing.
    pub const fn none() -> Cursor {
        Cursor { next: 0, end: 0 }
    }

    /// Whether the work is finished.
    pub const fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// Where the work goes on.
    pub const fn position(&self) -> GuestPhysical {
        GuestPhysical(self.next)
    }

    /// Where the range ends.
    pub const fn end(&self) -> GuestPhysical {
        GuestPhysical(self.end)
    }

    /// The rest from an address inside the range on, a multiple of 4 KiB.
    pub fn from(&self, address: GuestPhysical) -> Result<Cursor, NestedError> {
        match self.end.checked_sub(address.0) {
            Some(length) => Cursor::over(address, length),
            None => Err(NestedError::OutOfRange),
        }
    }

    pub(super) fn advance_to(&mut self, next: u64) {
        self.next = next.min(self.end);
    }
}

/// The invalidation a change owes on every processor that may run the domain, before the frames it reported and the retired
/// tables are used again, and before pages are read that were found dirty.
#[must_use = "a flush that is owed must be done"]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// Nothing.
    None,
    /// Translations of guest physical addresses from `start` up to `end`.
    Range {
        /// First byte.
        start: GuestPhysical,
        /// Past the last byte.
        end: GuestPhysical,
    },
}

impl Flush {
    pub(super) fn range(start: u64, end: u64) -> Flush {
        Flush::Range {
            start: GuestPhysical(start),
            end: GuestPhysical(end),
        }
    }

    /// One flush that does for both.
    pub fn and(self, other: Flush) -> Flush {
        match (self, other) {
            (Flush::None, flush) | (flush, Flush::None) => flush,
            (Flush::Range { start: a, end: b }, Flush::Range { start: c, end: d }) => {
                Flush::Range {
                    start: a.min(c),
                    end: b.max(d),
                }
            }
        }
    }

    /// Whether nothing is owed.
    pub fn is_none(self) -> bool {
        self == Flush::None
    }
}

/// One bit for each 4 KiB page of a guest physical range: bit n of word n / 64 is page `first_page + n`.
#[derive(Debug)]
pub struct Bitmap<'a> {
    first_page: u64,
    words: &'a mut [u64],
}

impl<'a> Bitmap<'a> {
    /// A view of `words`, for the pages from `first` on.
    pub fn new(first: GuestPhysical, words: &'a mut [u64]) -> Result<Bitmap<'a>, NestedError> {
        if first.0 & (FRAME_SIZE_BYTES - 1) != 0 {
            return Err(NestedError::Misaligned);
        }
        Ok(Bitmap {
            first_page: first.0 / FRAME_SIZE_BYTES,
            words,
        })
    }

    /// Whether the whole rest of a cursor's range has bits.
    pub(super) fn covers(&self, cursor: &Cursor) -> bool {
        let pages = self.words.len() as u64 * 64;
        cursor.is_done()
            || (cursor.next / FRAME_SIZE_BYTES >= self.first_page
                && cursor.end / FRAME_SIZE_BYTES <= self.first_page.saturating_add(pages))
    }

    /// Sets the bit of the page at an address, if it has one.
    pub fn mark(&mut self, address: GuestPhysical) {
        let bit = (address.0 / FRAME_SIZE_BYTES).checked_sub(self.first_page);
        if let Some(bit) = bit
            && let Some(word) = self.words.get_mut((bit / 64) as usize)
        {
            *word |= 1 << (bit % 64);
        }
    }

    /// Sets the bits of the pages in `start..end`, which must be covered.
    pub(super) fn set(&mut self, start: u64, end: u64) {
        for page in start / FRAME_SIZE_BYTES..end / FRAME_SIZE_BYTES {
            let bit = page - self.first_page;
            self.words[(bit / 64) as usize] |= 1 << (bit % 64);
        }
    }

    /// Address of the first page at or after `from` whose bit is set, below `end`.
    pub(super) fn next_set(&self, from: u64, end: u64) -> Option<u64> {
        let mut bit = from / FRAME_SIZE_BYTES - self.first_page;
        let end_bit = end / FRAME_SIZE_BYTES - self.first_page;
        while bit < end_bit {
            let word = self.words[(bit / 64) as usize] >> (bit % 64);
            if word != 0 {
                bit += u64::from(word.trailing_zeros());
                return (bit < end_bit).then_some((self.first_page + bit) * FRAME_SIZE_BYTES);
            }
            bit = (bit / 64 + 1) * 64;
        }
        None
    }
}
