//! Giving frames to owners, taking them back, and counting who else maps them.

use core::ops::DerefMut;

use super::buddy::aligned_blocks;
use super::info::Kind;
use super::{Frame, FrameError, FrameInfo, Frames, ORDER_MAX, Owner, Zone};

/// What became of frames given up. Deferred ones come back by themselves at their last unmap.
#[must_use]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Frames free now.
    pub now: u64,
    /// Frames that are still mapped, or share a block with one that is: dying.
    pub deferred: u64,
}

/// What an unmap led to.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmapped {
    /// The block stays with its owner, or still has other mappings.
    Kept,
    /// It was the last mapping of a dying block: this many frames are free now.
    Freed(u64),
}

impl Unmapped {
    /// Frames that are free now because of it.
    pub fn frames(self) -> u64 {
        match self {
            Unmapped::Kept => 0,
            Unmapped::Freed(frames) => frames,
        }
    }
}

impl<T: DerefMut<Target = [FrameInfo]>> Frames<T> {
    /// Gives a block of 2^order frames to `owner`, as high in memory as its zone allows.
    pub fn allocate(&mut self, order: u8, owner: Owner, zone: Zone) -> Result<Frame, FrameError> {
        check_owner(owner)?;
        if order > ORDER_MAX {
            return Err(FrameError::BadSize);
        }
        let head = self.take(order, zone).ok_or(FrameError::OutOfMemory)?;
        self.give(head, order, owner);
        Ok(Frame(head))
    }

    /// Gives exactly the frames `start..end`, all of which must be free, to `owner`.
    pub fn allocate_at(
        &mut self,
        start: Frame,
        end: Frame,
        owner: Owner,
    ) -> Result<(), FrameError> {
        check_owner(owner)?;
        if start >= end {
            return Err(FrameError::BadSize);
        }
        if end.0 > self.table.len() as u64 {
            return Err(FrameError::OutOfTable);
        }
        let mut at = start.0;
        while at < end.0 {
            let (head, order) = self.head_of(Frame(at)).ok_or(FrameError::NotFree)?;
            if self.entry(head).kind != Kind::Free {
                return Err(FrameError::NotFree);
            }
            at = head + (1 << order);
        }
        for (block, order) in aligned_blocks(start.0, end.0) {
            // A block that spans several free ones cannot be: they would have been joined.
            self.take_at(block, order).expect("checked to be free");
            self.give(block, order, owner);
        }
        Ok(())
    }

    /// Takes 2^order frames back from `owner`: part of one block given to it, that block, or several. The block a part
    /// is taken from is cut. Mapped blocks become dying and come back at their last unmap.
    pub fn free(&mut self, start: Frame, order: u8, owner: Owner) -> Result<Freed, FrameError> {
        self.check_held(start, order, owner)?;
        let mut freed = Freed::default();
        self.for_each_block(start.0, order, |frames, head, order| {
            let count = 1 << order;
            if frames.entry(head).previous_or_sum == 0 {
                frames.put_back(head, order);
                freed.now += count;
            } else {
                frames.entry_mut(head).dying = true;
                *frames.count_of(owner) -= count;
                frames.counts.dying += count;
                freed.deferred += count;
            }
        });
        Ok(freed)
    }

    /// Hands 2^order unmapped frames from one owner to another.
    pub fn transfer(
        &mut self,
        start: Frame,
        order: u8,
        from: Owner,
        to: Owner,
    ) -> Result<(), FrameError> {
        check_owner(to)?;
        self.check_held(start, order, from)?;
        if self.any_mapped(start.0, order) {
            return Err(FrameError::Mapped);
        }
        self.for_each_block(start.0, order, |frames, head, order| {
            frames
                .entry_mut(head)
                .set_owner(to, order)
                .expect("owner was checked");
        });
        *self.count_of(from) -= 1 << order;
        *self.count_of(to) += 1 << order;
        Ok(())
    }

