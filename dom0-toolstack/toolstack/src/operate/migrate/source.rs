//! The source: gives a domain to another host, or keeps it.

use super::check::{Readiness, object_to_departure};
use super::copy::{Copy, Pages, Totals};
use super::destination::reason;
use super::differ;
use super::hello::{Hello, Purpose};
use super::job::{Job, Stage};
use super::kept::{Kept, MOVE_BLOB};
use super::localhost::{LOCALHOST, object_to_copy};
use super::objection::{Cause, Objection, refuse};
use super::rest::Rest;
use super::rounds::still_there;
use super::survey::itself;
use super::talk::Talk;
use super::timeline::{ProofThere, Timeline};
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, MoveOptions, Peers, WORK_LIMIT_US};
use crate::host::Hypervisor;
use crate::operate::{OperateError, Toolstack};
use crate::registry::{Arrival, Entry, Phase};
use crate::site::{DeviceHost, Site};
use alloc::format;
use alloc::string::{String, ToString};
use godwit_abi::{DomainId, DomainInfo, DomainState, Status};
use godwit_migrate::handover::source::{self, Effects, Input, State};
use godwit_migrate::handover::{Attempt, Boot, MESSAGE_BYTES, Reply, Request};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

pub(super) use super::destination::unexpected;

/// A domain on its way out.
pub(super) struct Leaving<'a, S: Site, P: Peers> {
    pub(super) tools: &'a Toolstack<S>,
    pub(super) peers: &'a P,
    pub(super) job: &'a Job,
    pub(super) peer: &'a str,
    pub(super) domain: DomainId,
    pub(super) entry: Entry,
    pub(super) info: DomainInfo,
    pub(super) attempt: Attempt,
    pub(super) state: State,
    pub(super) options: MoveOptions,
    /// Its writes are noted.
    pub(super) is_armed: bool,
    /// When it was paused, if it stands still.
    pub(super) paused_us: Option<u64>,
    /// Its devices were stopped.
    pub(super) is_quiesced: bool,
    /// What its devices hold of the host was freed for a copy here.
    pub(super) is_let_go: bool,
    /// A note of the move is kept with it.
    pub(super) is_kept: bool,
    pub(super) totals: Totals,
    /// Where the time of the stop went, if it got that far.
    pub(super) timeline: Option<Timeline>,
    /// From the pause until it was known to run there, microseconds.
    pub(super) downtime_us: Option<u64>,
    /// Memory that does not go with it.
    pub(super) rest: Option<Rest>,
}

impl<S: Site> Toolstack<S> {
    /// `xl migrate`: moves a domain to the host `peer`. Not to be dropped half way. Returns what to tell.
    pub async fn migrate<P: Peers>(
        &self,
        peers: &P,
        job: &Job,
        domain: DomainId,
        options: MoveOptions,
    ) -> Result<String, OperateError> {
        let moved = self.migrate_out(peers, job, domain, options).await;
        let said = moved.clone();
        job.end(said.map_err(|error| error.to_string()));
        self.remember_moves().await;
        moved
    }

