//! `xl migrate-resolve`: the operator says that the other host of a move will never come back.
//!
//! | what is undecided | what the word makes of it |
//! |---|---|
//! | given up, in memory here | it goes on here (`Claimed`) |
//! | given up, and the other host was restarted and cannot know whether it ran there | the same; or, by `xl destroy`, it is ended |
//! | given up before this host was restarted | it may be made again here (`ClaimedCold`) |
//! | it ran there before its memory (post-copy) | it is lost: neither side has all of it |
//! | it runs here, memory is missing | nothing: `xl destroy`, or wait |
//!
//! Nobody can check the word. So it is refused while the other host answers, it is written to disk before
//! anything follows from it, and the other host is told, over and over, until it answers. If it has the
//! domain after all, what was claimed here is paused, and both operators are told (`press_claim`).
//!
//! A destination has nothing to resolve: what was not committed to it, it refuses by itself.

use super::ANSWER_LIMIT_US;
use super::job::{Direction, Job, Stage};
use super::journal::{GivenUp, Line};
use super::source::{Leaving, hear_hello};
use super::talk::Talk;
use super::{Peers, hello::Purpose};
use crate::host::Hypervisor;
use crate::names::{id_of, resolve};
use crate::operate::{OperateError, Toolstack};
use crate::site::Site;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::future::poll_fn;
use core::pin::pin;
use core::task::Poll;
use godwit_abi::{DomainId, Status};
use godwit_migrate::handover::source::{self, Input, State};
use godwit_migrate::handover::{Attempt, Boot};
use godwit_migrate::stream::FrameKind;

/// Key of the domain's blob that says that it was claimed.
pub(crate) const CLAIM_BLOB: u32 = 3;
const MAGIC: &str = "godwit-claim 1";
/// How often it is looked whether the operator has spoken, or the job has heard it.
const LOOK_US: u64 = 100_000;
/// For so long the job may take to hear it: its journal is written.
const HEARD_LIMIT_US: u64 = 30_000_000;
/// The first pause between two times the other host is told, and the longest.
const PAUSE_US: u64 = 1_000_000;
const PAUSE_US_MAX: u64 = 60_000_000;

/// A domain that is here by the operator's word, of which the other host has not heard yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// How it was given up.
    pub of: GivenUp,
    /// The domain; none if it was not in memory.
    pub domain: Option<DomainId>,
}

impl Claim {
    fn encode(&self) -> String {
        let GivenUp {
            attempt,
            boot,
            peer,
            name,
        } = &self.of;
        let (attempt, boot) = (attempt.0, boot.0);
        format!("{MAGIC}\n{attempt:016x} {boot:016x} {peer} {name}\n")
    }

    fn decode(bytes: &[u8], domain: DomainId) -> Option<Self> {
        let text = core::str::from_utf8(bytes).ok()?;
        let line = text.strip_prefix(MAGIC)?.strip_prefix('\n')?;
        let mut words = line.trim_end_matches('\n').splitn(4, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let of = GivenUp {
            attempt: Attempt(number()?),
            boot: Boot(number()?),
            peer: words.next()?.into(),
            name: words.next()?.into(),
        };
        Some(Self {
            of,
            domain: Some(domain),
        })
    }
}

/// What is undecided about a domain.
enum Undecided {
    /// Given up, and here in memory.
    GivenUp(Rc<Job>),
    /// Given up before this host was restarted.
    Orphan(GivenUp),
    /// It runs there, and memory of it is here.
    Rest(Rc<Job>),
}

impl Undecided {
    fn peer(&self) -> &str {
        match self {
            Undecided::GivenUp(job) | Undecided::Rest(job) => &job.peer,
            Undecided::Orphan(orphan) => &orphan.peer,
        }
    }

