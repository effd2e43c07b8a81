//! Post-copy at the destination: the domain runs here, and what is missing of its memory is fetched.
//!
//! ```text
//!   destination                                     source
//!   FETCH runs, two under way     ------------->    read, encode
//!                                 <-------------    FETCHED batch
//!   fill, wake who waits
//!   COMPLETE                      ------------->    free everything
//! ```
//!
//! What is missing is known to the hypervisor alone; it is read at the begin of each connection. So a connection that is lost, or a
//! dom0 that was restarted, costs what was under way, and no page is filled twice. The source connects, again and again.

use super::destination::unexpected;
use super::hashes::hash;
use super::job::{Direction, Job, Stage};
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US};
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::operate::migrate::leave::runs_of;
use crate::operate::migrate::rounds::still_there;
use crate::operate::{OperateError, Toolstack};
use crate::registry::Entry as RegistryEntry;
use crate::site::{DeviceHost, Site, yield_now};
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use godwit_abi::{DomainId, PAGE_SIZE_BYTES, Status};
use godwit_migrate::encode::choice::{Encoding, decode};
use godwit_migrate::encode::{PAGE_BYTES, Page, batch};
use godwit_migrate::handover::Attempt;
use godwit_migrate::link::Link;
use godwit_migrate::postcopy::Fetch;
use godwit_migrate::precopy::PageSet;
use godwit_migrate::stream::{FrameKind, MemoryDigest, encode_zeroes};

/// Absent pages asked about by one call.
const PIECE_PAGES: u64 = 1 << 16;

/// A domain whose memory has not all come.
struct Fetching {
    attempt: Attempt,
    job: Rc<Job>,
    /// Of what has come while it ran here.
    digest: Cell<MemoryDigest>,
    /// That is all: dom0 was not restarted meanwhile.
    is_whole: bool,
    /// The connection that fetches: a newer one ends an older one.
    turn: Cell<u32>,
}

/// Domains whose memory has not all come.
#[derive(Default)]
pub struct Fetches {
    all: RefCell<BTreeMap<DomainId, Rc<Fetching>>>,
}

impl Fetches {
    pub(crate) fn has(&self, domain: DomainId) -> bool {
        self.all.borrow().contains_key(&domain)
    }

    /// The domain is to end: nothing is fetched any more. Whether something was.
    pub(crate) fn forget(&self, domain: DomainId) -> bool {
        let fetching = self.all.borrow_mut().remove(&domain);
        if let Some(fetching) = &fetching {
            fetching.turn.set(fetching.turn.get() + 1);
            let why = "it was destroyed before all of its memory had come";
            fetching.job.end(Err(why.into()));
        }
        fetching.is_some()
    }

    fn of(&self, domain: DomainId) -> Option<Rc<Fetching>> {
        self.all.borrow().get(&domain).cloned()
    }

    fn by(&self, attempt: Attempt) -> Option<DomainId> {
        let all = self.all.borrow();
        let mut found = all.iter().filter(|(_, it)| it.attempt == attempt);
        found.next().map(|(domain, _)| *domain)
    }
}

impl<S: Site> Toolstack<S> {
    /// From now on the memory of a domain is fetched.
    pub(super) fn begin_fetch(&self, domain: DomainId, attempt: Attempt, job: Rc<Job>) {
        job.enter(Stage::Fetch);
        self.note_fetching(domain, attempt, job, true);
    }

    fn note_fetching(&self, domain: DomainId, attempt: Attempt, job: Rc<Job>, is_whole: bool) {
        let fetching = Fetching {
            attempt,
            job,
            digest: Cell::default(),
            is_whole,
            turn: Cell::new(0),
        };
        let mut all = self.fetches.all.borrow_mut();
        all.insert(domain, Rc::new(fetching));
    }

