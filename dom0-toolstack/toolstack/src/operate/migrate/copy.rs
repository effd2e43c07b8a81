//! The source's memory: rounds over what is dirty, each page encoded and its hash remembered.

use super::hashes::Hashes;
use super::job::{Jobs, Loan};
use super::landing::near;
use super::leave::runs_of;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, MoveOptions};
use crate::dirty::DirtyLog;
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::operate::OperateError;
use crate::operate::save::is_hole;
use crate::site::{DeviceHost, Site, yield_now};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, DomainInfo, PAGE_SIZE_BYTES, Status};
use godwit_migrate::encode::batch::{Batch, ENTRIES_MAX};
use godwit_migrate::encode::choice::{Costs, Encoder, Encoding, Sent};
use godwit_migrate::encode::{PAGE_BYTES, Page};
use godwit_migrate::link::Link;
use godwit_migrate::precopy::{PageSet, PreCopy};
use godwit_migrate::stream::{FrameKind, MemoryDigest, encode_zeroes};

/// Work between two moments in which other tasks run: pages that are compressed or hashed whole, and
/// those of which little is looked at.
const YIELD_WORK: usize = 64;
const WHOLE_PAGE_WORK: usize = 4;
const PART_PAGE_WORK: usize = 1;
/// Batches under way before one must have been taken.
const WINDOW: usize = 2;
/// What stopping costs besides pages, until it was measured.
const FIXED_US: u64 = 60_000;
/// What pages cost, in nanoseconds of a slow host: see `Costs`.
pub(super) const COSTS: Costs = Costs {
    lz4: 16_000,
    delta: 3_000,
    byte: 20,
};
/// Of the memory that is to spare, what a cache for deltas gets, in 1/8ths.
const CACHE_8THS: u64 = 7;
/// What a page takes in the cache.
const CACHED_PAGE_BYTES: u64 = PAGE_SIZE_BYTES + 64;
/// Runs named by one frame.
const RUNS_MAX: usize = 4096;
/// How far ahead of the bandwidth asked for bytes may be.
const BURST_US: u64 = 20_000;

/// Memory that was copied, for the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Times the dirty log was harvested.
    pub rounds: u32,
    /// Pages and bytes by encoding.
    pub sent: Sent,
    /// Bytes on the wire.
    pub bytes: u64,
}

/// How what is missing at the stop gets there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    /// Sent before it runs there.
    Sent,
    /// Fetched while it runs there.
    Fetched,
}

/// A batch under way.
struct UnderWay {
    pages: usize,
    bytes: u64,
    begun_us: u64,
}

/// The copying of one domain's memory.
pub(super) struct Copy<'a, S: Site> {
    pub(super) site: &'a S,
    pub(super) domain: DomainId,
    log: DirtyLog,
    /// Guest pages it may have.
    pub(super) ranges: Vec<Range<u64>>,
    /// Page numbers are below this.
    pub(super) capacity: u64,
    pub(super) precopy: PreCopy,
    pub(super) encoder: Encoder,
    /// The cache's memory.
    _loan: Loan<'a>,
    pub(super) hashes: Hashes,
    /// Pages that were sent and are there no more.
    pub(super) holes: PageSet,
    under_way: VecDeque<UnderWay>,
    taken_us: u64,
    bandwidth_bytes: Option<u64>,
    /// When the next batch may go.
    paced_us: u64,
    bytes: Vec<u8>,
}