    /// Counts one foreign mapping of a frame that belongs to `owner`.
    pub fn map(&mut self, frame: Frame, owner: Owner) -> Result<(), FrameError> {
        let head = self.head_held_by(frame, owner)?;
        if self.entry(head).previous_or_sum == u32::MAX {
            return Err(FrameError::TooManyMappings);
        }
        self.entry_mut(frame.0).next_or_maps += 1;
        self.add_to_sums(head, frame.0, |sum| sum + 1);
        Ok(())
    }

    /// Takes one foreign mapping of a frame away, whoever owns it, and frees a dying block with its last one.
    pub fn unmap(&mut self, frame: Frame) -> Result<Unmapped, FrameError> {
        let (head, order) = self.head_of(frame).ok_or(FrameError::NotAllocated)?;
        if self.entry(head).kind == Kind::Free {
            return Err(FrameError::NotAllocated);
        }
        if self.entry(frame.0).next_or_maps == 0 {
            return Err(FrameError::NotMapped);
        }
        self.entry_mut(frame.0).next_or_maps -= 1;
        self.add_to_sums(head, frame.0, |sum| sum - 1);
        match self.free_if_last(head, order) {
            0 => Ok(Unmapped::Kept),
            frames => Ok(Unmapped::Freed(frames)),
        }
    }

    /// Frees a dying block that nobody maps any more. Returns the frames that are free now.
    pub(super) fn free_if_last(&mut self, head: u64, order: u8) -> u64 {
        if !self.entry(head).dying || self.entry(head).previous_or_sum != 0 {
            return 0;
        }
        self.put_back(head, order);
        1 << order
    }

    /// Foreign mappings of one frame.
    pub fn mappings(&self, frame: Frame) -> u32 {
        match self.head_of(frame) {
            Some((head, _)) if self.entry(head).kind != Kind::Free => {
                self.entry(frame.0).next_or_maps
            }
            Some(_) | None => 0,
        }
    }

    /// Writes the owner of a block just taken from the free lists.
    pub(super) fn give(&mut self, head: u64, order: u8, owner: Owner) {
        self.entry_mut(head)
            .set_owner(owner, order)
            .expect("owner was checked");
        self.counts.free -= 1 << order;
        *self.count_of(owner) += 1 << order;
    }

    /// Returns an allocated, unmapped block to the free lists.
    fn put_back(&mut self, head: u64, order: u8) {
        let owner = self.entry(head).owner();
        assert_eq!(
            self.entry(head).previous_or_sum,
            0,
            "freeing a mapped block"
        );
        self.entry_mut(head).clear_head();
        *self.count_of(owner) -= 1 << order;
        self.counts.free += 1 << order;
        self.release(head, order);
    }

    fn count_of(&mut self, owner: Owner) -> &mut u64 {
        match owner {
            Owner::Hypervisor => &mut self.counts.hypervisor,
            Owner::Domain(_) => &mut self.counts.domains,
            Owner::Dying(_) | Owner::DyingHypervisor => &mut self.counts.dying,
            Owner::Free => &mut self.counts.free,
            Owner::Reserved => unreachable!("reserved frames are not counted"),
        }
    }

    /// Head of the living block of `owner` that covers a frame.
    pub(super) fn head_held_by(&self, frame: Frame, owner: Owner) -> Result<u64, FrameError> {
        check_owner(owner)?;
        if frame.0 >= self.table.len() as u64 {
            return Err(FrameError::OutOfTable);
        }
        let (head, _) = self.head_of(frame).ok_or(FrameError::NotAllocated)?;
        match self.entry(head).owner() {
            held if held == owner => Ok(head),
            Owner::Free | Owner::Reserved => Err(FrameError::NotAllocated),
            Owner::Dying(_) | Owner::DyingHypervisor => Err(FrameError::Dying),
            other @ (Owner::Hypervisor | Owner::Domain(_)) => Err(FrameError::NotOwner(other)),
        }
    }