    async fn migrate_out<P: Peers>(
        &self,
        peers: &P,
        job: &Job,
        domain: DomainId,
        options: MoveOptions,
    ) -> Result<String, OperateError> {
        let entry = self.known(domain)?;
        let _busy = match self.reserve(domain) {
            Ok(busy) => busy,
            Err(error) => {
                let own = [Objection::new(Cause::Busy, error.to_string())];
                let peer = self.host_named(&job.peer);
                let refused = self.refuse_with_theirs(peers, peer, domain, &own);
                return Err(refused.await);
            }
        };
        job.concerns(domain);
        self.await_turn(job, domain).await?;
        let info = still_there(self.site.hypervisor(), domain)?;
        let peer = self.host_named(&job.peer);
        let is_local = peer == LOCALHOST;
        let mut own = object_to_departure(&entry, is_local);
        own.extend(object_to_copy(&options).filter(|_| is_local));
        if !own.is_empty() {
            let refused = self.refuse_with_theirs(peers, peer, domain, &own);
            return Err(refused.await);
        }
        let attempt = Attempt(u128::from_le_bytes(self.site.random()) as u64);
        let mut leaving = Leaving {
            tools: self,
            peers,
            job,
            peer,
            domain,
            entry,
            info,
            attempt,
            state: source::begin(attempt).0,
            options,
            is_armed: false,
            paused_us: None,
            is_quiesced: false,
            is_let_go: false,
            is_kept: false,
            totals: Totals::default(),
            timeline: None,
            downtime_us: None,
            rest: None,
        };
        leaving.run().await
    }
}

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// From the first word to the last.
    async fn run(&mut self) -> Result<String, OperateError> {
        let link = self.tools.dialled(self.peers, self.peer).await?;
        let begun_us = self.tools.site.now_us();
        let mut talk = Talk::begin(&self.tools.site, link, self.peer).await?;
        let went = self.go(&mut talk).await;
        self.totals.bytes = talk.bytes();
        match went {
            Ok(()) if self.rest.is_some() => self.give_rest(Some(talk)).await,
            Ok(()) => {
                let _ = talk.finish(FAREWELL_LIMIT_US).await;
            }
            Err(cause) if self.state.can_cancel() => {
                return Err(self.give_up(&mut talk, cause).await);
            }
            // It was refused after all.
            Err(cause) if self.state == State::Kept => {
                self.go_on().await;
                return Err(cause);
            }
            Err(cause) => {
                drop(talk);
                self.settle(cause).await?;
                self.give_rest(None).await;
            }
        }
        self.clean().await?;
        Ok(self.report(begun_us))
    }

    /// Up to the answer that it runs there.
    async fn go<L: Link>(&mut self, talk: &mut Talk<'_, S, L>) -> Result<(), OperateError> {
        self.offer(talk).await?;
        let options = self.options;
        let mut copy = Copy::new(
            &self.tools.site,
            &self.tools.jobs,
            &self.info,
            self.domain,
            &options,
        )?;
        self.keep(false)?;
        self.job.enter(Stage::Copy);
        self.is_armed = true;
        copy.arm().await?;
        self.foresee(talk, &mut copy).await?;
        let pages = match options.stop_and_copy {
            true => Pages::Sent,
            false => copy.rounds(talk, self.job, options.postcopy).await?,
        };
        self.job.check_cancelled()?;
        self.stop(talk, &mut copy, pages).await?;
        self.job.enter(Stage::Prove);
        let effects = self.step(Input::Stopped)?;
        self.ask(talk, &effects).await?;
        let ready = self.hear_ready(talk, &copy).await?;
        // The last moment in which it can be called off.
        self.job.check_cancelled()?;
        let effects = self.step(Input::Reply(ready))?;
        if !matches!(self.state, State::Committing(_)) {
            return Err(talk.trouble("it does not say that it is ready"));
        }
        self.job.enter(Stage::HandOver);
        self.note_time(|timeline, now_us| timeline.proven_us = now_us);
        self.write_given_up().await?;
        self.ask(talk, &effects).await?;
        let running = self.hear_reply(talk, ANSWER_LIMIT_US).await?;
        self.step(Input::Reply(running))?;
        match self.state {
            State::Moved => {
                self.note_time(|timeline, now_us| timeline.running_us = now_us);
                self.downtime_us = self.timeline.as_ref().map(Timeline::downtime_us);
                Ok(())
            }
            _other => Err(talk.trouble("it does not say that the domain runs")),
        }
    }

    /// Notes the moment of a step of the stop.
    pub(super) fn note_time(&mut self, note: impl FnOnce(&mut Timeline, u64)) {
        let now_us = self.tools.site.now_us();
        let timeline = self.timeline.as_mut().expect("it was stopped");
        note(timeline, now_us);
    }

    /// Greets, and offers the domain.
    async fn offer<L: Link>(&mut self, talk: &mut Talk<'_, S, L>) -> Result<(), OperateError> {
        let mine = self.tools.hello(Purpose::Move, self.options.verify)?;
        let said = mine.encode();
        talk.say(FrameKind::HELLO, &[said.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        let hello = hear_hello(talk).await?;
        if hello.boot == mine.boot && !self.is_local() {
            return Err(refuse(&[itself(self.peer)]));
        }
        if self.options.may_postcopy() && !hello.postcopy {
            return Err(OperateError::Other(format!(
                "{} does not know post-copy (--postcopy, --on-miss=postcopy): use --on-miss=throttle, pause or abort",
                self.peer
            )));
        }
        let offered = Entry {
            phase: Phase::Building,
            arrival: Some(Arrival {
                attempt: self.attempt.0,
                // One that was made paused (`xl create -p`) and never ran is held by that, not by a pause.
                runs: self.info.pauses == 0 && self.info.state != DomainState::Building as u32,
            }),
            ..self.entry.clone()
        };
        let note = offered.encode();
        talk.say(
            FrameKind::CONFIGURATION,
            &[note.as_bytes()],
            ANSWER_LIMIT_US,
        )
        .await?;
        let cpu = self.tools.cpu_record(self.domain)?;
        talk.say(FrameKind::CPU, &[&cpu], ANSWER_LIMIT_US).await?;
        let (_, effects) = source::begin(self.attempt);
        self.ask(talk, &effects).await?;
        let reply = self.hear_reply(talk, WORK_LIMIT_US).await?;
        self.step(Input::Reply(reply))?;
        match self.state {
            State::Copying(_) => Ok(()),
            _other => Err(talk.trouble("it does not say whether it takes the domain")),
        }
    }

    /// One step of the machine. What gives the domain up is kept first; if it cannot be, the step is
    /// not taken, and nobody has heard of it.
    pub(super) fn step(&mut self, input: Input) -> Result<Effects, OperateError> {
        let (next, effects) = source::step(self.attempt, self.state, input);
        if next != self.state && matches!(next, State::Committing(_)) {
            self.keep(true)?;
        }
        self.state = next;
        Ok(effects)
    }

    /// The boot of the other host that takes the domain.
    pub(super) fn peers_boot(&self) -> Option<Boot> {
        match self.state {
            State::Copying(boot) | State::Proving(boot) | State::Committing(boot) => Some(boot),
            State::Offered
            | State::Orphaned(_)
            | State::Claimed(_)
            | State::ClaimedCold(_)
            | State::Disputed
            | State::Kept
            | State::Released
            | State::Moved
            | State::Lost => None,
        }
    }

    /// Notes the move with the domain.
    pub(super) fn keep(&mut self, is_committing: bool) -> Result<(), OperateError> {
        let boot = self.peers_boot();
        let boot = boot.expect("nothing was agreed on with anybody");
        let kept = Kept {
            attempt: self.attempt,
            boot,
            is_committing,
            pauses: self.info.pauses,
            peer: self.peer.into(),
            rest: is_committing && self.rest.is_some(),
        };
        self.is_kept = true;
        let hypervisor = self.tools.site.hypervisor();
        Ok(hypervisor.blob_write(self.domain, MOVE_BLOB, kept.encode().as_bytes())?)
    }

    pub(super) async fn ask<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        effects: &Effects,
    ) -> Result<(), OperateError> {
        let request: Option<Request> = effects.send;
        if let Some(request) = request {
            talk.say(FrameKind::REQUEST, &[&request.encode()], ANSWER_LIMIT_US)
                .await?;
            talk.push(ANSWER_LIMIT_US).await?;
        }
        Ok(())
    }

    /// Waits for a reply; one that refuses is taken, and its reasons are the error.
    pub(super) async fn hear_reply<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        limit_us: u64,
    ) -> Result<Reply, OperateError> {
        let frame = talk.hear(limit_us).await?;
        self.take_reply(talk, &frame)
    }

    /// Waits for what the other side says to the proof; tells it where memories differ if it asks.
    async fn hear_ready<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        copy: &Copy<'_, S>,
    ) -> Result<Reply, OperateError> {
        for _ in 0..=differ::answers_max(copy.capacity) {
            let frame = talk.hear(WORK_LIMIT_US).await?;
            if frame.kind != FrameKind::COMPARE {
                return self.take_reply(talk, &frame);
            }
            let answer = differ::answer(&copy.hashes, &frame.body);
            let answer = answer.ok_or_else(|| unexpected(talk, &frame))?;
            talk.say(FrameKind::COMPARE, &[&answer], ANSWER_LIMIT_US)
                .await?;
        }
        Err(talk.trouble("it asks about the memory without end"))
    }

    fn take_reply<L: Link>(
        &mut self,
        talk: &Talk<'_, S, L>,
        frame: &Frame,
    ) -> Result<Reply, OperateError> {
        let reply = frame.body.get(..MESSAGE_BYTES).and_then(Reply::decode);
        match (frame.kind, reply) {
            (FrameKind::REPLY, Some(reply)) => {
                let text = reason(&frame.body);
                self.job.said_ready(Readiness::decode(&text));
                if let Some(timeline) = &mut self.timeline {
                    timeline.there = timeline.there.or(ProofThere::decode(&text));
                }
                Ok(reply)
            }
            (FrameKind::REFUSAL, Some(reply)) => {
                self.step(Input::Reply(reply))?;
                Err(OperateError::Other(refusal(self.peer, frame)))
            }
            (_, _) => Err(unexpected(talk, frame)),
        }
    }

    /// Calls it off: the domain goes on here.
    async fn give_up<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        cause: OperateError,
    ) -> OperateError {
        let effects = self.step(Input::GiveUp);
        // What the copy has of the host it frees first.
        if !self.is_let_go {
            self.go_on().await;
        }
        if let Ok(Effects {
            send: Some(request),
            ..
        }) = effects
        {
            let (message, why) = (request.encode(), cause.to_string());
            let pieces: [&[u8]; 2] = [&message, why.as_bytes()];
            let said = talk.say(FrameKind::REQUEST, &pieces, FAREWELL_LIMIT_US);
            if said.await.is_ok() {
                let _ = talk.push(FAREWELL_LIMIT_US).await;
                // Until it hangs up: what is closed too early may not arrive.
                let _ = talk.hear(FAREWELL_LIMIT_US).await;
            }
        }
        if self.is_let_go {
            self.go_on().await;
        }
        cause
    }

    /// The domain goes on here, as if nothing had been. What fails is tried again and then told.
    pub(super) async fn go_on(&mut self) {
        self.write_settled().await;
        let (site, domain) = (&self.tools.site, self.domain);
        let hypervisor = site.hypervisor();
        let trouble = |what: &str, result: Result<(), Status>| match result {
            Ok(()) | Err(Status::NoDomain | Status::NotFound) => {}
            Err(status) => self.job.tell(format!("{what}: {status}")),
        };
        if core::mem::take(&mut self.is_let_go) {
            self.take_back().await;
        } else if self.is_quiesced {
            site.devices().resume(domain);
        }
        self.is_quiesced = false;
        if self.paused_us.take().is_some() {
            let unpaused = super::arrive::tried(|| hypervisor.domain_unpause(domain));
            trouble("it cannot go on", unpaused);
        }
        if core::mem::take(&mut self.is_armed) {
            let free = super::arrive::tried(|| hypervisor.dirty_quota(domain, 0));
            trouble("its writes stay slow", free);
            trouble(
                "its writes are still noted",
                Copy::disarm(site, domain).await,
            );
        }
        if core::mem::take(&mut self.is_kept) {
            let forgotten = super::arrive::tried(|| hypervisor.blob_write(domain, MOVE_BLOB, &[]));
            trouble("the note of its move stays", forgotten);
        }
    }

    /// Takes the domain apart: it is the other host's.
    pub(super) async fn clean(&mut self) -> Result<(), OperateError> {
        self.job.enter(Stage::Clean);
        self.write_settled().await;
        let (tools, domain) = (self.tools, self.domain);
        tools.site.devices().dirty_track(domain, false);
        let hypervisor = tools.site.hypervisor();
        // A dom0 that dies now goes on with it, and so does the next attempt of a refused call.
        for _ in 0..2 {
            let noted = tools
                .registry
                .change(hypervisor, domain, |entry| entry.phase = Phase::Ending);
            if noted.is_ok() && tools.take_apart(domain).await.is_ok() {
                return Ok(());
            }
        }
        let noted = tools
            .registry
            .change(hypervisor, domain, |entry| entry.phase = Phase::Ending);
        let gone = match noted {
            Ok(()) => tools.take_apart(domain).await,
            Err(status) => Err(status),
        };
        gone.map_err(|status| {
            let peer = self.peer;
            OperateError::Other(format!(
                "it runs on {peer}; what is left of it here stays paused, because it cannot be \
                 destroyed: {status} (xl destroy {domain})"
            ))
        })
    }
}

/// What a refusal says.
pub(super) fn refusal(peer: &str, frame: &Frame) -> String {
    match reason(&frame.body) {
        why if why.is_empty() => format!("{peer} refuses it"),
        why => format!("{peer} refuses it: {why}"),
    }
}

/// Waits for the other side's hello.
pub(super) async fn hear_hello<S: Site, L: Link>(
    talk: &mut Talk<'_, S, L>,
) -> Result<Hello, OperateError> {
    let frame = talk.hear(ANSWER_LIMIT_US).await?;
    match frame.kind {
        FrameKind::HELLO => Hello::decode(&frame.body).map_err(|why| talk.trouble(&why)),
        _ => Err(unexpected(talk, &frame)),
    }
}
