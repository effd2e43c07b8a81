//! Post-copy at the source: the domain runs on the other host, and what is left of its memory here is given to it as it asks.
//!
//! Nothing here is freed, and nothing given up, before the other host says that nothing is missing: a connection that is lost is
//! made anew, again and again, by this side. Only when the boot of the other host that took the domain is over is the
//! domain lost: what is here is older than what it was when it ended.

use super::copy::COSTS;
use super::destination::unexpected;
use super::hashes::Hashes;
use super::hello::Purpose;
use super::job::Stage;
use super::resolve::unless_claimed;
use super::settle::{PAUSE_US, PAUSE_US_MAX};
use super::source::{Leaving, hear_hello};
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, Peers, WORK_LIMIT_US};
use crate::host::Hypervisor;
use crate::operate::OperateError;
use crate::operate::save::is_hole;
use crate::site::Site;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::PAGE_SIZE_BYTES;
use godwit_migrate::encode::batch::Batch;
use godwit_migrate::encode::choice::Encoder;
use godwit_migrate::encode::{PAGE_BYTES, Page};
use godwit_migrate::handover::source::State;
use godwit_migrate::handover::{Ask, Boot, Request, Tell};
use godwit_migrate::link::Link;
use godwit_migrate::postcopy::{FETCH_PAGES, Fetched};
use godwit_migrate::stream::{DIGEST_BYTES, Frame, FrameKind, MemoryDigest, Zeroes};

/// What has not gone with the domain.
pub(super) struct Rest {
    /// Who has it.
    boot: Boot,
    /// Pages that were named; not known after a restart of dom0.
    pages: Option<u64>,
    /// Of what was given.
    hashes: Hashes,
}

impl Rest {
    pub(super) fn new(boot: Boot, pages: u64) -> Self {
        Self {
            boot,
            pages: Some(pages),
            hashes: Hashes::default(),
        }
    }

    /// As a dom0 finds it that was restarted.
    pub(super) fn after_restart(boot: Boot) -> Self {
        Self {
            pages: None,
            ..Self::new(boot, 0)
        }
    }
}

