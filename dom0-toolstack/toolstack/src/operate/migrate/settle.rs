//! After a domain was given up: asking the other host until it says whose it is.

use super::copy::Totals;
use super::hello::Purpose;
use super::job::{Direction, Job, Stage};
use super::kept::{Kept, MOVE_BLOB};
use super::resolve::unless_claimed;
use super::rest::Rest;
use super::source::{Leaving, hear_hello};
use super::talk::{Talk, within};
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, MoveOptions, Peers, WORK_LIMIT_US};
use crate::host::Hypervisor;
use crate::operate::{OperateError, Toolstack};
use crate::site::{DeviceHost, Site};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, Status};
use godwit_migrate::handover::Tell;
use godwit_migrate::handover::source::{Input, State};
use godwit_migrate::stream::FrameKind;

/// The first pause between two questions, and the longest.
pub(super) const PAUSE_US: u64 = 1_000_000;
pub(super) const PAUSE_US_MAX: u64 = 15_000_000;

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// Asks whose the domain is until that is known. An error: it is here, and goes on.
    pub(super) async fn settle(&mut self, cause: OperateError) -> Result<(), OperateError> {
        self.job.tell(format!(
            "{cause}; the domain stands still until {} says whether it has it",
            self.peer
        ));
        let mut pause_us = PAUSE_US;
        while !self.state.is_over() {
            if self.job.is_dropped() {
                self.job
                    .tell("the operator has ended what was left of it here".into());
                self.state = State::Lost;
                return Ok(());
            }
            if self.job.is_claimed() && self.claim().await {
                return Err(OperateError::Other(format!(
                    "the operator has claimed it: it goes on here, and {} is told when it answers",
                    self.peer
                )));
            }
            let (site, job) = (&self.tools.site, self.job);
            if let Some(Err(error)) = unless_claimed(site, job, self.ask_again()).await {
                job.tell(format!("{error}; asking again"));
                let pause = site.sleep_until(site.now_us() + pause_us);
                unless_claimed(site, job, pause).await;
                pause_us = (pause_us * 2).min(PAUSE_US_MAX);
            }
        }
        match self.state {
            State::Moved => Ok(()),
            State::Lost => {
                self.job.tell(format!(
                    "{} was restarted after it had taken the domain: the domain is lost with it",
                    self.peer
                ));
                Ok(())
            }
            State::Kept => {
                self.go_on().await;
                Err(cause)
            }
            State::Offered
            | State::Copying(_)
            | State::Proving(_)
            | State::Committing(_)
            | State::Orphaned(_)
            | State::Claimed(_)
            | State::ClaimedCold(_)
            | State::Disputed
            | State::Released => unreachable!("{:?} is not how it ends", self.state),
        }
    }

    /// Asks once, over a new connection.
    async fn ask_again(&mut self) -> Result<(), OperateError> {
        let site = &self.tools.site;
        let dialled = within(site, ANSWER_LIMIT_US, self.peers.dial(self.peer)).await;
        let link = match dialled {
            Some(link) => link.map_err(OperateError::Other)?,
            None => return Err(OperateError::Other(format!("{}: silence", self.peer))),
        };
        let mut talk = Talk::begin(site, link, self.peer).await?;
        let hello = self.tools.hello(Purpose::Ask, false)?.encode();
        talk.say(FrameKind::HELLO, &[hello.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        hear_hello(&mut talk).await?;
        let effects = self.step(Input::AskAgain)?;
        self.ask(&mut talk, &effects).await?;
        let reply = self.hear_reply(&mut talk, 2 * WORK_LIMIT_US).await?;
        self.step(Input::Reply(reply))?;
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        if reply.tell == Tell::Unsure && !self.state.is_over() {
            self.job.set_unsure();
            return Err(OperateError::Other(format!(
                "{} was restarted and has no journal that says whether the domain ran there (xl \
                 migrate-resolve)",
                self.peer
            )));
        }
        Ok(())
    }
}

impl<S: Site> Toolstack<S> {
    /// Why nothing may be done with a domain that is given up, also while no job works on that.
    pub(crate) fn given_up(&self, domain: DomainId) -> Result<Option<OperateError>, OperateError> {
        if let Some(moving) = self.jobs.why_not(domain) {
            return Ok(Some(moving));
        }
        let kept = match self.move_of(domain) {
            Err(Status::NoDomain) => None,
            kept => kept?,
        };
        let kept = kept.filter(|kept| kept.is_committing);
        Ok(kept.map(|kept| {
            OperateError::Other(format!(
                "domain {domain} was given up to {}, which has not said whether it runs there",
                kept.peer
            ))
        }))
    }

    /// What is kept of a domain's move, if it was under way when dom0 died.
    pub(crate) fn move_of(&self, domain: DomainId) -> Result<Option<Kept>, Status> {
        match self.site.hypervisor().blob_read(domain, MOVE_BLOB) {
            Ok(kept) => Ok(Kept::decode(&kept)),
            Err(Status::NotFound | Status::NotSupported) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// After a restart of dom0, which has ended the noting of its writes already: a domain that was being
    /// copied stays here. Says so.
    pub(crate) fn move_ended(&self, domain: DomainId, kept: &Kept) -> String {
        let hypervisor = self.site.hypervisor();
        let undone = || {
            let mut info = hypervisor.domain_info(domain)?;
            while info.pauses > kept.pauses {
                hypervisor.domain_unpause(domain)?;
                info = hypervisor.domain_info(domain)?;
            }
            hypervisor.dirty_quota(domain, 0)?;
            hypervisor.blob_write(domain, MOVE_BLOB, &[])
        };
        let peer = &kept.peer;
        match undone() {
            Ok(()) => format!("domain {domain} was being moved to {peer}: it goes on here"),
            Err(status) => format!("domain {domain} was being moved and cannot go on: {status}"),
        }
    }

    /// Domains that were given up and of which it is not known whose they are: to be settled, each by
    /// [`Toolstack::settle_move`].
    pub fn unsettled(&self) -> Vec<(DomainId, String, String)> {
        let all = self.registry.all().into_iter();
        all.filter_map(|(domain, entry)| {
            let kept = self.move_of(domain).ok()??;
            let name = entry.config.name;
            kept.is_committing.then_some((domain, name, kept.peer))
        })
        .collect()
    }

    /// Settles one of them. Not to be dropped half way.
    pub async fn settle_move<P: Peers>(
        &self,
        peers: &P,
        domain: DomainId,
    ) -> Result<String, OperateError> {
        let busy = self.registry.reserve(domain);
        let _busy = busy.ok_or(OperateError::Busy(domain))?;
        let entry = self.known(domain)?;
        let Some(kept) = self.move_of(domain)? else {
            return Err(OperateError::Other("it is not on the move".into()));
        };
        let site = &self.site;
        let name = &entry.config.name;
        let job = self
            .jobs
            .begin(Direction::Out, name, &kept.peer, site.now_us());
        job.concerns(domain);
        job.enter(Stage::HandOver);
        // The operator had spoken before dom0 died.
        let claim = self.claim_of(domain);
        job.set_claimed(claim.is_some_and(|claim| claim.of.attempt == kept.attempt));
        let settled = self.settle_kept(peers, &job, domain, &kept).await;
        let said = settled.clone();
        job.end(said.map_err(|error| error.to_string()));
        self.remember_moves().await;
        settled
    }

    async fn settle_kept<P: Peers>(
        &self,
        peers: &P,
        job: &Job,
        domain: DomainId,
        kept: &Kept,
    ) -> Result<String, OperateError> {
        let entry = self.known(domain)?;
        let mut leaving = Leaving {
            tools: self,
            peers,
            job,
            peer: &kept.peer,
            domain,
            info: self.site.hypervisor().domain_info(domain)?,
            entry: entry.clone(),
            attempt: kept.attempt,
            state: State::Committing(kept.boot),
            options: MoveOptions::default(),
            is_armed: true,
            // By the dom0 that died.
            paused_us: Some(self.site.now_us()),
            is_quiesced: false,
            is_let_go: false,
            is_kept: true,
            totals: Totals::default(),
            timeline: None,
            downtime_us: None,
            rest: kept.rest.then(|| Rest::after_restart(kept.boot)),
        };
        let cause = OperateError::Other("dom0 was restarted".into());
        leaving.write_again().await;
        // Its devices must not serve what the other copy may be serving.
        match leaving.settle(cause).await {
            Ok(()) => {
                leaving.give_rest(None).await;
                leaving.clean().await?;
                Ok(format!("it runs on {}", kept.peer))
            }
            Err(error) => {
                for link in &entry.links {
                    let served = self.site.devices().reattach(domain, link).await;
                    if let Err(why) = served {
                        job.tell(format!("{} is not served again: {why}", link.device));
                    }
                }
                Err(error)
            }
        }
    }
}
