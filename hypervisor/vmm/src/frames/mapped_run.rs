//! Counting the mappings of many frames in a row: what dom0 maps of a guest is all of it, in the moment in which the guest
//! arrives. Whole blocks are counted without looking for the block of every frame.

use core::ops::DerefMut;

use super::info::Kind;
use super::{Frame, FrameError, FrameInfo, Frames, Owner};

/// Part of a run that lies in one block.
struct Part {
    head: u64,
    order: u8,
    start: u64,
    end: u64,
}

impl Part {
    fn is_whole(&self) -> bool {
        self.start == self.head && self.end == self.head + (1 << self.order)
    }
}

impl<T: DerefMut<Target = [FrameInfo]>> Frames<T> {
    /// As [`Frames::map`] for `count` frames from `start` on: all or none.
    pub fn map_run(&mut self, start: Frame, count: u64, owner: Owner) -> Result<(), FrameError> {
        let end = self.end_of(start, count)?;
        let mut at = start.0;
        while at < end {
            let head = self.head_held_by(Frame(at), owner)?;
            let part = self.part(at, end)?;
            let room = u32::MAX - self.entry(head).previous_or_sum;
            if part.end - part.start > u64::from(room) {
                return Err(FrameError::TooManyMappings);
            }
            at = part.end;
        }
        at = start.0;
        while at < end {
            let part = self.part(at, end)?;
            match part.is_whole() {
                true => self.count_block(&part, |count, more| count + more),
                false => (part.start..part.end).for_each(|frame| {
                    let mapped = self.map(Frame(frame), owner);
                    assert_eq!(mapped, Ok(()), "it was checked");
                }),
            }
            at = part.end;
        }
        Ok(())
    }

    /// As [`Frames::unmap`] for `count` frames from `start` on: all or none. Returns how many frames are free because of it.
    pub fn unmap_run(&mut self, start: Frame, count: u64) -> Result<u64, FrameError> {
        let end = self.end_of(start, count)?;
        let mut at = start.0;
        while at < end {
            let part = self.part(at, end)?;
            if self.entry(part.head).kind == Kind::Free {
                return Err(FrameError::NotAllocated);
            }
            let mut frames = part.start..part.end;
            if frames.any(|frame| self.entry(frame).next_or_maps == 0) {
                return Err(FrameError::NotMapped);
            }
            at = part.end;
        }
        let mut freed = 0;
        at = start.0;
        while at < end {
            let part = self.part(at, end)?;
            match part.is_whole() {
                true => {
                    self.count_block(&part, |count, less| count - less);
                    freed += self.free_if_last(part.head, part.order);
                }
                // A dying block goes with its last mapping, which none before the last of these is.
                false => {
                    for frame in part.start..part.end {
                        let unmapped = self.unmap(Frame(frame));
                        freed += unmapped.expect("it was checked").frames();
                    }
                }
            }
            at = part.end;
        }
        Ok(freed)
    }

    fn end_of(&self, start: Frame, count: u64) -> Result<u64, FrameError> {
        let end = start.0.checked_add(count);
        end.filter(|end| *end <= self.table.len() as u64)
            .ok_or(FrameError::OutOfTable)
    }

    /// What of `at..end` lies in the block that covers `at`.
    fn part(&self, at: u64, end: u64) -> Result<Part, FrameError> {
        let (head, order) = self.head_of(Frame(at)).ok_or(FrameError::NotAllocated)?;
        Ok(Part {
            head,
            order,
            start: at,
            end: end.min(head + (1 << order)),
        })
    }

    /// Changes the counts of all frames of a block by one each, and so the sum of each aligned run in it by its length.
    fn count_block(&mut self, block: &Part, change: impl Fn(u32, u32) -> u32) {
        let entry = self.entry_mut(block.head);
        entry.next_or_maps = change(entry.next_or_maps, 1);
        entry.previous_or_sum = change(entry.previous_or_sum, 1 << block.order);
        for offset in 1..block.end - block.start {
            let entry = self.entry_mut(block.head + offset);
            entry.next_or_maps = change(entry.next_or_maps, 1);
            entry.previous_or_sum = change(entry.previous_or_sum, 1 << offset.trailing_zeros());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frames::{DomainId, Zone};
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const FRAMES: u64 = 512;

    fn owner(number: u16) -> Owner {
        Owner::Domain(DomainId::new(number, 0))
    }

    #[derive(Clone, Debug)]
    enum Op {
        Give(u8, u16),
        Free(u64, u8, u16),
        Map(u64, u64, u16),
        Unmap(u64, u64),
    }

    fn op() -> impl Strategy<Value = Op> {
        let (start, count) = (0..FRAMES, 1u64..130);
        prop_oneof![
            3 => (0u8..7, 1u16..3).prop_map(|(order, who)| Op::Give(order, who)),
            2 => (start.clone(), 0u8..7, 1u16..3).prop_map(|(at, order, who)| {
                Op::Free(at >> order << order, order, who)
            }),
            6 => (start.clone(), count.clone(), 1u16..3).prop_map(|(at, count, who)| Op::Map(at, count, who)),
            6 => (start, count).prop_map(|(at, count)| Op::Unmap(at, count)),
        ]
    }

    type Table = Frames<Vec<FrameInfo>>;

    /// Frame by frame; `None`: one of them could not be.
    fn one_by_one<R>(
        frames: &Table,
        mut each: impl FnMut(&mut Table) -> Result<R, FrameError>,
    ) -> Option<(Table, R)> {
        let mut copy = frames.clone();
        let result = each(&mut copy).ok()?;
        Some((copy, result))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn runs_count_as_their_frames_do_and_whole_or_not_at_all(ops in proptest::collection::vec(op(), 1..60)) {
            let mut frames = Frames::new(vec![FrameInfo::RESERVED; FRAMES as usize]);
            frames.add_region(Frame(1), Frame(FRAMES)).unwrap();
            for op in ops {
                let before = frames.clone();
                match op {
                    Op::Give(order, who) => drop(frames.allocate(order, owner(who), Zone::Any)),
                    Op::Free(at, order, who) => drop(frames.free(Frame(at), order, owner(who))),
                    Op::Map(at, count, who) => {
                        let wanted = one_by_one(&frames, |copy| {
                            (at..at + count).try_for_each(|frame| copy.map(Frame(frame), owner(who)))
                        });
                        let mapped = frames.map_run(Frame(at), count, owner(who));
                        prop_assert_eq!(mapped.is_ok(), wanted.is_some());
                        let (wanted, ()) = wanted.unwrap_or((before, ()));
                        prop_assert_eq!(&frames.table, &wanted.table);
                    }
                    Op::Unmap(at, count) => {
                        let wanted = one_by_one(&frames, |copy| {
                            (at..at + count).try_fold(0, |sum, frame| {
                                copy.unmap(Frame(frame)).map(|unmapped| sum + unmapped.frames())
                            })
                        });
                        let freed = frames.unmap_run(Frame(at), count);
                        prop_assert_eq!(freed.ok(), wanted.as_ref().map(|(_, freed)| *freed));
                        let (wanted, _) = wanted.unwrap_or((before, 0));
                        prop_assert_eq!(&frames.table, &wanted.table);
                        prop_assert_eq!(frames.counts(), wanted.counts());
                    }
                }
            }
        }
    }
}
