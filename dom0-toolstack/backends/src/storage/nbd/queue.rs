//! What is outstanding at a server, and what must be written again should it die: pure.
//!
//! Invariant, on which flushes rest: on every connection, each write that was answered but not
//! flushed on an earlier one is written (and flushed) again before anything else is sent. So a
//! flush that is answered covers all writes answered before it was *sent*, whatever connection
//! they were first answered on.
//!
//! ```text
//!   caller ──▶ unsent ──▶ sent ──▶ answered ──▶ log (writes) ──▶ flushed: forgotten
//!                ▲          │                     │
//!                └──────────┴── new connection ◀──┘  log first, one by one, then a flush
//! ```

use super::replies::Expected;
use super::wire::*;
use crate::disk::DiskError;
use crate::memory::{Memory, Span};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::Waker;

/// Most bytes of written data that are kept: unanswered, or not flushed yet. Further writes wait.
pub(super) const WRITE_BYTES_MAX: usize = 16 << 20;
/// What a logged request costs beside its data.
const ENTRY_BYTES: usize = 128;
/// Most pieces apart from each other in which the data of a read may come.
const RANGES_MAX: usize = 1024;
/// Most requests at the server at once.
const IN_FLIGHT_MAX: usize = 64;

/// A request as its caller made it; bytes of the export.
#[derive(Clone)]
pub(super) enum Work {
    Read {
        offset: u64,
        bytes: u32,
        into: Vec<Span>,
    },
    Write {
        offset: u64,
        data: Rc<Vec<u8>>,
    },
    Zeroes {
        offset: u64,
        bytes: u32,
        may_discard: bool,
    },
    Trim {
        offset: u64,
        bytes: u32,
    },
    Flush,
}

impl Work {
    /// Bytes it holds until it is flushed.
    fn cost(&self) -> usize {
        match self {
            Work::Read { .. } | Work::Flush => 0,
            Work::Write { data, .. } => ENTRY_BYTES + data.len(),
            Work::Zeroes { .. } | Work::Trim { .. } => ENTRY_BYTES,
        }
    }
}

/// Where the result of a request arrives.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) result: RefCell<Option<Result<(), DiskError>>>,
    pub(super) waker: RefCell<Option<Waker>>,
    /// Nobody waits any more, and the memory of a read is not to be touched.
    pub(super) abandoned: Cell<bool>,
}

/// On whose behalf a request was made.
enum Role {
    Caller(Rc<Answer>),
    /// A logged write on a new connection.
    Replay,
    /// The flush behind those.
    ReplayFlush,
    /// A flush to make room in the log.
    OwnFlush,
}

struct Entry {
    work: Work,
    role: Role,
    /// Ranges of a read that have come, sorted, apart.
    received: Vec<(u32, u32)>,
    error: Option<DiskError>,
    /// Of a flush: the log up to here.
    covers: u64,
}

struct Logged {
    sequence: u64,
    work: Work,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Entry of the log that is written again next.
    Replay(usize),
    ReplayFlush,
    Ready,
}

/// What goes over the wire next.
pub(super) struct Outgoing {
    pub(super) header: [u8; REQUEST_BYTES],
    pub(super) data: Option<Rc<Vec<u8>>>,
}

/// All requests of a disk.
pub(super) struct Queue {
    entries: BTreeMap<u64, Entry>,
    unsent: VecDeque<u64>,
    next_cookie: u64,
    in_flight: usize,
    log: VecDeque<Logged>,
    next_sequence: u64,
    held_bytes: usize,
    phase: Phase,
    /// Answered writes are kept until they are flushed.
    keeps_log: bool,
    own_flush: bool,
    wants_flush: bool,
    /// What went wrong with writes already answered: told by the next flush.
    lost: Option<DiskError>,
    /// Writers that wait for room.
    waiting: Vec<Waker>,
}

impl Queue {
    pub(super) fn new(keeps_log: bool) -> Queue {
        Queue {
            entries: BTreeMap::new(),
            unsent: VecDeque::new(),
            next_cookie: 1,
            in_flight: 0,
            log: VecDeque::new(),
            next_sequence: 0,
            held_bytes: 0,
            phase: Phase::Ready,
            keeps_log,
            own_flush: false,
            wants_flush: false,
            lost: None,
            waiting: Vec::new(),
        }
    }

    /// Requests that were not answered yet.
    pub(super) fn outstanding(&self) -> usize {
        self.entries.len()
    }

    /// Requests at the server.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether a write of `bytes` may come in; otherwise `waker` is woken when to ask again.
    pub(super) fn admits(&mut self, bytes: usize, waker: &Waker) -> bool {
        if self.held_bytes == 0 || self.held_bytes + bytes + ENTRY_BYTES <= WRITE_BYTES_MAX {
            return true;
        }
        self.wants_flush |= !self.log.is_empty();
        self.waiting.push(waker.clone());
        false
    }