impl<'a, S: Site> Copy<'a, S> {
    pub(super) fn new(
        site: &'a S,
        jobs: &'a Jobs,
        info: &DomainInfo,
        domain: DomainId,
        options: &MoveOptions,
    ) -> Result<Self, OperateError> {
        let pages = |range: Range<u64>| range.start / PAGE_SIZE_BYTES..range.end / PAGE_SIZE_BYTES;
        let memory = memory_of(info.memory_pages_max.saturating_mul(PAGE_SIZE_BYTES));
        let ranges: Vec<Range<u64>> = memory.into_iter().map(pages).collect();
        let capacity = ranges.last().map_or(0, |range| range.end);
        let mut all = PageSet::new(capacity);
        ranges
            .iter()
            .cloned()
            .flatten()
            .for_each(|page| all.insert(page));
        let now_us = site.now_us();
        let spare_bytes = site.spare_bytes().saturating_sub(jobs.lent_bytes());
        let most_pages = spare_bytes / 8 * CACHE_8THS / CACHED_PAGE_BYTES;
        let cache_pages = most_pages.min(info.memory_pages_max);
        let mut precopy = PreCopy::new(all, options.goals, FIXED_US, now_us);
        precopy.set_limit(options.bandwidth_bytes.unwrap_or(u64::MAX));
        Ok(Self {
            site,
            domain,
            log: DirtyLog::new(site.hypervisor(), domain)?,
            ranges,
            capacity,
            precopy,
            encoder: Encoder::new(cache_pages as usize, COSTS),
            _loan: jobs.lend(cache_pages * CACHED_PAGE_BYTES),
            hashes: Hashes::default(),
            holes: PageSet::new(capacity),
            under_way: VecDeque::new(),
            taken_us: now_us,
            bandwidth_bytes: options.bandwidth_bytes,
            paced_us: now_us,
            bytes: alloc::vec![0; ENTRIES_MAX * PAGE_BYTES],
        })
    }

    /// What stopping costs besides pages.
    pub(super) fn set_fixed_us(&mut self, fixed_us: u64) {
        self.precopy.set_fixed_us(fixed_us);
    }

    /// Begins to note what is written.
    pub(super) async fn arm(&self) -> Result<(), OperateError> {
        let (hypervisor, devices) = (self.site.hypervisor(), self.site.devices());
        while !self.log.begin_step(hypervisor, devices)? {
            yield_now().await;
        }
        Ok(())
    }

