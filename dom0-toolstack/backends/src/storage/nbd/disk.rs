//! An NBD export as a disk.

use super::driver;
use super::haggle::Export;
use super::queue::{Answer, Queue, Work};
use super::wire::*;
use super::{Connector, Stream, Timer};
use crate::disk::{Disk, DiskError, Geometry, Pending};
use crate::memory::{Memory, Span};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Poll, Waker};

/// Most bytes of one read or write, where the server allows as much.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// Most bytes of one request to trim or zero: their length is a u32.
const RANGE_BYTES_MAX: u64 = 1 << 30;

/// How the connection is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Requests are answered.
    Ready,
    /// The server has requests and is silent.
    Waiting {
        /// Since when, by the timer's clock.
        since_ms: u64,
    },
    /// There is no connection; it is tried again and again.
    Lost {
        /// The last error, in words.
        why: String,
        /// Since when, by the timer's clock.
        since_ms: u64,
        /// Attempts to connect since.
        attempts: u32,
    },
    /// The disk was closed.
    Closed,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Link::Ready => f.write_str("connected"),
            Link::Waiting { since_ms: _ } => f.write_str("the server does not answer"),
            Link::Lost { why, attempts, .. } => {
                write!(f, "no connection ({attempts} attempts): {why}")
            }
            Link::Closed => f.write_str("closed"),
        }
    }
}

/// What the disk and its driver share.
pub(super) struct Shared {
    pub(super) connector: Rc<dyn Connector>,
    pub(super) timer: Rc<dyn Timer>,
    pub(super) memory: Rc<dyn Memory>,
    pub(super) export: String,
    /// As the server said it last.
    pub(super) facts: Cell<Export>,
    pub(super) link: RefCell<Link>,
    pub(super) queue: RefCell<Queue>,
    pub(super) closing: Cell<bool>,
    pub(super) driver: RefCell<Option<Waker>>,
}

impl Shared {
    pub(super) fn wake_driver(&self) {
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// The task behind a disk: to be polled until it ends, which is after the disk was closed.
pub type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// The disk. Dropping it closes it.
pub struct NbdDisk {
    shared: Rc<Shared>,
}

impl NbdDisk {
    /// Connects to a server and opens an export; an error here is told, not retried. What comes
    /// with the disk must be polled for anything to happen.
    pub async fn connect(
        connector: Rc<dyn Connector>,
        timer: Rc<dyn Timer>,
        memory: Rc<dyn Memory>,
        export: &str,
    ) -> Result<(Rc<NbdDisk>, Driver), ProtocolError> {
        let opened = driver::establish(&*connector, &*timer, export);
        let (stream, facts): (Box<dyn Stream>, Export) = opened.await?;
        let shared = Rc::new(Shared {
            connector,
            timer,
            memory,
            export: export.to_string(),
            facts: Cell::new(facts),
            link: RefCell::new(Link::Ready),
            queue: RefCell::new(Queue::new(facts.flags & FLAG_FLUSH != 0)),
            closing: Cell::new(false),
            driver: RefCell::new(None),
        });
        let run = driver::run(Rc::clone(&shared), stream);
        Ok((Rc::new(NbdDisk { shared }), Box::pin(run)))
    }

    /// How the connection is.
    pub fn link(&self) -> Link {
        self.shared.link.borrow().clone()
    }

    /// Requests that were not answered yet.
    pub fn outstanding(&self) -> usize {
        self.shared.queue.borrow().outstanding()
    }

    /// Takes leave of the server once all requests are answered; without a connection at once,
    /// and then requests fail. Nothing can be asked any more.
    pub fn close(&self) {
        self.shared.closing.set(true);
        self.shared.wake_driver();
    }

    fn has(&self, flag: u16) -> bool {
        self.shared.facts.get().flags & flag != 0
    }

    /// The byte range of blocks, all of which must be there.
    fn range(&self, block: u64, bytes: u64) -> Result<u64, DiskError> {
        let geometry = self.geometry();
        let size = u64::from(geometry.block_bytes);
        let offset = block.checked_mul(size).ok_or(DiskError::OutOfRange)?;
        let end = offset.checked_add(bytes).ok_or(DiskError::OutOfRange)?;
        if end > geometry.bytes() || !bytes.is_multiple_of(size) {
            return Err(DiskError::OutOfRange);
        }
        Ok(offset)
    }

    fn spans(&self, block: u64, spans: &[Span]) -> Result<(u64, u32), DiskError> {
        let bytes = spans.iter().map(|span| u64::from(span.bytes)).sum();
        let offset = self.range(block, bytes)?;
        if bytes > u64::from(self.geometry().transfer_bytes_max) {
            return Err(DiskError::OutOfRange);
        }
        Ok((offset, bytes as u32))
    }

    fn writable(&self) -> Result<(), DiskError> {
        match self.has(FLAG_READ_ONLY) {
            true => Err(DiskError::ReadOnly),
            false => Ok(()),
        }
    }

    /// Waits until a write of so many bytes may be held.
    async fn admit(&self, bytes: usize) -> Result<(), DiskError> {
        poll_fn(|context| {
            let mut queue = self.shared.queue.borrow_mut();
            if self.shared.closing.get() || queue.admits(bytes, context.waker()) {
                return Poll::Ready(());
            }
            drop(queue);
            self.shared.wake_driver();
            Poll::Pending
        })
        .await;
        Ok(())
    }

    async fn ask(&self, work: Work) -> Result<(), DiskError> {
        if self.shared.closing.get() {
            return Err(DiskError::Gone("it was closed".to_string()));
        }
        let answer = Rc::new(Answer::default());
        let _abandoned = Abandon(Rc::clone(&answer));
        let submitted = Rc::clone(&answer);
        self.shared.queue.borrow_mut().submit(work, submitted);
        self.shared.wake_driver();
        poll_fn(|context| match answer.result.borrow_mut().take() {
            Some(result) => Poll::Ready(result),
            None => {
                *answer.waker.borrow_mut() = Some(context.waker().clone());
                Poll::Pending
            }
        })
        .await
    }

    /// Does `work` for a range, in requests that are not too long.
    async fn ranges(
        &self,
        block: u64,
        blocks: u64,
        work: impl Fn(u64, u32) -> Work,
    ) -> Result<(), DiskError> {
        self.writable()?;
        let size = u64::from(self.geometry().block_bytes);
        let bytes = blocks.checked_mul(size).ok_or(DiskError::OutOfRange)?;
        let mut at = self.range(block, bytes)?;
        let end = at + bytes;
        while at < end {
            let piece = RANGE_BYTES_MAX.min(end - at);
            self.admit(0).await?;
            self.ask(work(at, piece as u32)).await?;
            at += piece;
        }
        Ok(())
    }
}

impl Drop for NbdDisk {
    fn drop(&mut self) {
        self.close();
    }
}

/// Says that nobody waits for an answer any more.
struct Abandon(Rc<Answer>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandoned.set(true);
    }
}

impl Disk for NbdDisk {
    fn geometry(&self) -> Geometry {
        let facts = self.shared.facts.get();
        let has = |flag| facts.flags & flag != 0;
        Geometry {
            // What is left behind the last whole block cannot be reached.
            blocks: facts.bytes / u64::from(facts.block_bytes),
            block_bytes: facts.block_bytes,
            read_only: has(FLAG_READ_ONLY),
            needs_flush: has(FLAG_FLUSH),
            can_discard: has(FLAG_TRIM),
            can_write_zeroes: has(FLAG_WRITE_ZEROES),
            transfer_bytes_max: facts.transfer_bytes_max.min(TRANSFER_BYTES_MAX),
        }
    }