    pub(super) fn submit(&mut self, work: Work, answer: Rc<Answer>) {
        self.held_bytes += work.cost();
        let cookie = self.insert(work, Role::Caller(answer));
        self.unsent.push_back(cookie);
    }

    fn insert(&mut self, work: Work, role: Role) -> u64 {
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let entry = Entry {
            work,
            role,
            received: Vec::new(),
            error: None,
            covers: 0,
        };
        self.entries.insert(cookie, entry);
        cookie
    }

    /// A new connection: nothing has been sent on it.
    pub(super) fn reconnected(&mut self) {
        self.entries
            .retain(|_, entry| matches!(entry.role, Role::Caller(_)));
        for entry in self.entries.values_mut() {
            entry.received.clear();
            entry.error = None;
        }
        self.unsent = self.entries.keys().copied().collect();
        self.in_flight = 0;
        self.own_flush = false;
        self.phase = match self.log.is_empty() {
            true => Phase::Ready,
            false => Phase::Replay(0),
        };
    }

    /// The next request to send, if any may be sent now.
    pub(super) fn next_outgoing(&mut self) -> Option<Outgoing> {
        let cookie = match self.phase {
            Phase::Replay(_) if self.in_flight > 0 => return None,
            Phase::Replay(index) => match self.log.get(index) {
                Some(logged) => {
                    let work = logged.work.clone();
                    self.insert(work, Role::Replay)
                }
                None => {
                    self.phase = Phase::ReplayFlush;
                    self.insert(Work::Flush, Role::ReplayFlush)
                }
            },
            Phase::ReplayFlush => return None,
            Phase::Ready if self.in_flight >= IN_FLIGHT_MAX => return None,
            Phase::Ready if self.wants_flush && !self.own_flush => {
                self.wants_flush = false;
                self.own_flush = true;
                self.insert(Work::Flush, Role::OwnFlush)
            }
            Phase::Ready => self.unsent.pop_front()?,
        };
        self.in_flight += 1;
        let covers = self.next_sequence;
        let entry = self.entries.get_mut(&cookie).expect("an unsent request");
        entry.covers = covers;
        Some(outgoing(cookie, &entry.work))
    }

    /// What the request with this cookie may be answered with.
    pub(super) fn expected(&self, cookie: u64) -> Option<Expected> {
        Some(match self.entries.get(&cookie)?.work {
            Work::Read { offset, bytes, .. } => Expected::Data { offset, bytes },
            Work::Write { .. } | Work::Zeroes { .. } | Work::Trim { .. } | Work::Flush => {
                Expected::Nothing
            }
        })
    }

    /// A range of a read is coming; each byte comes once.
    pub(super) fn range(
        &mut self,
        memory: &dyn Memory,
        cookie: u64,
        (at, bytes, hole): (u32, u32, bool),
    ) -> Result<(), ProtocolError> {
        let entry = self.entries.get_mut(&cookie);
        let entry = entry.ok_or(ProtocolError::UnknownCookie(cookie))?;
        let end = at + bytes;
        let place = entry.received.partition_point(|range| range.0 < at);
        let before = place.checked_sub(1).map(|before| entry.received[before]);
        let overlaps = before.is_some_and(|range| range.1 > at)
            || entry.received.get(place).is_some_and(|range| range.0 < end);
        if overlaps {
            return Err(ProtocolError::UnaskedData);
        }
        let after = entry.received.get(place).copied();
        match (before, after) {
            (Some((from, until)), Some((next, to))) if until == at && end == next => {
                entry.received[place - 1] = (from, to);
                entry.received.remove(place);
            }
            (Some((_, until)), _) if until == at => entry.received[place - 1].1 = end,
            (_, Some((next, _))) if end == next => entry.received[place].0 = at,
            (_, _) if entry.received.len() < RANGES_MAX => {
                entry.received.insert(place, (at, end));
            }
            (_, _) => return Err(ProtocolError::TooMany),
        }
        if hole {
            let zeroes = vec![0; 4096];
            let mut from = at;
            while from < end {
                let piece = zeroes.len().min((end - from) as usize);
                self.bytes(memory, cookie, from, &zeroes[..piece]);
                from += piece as u32;
            }
        }
        Ok(())
    }

    /// Bytes of a read, `at` from its start: into the caller's memory.
    pub(super) fn bytes(&self, memory: &dyn Memory, cookie: u64, at: u32, data: &[u8]) {
        let Some(Entry {
            work: Work::Read { into, .. },
            role: Role::Caller(answer),
            ..
        }) = self.entries.get(&cookie)
        else {
            return;
        };
        if answer.abandoned.get() {
            return;
        }
        let (mut skip, mut data) = (at as usize, data);
        for span in into {
            let length = span.bytes as usize;
            if skip >= length {
                skip -= length;
                continue;
            }
            let (piece, rest) = data.split_at(data.len().min(length - skip));
            memory.write(span.address + skip as u64, piece);
            (skip, data) = (0, rest);
            if data.is_empty() {
                return;
            }
        }
    }