    fn explain(&self, name: &str) -> String {
        let peer = self.peer();
        let what = match self {
            Undecided::GivenUp(job) if job.is_unsure() => {
                return format!(
                    "domain '{name}' was given up to {peer}, which was restarted since and has no journal that says\n\
                     whether the domain ran there. It does not run there now. Nobody but you can know:\n\
                     - if it never ran there, --peer-is-gone lets it go on HERE, and nothing is lost;\n\
                     - if it ran there, its disks are newer than its memory here, and would be destroyed: xl destroy\n\
                     {name} ends what is here, and xl create makes it again from its disks.\n"
                );
            }
            Undecided::GivenUp(_) => format!(
                "domain '{name}' was given up to {peer}, and {peer} has not said whether it runs there. Either\n\
                 - it never ran there: then it can go on here and nothing is lost; or\n\
                 - it ran there, and wrote to its disks and to others after it had left this host.\n\
                 When {peer} answers, that is settled by itself. --peer-is-gone lets the domain go on HERE, as it was\n\
                 when it left. If {peer} still runs it, TWO COPIES RUN and destroy its disks; if it ran there, its\n\
                 disks are newer than its memory and may be destroyed too."
            ),
            Undecided::Orphan(_) => format!(
                "domain '{name}' was given up to {peer} before this host was restarted; its memory here is gone.\n\
                 When {peer} answers, it is known whether it runs there. --peer-is-gone lets it be made again here\n\
                 (xl create). If {peer} still runs it, TWO COPIES RUN and destroy its disks."
            ),
            Undecided::Rest(_) => format!(
                "domain '{name}' runs on {peer}, and part of its memory is still here. Neither side has all of it.\n\
                 Wait for {peer}; or --peer-is-gone frees what is here: the domain is LOST, and can be made again\n\
                 from its disks (xl create). If {peer} still runs it, it waits there for ever: xl destroy there."
            ),
        };
        format!(
            "{what}\nSay it only if {peer} is switched off and will not be switched on again with its memory or disks.\n"
        )
    }
}

/// What a future gives, unless the operator speaks first.
pub(super) async fn unless_claimed<T>(
    site: &impl Site,
    job: &Job,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    let mut claimed = pin!(async {
        while !job.is_claimed() && !job.is_dropped() {
            site.sleep_until(site.now_us() + LOOK_US).await;
        }
    });
    poll_fn(|context| {
        if let Poll::Ready(value) = future.as_mut().poll(context) {
            return Poll::Ready(Some(value));
        }
        claimed.as_mut().poll(context).map(|()| None)
    })
    .await
}

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// The operator has claimed the domain: it goes on here. False: that could not be written down, or it is
    /// settled.
    pub(super) async fn claim(&mut self) -> bool {
        let (next, _) = source::step(self.attempt, self.state, Input::Claim);
        let (State::Committing(boot), State::Claimed(_)) = (self.state, next) else {
            self.job.set_claimed(false);
            return false;
        };
        let of = GivenUp {
            attempt: self.attempt,
            boot,
            peer: self.peer.into(),
            name: self.entry.config.name.clone(),
        };
        let domain = Some(self.domain);
        let claim = Claim { of, domain };
        let hypervisor = self.tools.site.hypervisor();
        let noted = hypervisor.blob_write(self.domain, CLAIM_BLOB, claim.encode().as_bytes());
        let written = match noted {
            Ok(()) => self.tools.moves.write(Line::Claimed(self.attempt)).await,
            Err(status) => Err(status.to_string()),
        };
        if let Err(why) = written {
            let _ = hypervisor.blob_write(self.domain, CLAIM_BLOB, &[]);
            self.job.tell(format!("it is not claimed: {why}"));
            self.job.set_claimed(false);
            return false;
        }
        self.state = next;
        self.go_on().await;
        self.tools.jobs.press(claim);
        true
    }
}

impl<S: Site> Toolstack<S> {
    fn undecided(&self, name: &str) -> Result<Undecided, OperateError> {
        let other = |what: String| Err(OperateError::Other(what));
        let orphans = self.moves.orphans();
        if let Some(orphan) = orphans.into_iter().find(|orphan| orphan.name == name) {
            return Ok(Undecided::Orphan(orphan));
        }
        let all = self.jobs.all();
        let claimed = |job: &&Rc<Job>| job.is_claimed() && job.stage() < Stage::Done;
        if let Some(job) = all.iter().filter(claimed).find(|job| job.name == name) {
            let peer = &job.peer;
            return other(format!(
                "domain '{name}' was claimed; {peer} is told when it answers"
            ));
        }
        let domain = id_of(&resolve(self.site.hypervisor(), name)?);
        let Some(job) = self.jobs.of(domain) else {
            return other(format!(
                "domain '{name}' is not on the move: nothing is undecided"
            ));
        };
        let (stage, peer) = (job.stage(), &job.peer);
        match (job.direction, stage) {
            (Direction::Out, Stage::HandOver) => Ok(Undecided::GivenUp(job)),
            (Direction::Out, Stage::Fetch) => Ok(Undecided::Rest(job)),
            (Direction::In, Stage::Fetch) => {
                let missing = job.fetched().missing;
                other(format!(
                    "domain '{name}' runs here, and {missing} pages of its memory are on {peer} only: if {peer} \
                     has lost its power they are gone. Wait for {peer} to connect; or, if it never will: \
                     xl destroy {name}, and xl create it again from its disks"
                ))
            }
            (Direction::Out, _) => other(format!(
                "nothing is undecided: domain '{name}' is this host's ({stage}; xl migrate-cancel {name})"
            )),
            (Direction::Within, _) => other(format!(
                "nothing is undecided: domain '{name}' has its disks moved ({stage}; xl migrate-cancel {name})"
            )),
            (Direction::In, _) => other(format!(
                "nothing is undecided: domain '{name}' is {peer}'s ({stage}); when {peer} says nothing for a \
                 while, it is refused by itself"
            )),
        }
    }