    /// After a restart of dom0: a domain of whose memory something is missing waits for its source.
    pub(crate) fn go_on_fetching(&self, domain: DomainId) -> Result<Option<String>, Status> {
        let entry = self.registry.entry(domain);
        let Some((entry, arrival)) = entry.and_then(|it| it.arrival.map(|arrival| (it, arrival)))
        else {
            return Ok(None);
        };
        let missing = self.missing_of(domain)?.len();
        if missing == 0 {
            return Ok(None);
        }
        let (name, now_us) = (&entry.config.name, self.site.now_us());
        let job = self.jobs.begin(Direction::In, name, "its source", now_us);
        job.concerns(domain);
        job.enter(Stage::Fetch);
        let fetched = godwit_migrate::postcopy::Fetched {
            missing,
            ..Default::default()
        };
        job.note_fetched(fetched, false);
        self.note_fetching(domain, Attempt(arrival.attempt), job, false);
        Ok(Some(format!(
            "domain '{name}' waits for {missing} pages of its memory from the host it came from"
        )))
    }

    /// The absent pages of a domain.
    fn missing_of(&self, domain: DomainId) -> Result<PageSet, Status> {
        let hypervisor = self.site.hypervisor();
        let pages = hypervisor.domain_info(domain)?.memory_pages_max;
        let memory = memory_of(pages.saturating_mul(PAGE_SIZE_BYTES));
        let end = memory.last().map_or(0, |range| range.end) / PAGE_SIZE_BYTES;
        let mut all = vec![0u64; end.div_ceil(64) as usize];
        let mut first = 0;
        while first < end {
            let words = &mut all[(first / 64) as usize..];
            let count = PIECE_PAGES.min(words.len() as u64 * 64);
            let words = &mut words[..count.div_ceil(64) as usize];
            match hypervisor.absent_read(domain, first, count, words)? {
                0 => return Err(Status::BadRecord),
                done => first += done,
            }
        }
        let mut missing = PageSet::new(end);
        missing.insert_words(&all);
        Ok(missing)
    }

    /// Another host has connected to give what is missing of a domain.
    pub(super) async fn fetch_on<L: Link>(
        &self,
        mut talk: Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let Some(attempt) = self.tell_of_attempt(&mut talk).await? else {
            return talk.finish(FAREWELL_LIMIT_US).await;
        };
        match self.fetches.by(attempt) {
            Some(domain) => self.fetch_by(domain, talk).await,
            None => self.complete_of(attempt, talk).await,
        }
    }

    /// Nobody fetches for a domain: it has all, or is no more, or was taken in just now and is not ready yet.
    async fn complete_of<L: Link>(
        &self,
        attempt: Attempt,
        talk: Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let all = self.registry.all().into_iter();
        let of = |entry: &RegistryEntry| entry.arrival.is_some_and(|it| it.attempt == attempt.0);
        for (domain, _) in all.filter(|(_, entry)| of(entry)) {
            // To say that it has all would let its source free what it lacks.
            if !self.missing_of(domain)?.is_empty() {
                return Err(talk.trouble("it lacks memory and is not ready to fetch it: ask again"));
            }
        }
        complete(talk, None).await
    }

    /// Fetches what is missing of a domain over a connection, as far as that goes.
    pub(super) async fn fetch_by<L: Link>(
        &self,
        domain: DomainId,
        mut talk: Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let Some(fetching) = self.fetches.of(domain) else {
            let arrival = self.registry.entry(domain).and_then(|it| it.arrival);
            let attempt = Attempt(arrival.map_or(0, |it| it.attempt));
            return self.complete_of(attempt, talk).await;
        };
        fetching.turn.set(fetching.turn.get() + 1);
        match self.fetch_all(domain, &fetching, &mut talk).await {
            Ok(()) => {
                self.fetches.all.borrow_mut().remove(&domain);
                let digest = fetching.is_whole.then_some(fetching.digest.get());
                let told = complete(talk, digest).await;
                fetching
                    .job
                    .end(Ok("it runs here with all of its memory".into()));
                told
            }
            Err(error) => {
                fetching.job.note_fetched(fetching.job.fetched(), false);
                let what = format!("{error}; waiting for {} to connect", fetching.job.peer);
                fetching.job.tell(what);
                Err(error)
            }
        }
    }