    /// The server says that a request has failed.
    pub(super) fn fail(&mut self, cookie: u64, code: u32, message: String) {
        let error = match code {
            EPERM => DiskError::ReadOnly,
            ENOSPC => DiskError::NoSpace,
            code if message.is_empty() => {
                DiskError::Failed(alloc::format!("the NBD server says error {code}"))
            }
            code => DiskError::Failed(alloc::format!("the NBD server says: {message} ({code})")),
        };
        if let Some(entry) = self.entries.get_mut(&cookie) {
            entry.error.get_or_insert(error);
        }
    }

    /// The server is done with a request.
    pub(super) fn done(&mut self, cookie: u64) -> Result<(), ProtocolError> {
        let entry = self.entries.remove(&cookie);
        let entry = entry.ok_or(ProtocolError::UnknownCookie(cookie))?;
        if let (Work::Read { bytes, .. }, None) = (&entry.work, &entry.error)
            && entry.received != [(0, *bytes)]
        {
            // It is asked for again on the next connection.
            self.entries.insert(cookie, entry);
            return Err(ProtocolError::DataMissing);
        }
        self.in_flight -= 1;
        match entry.role {
            Role::Caller(answer) => {
                let result = self.settle(entry.work, entry.error, entry.covers);
                deliver(&answer, result);
            }
            Role::Replay => {
                self.lost = self.lost.take().or(entry.error);
                if let Phase::Replay(index) = self.phase {
                    self.phase = Phase::Replay(index + 1);
                }
            }
            Role::ReplayFlush => {
                self.phase = Phase::Ready;
                self.flushed(entry.covers, entry.error);
            }
            Role::OwnFlush => {
                self.own_flush = false;
                self.flushed(entry.covers, entry.error);
            }
        }
        Ok(())
    }

    /// A caller's request was answered.
    fn settle(
        &mut self,
        work: Work,
        error: Option<DiskError>,
        covers: u64,
    ) -> Result<(), DiskError> {
        match (&work, error) {
            (Work::Flush, None) => {
                self.flushed(covers, None);
                self.lost.take().map_or(Ok(()), Err)
            }
            (_, Some(error)) => {
                self.release(work.cost());
                Err(error)
            }
            (Work::Read { .. }, None) => Ok(()),
            (Work::Write { .. } | Work::Zeroes { .. } | Work::Trim { .. }, None) => {
                if self.keeps_log {
                    let sequence = self.next_sequence;
                    self.next_sequence += 1;
                    self.log.push_back(Logged { sequence, work });
                    self.wants_flush |= self.held_bytes > WRITE_BYTES_MAX / 2;
                } else {
                    self.release(work.cost());
                }
                Ok(())
            }
        }
    }

    /// The log up to `covers` need not be kept; after an error the next flush tells of it.
    fn flushed(&mut self, covers: u64, error: Option<DiskError>) {
        self.lost = self.lost.take().or(error);
        while let Some(logged) = self.log.front()
            && logged.sequence < covers
        {
            let cost = logged.work.cost();
            self.log.pop_front();
            self.release(cost);
        }
    }

    fn release(&mut self, bytes: usize) {
        self.held_bytes -= bytes;
        self.waiting.drain(..).for_each(Waker::wake);
    }

    /// Ends every request: the disk is closed.
    pub(super) fn close(&mut self, why: &str) {
        for (_, entry) in core::mem::take(&mut self.entries) {
            if let Role::Caller(answer) = entry.role {
                deliver(&answer, Err(DiskError::Gone(why.into())));
            }
        }
        self.unsent.clear();
        self.in_flight = 0;
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

fn deliver(answer: &Answer, result: Result<(), DiskError>) {
    *answer.result.borrow_mut() = Some(result);
    if let Some(waker) = answer.waker.borrow_mut().take() {
        waker.wake();
    }
}

fn outgoing(cookie: u64, work: &Work) -> Outgoing {
    let (flags, command, offset, bytes, data) = match work {
        Work::Read { offset, bytes, .. } => (0, READ, *offset, *bytes, None),
        Work::Write { offset, data } => {
            (0, WRITE, *offset, data.len() as u32, Some(Rc::clone(data)))
        }
        Work::Zeroes {
            offset,
            bytes,
            may_discard,
        } => {
            let flags = if *may_discard { 0 } else { NO_HOLE };
            (flags, WRITE_ZEROES, *offset, *bytes, None)
        }
        Work::Trim { offset, bytes } => (0, TRIM, *offset, *bytes, None),
        Work::Flush => (0, FLUSH, 0, 0, None),
    };
    Outgoing {
        header: request(flags, command, cookie, offset, bytes),
        data,
    }
}
