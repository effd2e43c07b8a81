//! A link over a link: the handshake run, then records.
//!
//! Invariant: after an error nothing more is sent or believed; every later call gives that error. The
//! peer's close ends only what it sends.

use super::accept::{Hosts, Responder, Sessions};
use super::connect::Initiator;
use super::error::ChannelError;
use super::hello::{Session, Terms};
use super::identity::{Fingerprint, Identity};
use super::records::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES, Records};
use super::{Established, Next, Peer, Random};
use crate::link::{Link, LinkError};
use alloc::string::ToString;
use alloc::vec::Vec;

/// An encrypted link to a proven peer.
pub struct SecureLink<L> {
    link: L,
    records: Records,
    peer: Peer,
    session: Session,
    stream_version: u16,
    /// Bodies as they come, and records as they go.
    sealed: Vec<u8>,
    /// The payload last opened, and what of it has not been read.
    opened: Vec<u8>,
    unread: core::ops::Range<usize>,
    /// The peer has said that nothing more comes from it.
    closed: bool,
    /// Why the link is of no use any more.
    broken: Option<LinkError>,
}

impl<L: Link> SecureLink<L> {
    /// Connects over `link` to the host that `hosts.conf` calls `peer.0` and gives fingerprint `peer.1`.
    pub async fn connect(
        mut link: L,
        identity: &Identity,
        peer: (&str, Fingerprint),
        terms: Terms,
        session: Session,
        random: &mut impl Random,
    ) -> Result<Self, ChannelError> {
        let (mut handshake, first) = Initiator::begin(identity, peer, terms, session, random)?;
        link.write_all(&first).await?;
        let mut bytes = Vec::new();
        loop {
            let within = handshake.ended_within();
            let count = some(&mut link, handshake.wanted(), within, &mut bytes).await?;
            let next = handshake.receive(&bytes[..count]);
            if let Some(outcome) = act(&mut link, next).await? {
                return Ok(Self::over(link, outcome?));
            }
        }
    }

    /// Accepts one of `hosts` over `link`.
    pub async fn accept<H: Hosts>(
        mut link: L,
        identity: &Identity,
        (hosts, sessions): (&H, &Sessions),
        terms: Terms,
        random: &mut impl Random,
    ) -> Result<Self, ChannelError> {
        let mut handshake = Responder::begin(identity, hosts, sessions, terms, random)?;
        let mut bytes = Vec::new();
        loop {
            let within = handshake.ended_within();
            let count = some(&mut link, handshake.wanted(), within, &mut bytes).await?;
            let next = handshake.receive(&bytes[..count]);
            if let Some(outcome) = act(&mut link, next).await? {
                return Ok(Self::over(link, outcome?));
            }
        }
    }

    fn over(link: L, established: Established) -> Self {
        let Established {
            records,
            peer,
            session,
            stream_version,
        } = established;
        Self {
            link,
            records,
            peer,
            session,
            stream_version,
            sealed: Vec::new(),
            opened: Vec::new(),
            unread: 0..0,
            closed: false,
            broken: None,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// What is below.
    #[cfg(test)]
    pub(super) fn link(&self) -> &L {
        &self.link
    }

    /// Which connection of which session this is.
    pub fn session(&self) -> Session {
        self.session
    }

    /// The version of the stream that both know.
    pub fn stream_version(&self) -> u16 {
        self.stream_version
    }

    /// Says that nothing more comes, so that the peer can tell an end from a cut.
    pub async fn close(&mut self) -> Result<(), LinkError> {
        self.send(&[]).await?;
        self.link.flush().await
    }

    async fn send(&mut self, payload: &[u8]) -> Result<(), LinkError> {
        self.sealed.clear();
        self.records.seal(payload, &mut self.sealed);
        let sent = self.link.write_all(&self.sealed).await;
        sent.inspect_err(|error| self.broken = Some(error.clone()))
    }

    /// Takes the next record. `Ok(0)` is the peer's close.
    async fn receive(&mut self) -> Result<usize, ChannelError> {
        let mut header = [0; RECORD_HEADER_BYTES];
        whole(&mut self.link, &mut header, "a record").await?;
        let bytes = self.records.header(&header)?;
        self.sealed.resize(bytes, 0);
        whole(&mut self.link, &mut self.sealed, "a record").await?;
        if self.opened.len() < bytes {
            self.opened.resize(bytes, 0);
        }
        self.records.open(&self.sealed, &mut self.opened)
    }

    fn check(&self) -> Result<(), LinkError> {
        self.broken.clone().map_or(Ok(()), Err)
    }
}

impl<L: Link> Link for SecureLink<L> {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        if self.unread.is_empty() {
            self.check()?;
            if self.closed {
                return Err(LinkError::Closed);
            }
            let received = self.receive().await;
            let bytes = match received {
                Ok(0) => {
                    self.closed = true;
                    return Err(LinkError::Closed);
                }
                Ok(bytes) => Ok(bytes),
                Err(ChannelError::Link(error)) => Err(error),
                Err(error) => Err(LinkError::Failed(error.to_string())),
            };
            self.unread = 0..bytes.inspect_err(|error| self.broken = Some(error.clone()))?;
        }
        let count = out.len().min(self.unread.len());
        let start = self.unread.start;
        out[..count].copy_from_slice(&self.opened[start..start + count]);
        self.unread.start += count;
        Ok(count)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.check()?;
        for payload in bytes.chunks(PAYLOAD_BYTES_MAX) {
            self.send(payload).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.check()?;
        self.link.flush().await
    }
}

/// Reads some octets, at most `wanted`, which is at least one.
async fn some<L: Link>(
    link: &mut L,
    wanted: usize,
    within: &'static str,
    bytes: &mut Vec<u8>,
) -> Result<usize, ChannelError> {
    bytes.resize(wanted, 0);
    match link.read(bytes).await {
        Ok(count) => Ok(count),
        Err(LinkError::Closed) => Err(ChannelError::Truncated(within)),
        Err(error @ LinkError::Failed(_)) => Err(error.into()),
    }
}

async fn whole<L: Link>(
    link: &mut L,
    mut out: &mut [u8],
    within: &'static str,
) -> Result<(), ChannelError> {
    while !out.is_empty() {
        match link.read(out).await {
            Ok(count) => out = &mut out[count..],
            Err(LinkError::Closed) => return Err(ChannelError::Truncated(within)),
            Err(error @ LinkError::Failed(_)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sends what a handshake wants sent. How it ended comes first, if it ended badly.
async fn act<L: Link>(
    link: &mut L,
    next: Next,
) -> Result<Option<Result<Established, ChannelError>>, ChannelError> {
    let Next { send, outcome } = next;
    let sent = match send.is_empty() {
        true => Ok(()),
        false => link.write_all(&send).await,
    };
    match outcome {
        Some(Err(error)) => {
            // Without this the refusal may be lost with the connection.
            if !send.is_empty() && sent.is_ok() {
                let _ = link.flush().await;
            }
            Err(error)
        }
        outcome => {
            sent?;
            Ok(outcome)
        }
    }
}