    fn read<'a>(&'a self, block: u64, into: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            let (offset, bytes) = self.spans(block, into)?;
            if bytes == 0 {
                return Ok(());
            }
            let into = into.to_vec();
            self.ask(Work::Read {
                offset,
                bytes,
                into,
            })
            .await
        })
    }

    fn write<'a>(&'a self, block: u64, from: &'a [Span]) -> Pending<'a> {
        Box::pin(async move {
            self.writable()?;
            let (offset, bytes) = self.spans(block, from)?;
            if bytes == 0 {
                return Ok(());
            }
            self.admit(bytes as usize).await?;
            let mut data = vec![0; bytes as usize];
            let mut rest = data.as_mut_slice();
            for span in from {
                let (piece, more) = rest.split_at_mut(span.bytes as usize);
                self.shared.memory.read(span.address, piece);
                rest = more;
            }
            let data = Rc::new(data);
            self.ask(Work::Write { offset, data }).await
        })
    }

    fn flush(&self) -> Pending<'_> {
        Box::pin(async move {
            match self.has(FLAG_FLUSH) {
                true => self.ask(Work::Flush).await,
                // What such a server has answered, it has written.
                false => Ok(()),
            }
        })
    }

    fn discard(&self, block: u64, blocks: u64) -> Pending<'_> {
        Box::pin(async move {
            if !self.has(FLAG_TRIM) {
                return Ok(());
            }
            let trim = |offset, bytes| Work::Trim { offset, bytes };
            self.ranges(block, blocks, trim).await
        })
    }

    fn write_zeroes(&self, block: u64, blocks: u64, may_discard: bool) -> Pending<'_> {
        Box::pin(async move {
            if !self.has(FLAG_WRITE_ZEROES) {
                return Err(DiskError::Unsupported);
            }
            let zeroes = |offset, bytes| Work::Zeroes {
                offset,
                bytes,
                may_discard,
            };
            self.ranges(block, blocks, zeroes).await
        })
    }
}