    async fn fetch_all<L: Link>(
        &self,
        domain: DomainId,
        fetching: &Fetching,
        talk: &mut Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        let turn = fetching.turn.get();
        let (hypervisor, devices) = (self.site.hypervisor(), self.site.devices());
        let mut fetch = Fetch::new(self.missing_of(domain)?, fetching.job.fetched());
        loop {
            if fetching.turn.get() != turn {
                return Err(talk.trouble("another connection goes on with it"));
            }
            // One that has ended needs nothing more.
            if still_there(hypervisor, domain).is_err() {
                return Ok(());
            }
            let mut wanted = hypervisor.absent_wanted(domain)?;
            wanted.extend(devices.absent_wanted(domain));
            while let Some(pages) = fetch.next(&wanted, self.site.now_us()) {
                let body = encode_zeroes(&runs_of(pages.into_iter()));
                talk.say(FrameKind::FETCH, &[&body], ANSWER_LIMIT_US)
                    .await?;
            }
            fetching.job.note_fetched(fetch.fetched(), true);
            if fetch.oldest().is_empty() {
                return Ok(());
            }
            let frame = talk.hear(ANSWER_LIMIT_US).await?;
            if frame.kind != FrameKind::FETCHED {
                return Err(unexpected(talk, &frame));
            }
            if fetching.turn.get() == turn {
                self.fill(domain, fetching, fetch.oldest(), &frame.body)
                    .await
                    .map_err(|why| talk.trouble(&why.to_string()))?;
                fetch.answered(self.site.now_us());
            }
        }
    }

    /// Fills the pages that were asked for with what has come; those that have not are the domain's no more.
    async fn fill(
        &self,
        domain: DomainId,
        fetching: &Fetching,
        asked: &[u64],
        body: &[u8],
    ) -> Result<(), OperateError> {
        let bad = |what: &str| OperateError::Other(format!("it sends {what}"));
        let (hypervisor, devices) = (self.site.hypervisor(), self.site.devices());
        let items = batch::decode(body).map_err(|_| bad("a batch that is none"))?;
        let mut gone: BTreeSet<u64> = asked.iter().copied().collect();
        let mut page: Box<Page> = Box::new([0; PAGE_BYTES]);
        for item in items {
            for number in item.page..item.page + item.pages {
                if !gone.remove(&number) {
                    return Err(bad("a page that was not asked for"));
                }
                match item.encoding {
                    Encoding::Zero => page.fill(0),
                    Encoding::Lz4 | Encoding::Raw => {
                        decode(item.encoding, item.bytes, &mut page)
                            .map_err(|_| bad("a page that cannot be decoded"))?
                    }
                    Encoding::Delta => return Err(bad("a difference to a page that is not here")),
                }
                if hypervisor.absent_fill(domain, number, &page[..])? > 0 {
                    let mut digest = fetching.digest.get();
                    digest.put(hash(number, &page));
                    fetching.digest.set(digest);
                }
                devices.absent_filled(domain, number..number + 1);
            }
        }
        let gone: Vec<u64> = gone.into_iter().collect();
        if !gone.is_empty() {
            hypervisor.memory_release(domain, &gone)?;
        }
        for number in gone {
            // Whoever waits for it finds nothing there, as it would have at the source.
            hypervisor.absent_fill(domain, number, &page[..])?;
            devices.absent_filled(domain, number..number + 1);
        }
        yield_now().await;
        Ok(())
    }
}

/// Nothing is missing any more.
async fn complete<S: Site, L: Link>(
    mut talk: Talk<'_, S, L>,
    digest: Option<MemoryDigest>,
) -> Result<(), OperateError> {
    let body = digest.unwrap_or_default().encode();
    let pieces: [&[u8]; 2] = [&body, &[u8::from(digest.is_some())]];
    talk.say(FrameKind::COMPLETE, &pieces, ANSWER_LIMIT_US)
        .await?;
    talk.finish(FAREWELL_LIMIT_US).await
}
