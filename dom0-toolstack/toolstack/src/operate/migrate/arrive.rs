//! One domain that comes, from the offer until it runs here or is refused.

use super::destination::{Offer, hear_offer, reason, request, unexpected};
use super::hello::Hello;
use super::job::{Direction, Job, Stage};
use super::journal::Line;
use super::landing::Landing;
use super::objection::refuse;
use super::survey::answer;
use super::talk::Talk;
use super::time::{STILL_US_MAX, add_still};
use super::timeline::ProofThere;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, WORK_LIMIT_US};
use crate::build::{self, Step, refused};
use crate::host::Hypervisor;
use crate::operate::restore::Arrived;
use crate::operate::{OperateError, Toolstack};
use crate::registry::{Arrival, Busy, Entry, Phase};
use crate::site::{DeviceHost, Site};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, Status};
use godwit_migrate::handover::destination::{self, Effects, Input, State};
use godwit_migrate::handover::{Ask, Attempt, Boot, GuestAction, Past};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{Frame, FrameKind};

/// How often something that must not fail is tried again.
const TRIES: usize = 3;

/// A domain on its way in.
pub(super) struct Arriving<'a, S: Site, L: Link> {
    tools: &'a Toolstack<S>,
    talk: Talk<'a, S, L>,
    hello: Hello,
    job: Rc<Job>,
    attempt: Attempt,
    here: Boot,
    state: State,
    /// As it was at the source.
    entry: Entry,
    /// As it is noted here.
    noted: Entry,
    arrived: Arrived,
    made: Option<Made<'a>>,
    /// The source is this host: the domain there.
    original: Option<DomainId>,
    batches: u64,
    stopped_us: Option<u64>,
}

/// The domain here.
struct Made<'a> {
    domain: DomainId,
    landing: Landing,
    _busy: Busy<'a>,
}

impl<'a, S: Site, L: Link> Arriving<'a, S, L> {
    /// Takes a domain in.
    pub(super) async fn take_in(
        tools: &'a Toolstack<S>,
        mut talk: Talk<'a, S, L>,
        hello: Hello,
        is_local: bool,
    ) -> Result<(), OperateError> {
        let Offer {
            entry,
            cpu,
            request: offer,
            frame,
        } = hear_offer(&mut talk).await?;
        let known = entry.arrival.map(|arrival| Attempt(arrival.attempt));
        if offer.ask != Ask::Offer || known != Some(offer.attempt) {
            return Err(unexpected(&talk, &frame));
        }
        // Two connections must not work on one attempt; and one that was refused stays so.
        let state = tools.attempts.state(offer.attempt);
        if state != State::Unknown || tools.moves.has_committed(offer.attempt) {
            return Err(talk.trouble("it offers a domain by an attempt that is not new"));
        }
        let original = match is_local {
            true => Some(tools.original(&entry.config)?),
            false => None,
        };
        let (name, now_us) = (&entry.config.name, tools.site.now_us());
        let mut arriving = Arriving {
            job: tools.jobs.begin(Direction::In, name, &hello.host, now_us),
            tools,
            talk,
            hello,
            attempt: offer.attempt,
            here: tools.boot()?,
            state,
            noted: Entry {
                phase: Phase::Building,
                links: Vec::new(),
                ..entry.clone()
            },
            entry,
            arrived: Arrived::default(),
            made: None,
            original,
            batches: 0,
            stopped_us: None,
        };
        let accepted = arriving.accept(Input::Request(offer), &cpu).await;
        let outcome = match accepted {
            Ok(()) => arriving.serve().await,
            Err(error) => Err(error),
        };
        let outcome = match outcome {
            Ok(()) => Ok(()),
            Err(cause) => Err(arriving.give_up(cause).await),
        };
        if outcome.is_ok() && arriving.missing() > 0 {
            return arriving.fetch().await;
        }
        let said = outcome
            .as_ref()
            .map(|()| "it runs here".into())
            .map_err(ToString::to_string);
        arriving.job.end(said);
        // The domain is free at once, not when the other side has hung up.
        arriving.made = None;
        let _ = arriving.talk.finish(FAREWELL_LIMIT_US).await;
        outcome
    }

