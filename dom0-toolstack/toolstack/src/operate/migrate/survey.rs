//! Asking another host whether it would take a domain, without giving it: the check of `xl migrate
//! --dry-run`, and of a move that the source itself objects to, so that all objections are told at once.
//!
//! ```text
//!   source                                            destination
//!   hello (check), note, CPU, offer   ------------->  check everything, make nothing
//!                                     <-------------  accepted, or every reason against it
//!   clock, probe, as often as wanted  <------------>  clock, bytes taken
//!   (hangs up)
//! ```

use super::check::Readiness;
use super::destination::{Offer, hear_offer, reason, unexpected};
use super::hello::{Hello, Purpose};
use super::localhost::LOCALHOST;
use super::objection::{Cause, Objection, refuse};
use super::source::hear_hello;
use super::talk::{Talk, within};
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, Peers, WORK_LIMIT_US};
use crate::operate::{OperateError, Toolstack};
use crate::registry::{Arrival, Entry, Phase};
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::DomainId;
use godwit_migrate::handover::{Ask, Attempt, MESSAGE_BYTES, Reply, Request, Tell};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

/// What the other host said.
pub(super) struct Survey<'a, S: Site, L: Link> {
    /// The conversation, to go on with: clocks and probes.
    pub(super) talk: Talk<'a, S, L>,
    /// What it says of itself when it would take the domain.
    pub(super) verdict: Result<Readiness, Vec<String>>,
}

impl<S: Site> Toolstack<S> {
    /// Connects to a host, in bounded time.
    pub(super) async fn dialled<P: Peers>(
        &self,
        peers: &P,
        peer: &str,
    ) -> Result<P::Link, OperateError> {
        match within(&self.site, ANSWER_LIMIT_US, peers.dial(peer)).await {
            Some(link) => link.map_err(OperateError::Other),
            None => Err(OperateError::Other(format!("{peer} does not answer"))),
        }
    }

    /// Asks `peer` whether it would take a domain. The error: there was no answer.
    pub(super) async fn survey<P: Peers>(
        &self,
        peers: &P,
        peer: &str,
        domain: DomainId,
        entry: &Entry,
    ) -> Result<Survey<'_, S, P::Link>, OperateError> {
        let link = self.dialled(peers, peer).await?;
        let mut talk = Talk::begin(&self.site, link, peer).await?;
        let mine = self.hello(Purpose::Check, false)?;
        let said = mine.encode();
        talk.say(FrameKind::HELLO, &[said.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        let hello = hear_hello(&mut talk).await?;
        if hello.boot == mine.boot && peer != LOCALHOST {
            let verdict = Err(alloc::vec![itself(peer).to_string()]);
            return Ok(Survey { talk, verdict });
        }
        let attempt = Attempt(u128::from_le_bytes(self.site.random()) as u64);
        let offered = Entry {
            phase: Phase::Building,
            arrival: Some(Arrival {
                attempt: attempt.0,
                runs: false,
            }),
            ..entry.clone()
        };
        let note = offered.encode();
        talk.say(
            FrameKind::CONFIGURATION,
            &[note.as_bytes()],
            ANSWER_LIMIT_US,
        )
        .await?;
        let cpu = self.cpu_record(domain)?;
        talk.say(FrameKind::CPU, &[&cpu], ANSWER_LIMIT_US).await?;
        let offer = Request {
            attempt,
            boot: None,
            ask: Ask::Offer,
        };
        talk.say(FrameKind::REQUEST, &[&offer.encode()], ANSWER_LIMIT_US)
            .await?;
        let frame = talk.hear(WORK_LIMIT_US).await?;
        let reply = frame.body.get(..MESSAGE_BYTES).and_then(Reply::decode);
        let told = reply
            .filter(|reply| reply.attempt == attempt)
            .map(|it| it.tell);
        let verdict = match (frame.kind, told) {
            (FrameKind::REPLY, Some(Tell::Accepted)) => Ok(Readiness::decode(&reason(&frame.body))),
            (FrameKind::REFUSAL, Some(Tell::Refused)) => {
                let why = reason(&frame.body);
                Err(why.lines().map(|line| format!("{peer}: {line}")).collect())
            }
            (_, _) => return Err(unexpected(&talk, &frame)),
        };
        Ok(Survey { talk, verdict })
    }

    /// Refuses a move that `own` objections speak against, with what the other host objects to as well.
    pub(super) async fn refuse_with_theirs<P: Peers>(
        &self,
        peers: &P,
        peer: &str,
        domain: DomainId,
        own: &[Objection],
    ) -> OperateError {
        let mut lines = alloc::vec![refuse(own).to_string()];
        match self.registry.entry(domain) {
            Some(entry) => match self.survey(peers, peer, domain, &entry).await {
                Ok(Survey { talk, verdict }) => {
                    lines.extend(verdict.err().unwrap_or_default());
                    let _ = talk.finish(FAREWELL_LIMIT_US).await;
                }
                Err(error) => lines.push(error.to_string()),
            },
            None => lines.push(OperateError::Foreign(domain).to_string()),
        }
        OperateError::Other(lines.join("\n"))
    }

    /// The other side: checks, and answers until the asker hangs up.
    pub(super) async fn examine<L: Link>(
        &self,
        mut talk: Talk<'_, S, L>,
        hello: &Hello,
        is_local: bool,
    ) -> Result<(), OperateError> {
        let Offer {
            entry,
            cpu,
            request: offer,
            ..
        } = hear_offer(&mut talk).await?;
        let original = match is_local {
            true => Some(self.original(&entry.config)?),
            false => None,
        };
        let looked = self.object_to_arrival(hello, &entry, &cpu, original);
        let (all, readiness) = looked.await?;
        let (kind, tell, text) = match all.is_empty() {
            true => (FrameKind::REPLY, Tell::Accepted, readiness.encode()),
            false => (FrameKind::REFUSAL, Tell::Refused, refuse(&all).to_string()),
        };
        let reply = Reply {
            attempt: offer.attempt,
            boot: self.boot()?,
            tell,
        };
        talk.say(kind, &[&reply.encode(), text.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        loop {
            // Who has asked enough hangs up.
            let Ok(frame) = talk.hear(ANSWER_LIMIT_US).await else {
                return Ok(());
            };
            answer(&self.site, &mut talk, &frame).await?;
        }
    }
}

/// Answers a CLOCK or a PROBE.
pub(super) async fn answer<S: Site, L: Link>(
    site: &S,
    talk: &mut Talk<'_, S, L>,
    frame: &Frame,
) -> Result<(), OperateError> {
    let here = site.now_us().to_le_bytes();
    let taken = (frame.body.len() as u64).to_le_bytes();
    let pieces: [&[u8]; 2] = match frame.kind {
        FrameKind::CLOCK if frame.body.len() == here.len() => [&frame.body, &here],
        FrameKind::PROBE => [&taken, &[]],
        _ => return Err(unexpected(talk, frame)),
    };
    talk.say(frame.kind, &pieces, ANSWER_LIMIT_US).await?;
    talk.push(ANSWER_LIMIT_US).await
}

/// The other host is this one.
pub(super) fn itself(peer: &str) -> Objection {
    let what = format!(
        "{peer} is this host: the domain is here already (by the name {LOCALHOST} a copy of it is made here)"
    );
    Objection::new(Cause::Itself, what)
}
