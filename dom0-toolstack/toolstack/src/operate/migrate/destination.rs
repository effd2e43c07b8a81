//! The destination: what another host may ask of this one.

use super::arrive::Arriving;
use super::hello::{Hello, Purpose};
use super::job::Direction;
use super::journal::Line;
use super::localhost::LOCALHOST;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, WORK_LIMIT_US};
use crate::operate::{OperateError, Toolstack};
use crate::registry::Entry as RegistryEntry;
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_migrate::handover::destination::{self, Entry, Input, State};
use godwit_migrate::handover::{Ask, Attempt, Boot, Past, Request, Tell};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

/// How often an attempt that is under way is looked at by who asks about it.
const LOOK_US: u64 = 50_000;

impl<S: Site> Toolstack<S> {
    /// Who this host is.
    pub(super) fn hello(&self, purpose: Purpose, verify: bool) -> Result<Hello, OperateError> {
        Ok(Hello {
            host: self.site.name().into(),
            boot: self.boot()?,
            purpose,
            verify,
            postcopy: true,
            compare: true,
            wall_s: self.wall_s(),
        })
    }

    /// This boot of the host.
    pub(super) fn boot(&self) -> Result<Boot, OperateError> {
        let random = self.site.random();
        Ok(self.attempts.boot(self.site.hypervisor(), random)?)
    }

    /// Serves one connection of another host. Not to be dropped half way. The error is what the other
    /// side was told, or why it could not be.
    pub async fn receive<L: Link>(&self, link: L, from: &str) -> Result<(), OperateError> {
        self.serve(link, from, false).await
    }

    /// The same of a connection that this host has made to itself.
    pub async fn receive_local<L: Link>(&self, link: L) -> Result<(), OperateError> {
        self.serve(link, LOCALHOST, true).await
    }

