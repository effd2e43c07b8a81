//! A conversation with another host: frames both ways over one link, each wait with its limit.
//!
//! Both directions are streams of `godwit_migrate::stream`. One task talks and listens in turn, so the
//! link is handed back and forth between the two halves; a wait that is given up takes it away, and
//! nothing is said any more.

use crate::operate::OperateError;
use crate::operate::save::FRAME_VERSION;
use crate::site::Site;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use godwit_migrate::link::{Link, LinkError};
use godwit_migrate::stream::{
    Frame, FrameKind, Reader, Sink, Source, SourceError, StreamError, Writer,
};

/// Bytes that are gathered before they are sent: frames have small pieces.
const GATHERED_BYTES: usize = 16 << 10;

/// One direction of a link that two share.
struct Half<L> {
    link: Rc<Cell<Option<L>>>,
    gathered: Vec<u8>,
}

/// A conversation.
pub(super) struct Talk<'a, S: Site, L: Link> {
    site: &'a S,
    /// The other host, for messages.
    peer: String,
    link: Rc<Cell<Option<L>>>,
    reader: Option<Reader<Half<L>>>,
    writer: Writer<Half<L>>,
}

impl<L: Link> Half<L> {
    fn take(&self) -> Result<L, String> {
        let link = self.link.take();
        link.ok_or_else(|| "the connection is gone".into())
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut link = self.take()?;
        link.write_all(bytes)
            .await
            .map_err(|error| error.to_string())?;
        self.link.set(Some(link));
        Ok(())
    }

    async fn push(&mut self) -> Result<(), String> {
        let gathered = core::mem::take(&mut self.gathered);
        match gathered.is_empty() {
            true => Ok(()),
            false => self.send(&gathered).await,
        }
    }
}

impl<L: Link> Sink for Half<L> {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        if self.gathered.len() + bytes.len() > GATHERED_BYTES {
            self.push().await?;
        }
        if bytes.len() > GATHERED_BYTES {
            return self.send(bytes).await;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), String> {
        self.push().await?;
        let mut link = self.take()?;
        link.flush().await.map_err(|error| error.to_string())?;
        self.link.set(Some(link));
        Ok(())
    }
}

impl<L: Link> Source for Half<L> {
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError> {
        let mut link = self.take().map_err(SourceError::Failed)?;
        let mut done = 0;
        while done < out.len() {
            done += match link.read(&mut out[done..]).await {
                Ok(count) => count,
                Err(LinkError::Closed) if done == 0 => return Err(SourceError::End),
                Err(error) => return Err(SourceError::Failed(error.to_string())),
            };
        }
        self.link.set(Some(link));
        Ok(())
    }
}

impl<'a, S: Site, L: Link> Talk<'a, S, L> {
    /// Begins to talk with `peer`. Nothing is sent yet.
    pub(super) async fn begin(site: &'a S, link: L, peer: &str) -> Result<Self, OperateError> {
        let link = Rc::new(Cell::new(Some(link)));
        let half = || Half {
            link: Rc::clone(&link),
            gathered: Vec::new(),
        };
        let stream_id = u128::from_le_bytes(site.random()) as u64;
        let writer = Writer::begin(half(), stream_id).await;
        Ok(Self {
            site,
            peer: peer.into(),
            reader: None,
            writer: writer.map_err(OperateError::Other)?,
            link,
        })
    }

    /// Names the other host in an error.
    pub(super) fn trouble(&self, why: &str) -> OperateError {
        OperateError::Other(format!("{}: {why}", self.peer))
    }

    /// The other host, as it was named.
    pub(super) fn peer(&self) -> &str {
        &self.peer
    }

    /// Bytes said so far.
    pub(super) fn bytes(&self) -> u64 {
        self.writer.bytes()
    }

    /// What frames are written with, for who has many.
    pub(super) fn writer(&mut self) -> &mut Writer<impl Sink + use<S, L>> {
        &mut self.writer
    }

    /// Says a frame, which may wait for the next ones.
    pub(super) async fn say(
        &mut self,
        kind: FrameKind,
        pieces: &[&[u8]],
        limit_us: u64,
    ) -> Result<(), OperateError> {
        let said = self.writer.frame(kind, FRAME_VERSION, pieces);
        let said = within(self.site, limit_us, said).await;
        self.outcome(said, limit_us)
    }

    /// Sends what waits.
    pub(super) async fn push(&mut self, limit_us: u64) -> Result<(), OperateError> {
        let pushed = within(self.site, limit_us, self.writer.sink().push()).await;
        self.outcome(pushed, limit_us)
    }

    fn outcome(&self, said: Option<Result<(), String>>, limit_us: u64) -> Result<(), OperateError> {
        match said {
            Some(said) => said.map_err(|why| self.trouble(&why)),
            None => Err(self.late(limit_us)),
        }
    }

    fn late(&self, limit_us: u64) -> OperateError {
        self.trouble(&format!("no answer for {} s", limit_us / 1_000_000))
    }

    /// Sends what waits, then waits for a frame of a kind that must be understood.
    pub(super) async fn hear(&mut self, limit_us: u64) -> Result<Frame, OperateError> {
        self.push(limit_us).await?;
        let (site, link, reader) = (self.site, &self.link, &mut self.reader);
        let heard = within(site, limit_us, next(link, reader)).await;
        match heard {
            Some(Ok(frame)) => Ok(frame),
            Some(Err(error)) => Err(self.trouble(&match error {
                StreamError::NoStream => "it is no Godwit host, or it has hung up".into(),
                StreamError::Truncated(_) => "it has hung up".into(),
                StreamError::Version(_)
                | StreamError::Preamble
                | StreamError::TooLong(_)
                | StreamError::Damaged(_)
                | StreamError::OutOfOrder { .. }
                | StreamError::BadEnd
                | StreamError::AfterEnd
                | StreamError::Source(_) => error.to_string(),
            })),
            None => Err(self.late(limit_us)),
        }
    }

    /// Waits until everything said is there.
    pub(super) async fn finish(mut self, limit_us: u64) -> Result<(), OperateError> {
        let finished = within(self.site, limit_us, self.writer.sink().finish()).await;
        self.outcome(finished, limit_us)
    }
}

async fn next<L: Link>(
    link: &Rc<Cell<Option<L>>>,
    reader: &mut Option<Reader<Half<L>>>,
) -> Result<Frame, StreamError> {
    if reader.is_none() {
        let half = Half {
            link: Rc::clone(link),
            gathered: Vec::new(),
        };
        *reader = Some(Reader::begin(half).await?);
    }
    let reader = reader.as_mut().expect("it was just begun");
    loop {
        let frame = reader.next().await?;
        let frame = frame.ok_or_else(|| StreamError::Source("it has said all it wanted".into()))?;
        if frame.kind.is_optional() {
            continue;
        }
        if frame.version != FRAME_VERSION {
            let what = format!("a {} frame of version {}", frame.kind, frame.version);
            return Err(StreamError::Source(what));
        }
        return Ok(frame);
    }
}

/// What a future gives, unless it takes longer.
pub(super) async fn within<T>(
    site: &impl Site,
    limit_us: u64,
    future: impl Future<Output = T>,
) -> Option<T> {
    let end_us = site.now_us().saturating_add(limit_us);
    let (mut future, mut late) = (pin!(future), pin!(site.sleep_until(end_us)));
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        late.as_mut().poll(context).map(|()| None)
    })
    .await
}
