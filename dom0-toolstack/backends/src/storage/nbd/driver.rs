//! The task that owns the connection of a disk.
//!
//! ```text
//!   Ready ◀────────▶ Waiting (requests, but silence)
//!     │ broken, or silent for long │
//!     ▼                            ▼
//!   Lost: connect, haggle, compare; again after a pause ──▶ Ready
//! ```

use super::disk::{Link, Shared};
use super::haggle::{self, Export};
use super::queue::Outgoing;
use super::replies::{Event, Replies};
use super::wire::*;
use super::{Connector, Stream, Timer};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

/// From the attempt to connect to the end of the handshake.
pub(super) const CONNECT_MS_MAX: u64 = 10_000;
/// Silence after which a server with requests counts as not answering.
pub(super) const SILENCE_MS: u64 = 3_000;
/// Silence after which its connection is given up for a new one.
pub(super) const DEAD_MS: u64 = 30_000;
/// How long the server may take to hang up after the farewell. Hanging up before it has could lose the
/// farewell itself, and a server that hears nothing keeps the connection for ever.
pub(super) const FAREWELL_MS: u64 = 2_000;
/// Pause before the second attempt to connect; it doubles from then on.
const PAUSE_MS_MIN: u64 = 100;
const PAUSE_MS_MAX: u64 = 5_000;
/// How often silence is looked at.
const TICK_MS: u64 = 1_000;
/// Bytes taken from the stream at once.
const INPUT_BYTES: usize = 64 << 10;
/// Rounds of sending and receiving before others get a turn.
const ROUNDS_MAX: usize = 16;

enum Ended {
    Closed,
    Broken(ProtocolError),
}

/// Connects and haggles, within a time.
pub(super) async fn establish(
    connector: &dyn Connector,
    timer: &dyn Timer,
    export: &str,
) -> Result<(Box<dyn Stream>, Export), ProtocolError> {
    let work = async {
        let connected = connector.connect().await;
        let mut stream = connected.map_err(ProtocolError::Stream)?;
        let facts = haggle::go(&mut *stream, export).await?;
        Ok((stream, facts))
    };
    let mut work = pin!(work);
    let mut limit = timer.sleep(CONNECT_MS_MAX);
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        let late = || Err(ProtocolError::Stream("the server does not answer".into()));
        limit.as_mut().poll(context).map(|()| late())
    })
    .await
}

/// Serves the disk until it is closed.
pub(super) async fn run(shared: Rc<Shared>, first: Box<dyn Stream>) {
    let mut stream = Some(first);
    while let Some(connected) = stream.take() {
        match serve(&shared, connected).await {
            Ended::Closed => break,
            Ended::Broken(why) => stream = again(&shared, why).await,
        }
    }
    shared.closing.set(true);
    *shared.link.borrow_mut() = Link::Closed;
    shared.queue.borrow_mut().close("it was closed");
}