    /// Ends the noting. What fails is tried again: a domain whose writes are noted is a slow one.
    pub(super) async fn disarm(site: &S, domain: DomainId) -> Result<(), Status> {
        let (hypervisor, devices) = (site.hypervisor(), site.devices());
        devices.dirty_track(domain, false);
        let log = DirtyLog::new(hypervisor, domain).or_else(|_| DirtyLog::new(hypervisor, domain));
        let log = log?;
        let mut failed = false;
        loop {
            match log.end_step(hypervisor, devices) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(_) if !failed => failed = true,
                Err(status) => return Err(status),
            }
            yield_now().await;
        }
    }

    /// What was written to since the last harvest, by the guest and by back ends.
    pub(super) fn harvest(&self) -> Result<Vec<u64>, OperateError> {
        // A bit a page is all that the stop does with pages that were not written to.
        let mut dirty = alloc::vec![0u64; self.capacity.div_ceil(64) as usize];
        let mut add = |first: u64, words: &[u64]| {
            let at = ((first / 64) as usize).min(dirty.len());
            for (all, new) in dirty[at..].iter_mut().zip(words) {
                *all |= new;
            }
        };
        let (hypervisor, devices) = (self.site.hypervisor(), self.site.devices());
        self.log.harvest(hypervisor, devices, &mut add)?;
        Ok(dirty)
    }

    /// Sends what is left of a domain that stands still.
    pub(super) async fn rest<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        pages: u64,
    ) -> Result<(), OperateError> {
        let last = self.harvest()?;
        let mut rest = self.precopy.rest(&last);
        let mut cursor = 0;
        loop {
            let pages = rest.take_from(&mut cursor, ENTRIES_MAX);
            if pages.is_empty() {
                break;
            }
            self.send(talk, &pages).await?;
        }
        if self.hashes.digest().pages() != pages {
            self.find_holes().await?;
        }
        if !self.holes.is_empty() {
            let runs = runs_of(self.holes.iter());
            self.name(talk, FrameKind::HOLES, &runs).await?;
        }
        self.drain(talk).await
    }

    pub(super) async fn name<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        kind: FrameKind,
        runs: &[Range<u64>],
    ) -> Result<(), OperateError> {
        for runs in runs.chunks(RUNS_MAX) {
            let body = encode_zeroes(runs);
            talk.say(kind, &[&body], ANSWER_LIMIT_US).await?;
        }
        Ok(())
    }

    pub(super) fn is_there(&self, page: u64) -> Result<bool, OperateError> {
        let hypervisor = self.site.hypervisor();
        match hypervisor.memory_read(self.domain, page * PAGE_SIZE_BYTES, &mut [0]) {
            Ok(()) => Ok(true),
            Err(status) if is_hole(status) => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Looks for pages that were sent and that the balloon has given back since, where the log has not said so: what balloons
    /// release counts as written, so that this is not needed in a stop.
    pub(super) async fn find_holes(&mut self) -> Result<(), OperateError> {
        let ranges = self.ranges.clone();
        for (count, page) in ranges.into_iter().flatten().enumerate() {
            if !self.is_there(page)? && self.hashes.remove(page) {
                self.encoder.forget(page);
                self.holes.insert(page);
            }
            if count % 1024 == 0 {
                yield_now().await;
            }
        }
        Ok(())
    }

    /// Sends pages, as one batch or more.
    pub(super) async fn send<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        pages: &[u64],
    ) -> Result<(), OperateError> {
        let mut batch = Batch::default();
        let (mut count, mut work) = (0, 0);
        let mut begun_us = self.site.now_us();
        let mut rest = pages;
        while let Some(first) = rest.first().copied() {
            let length = near(first, rest.iter().copied(), ENTRIES_MAX as u64);
            let wanted = rest
                .iter()
                .take_while(|page| **page - first < length)
                .count();
            let (wanted, later) = rest.split_at(wanted);
            rest = later;
            let there = self.read(first, length as usize, wanted)?;
            for page in wanted
                .iter()
                .filter(|page| there.as_ref().is_none_or(|there| there.contains(page)))
            {
                work += self.encode(*page, (page - first) as usize, &mut batch);
                count += 1;
                if work >= YIELD_WORK {
                    work = 0;
                    yield_now().await;
                }
                if batch.is_full() {
                    let full = core::mem::take(&mut batch);
                    self.dispatch(talk, full, count, begun_us).await?;
                    (count, begun_us) = (0, self.site.now_us());
                }
            }
        }
        match batch.is_empty() {
            true => Ok(()),
            false => self.dispatch(talk, batch, count, begun_us).await,
        }
    }

    /// Reads consecutive pages, of which some are `wanted`. `None`: all are there; else those that are.
    fn read(
        &mut self,
        first: u64,
        count: usize,
        wanted: &[u64],
    ) -> Result<Option<Vec<u64>>, OperateError> {
        let hypervisor = self.site.hypervisor();
        let bytes = &mut self.bytes[..count * PAGE_BYTES];
        match hypervisor.memory_read(self.domain, first * PAGE_SIZE_BYTES, bytes) {
            Ok(()) => return Ok(None),
            Err(status) if is_hole(status) => {}
            Err(status) => return Err(status.into()),
        }
        let mut there = Vec::with_capacity(wanted.len());
        for page in wanted.iter().copied() {
            let at = (page - first) as usize * PAGE_BYTES;
            let bytes = &mut bytes[at..at + PAGE_BYTES];
            match hypervisor.memory_read(self.domain, page * PAGE_SIZE_BYTES, bytes) {
                Ok(()) => there.push(page),
                Err(status) if is_hole(status) => {
                    if self.hashes.remove(page) {
                        self.encoder.forget(page);
                        self.holes.insert(page);
                    }
                }
                Err(status) => return Err(status.into()),
            }
        }
        Ok(Some(there))
    }

    /// Puts a page into a batch. How much work it was.
    fn encode(&mut self, page: u64, index: usize, batch: &mut Batch) -> usize {
        let bytes = &self.bytes[index * PAGE_BYTES..(index + 1) * PAGE_BYTES];
        let contents: &Page = bytes.try_into().expect("a whole page");
        let before = self.hashes.known(page);
        if before.is_none() {
            self.holes.remove(page);
        }
        let begin = batch.data().len();
        let (encoding, hash) = self.encoder.encode(page, contents, before, batch.data());
        self.hashes.set(page, hash);
        let bytes = batch.data().len() - begin;
        batch.push(page, encoding, bytes);
        match encoding {
            Encoding::Zero | Encoding::Delta => PART_PAGE_WORK,
            Encoding::Lz4 | Encoding::Raw => WHOLE_PAGE_WORK,
        }
    }

    async fn dispatch<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        batch: Batch,
        pages: usize,
        begun_us: u64,
    ) -> Result<(), OperateError> {
        self.pace().await;
        let before = talk.bytes();
        let (head, data) = batch.finish();
        talk.say(FrameKind::BATCH, &[&head, &data], ANSWER_LIMIT_US)
            .await?;
        talk.push(ANSWER_LIMIT_US).await?;
        let bytes = talk.bytes() - before;
        if let Some(rate) = self.bandwidth_bytes {
            let took_us = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
            self.paced_us = self.paced_us.max(self.site.now_us()) + took_us as u64;
        }
        self.under_way.push_back(UnderWay {
            pages,
            bytes,
            begun_us,
        });
        while self.under_way.len() > WINDOW {
            self.hear_taken(talk).await?;
        }
        Ok(())
    }

    /// Waits until the bandwidth allows another batch.
    async fn pace(&self) {
        if self.bandwidth_bytes.is_some() {
            let until_us = self.paced_us.saturating_sub(BURST_US);
            self.site.sleep_until(until_us).await;
        }
    }

    async fn hear_taken<L: Link>(&mut self, talk: &mut Talk<'_, S, L>) -> Result<(), OperateError> {
        let frame = talk.hear(ANSWER_LIMIT_US).await?;
        if frame.kind != FrameKind::TAKEN {
            return Err(super::source::unexpected(talk, &frame));
        }
        let Some(batch) = self.under_way.pop_front() else {
            return Err(talk.trouble("it has taken more than was sent"));
        };
        let now_us = self.site.now_us();
        let took_us = now_us - batch.begun_us.max(self.taken_us);
        self.taken_us = now_us;
        self.precopy.sent(batch.pages, batch.bytes, took_us);
        Ok(())
    }

    /// Waits until everything sent was taken.
    pub(super) async fn drain<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
    ) -> Result<(), OperateError> {
        while !self.under_way.is_empty() {
            self.hear_taken(talk).await?;
        }
        Ok(())
    }

    /// Reads all memory again and compares it with what was sent: a difference is a write that nobody
    /// noted.
    pub(super) async fn verify(&mut self) -> Result<(), OperateError> {
        let bytes = &mut self.bytes[..PAGE_BYTES];
        let page: &mut Page = bytes.try_into().expect("a whole page");
        let different = self
            .hashes
            .different(self.site.hypervisor(), self.domain, page);
        match different.await?.as_slice() {
            [] => Ok(()),
            pages => Err(OperateError::Other(format!(
                "its memory is not what was sent: pages {pages:x?}"
            ))),
        }
    }

    /// The digest of what was sent.
    pub(super) fn digest(&self) -> MemoryDigest {
        self.hashes.digest()
    }

    /// What it took.
    pub(super) fn totals(&self, bytes: u64) -> Totals {
        Totals {
            rounds: self.precopy.progress().round,
            sent: self.encoder.sent(),
            bytes,
        }
    }
}