    async fn serve<L: Link>(
        &self,
        link: L,
        from: &str,
        is_local: bool,
    ) -> Result<(), OperateError> {
        let mut talk = Talk::begin(&self.site, link, from).await?;
        let first = talk.hear(ANSWER_LIMIT_US).await?;
        let hello = match first.kind {
            FrameKind::HELLO => Hello::decode(&first.body).map_err(|why| talk.trouble(&why))?,
            _ => return Err(unexpected(&talk, &first)),
        };
        let mine = self.hello(hello.purpose, hello.verify)?.encode();
        talk.say(FrameKind::HELLO, &[mine.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        let ends_a_job = matches!(hello.purpose, Purpose::Move | Purpose::Ask | Purpose::Fetch);
        let served = match hello.purpose {
            Purpose::Move => Arriving::take_in(self, talk, hello, is_local).await,
            Purpose::Ask => self.answer(talk).await,
            Purpose::Check => self.examine(talk, &hello, is_local).await,
            Purpose::Recall => self.answer_recall(talk).await,
            Purpose::Offline => self.take_offline(talk).await,
            Purpose::Fetch => self.fetch_on(talk).await,
        };
        if ends_a_job {
            self.remember_moves().await;
        }
        served
    }

    /// Answers what became of an attempt.
    async fn answer<L: Link>(&self, mut talk: Talk<'_, S, L>) -> Result<(), OperateError> {
        self.tell_of_attempt(&mut talk).await?;
        talk.finish(FAREWELL_LIMIT_US).await
    }

    /// The same, for a conversation that may go on: the attempt, if its domain is this host's.
    pub(super) async fn tell_of_attempt<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
    ) -> Result<Option<Attempt>, OperateError> {
        let frame = talk.hear(ANSWER_LIMIT_US).await?;
        let request = request(talk, &frame)?;
        let here = self.boot()?;
        self.until_settled(request.attempt).await;
        let state = self.attempts.state(request.attempt);
        let earlier = request.boot.filter(|boot| *boot != here);
        let past = earlier.map_or(Past::Never, |boot| self.moves.past(boot, request.attempt));
        let (next, effects) =
            destination::step(request.attempt, here, past, state, Input::Request(request));
        // What was not under way cannot come under way by an answer.
        assert!(next == state || next == State::Refused || next == State::Receiving);
        if next == State::Refused {
            let hypervisor = self.site.hypervisor();
            self.attempts.set(hypervisor, request.attempt, next)?;
        }
        if effects.journal == Some(Entry::Withdrawn) {
            let written = self.moves.write(Line::Withdrawn(request.attempt)).await;
            written.map_err(OperateError::Other)?;
        }
        if let Some(reply) = effects.send {
            talk.say(FrameKind::REPLY, &[&reply.encode()], ANSWER_LIMIT_US)
                .await?;
        }
        if request.ask == Ask::Cancel
            && let Some(Tell::Running | Tell::Gone { committed: true }) =
                effects.send.map(|reply| reply.tell)
        {
            self.tell_of_claim(request.attempt, talk.peer(), state == State::Running);
        }
        let ours = next == State::Running && past == Past::Never;
        Ok(ours.then_some(request.attempt))
    }

    /// Nobody cancels what was committed but a host whose operator has claimed it: tells of that.
    fn tell_of_claim(&self, attempt: Attempt, peer: &str, runs: bool) {
        let all = self.registry.all().into_iter();
        let of = |entry: &RegistryEntry| entry.arrival.is_some_and(|it| it.attempt == attempt.0);
        let name = all.map(|(_, entry)| entry).find(of);
        let name = name.map_or_else(|| "?".into(), |entry| entry.config.name);
        let job = self
            .jobs
            .begin(Direction::In, &name, peer, self.site.now_us());
        let here = match runs {
            true => {
                "DISPUTED: it runs here, and is paused there as soon as this answer arrives. Both may have                  written to its disks. Destroy one of the two"
            }
            false => {
                "it had run here before this host was restarted, and is not to be made here again"
            }
        };
        job.end(Err(format!(
            "the operator of {peer} has said that this host is gone for ever, and claimed the domain: {here}"
        )));
    }

    /// Waits while another connection works on an attempt: it ends by itself, in bounded time.
    async fn until_settled(&self, attempt: Attempt) {
        let end_us = self.site.now_us() + WORK_LIMIT_US;
        let open = || {
            let state = self.attempts.state(attempt);
            matches!(state, State::Receiving | State::Ready)
        };
        while open() && self.site.now_us() < end_us {
            self.site.sleep_until(self.site.now_us() + LOOK_US).await;
        }
    }
}

/// The request in a frame.
pub(super) fn request<S: Site, L: Link>(
    talk: &Talk<'_, S, L>,
    frame: &Frame,
) -> Result<Request, OperateError> {
    let body = frame.body.get(..godwit_migrate::handover::MESSAGE_BYTES);
    let request = body.and_then(Request::decode);
    match (frame.kind, request) {
        (FrameKind::REQUEST, Some(request)) => Ok(request),
        (_, _) => Err(unexpected(talk, frame)),
    }
}

/// What a host offers, to be taken in or only to be looked at.
pub(super) struct Offer {
    /// The domain's note.
    pub(super) entry: RegistryEntry,
    /// The record of its CPU.
    pub(super) cpu: Vec<u8>,
    /// What is asked, and the frame it came in.
    pub(super) request: Request,
    pub(super) frame: Frame,
}

/// Hears an offer.
pub(super) async fn hear_offer<S: Site, L: Link>(
    talk: &mut Talk<'_, S, L>,
) -> Result<Offer, OperateError> {
    let frame = talk.hear(ANSWER_LIMIT_US).await?;
    let entry = match frame.kind {
        FrameKind::CONFIGURATION => RegistryEntry::decode(&frame.body),
        _ => return Err(unexpected(talk, &frame)),
    };
    let entry = entry.map_err(|error| talk.trouble(&error.to_string()))?;
    let cpu = talk.hear(ANSWER_LIMIT_US).await?;
    if cpu.kind != FrameKind::CPU {
        return Err(unexpected(talk, &cpu));
    }
    let frame = talk.hear(ANSWER_LIMIT_US).await?;
    Ok(Offer {
        entry,
        cpu: cpu.body,
        request: request(talk, &frame)?,
        frame,
    })
}

/// Text that came with a message, fit to be shown.
pub(super) fn reason(body: &[u8]) -> String {
    const CHARS_MAX: usize = 2000;
    let text = body
        .get(godwit_migrate::handover::MESSAGE_BYTES..)
        .unwrap_or(&[]);
    let text = String::from_utf8_lossy(text);
    let shown = text
        .chars()
        .filter(|char| *char == '\n' || !char.is_control());
    shown.take(CHARS_MAX).collect()
}

/// A frame that does not belong here.
pub(super) fn unexpected<S: Site, L: Link>(talk: &Talk<'_, S, L>, frame: &Frame) -> OperateError {
    let kind = frame.kind.to_string();
    talk.trouble(&format!("it sends a {kind} frame where none belongs"))
}