/// Makes the connection anew. `None`: the disk was closed meanwhile.
async fn again(shared: &Shared, why: ProtocolError) -> Option<Box<dyn Stream>> {
    let since_ms = shared.timer.now_ms();
    let mut why = why;
    let mut pause_ms = PAUSE_MS_MIN;
    for attempts in 0.. {
        *shared.link.borrow_mut() = Link::Lost {
            why: why.to_string(),
            since_ms,
            attempts,
        };
        if attempts > 0 {
            let mut pause = shared.timer.sleep(pause_ms);
            poll_fn(|context| {
                if shared.closing.get() {
                    return Poll::Ready(());
                }
                *shared.driver.borrow_mut() = Some(context.waker().clone());
                pause.as_mut().poll(context)
            })
            .await;
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
        if shared.closing.get() {
            return None;
        }
        let opened = establish(&*shared.connector, &*shared.timer, &shared.export).await;
        let same = opened.and_then(|(stream, facts)| {
            compare(shared.facts.get(), facts)?;
            shared.facts.set(facts);
            Ok(stream)
        });
        match same {
            Ok(stream) => {
                *shared.link.borrow_mut() = Link::Ready;
                return Some(stream);
            }
            Err(error) => why = error,
        }
    }
    None
}

/// Whether what we rely on still holds; only the size may grow.
fn compare(old: Export, new: Export) -> Result<(), ProtocolError> {
    let relied_on = FLAG_FLUSH | FLAG_TRIM | FLAG_WRITE_ZEROES;
    let changed = match () {
        () if new.bytes < old.bytes => "size",
        () if new.block_bytes != old.block_bytes => "block size",
        () if new.transfer_bytes_max < old.transfer_bytes_max => "longest request",
        () if (old.flags ^ new.flags) & FLAG_READ_ONLY != 0 => "write protection",
        () if old.flags & !new.flags & relied_on != 0 => "abilities",
        () if !old.flags & new.flags & FLAG_FLUSH != 0 => "need to be flushed",
        () => return Ok(()),
    };
    Err(ProtocolError::Changed(changed))
}

/// One connection, until it breaks or the disk is closed and has nothing outstanding.
async fn serve(shared: &Shared, stream: Box<dyn Stream>) -> Ended {
    shared.queue.borrow_mut().reconnected();
    let mut connection = Connection {
        stream,
        replies: Replies::new(shared.facts.get().structured),
        out: None,
        sent: 0,
        leaving: false,
        input: vec![0; INPUT_BYTES],
        heard_ms: shared.timer.now_ms(),
        tick: None,
    };
    poll_fn(|context| connection.poll(shared, context)).await
}

struct Connection {
    stream: Box<dyn Stream>,
    replies: Replies,
    out: Option<Outgoing>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// The farewell is on its way, or sent: the server is to hang up.
    leaving: bool,
    input: Vec<u8>,
    /// When something was heard, or the first request was sent after all were answered.
    heard_ms: u64,
    tick: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Connection {
    fn poll(&mut self, shared: &Shared, context: &mut Context<'_>) -> Poll<Ended> {
        *shared.driver.borrow_mut() = Some(context.waker().clone());
        for _ in 0..ROUNDS_MAX {
            let round = self.send(shared, context).and_then(|sent| {
                let heard = self.receive(shared, context)?;
                Ok(sent || heard)
            });
            match round {
                Err(_) if self.leaving => return Poll::Ready(Ended::Closed),
                Err(error) => return Poll::Ready(Ended::Broken(error)),
                Ok(true) => {}
                Ok(false) => return self.watch(shared, context),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what can be sent. Whether anything was.
    fn send(&mut self, shared: &Shared, context: &mut Context<'_>) -> Result<bool, ProtocolError> {
        let mut queue = shared.queue.borrow_mut();
        if self.out.is_none() {
            let idle = queue.in_flight() == 0;
            self.out = queue.next_outgoing();
            self.sent = 0;
            if self.out.is_some() && idle {
                self.heard_ms = shared.timer.now_ms();
            }
            let is_over = shared.closing.get() && queue.outstanding() == 0;
            if self.out.is_none() && is_over && !self.leaving {
                self.leaving = true;
                self.heard_ms = shared.timer.now_ms();
                self.out = Some(Outgoing {
                    header: request(0, DISCONNECT, 0, 0, 0),
                    data: None,
                });
            }
        }
        let Some(out) = &self.out else {
            return Ok(false);
        };
        let data = out.data.as_deref().map_or(&[][..], Vec::as_slice);
        let bytes = match self.sent.checked_sub(REQUEST_BYTES) {
            None => &out.header[self.sent..],
            Some(at) => &data[at..],
        };
        let all = REQUEST_BYTES + data.len();
        match self.stream.poll_write(context, bytes) {
            Poll::Pending => Ok(false),
            Poll::Ready(Err(why)) => Err(ProtocolError::Stream(why)),
            Poll::Ready(Ok(0)) => Err(ProtocolError::Closed),
            Poll::Ready(Ok(taken)) => {
                self.sent += taken;
                if self.sent == all {
                    self.out = None;
                }
                Ok(true)
            }
        }
    }

    /// Receives what is there. Whether anything was.
    fn receive(
        &mut self,
        shared: &Shared,
        context: &mut Context<'_>,
    ) -> Result<bool, ProtocolError> {
        let bytes = match self.stream.poll_read(context, &mut self.input) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Err(why)) => return Err(ProtocolError::Stream(why)),
            Poll::Ready(Ok(0)) => return Err(ProtocolError::Closed),
            Poll::Ready(Ok(bytes)) => bytes,
        };
        self.heard_ms = shared.timer.now_ms();
        *shared.link.borrow_mut() = Link::Ready;
        let mut input = &self.input[..bytes];
        let mut queue = shared.queue.borrow_mut();
        let memory = &*shared.memory;
        while let Some(event) = self
            .replies
            .next(&mut input, |cookie| queue.expected(cookie))?
        {
            match event {
                Event::Range {
                    cookie,
                    at,
                    bytes,
                    hole,
                } => queue.range(memory, cookie, (at, bytes, hole))?,
                Event::Bytes { cookie, at, data } => queue.bytes(memory, cookie, at, data),
                // The request is not lost: it is made again on the next connection.
                Event::Error {
                    code: ESHUTDOWN, ..
                } => return Err(ProtocolError::Closed),
                Event::Error {
                    cookie,
                    code,
                    message,
                } => queue.fail(cookie, code, message),
                Event::Done { cookie } => queue.done(cookie)?,
            }
        }
        Ok(true)
    }

    /// Nothing to do but wait: has the server been silent for too long?
    fn watch(&mut self, shared: &Shared, context: &mut Context<'_>) -> Poll<Ended> {
        let outstanding = shared.queue.borrow().in_flight() > 0 || self.out.is_some();
        if !outstanding && !self.leaving {
            self.tick = None;
            return Poll::Pending;
        }
        loop {
            let tick = self.tick.get_or_insert_with(|| shared.timer.sleep(TICK_MS));
            if tick.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.tick = None;
            let silent_ms = shared.timer.now_ms().saturating_sub(self.heard_ms);
            if self.leaving && silent_ms >= FAREWELL_MS {
                return Poll::Ready(Ended::Closed);
            }
            if silent_ms >= DEAD_MS {
                let why = ProtocolError::Stream("the server does not answer".into());
                return Poll::Ready(Ended::Broken(why));
            }
            if silent_ms >= SILENCE_MS {
                *shared.link.borrow_mut() = Link::Waiting {
                    since_ms: self.heard_ms,
                };
            }
        }
    }
}
