//! What waits to leave by one port: a queue for each port it came from, served in turn.
//!
//! Fair in bytes by deficit round robin (Shreedhar and Varghese, 1996). When full, the port that
//! has most in it loses its newest frame: who floods drops its own.

use crate::frame::Frame;
use alloc::collections::{BTreeMap, VecDeque};

/// A port of a bridge, by number; numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortNumber(pub u32);

/// What a frame costs beside its bytes, so that short frames are bounded as well.
pub const FRAME_OVERHEAD_BYTES: usize = 256;
/// Bytes a port may send in its turn: one long frame, or many short ones.
const QUANTUM_BYTES: usize = 16 << 10;

#[derive(Default)]
struct Flow {
    frames: VecDeque<Frame>,
    bytes: usize,
    deficit: usize,
}

/// A queue for each source.
pub struct FairQueue {
    flows: BTreeMap<PortNumber, Flow>,
    /// The sources that have something, whose turn it is first.
    turns: VecDeque<PortNumber>,
    bytes: usize,
    limit_bytes: usize,
}

fn cost(frame: &Frame) -> usize {
    frame.bytes.len() + FRAME_OVERHEAD_BYTES
}

impl FairQueue {
    /// An empty queue of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        FairQueue {
            flows: BTreeMap::new(),
            turns: VecDeque::new(),
            bytes: 0,
            limit_bytes,
        }
    }

    /// Puts a frame in. Afterwards [`Self::evict`] is to be called until it gives nothing.
    pub fn push(&mut self, from: PortNumber, frame: Frame) {
        let cost = cost(&frame);
        let flow = self.flows.entry(from).or_default();
        if flow.frames.is_empty() {
            self.turns.push_back(from);
            flow.deficit = QUANTUM_BYTES;
        }
        flow.bytes += cost;
        flow.frames.push_back(frame);
        self.bytes += cost;
    }

    /// While there is too much: takes out the newest frame of the source that has most. Of sources
    /// with equally much, `newest` loses: it was the last to put something in.
    pub fn evict(&mut self, newest: PortNumber) -> Option<(PortNumber, Frame)> {
        if self.bytes <= self.limit_bytes {
            return None;
        }
        let key = |(number, flow): &(&PortNumber, &Flow)| (flow.bytes, **number == newest);
        let victim = *self.flows.iter().max_by_key(key)?.0;
        let flow = self.flows.get_mut(&victim)?;
        let frame = flow.frames.pop_back()?;
        flow.bytes -= cost(&frame);
        self.bytes -= cost(&frame);
        if flow.frames.is_empty() {
            self.remove(victim);
        }
        Some((victim, frame))
    }

    /// The next frame and where it came from.
    pub fn pop(&mut self) -> Option<(PortNumber, Frame)> {
        loop {
            let number = *self.turns.front()?;
            let flow = self.flows.get_mut(&number).expect("has its turn");
            let cost = cost(flow.frames.front().expect("a flow is never empty"));
            if cost > flow.deficit {
                flow.deficit += QUANTUM_BYTES;
                self.turns.rotate_left(1);
                continue;
            }
            flow.deficit -= cost;
            flow.bytes -= cost;
            self.bytes -= cost;
            let frame = flow.frames.pop_front().expect("looked at it");
            if flow.frames.is_empty() {
                self.remove(number);
            }
            return Some((number, frame));
        }
    }

    /// Bytes that wait and came from `from`, with overhead.
    pub fn bytes_from(&self, from: PortNumber) -> usize {
        self.flows.get(&from).map_or(0, |flow| flow.bytes)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    fn remove(&mut self, number: PortNumber) {
        self.flows.remove(&number);
        self.turns.retain(|turn| *turn != number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn frame(bytes: usize) -> Frame {
        Frame {
            bytes: vec![0; bytes],
            ..Frame::default()
        }
    }

    fn put(queue: &mut FairQueue, from: u32, bytes: usize) -> Option<u32> {
        queue.push(PortNumber(from), frame(bytes));
        let mut victim = None;
        while let Some((number, _)) = queue.evict(PortNumber(from)) {
            victim = Some(number.0);
        }
        victim
    }

    #[test]
    fn a_flood_drops_its_own_and_leaves_half_to_another() {
        let mut queue = FairQueue::new(1 << 20);
        while put(&mut queue, 1, 1514).is_none() {}
        let mut sent = 0;
        let loser = loop {
            match put(&mut queue, 2, 1514) {
                None => unreachable!("the queue is full"),
                Some(2) => break 2,
                Some(other) => {
                    assert_eq!(other, 1);
                    sent += 1;
                    assert_eq!(put(&mut queue, 1, 1514), Some(1));
                }
            }
        };
        assert_eq!(loser, 2);
        let share = queue.bytes_from(PortNumber(2));
        assert!(sent > 200 && share > (1 << 19) - 4096, "{sent} {share}");
    }

    #[test]
    fn turns_are_fair_in_bytes_and_keep_the_order_of_each() {
        let mut queue = FairQueue::new(usize::MAX);
        for index in 0..400 {
            put(&mut queue, 1, 1000 + index);
        }
        for index in 0..20 {
            put(&mut queue, 2, 20_000 + index);
        }
        let (mut bytes, mut last) = ([0usize; 3], [0usize; 3]);
        while queue.bytes_from(PortNumber(1)) > 0 && queue.bytes_from(PortNumber(2)) > 0 {
            let (number, frame) = queue.pop().unwrap();
            let number = number.0 as usize;
            bytes[number] += cost(&frame);
            assert!(frame.bytes.len() > last[number]);
            last[number] = frame.bytes.len();
            assert!(
                bytes[1].abs_diff(bytes[2]) <= 2 * (QUANTUM_BYTES + 65_536),
                "{bytes:?}"
            );
        }
        while queue.pop().is_some() {}
        assert!(queue.is_empty() && queue.bytes == 0 && queue.flows.is_empty());
    }
}