/// How a connection ended.
enum Given {
    /// Nothing is missing any more.
    All,
    /// The host that had the domain is no more.
    Lost,
    /// The operator says so.
    GoneForEver,
}

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// Gives the other host what it asks for until it has all; first over the connection there is.
    pub(super) async fn give_rest(&mut self, first: Option<Talk<'_, S, P::Link>>) {
        if self.state != State::Moved {
            return;
        }
        let Some(mut rest) = self.rest.take() else {
            return;
        };
        self.job.enter(Stage::Fetch);
        let mut outcome = match first {
            Some(mut talk) => {
                let given = self.give(&mut talk, &mut rest).await;
                let _ = talk.finish(FAREWELL_LIMIT_US).await;
                given
            }
            None => self.give_again(&mut rest).await,
        };
        let mut pause_us = PAUSE_US;
        loop {
            match outcome {
                Ok(Given::All) => return,
                Ok(Given::Lost) => {
                    self.job.tell(format!(
                        "{} was restarted before it had all of the domain's memory: the domain is lost with it",
                        self.peer
                    ));
                    self.state = State::Lost;
                    return;
                }
                Ok(Given::GoneForEver) => {
                    let peer = self.peer;
                    self.job
                        .tell(format!("{peer} is gone for ever, and the domain with it"));
                    self.state = State::Lost;
                    return;
                }
                Err(error) => {
                    self.job.note_fetched(self.job.fetched(), false);
                    self.job.tell(format!("{error}; connecting again"));
                }
            }
            let (site, job) = (&self.tools.site, self.job);
            let pause = site.sleep_until(site.now_us() + pause_us);
            unless_claimed(site, job, pause).await;
            pause_us = (pause_us * 2).min(PAUSE_US_MAX);
            let given = unless_claimed(site, job, self.give_again(&mut rest)).await;
            outcome = match given {
                Some(given) => given,
                None => Ok(Given::GoneForEver),
            };
        }
    }

    /// Over a new connection.
    async fn give_again(&self, rest: &mut Rest) -> Result<Given, OperateError> {
        let link = self.tools.dialled(self.peers, self.peer).await?;
        let mut talk = Talk::begin(&self.tools.site, link, self.peer).await?;
        let hello = self.tools.hello(Purpose::Fetch, false)?.encode();
        talk.say(FrameKind::HELLO, &[hello.as_bytes()], ANSWER_LIMIT_US)
            .await?;
        hear_hello(&mut talk).await?;
        let request = Request {
            attempt: self.attempt,
            boot: Some(rest.boot),
            ask: Ask::Commit,
        };
        talk.say(FrameKind::REQUEST, &[&request.encode()], ANSWER_LIMIT_US)
            .await?;
        let frame = talk.hear(2 * WORK_LIMIT_US).await?;
        let reply = godwit_migrate::handover::Reply::decode(&frame.body);
        match (frame.kind, reply.map(|reply| reply.tell)) {
            (FrameKind::REPLY, Some(Tell::Running)) => {}
            (FrameKind::REPLY, Some(Tell::Gone { .. } | Tell::Unsure)) => return Ok(Given::Lost),
            (_, _) => return Err(unexpected(&talk, &frame)),
        }
        let given = self.give(&mut talk, rest).await?;
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        Ok(given)
    }

    /// Answers until nothing is missing.
    async fn give<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        rest: &mut Rest,
    ) -> Result<Given, OperateError> {
        let mut encoder = Encoder::new(0, COSTS);
        loop {
            let given = rest.hashes.digest().pages();
            let missing = rest.pages.unwrap_or(0).saturating_sub(given);
            let fetched = Fetched {
                missing,
                ..Fetched::default()
            };
            self.job.note_fetched(fetched, true);
            let frame = talk.hear(ANSWER_LIMIT_US).await?;
            match frame.kind {
                FrameKind::FETCH => {
                    let runs = Zeroes::decode(&frame.body).ok();
                    let count = |runs: &Vec<Range<u64>>| -> u64 {
                        runs.iter().map(|run| run.end - run.start).sum()
                    };
                    let runs = runs.filter(|runs| count(runs) <= FETCH_PAGES as u64);
                    let runs = runs.ok_or_else(|| unexpected(talk, &frame))?;
                    let batch = self.read(runs, &mut encoder, rest)?;
                    let (head, data) = batch.finish();
                    self.pace((head.len() + data.len()) as u64).await;
                    talk.say(FrameKind::FETCHED, &[&head, &data], ANSWER_LIMIT_US)
                        .await?;
                    talk.push(ANSWER_LIMIT_US).await?;
                }
                FrameKind::COMPLETE => {
                    self.compare(talk, &frame, rest)?;
                    return Ok(Given::All);
                }
                _ => return Err(unexpected(talk, &frame)),
            }
        }
    }

    /// Keeps to the bandwidth that was asked for.
    async fn pace(&self, bytes: u64) {
        if let Some(rate) = self.options.bandwidth_bytes {
            let took_us = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
            let site = &self.tools.site;
            site.sleep_until(site.now_us() + took_us as u64).await;
        }
    }

    fn read(
        &self,
        runs: Vec<Range<u64>>,
        encoder: &mut Encoder,
        rest: &mut Rest,
    ) -> Result<Batch, OperateError> {
        let hypervisor = self.tools.site.hypervisor();
        let mut page: Box<Page> = Box::new([0; PAGE_BYTES]);
        let mut batch = Batch::default();
        for number in runs.into_iter().flatten() {
            let address = number * PAGE_SIZE_BYTES;
            match hypervisor.memory_read(self.domain, address, &mut page[..]) {
                Ok(()) => {}
                Err(status) if is_hole(status) => continue,
                Err(status) => return Err(status.into()),
            }
            let before = batch.data().len();
            let (encoding, hash) = encoder.encode(number, &page, None, batch.data());
            rest.hashes.set(number, hash);
            let bytes = batch.data().len() - before;
            batch.push(number, encoding, bytes);
        }
        Ok(batch)
    }

    /// Compares what was given with what was taken, and tells.
    fn compare<L: Link>(
        &self,
        talk: &Talk<'_, S, L>,
        frame: &Frame,
        rest: &Rest,
    ) -> Result<(), OperateError> {
        let split = frame.body.split_at_checked(DIGEST_BYTES);
        let digest = split.and_then(|(digest, _)| MemoryDigest::decode(digest));
        let (Some(digest), Some((_, [is_whole]))) = (digest, split) else {
            return Err(unexpected(talk, frame));
        };
        let pages = digest.pages();
        self.job.tell(match (is_whole, rest.pages) {
            (1, Some(_)) if digest == rest.hashes.digest() => {
                format!("{pages} pages were fetched; their digests are equal")
            }
            // A page that its balloon gave back meanwhile is in one of them only.
            (1, Some(_)) => format!("{pages} pages were fetched; their digests DIFFER"),
            (_, _) => "all memory was fetched; a restart of dom0 has lost its digest".to_string(),
        });
        Ok(())
    }
}