    /// One step of the machine; the new state is kept before anything follows from it.
    fn step(&mut self, input: Input) -> Result<Effects, Status> {
        let (next, effects) =
            destination::step(self.attempt, self.here, Past::Never, self.state, input);
        if next != self.state {
            let hypervisor = self.tools.site.hypervisor();
            self.tools.attempts.set(hypervisor, self.attempt, next)?;
            self.state = next;
        }
        Ok(effects)
    }

    async fn reply(&mut self, effects: &Effects) -> Result<(), OperateError> {
        if let Some(reply) = effects.send {
            self.talk
                .say(FrameKind::REPLY, &[&reply.encode()], ANSWER_LIMIT_US)
                .await?;
            self.talk.push(ANSWER_LIMIT_US).await?;
        }
        Ok(())
    }

    /// Checks everything, makes the domain, and says that it may come.
    async fn accept(&mut self, offer: Input, cpu: &[u8]) -> Result<(), OperateError> {
        let effects = self.step(offer)?;
        let tools = self.tools;
        let looked = tools.object_to_arrival(&self.hello, &self.entry, cpu, self.original);
        let (all, readiness) = looked.await?;
        if !all.is_empty() {
            return Err(refuse(&all));
        }
        let hypervisor = tools.site.hypervisor();
        // While devices were looked at, another task may have made a domain.
        let problems = tools.check_beside(&self.entry.config, self.original)?;
        if let Some((_, what)) = problems.into_iter().next() {
            return Err(OperateError::Other(what));
        }
        let config = tools.made_from(&self.entry.config, self.original.is_some());
        let domain = hypervisor
            .domain_create(&build::domain_config(&config))
            .map_err(refused(Step::Create))?;
        let busy = tools.registry.reserve(domain);
        self.made = Some(Made {
            domain,
            landing: Landing::new(domain, self.entry.config.memory_max_mib),
            _busy: busy.expect("the id of a new domain is new"),
        });
        self.job.concerns(domain);
        self.note(domain)?;
        match self.original {
            Some(original) => tools.copy_origin(domain, original)?,
            None => tools.note_origin(domain, self.talk.peer())?,
        }
        tools.take_cpu(domain, cpu)?;
        self.arrived.cpu = true;
        // A copy's are in use here, by what it is a copy of.
        if self.original.is_none() {
            tools.prepare_all(domain, &self.entry).await?;
        }
        self.job.enter(Stage::Copy);
        let reply = effects.send.expect("an offer that is taken is answered");
        let (message, text) = (reply.encode(), readiness.encode());
        let pieces: [&[u8]; 2] = [&message, text.as_bytes()];
        self.talk
            .say(FrameKind::REPLY, &pieces, ANSWER_LIMIT_US)
            .await?;
        self.talk.push(ANSWER_LIMIT_US).await
    }

    fn note(&self, domain: DomainId) -> Result<(), OperateError> {
        let hypervisor = self.tools.site.hypervisor();
        let noted = self
            .tools
            .registry
            .set(hypervisor, domain, self.noted.clone());
        Ok(noted.map_err(refused(Step::Register))?)
    }

    fn missing(&self) -> u64 {
        self.made.as_ref().map_or(0, |made| made.landing.missing())
    }

    /// The domain runs here; fetches the rest of its memory.
    async fn fetch(self) -> Result<(), OperateError> {
        let made = self.made.expect("it runs");
        // What runs is found by its number now; the job keeps others away from it.
        drop((made.landing, made._busy));
        let (tools, domain) = (self.tools, made.domain);
        tools.begin_fetch(domain, self.attempt, self.job);
        tools.fetch_by(domain, self.talk).await
    }

    /// Takes what comes until the domain runs here.
    async fn serve(&mut self) -> Result<(), OperateError> {
        while self.state != State::Running {
            self.job.check_cancelled()?;
            let frame = self.talk.hear(WORK_LIMIT_US).await?;
            self.take(frame).await?;
        }
        Ok(())
    }