    /// What is undecided about a domain, and what `--peer-is-gone` would do.
    pub fn explain_undecided(&self, name: &str) -> Result<String, OperateError> {
        Ok(self.undecided(name)?.explain(name))
    }

    /// `xl migrate-resolve --peer-is-gone`. Returns what to tell; claims that are to be pressed are in
    /// [`super::Jobs::take_claims`].
    pub async fn resolve_move<P: Peers>(
        &self,
        peers: &P,
        name: &str,
    ) -> Result<String, OperateError> {
        let undecided = self.undecided(name)?;
        let peer = String::from(undecided.peer());
        let is_unsure = matches!(&undecided, Undecided::GivenUp(job) if job.is_unsure());
        if !is_unsure && self.answers(peers, &peer).await {
            return Err(OperateError::Other(format!(
                "{peer} answers: it is not gone, and says by itself whose the domain is (xl migrate-status)"
            )));
        }
        match undecided {
            Undecided::GivenUp(job) => {
                self.claimed_by(&job).await?;
                Ok(format!(
                    "domain '{name}' goes on here; {peer} is told if it ever answers"
                ))
            }
            Undecided::Rest(job) => {
                self.claimed_by(&job).await?;
                Ok(format!(
                    "domain '{name}' is lost; what was left of it here is freed"
                ))
            }
            Undecided::Orphan(of) => {
                let written = self.moves.write(Line::Claimed(of.attempt)).await;
                written.map_err(OperateError::Other)?;
                self.moves.forget_orphan(of.attempt);
                self.jobs.press(Claim { of, domain: None });
                Ok(format!(
                    "domain '{name}' may be made here (xl create); {peer} is told if it ever answers"
                ))
            }
        }
    }

    /// Whether a host answers at all.
    async fn answers<P: Peers>(&self, peers: &P, peer: &str) -> bool {
        let asked = async {
            let link = self.dialled(peers, peer).await?;
            let mut talk = Talk::begin(&self.site, link, peer).await?;
            let hello = self.hello(Purpose::Ask, false)?.encode();
            talk.say(FrameKind::HELLO, &[hello.as_bytes()], ANSWER_LIMIT_US)
                .await?;
            hear_hello(&mut talk).await
        };
        asked.await.is_ok()
    }

    /// Tells a job, and waits until it has heard.
    async fn claimed_by(&self, job: &Job) -> Result<(), OperateError> {
        job.set_claimed(true);
        let end_us = self.site.now_us() + HEARD_LIMIT_US;
        while job.is_claimed() && job.stage() != Stage::Done {
            if self.site.now_us() > end_us {
                let what = "it is claimed as soon as its job hears of it (xl migrate-status)";
                return Err(OperateError::Other(what.into()));
            }
            self.site.sleep_until(self.site.now_us() + LOOK_US).await;
        }
        match job.is_claimed() {
            true => Ok(()),
            false => Err(OperateError::Other(
                job.lines(0).pop().unwrap_or_else(|| "it is settled".into()),
            )),
        }
    }

    /// `xl destroy` of a domain that was given up to a host that cannot know whether it ran there. `None`: it is
    /// no such domain.
    pub(in crate::operate) async fn drop_unsure(
        &self,
        domain: DomainId,
    ) -> Option<Result<(), OperateError>> {
        let job = self.jobs.of(domain).filter(|job| job.is_unsure())?;
        job.set_dropped();
        let end_us = self.site.now_us() + HEARD_LIMIT_US;
        while job.stage() != Stage::Done {
            if self.site.now_us() > end_us {
                let what = "it is destroyed as soon as its job hears of it (xl migrate-status)";
                return Some(Err(OperateError::Other(what.into())));
            }
            self.site.sleep_until(self.site.now_us() + LOOK_US).await;
        }
        match self.site.hypervisor().domain_info(domain) {
            Err(Status::NoDomain) => Some(Ok(())),
            Ok(_) | Err(_) => None,
        }
    }