    /// Checks that each frame of an aligned run belongs to `owner`.
    fn check_held(&self, start: Frame, order: u8, owner: Owner) -> Result<(), FrameError> {
        if order > ORDER_MAX {
            return Err(FrameError::BadSize);
        }
        if !start.is_aligned(order) {
            return Err(FrameError::Misaligned);
        }
        if start.0 >= self.table.len() as u64 {
            return Err(FrameError::OutOfTable);
        }
        let mut at = start;
        while at.0 < start.0 + (1 << order) {
            let head = self.head_held_by(at, owner)?;
            at = Frame(head + (1 << self.entry(head).order));
        }
        Ok(())
    }

    fn any_mapped(&self, start: u64, order: u8) -> bool {
        let (head, found) = self.head_of(Frame(start)).expect("run was checked");
        if found > order {
            // Inside a larger block: the entry sums the largest aligned run that starts there, which may be more than
            // was asked for; sum what was asked for from its parts.
            return self.mapped_in_part(head, found, start, order);
        }
        let mut at = start;
        while at < start + (1 << order) {
            let info = self.entry(at);
            if info.previous_or_sum != 0 {
                return true;
            }
            at += 1 << info.order;
        }
        false
    }

    /// Whether the run (start, order) inside the larger block (head, found) has mappings: its sum at the head, less
    /// each upper half that is left on the way down, is exact.
    fn mapped_in_part(&self, head: u64, found: u8, start: u64, order: u8) -> bool {
        let (mut at, mut sum) = (head, self.entry(head).previous_or_sum);
        for half in (order..found).rev() {
            let upper = at + (1 << half);
            let upper_sum = self.entry(upper).previous_or_sum;
            if start < upper {
                sum -= upper_sum;
            } else {
                (at, sum) = (upper, upper_sum);
            }
        }
        sum != 0
    }

    /// Visits the allocated blocks of an aligned run that was checked, cutting the block it is part of.
    fn for_each_block(&mut self, start: u64, order: u8, mut visit: impl FnMut(&mut Self, u64, u8)) {
        self.cut(start, order);
        let mut at = start;
        while at < start + (1 << order) {
            let order = self.entry(at).order;
            visit(self, at, order);
            at += 1 << order;
        }
    }

    /// Halves the allocated block that covers (start, order) until that run is a block of its own, if it was larger.
    fn cut(&mut self, start: u64, order: u8) {
        let (mut head, mut found) = self.head_of(Frame(start)).expect("run was checked");
        while found > order {
            found -= 1;
            let upper = head + (1 << found);
            let lower_info = *self.entry(head);
            let upper_info = *self.entry(upper);
            *self.entry_mut(upper) = FrameInfo {
                order: found,
                next_or_maps: upper_info.next_or_maps,
                previous_or_sum: upper_info.previous_or_sum,
                ..lower_info
            };
            let lower = self.entry_mut(head);
            lower.order = found;
            lower.previous_or_sum -= upper_info.previous_or_sum;
            if start >= upper {
                head = upper;
            }
        }
    }

    /// Changes the sums of all runs inside the block at `head` that contain `frame`.
    fn add_to_sums(&mut self, head: u64, frame: u64, change: impl Fn(u32) -> u32) {
        let mut offset = frame - head;
        loop {
            let entry = self.entry_mut(head + offset);
            entry.previous_or_sum = change(entry.previous_or_sum);
            if offset == 0 {
                return;
            }
            offset &= offset - 1;
        }
    }
}

fn check_owner(owner: Owner) -> Result<(), FrameError> {
    match owner {
        Owner::Hypervisor | Owner::Domain(_) => Ok(()),
        Owner::Reserved | Owner::Free | Owner::Dying(_) | Owner::DyingHypervisor => {
            Err(FrameError::BadOwner)
        }
    }
}