    async fn take(&mut self, frame: Frame) -> Result<(), OperateError> {
        let hypervisor = self.tools.site.hypervisor();
        let made = self.made.as_mut().expect("it was accepted");
        let is_open = self.state == State::Receiving;
        match frame.kind {
            FrameKind::CLOCK | FrameKind::PROBE => {
                answer(&self.tools.site, &mut self.talk, &frame).await
            }
            FrameKind::REQUEST => self.asked(&frame).await,
            _ if !is_open => Err(unexpected(&self.talk, &frame)),
            FrameKind::BATCH => {
                made.landing.take(hypervisor, &frame.body).await?;
                self.batches += 1;
                let taken = self.batches.to_le_bytes();
                self.talk
                    .say(FrameKind::TAKEN, &[&taken], ANSWER_LIMIT_US)
                    .await?;
                self.talk.push(ANSWER_LIMIT_US).await
            }
            FrameKind::HOLES => made.landing.take_holes(&frame.body),
            FrameKind::MISSING => made.landing.take_missing(hypervisor, &frame.body).await,
            FrameKind::STOPPED => {
                let body = frame.body.as_slice().try_into();
                let body = body.map_err(|_| unexpected(&self.talk, &frame))?;
                self.stopped_us = Some(u64::from_le_bytes(body));
                self.job.enter(Stage::Stop);
                Ok(())
            }
            _ => self.arrived.take(frame),
        }
    }

    async fn asked(&mut self, frame: &Frame) -> Result<(), OperateError> {
        let asked = request(&self.talk, frame)?;
        let effects = self.step(Input::Request(asked))?;
        match effects.guest {
            Some(GuestAction::Compare) => {
                self.job.enter(Stage::Prove);
                let text = self.prove().await?.encode();
                let reply = self.step(Input::Proven)?.send;
                let message = reply.expect("a proof is answered").encode();
                let pieces: [&[u8]; 2] = [&message, text.as_bytes()];
                self.talk
                    .say(FrameKind::REPLY, &pieces, ANSWER_LIMIT_US)
                    .await?;
                self.talk.push(ANSWER_LIMIT_US).await
            }
            Some(GuestAction::Run) => {
                self.write_commit().await?;
                // From here on nothing may fail: it is this host's.
                self.run();
                if let Err(error) = self.reply(&effects).await {
                    self.job
                        .tell(format!("{error}; the other host will ask again"));
                }
                Ok(())
            }
            Some(GuestAction::Discard) => {
                let why = reason(&frame.body);
                let why = if why.is_empty() { "called off" } else { &why };
                Err(self.talk.trouble(why))
            }
            Some(GuestAction::AllowStart | GuestAction::Pause) | None => self.reply(&effects).await,
        }
    }

    /// Writes to disk that the domain is this host's. If that cannot be, it never was.
    async fn write_commit(&mut self) -> Result<(), OperateError> {
        let moves = &self.tools.moves;
        let Err(why) = moves.write(Line::Committed(self.attempt, self.here)).await else {
            return Ok(());
        };
        let hypervisor = self.tools.site.hypervisor();
        if let Err(status) = tried(|| self.tools.attempts.withdraw(hypervisor, self.attempt)) {
            // A restarted dom0 would run it: so it runs now.
            self.job
                .tell(format!("{why}; and it cannot be refused: {status}"));
            return Ok(());
        }
        self.state = State::Ready;
        // It may have been written all the same.
        let _ = moves.write(Line::Withdrawn(self.attempt)).await;
        Err(OperateError::Other(why))
    }