    /// What is noted with a domain of its being claimed.
    pub(super) fn claim_of(&self, domain: DomainId) -> Option<Claim> {
        let noted = self.site.hypervisor().blob_read(domain, CLAIM_BLOB).ok()?;
        Claim::decode(&noted, domain)
    }

    /// After a restart of dom0: the other host of a domain that was claimed is told again.
    pub(crate) fn press_on(&self, domain: DomainId) {
        if let Some(claim) = self.claim_of(domain) {
            self.jobs.press(claim);
        }
    }

    /// Tells the other host of a claim until it answers. Returns what there is to tell.
    pub async fn press_claim<P: Peers>(&self, peers: &P, claim: &Claim) -> String {
        let GivenUp {
            attempt,
            boot,
            peer,
            name,
        } = &claim.of;
        let job = self
            .jobs
            .begin(Direction::Out, name, peer, self.site.now_us());
        job.set_claimed(true);
        job.enter(Stage::HandOver);
        let mut state = match claim.domain {
            Some(_) => State::Claimed(*boot),
            None => State::ClaimedCold(*boot),
        };
        let mut pause_us = PAUSE_US;
        while !state.is_over() {
            match self.ask_for_orphan(peers, &claim.of, state).await {
                Ok(next) => state = next,
                Err(error) => {
                    let what = format!("claimed: it is here by the operator's word; {error}");
                    job.tell_last(what);
                    let until_us = self.site.now_us() + pause_us;
                    self.site.sleep_until(until_us).await;
                    pause_us = (pause_us * 2).min(PAUSE_US_MAX);
                }
            }
        }
        let outcome = match state == State::Disputed {
            true => Err(self.dispute(claim)),
            false => Ok(format!("{peer} knows that the domain is this host's")),
        };
        if let Err(why) = self.moves.write(Line::Settled(*attempt)).await {
            job.tell(why);
        }
        if let Some(domain) = claim.domain
            && self.claim_of(domain).is_some_and(|noted| noted == *claim)
        {
            let _ = self.site.hypervisor().blob_write(domain, CLAIM_BLOB, &[]);
        }
        job.end(outcome.clone());
        let (Ok(told) | Err(told)) = outcome;
        format!("domain '{name}': {told}")
    }

    /// The other host has the domain after all: what is here stands still.
    fn dispute(&self, claim: &Claim) -> String {
        let hypervisor = self.site.hypervisor();
        let GivenUp { peer, name, .. } = &claim.of;
        let lives = |domain: &DomainId| hypervisor.domain_info(*domain).is_ok();
        let named = || resolve(hypervisor, name).ok().map(|info| id_of(&info));
        let Some(domain) = claim.domain.filter(lives).or_else(named) else {
            return format!("{peer} runs it after all; here is nothing of it any more");
        };
        if let Some(job) = self.jobs.of(domain) {
            job.cancel();
        }
        let paused = super::arrive::tried(|| hypervisor.domain_pause(domain));
        let here = match paused {
            Ok(()) => "the copy here is paused".into(),
            Err(Status::NoDomain) => "the copy here has ended".into(),
            Err(status) => format!("the copy here CANNOT BE PAUSED: {status}"),
        };
        format!(
            "DISPUTED: it was claimed here because {peer} was said to be gone for ever, and {peer} runs it: {here}. \
             Both may have written to its disks. Destroy one of the two: xl destroy {name}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_comes_back() {
        let of = GivenUp {
            attempt: Attempt(7),
            boot: Boot(u64::MAX),
            peer: "host-b".into(),
            name: "a name".into(),
        };
        let domain = DomainId::new(3, 1);
        let claim = Claim {
            of,
            domain: Some(domain),
        };
        let text = claim.encode();
        assert_eq!(Claim::decode(text.as_bytes(), domain), Some(claim));
        assert_eq!(Claim::decode(b"godwit-claim 1\n7 8 peer\n", domain), None);
        assert_eq!(Claim::decode(b"", domain), None);
    }
}