    /// Compares digests and sets everything, so that only running is left.
    async fn prove(&mut self) -> Result<ProofThere, OperateError> {
        let tools = self.tools;
        let begun_us = tools.site.now_us();
        let hypervisor = tools.site.hypervisor();
        let made = self.made.as_mut().expect("it was accepted");
        self.arrived.check(&self.entry)?;
        if self.arrived.digest != Some(made.landing.digest()) {
            let mut what =
                "the memory that arrived is not what was sent: its digest differs".into();
            if self.hello.compare {
                let pages = made.landing.different(&mut self.talk).await?;
                what = format!("{what}, in pages {pages:x?}");
            }
            return Err(OperateError::Other(what));
        }
        made.landing.trim(hypervisor)?;
        // Before devices look at its memory.
        made.landing.arm(hypervisor)?;
        if self.hello.verify {
            made.landing.verify(hypervisor).await?;
        }
        let stopped_us = self.stopped_us;
        let stopped_us = stopped_us.ok_or_else(|| self.talk.trouble("no time of the stop came"))?;
        let compared_us = tools.site.now_us();
        let mut attached_us = compared_us;
        let adjust = |platform: &mut Vec<u8>| {
            attached_us = tools.site.now_us();
            let still_us = attached_us.saturating_sub(stopped_us);
            if still_us > STILL_US_MAX {
                let what = format!(
                    "it stood still for {} s: clocks differ",
                    still_us / 1_000_000
                );
                return Err(OperateError::Other(what));
            }
            let adjusted = add_still(platform, still_us);
            let bad = || OperateError::Other("the records of its platform have no time".into());
            *platform = adjusted.ok_or_else(bad)?;
            Ok(())
        };
        let (domain, noted) = (made.domain, self.noted.clone());
        let completed =
            tools.furnish_arrived(domain, &self.entry, noted, &mut self.arrived, adjust);
        self.noted = completed.await?;
        self.note(domain)?;
        Ok(ProofThere {
            memory_us: compared_us - begun_us,
            devices_us: attached_us - compared_us,
            states_us: tools.site.now_us() - attached_us,
        })
    }

    /// Runs the domain. It is this host's already, so what fails is tried again and then told.
    fn run(&mut self) {
        let tools = self.tools;
        let hypervisor = tools.site.hypervisor();
        let domain = self.made.as_ref().expect("it was accepted").domain;
        if let Some(original) = self.original {
            tools.take_identity(domain, original, &self.job);
        }
        tools.site.devices().resume(domain);
        let runs = self.entry.arrival.is_some_and(|Arrival { runs, .. }| runs);
        if runs {
            let started = tried(|| hypervisor.domain_unpause(domain));
            if let Err(status) = started {
                let what = format!("it cannot be started: {status} (xl unpause {domain})");
                self.job.tell(what);
            }
        }
        tools.site.devices().announce(domain);
        self.noted.phase = Phase::Live;
        if let Err(status) = tried(|| tools.registry.set(hypervisor, domain, self.noted.clone())) {
            self.job.tell(format!("it cannot be noted: {status}"));
        }
    }

    /// Refuses the attempt and frees everything.
    async fn give_up(&mut self, cause: OperateError) -> OperateError {
        // Only what commits is kept outside dom0, so this does not fail.
        let effects = self.step(Input::GiveUp);
        assert!(
            matches!(self.state, State::Refused),
            "it was not committed: {:?}",
            self.state
        );
        let error = match self.made.take() {
            Some(made) => self.tools.undo(made.domain, cause).await,
            None => cause,
        };
        let Ok(Effects { send, .. }) = effects else {
            return error;
        };
        if let Some(reply) = send {
            let (message, why): (_, String) = (reply.encode(), error.to_string());
            let pieces: [&[u8]; 2] = [&message, why.as_bytes()];
            let _ = self
                .talk
                .say(FrameKind::REFUSAL, &pieces, FAREWELL_LIMIT_US)
                .await;
            let _ = self.talk.push(FAREWELL_LIMIT_US).await;
            self.await_hang_up().await;
        }
        error
    }

    /// Takes and forgets what is still under way: a connection that is closed with something unread
    /// would lose what was said last.
    async fn await_hang_up(&mut self) {
        let end_us = self.tools.site.now_us() + FAREWELL_LIMIT_US;
        while self.tools.site.now_us() < end_us {
            if self.talk.hear(FAREWELL_LIMIT_US).await.is_err() {
                break;
            }
        }
    }
}

/// Tries a few times.
pub(super) fn tried<T>(mut act: impl FnMut() -> Result<T, Status>) -> Result<T, Status> {
    let mut result = act();
    for _ in 1..TRIES {
        if result.is_ok() {
            break;
        }
        result = act();
    }
    result
}
