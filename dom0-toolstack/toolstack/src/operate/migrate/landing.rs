//! The memory of a domain that comes: populated as pages arrive, in large pieces so that large pages
//! can be used, and with a digest kept along the way.

use super::differ;
use super::hashes::{Hashes, hash};
use super::talk::Talk;
use crate::build::{self, Step, refused};
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::operate::OperateError;
use crate::site::{Site, yield_now};
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES};
use godwit_migrate::encode::batch::{self, Item};
use godwit_migrate::encode::choice::{Encoding, decode, decode_delta};
use godwit_migrate::encode::{PAGE_BYTES, Page};
use godwit_migrate::link::Link;
use godwit_migrate::precopy::PageSet;
use godwit_migrate::stream::{MemoryDigest, Zeroes};

/// Pages populated together: a large page.
const CHUNK_PAGES: u64 = 512;
/// Pages written at once.
const WRITE_PAGES: usize = 64;
/// Unwanted pages that are read along rather than calling once more.
const GAP_PAGES: u64 = 8;
/// Most pages given back by one call.
const RELEASE_PAGES: usize = 4096;

/// The memory of an arriving domain.
pub(super) struct Landing {
    domain: DomainId,
    /// Guest pages it may have.
    ranges: Vec<Range<u64>>,
    /// Chunks that are populated.
    chunks: BTreeSet<u64>,
    /// Of these, the one that was populated last.
    filling: Option<u64>,
    hashes: Hashes,
    /// Pages that are populated and that nothing has come for.
    vacant: PageSet,
    /// Pages that were given back because nothing had come for them.
    released: PageSet,
    /// Pages that stay at the source for now.
    missing: PageSet,
    page: Box<Page>,
    /// Consecutive pages to be written, and the first one's number.
    run: Vec<u8>,
    run_page: u64,
    /// Consecutive pages that were read together, as they are now: what deltas are to.
    bases: Vec<u8>,
    bases_page: u64,
}

const UNDECODABLE: &str = "a page that cannot be decoded";

/// How many pages from `first` on to read together so that they hold the first of `pages`, which ascend
/// and have no wide gaps.
pub(super) fn near(first: u64, pages: impl Iterator<Item = u64>, most: u64) -> u64 {
    let mut last = first;
    for page in pages {
        if page < last || page - last > GAP_PAGES || page - first >= most {
            break;
        }
        last = page;
    }
    last - first + 1
}

fn bad(what: &str) -> OperateError {
    OperateError::Other(format!("the other host sends {what}"))
}

impl Landing {
    pub(super) fn new(domain: DomainId, memory_max_mib: u64) -> Self {
        let pages = |range: Range<u64>| range.start / PAGE_SIZE_BYTES..range.end / PAGE_SIZE_BYTES;
        let memory = memory_of(memory_max_mib << 20).into_iter();
        let ranges: Vec<Range<u64>> = memory.map(pages).collect();
        let none = PageSet::new(ranges.last().map_or(0, |range| range.end));
        Self {
            domain,
            missing: none.clone(),
            vacant: none.clone(),
            released: none,
            ranges,
            chunks: BTreeSet::new(),
            filling: None,
            hashes: Hashes::default(),
            page: Box::new([0; PAGE_BYTES]),
            run: Vec::new(),
            run_page: 0,
            bases: Vec::new(),
            bases_page: 0,
        }
    }

    /// The digest of what has come.
    pub(super) fn digest(&self) -> MemoryDigest {
        self.hashes.digest()
    }

    /// A page has come.
    fn has_come(&mut self, page: u64, hash: u128) {
        self.hashes.set(page, hash);
        self.vacant.remove(page);
    }

    /// Asks the source which pages it has otherwise.
    pub(super) async fn different<S: Site, L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
    ) -> Result<Vec<u64>, OperateError> {
        differ::find(talk, &self.hashes, self.missing.capacity()).await
    }

    /// Takes a BATCH.
    pub(super) async fn take(
        &mut self,
        hypervisor: &impl Hypervisor,
        body: &[u8],
    ) -> Result<(), OperateError> {
        let items = batch::decode(body).map_err(|_| bad("a batch that is none"))?;
        self.bases.clear();
        for (count, item) in items.iter().enumerate() {
            self.populate(hypervisor, item.page..item.page + item.pages)
                .await?;
            match item.encoding {
                Encoding::Zero => self.take_zeroes(hypervisor, item)?,
                Encoding::Delta => self.take_delta(hypervisor, &items[count..])?,
                Encoding::Lz4 | Encoding::Raw => self.take_page(hypervisor, item)?,
            }
            if count % 32 == 31 {
                yield_now().await;
            }
        }
        self.flush(hypervisor)
    }

    fn take_zeroes(
        &mut self,
        hypervisor: &impl Hypervisor,
        item: &Item<'_>,
    ) -> Result<(), OperateError> {
        for page in item.page..item.page + item.pages {
            // A page that was just populated is zero.
            if self.hashes.contains(page) {
                self.page.fill(0);
                self.put(hypervisor, page)?;
            }
            self.has_come(page, MemoryDigest::of_zero(page));
        }
        Ok(())
    }

    fn take_page(
        &mut self,
        hypervisor: &impl Hypervisor,
        item: &Item<'_>,
    ) -> Result<(), OperateError> {
        decode(item.encoding, item.bytes, &mut self.page).map_err(|_| bad(UNDECODABLE))?;
        self.put(hypervisor, item.page)?;
        self.has_come(item.page, hash(item.page, &self.page));
        Ok(())
    }

    /// Takes the first of `items`, a delta.
    fn take_delta(
        &mut self,
        hypervisor: &impl Hypervisor,
        items: &[Item<'_>],
    ) -> Result<(), OperateError> {
        let item = &items[0];
        let before = self.hashes.known(item.page);
        let before = before.ok_or_else(|| bad("a change to a page that it never sent"))?;
        if self.base(item.page).is_none() {
            self.read_bases(hypervisor, items)?;
        }
        let base = self.base(item.page).expect("it was just read");
        let contents = *base;
        *self.page = contents;
        let hash = decode_delta(item.page, before, item.bytes, &mut self.page);
        let hash = hash.map_err(|_| bad(UNDECODABLE))?;
        self.put(hypervisor, item.page)?;
        self.has_come(item.page, hash);
        Ok(())
    }

    /// A page that was read with others.
    fn base(&mut self, page: u64) -> Option<&mut Page> {
        let at = usize::try_from(page.checked_sub(self.bases_page)?).ok()?;
        self.bases.as_chunks_mut().0.get_mut(at)
    }

    /// Reads the pages that the first of `items` are deltas to, and what lies between them: a call
    /// costs more than some pages.
    fn read_bases(
        &mut self,
        hypervisor: &impl Hypervisor,
        items: &[Item<'_>],
    ) -> Result<(), OperateError> {
        self.flush(hypervisor)?;
        let first = items[0].page;
        let deltas = items
            .iter()
            .take_while(|item| item.encoding == Encoding::Delta);
        let pages = deltas.map(|item| item.page);
        let pages = near(first, pages, WRITE_PAGES as u64);
        self.bases_page = first;
        let mut read = |pages: u64| {
            self.bases.resize(pages as usize * PAGE_BYTES, 0);
            let address = first * PAGE_SIZE_BYTES;
            hypervisor.memory_read(self.domain, address, &mut self.bases)
        };
        // What lies between may not be there.
        let result = read(pages).or_else(|_| read(1));
        if let Err(status) = result {
            self.bases.clear();
            return Err(status.into());
        }
        Ok(())
    }

    /// Writes a page, in a while, with its neighbours.
    fn put(&mut self, hypervisor: &impl Hypervisor, page: u64) -> Result<(), OperateError> {
        let next = self.run_page + (self.run.len() / PAGE_BYTES) as u64;
        if page != next || self.run.len() == WRITE_PAGES * PAGE_BYTES {
            self.flush(hypervisor)?;
            self.run_page = page;
        }
        self.run.extend_from_slice(&self.page[..]);
        let contents = *self.page;
        if let Some(base) = self.base(page) {
            *base = contents;
        }
        Ok(())
    }

    fn flush(&mut self, hypervisor: &impl Hypervisor) -> Result<(), OperateError> {
        if !self.run.is_empty() {
            let address = self.run_page * PAGE_SIZE_BYTES;
            let written = hypervisor.memory_write(self.domain, address, &self.run);
            written.map_err(refused(Step::Write))?;
            self.run.clear();
        }
        Ok(())
    }

    /// Populates the chunks that some pages are in.
    async fn populate(
        &mut self,
        hypervisor: &impl Hypervisor,
        pages: Range<u64>,
    ) -> Result<(), OperateError> {
        let inside = |range: &Range<u64>| range.start <= pages.start && pages.end <= range.end;
        let Some(range) = self.ranges.iter().find(|range| inside(range)).cloned() else {
            return Err(bad("pages where the domain has no memory"));
        };
        for chunk in pages.start / CHUNK_PAGES..=(pages.end - 1) / CHUNK_PAGES {
            if self.chunks.insert(chunk) {
                // They come in ascending order: what has not come yet is a hole. The stop is not to wait for that.
                if let Some(before) = self.filling.replace(chunk) {
                    self.release(hypervisor, before * CHUNK_PAGES, (before + 1) * CHUNK_PAGES)?;
                }
                let first = (chunk * CHUNK_PAGES).max(range.start);
                let end = ((chunk + 1) * CHUNK_PAGES).min(range.end);
                let bytes = first * PAGE_SIZE_BYTES..end * PAGE_SIZE_BYTES;
                build::populate(hypervisor, self.domain, &bytes).await?;
                (first..end).for_each(|page| self.vacant.insert(page));
            }
        }
        let mut from = pages.start;
        while let Some(page) = self.released.next(from).filter(|page| *page < pages.end) {
            let bytes = page * PAGE_SIZE_BYTES..(page + 1) * PAGE_SIZE_BYTES;
            build::populate(hypervisor, self.domain, &bytes).await?;
            self.released.remove(page);
            self.vacant.insert(page);
            from = page + 1;
        }
        Ok(())
    }

    /// Takes a HOLES body: pages that the domain has given back since they came.
    pub(super) fn take_holes(&mut self, body: &[u8]) -> Result<(), OperateError> {
        let runs = Zeroes::decode(body).map_err(|_| bad("holes that are none"))?;
        for run in runs {
            let inside = |range: &Range<u64>| range.start <= run.start && run.end <= range.end;
            if !self.ranges.iter().any(inside) {
                return Err(bad("holes where the domain has no memory"));
            }
            for page in run {
                if self.hashes.remove(page) {
                    self.vacant.insert(page);
                }
            }
        }
        Ok(())
    }

    /// Takes a MISSING body: pages that stay at the source for now; whatever came of them is old.
    pub(super) async fn take_missing(
        &mut self,
        hypervisor: &impl Hypervisor,
        body: &[u8],
    ) -> Result<(), OperateError> {
        let runs = Zeroes::decode(body).map_err(|_| bad("missing pages that are none"))?;
        for run in runs {
            self.populate(hypervisor, run.clone()).await?;
            for page in run {
                self.hashes.remove(page);
                self.vacant.remove(page);
                self.missing.insert(page);
            }
        }
        Ok(())
    }

    /// Pages that stay at the source for now.
    pub(super) fn missing(&self) -> u64 {
        self.missing.len()
    }

    /// Lets nobody see what is in them.
    pub(super) fn arm(&self, hypervisor: &impl Hypervisor) -> Result<(), OperateError> {
        if self.missing.is_empty() {
            return Ok(());
        }
        let (mut words, mut first) = (self.missing.words(), 0);
        while words.iter().any(|word| *word != 0) {
            let pages = words.len() as u64 * 64;
            let done = hypervisor.absent_arm(self.domain, first, pages, words)? / 64 * 64;
            if done == 0 {
                return Err(bad("pages that cannot be missing"));
            }
            words = words.get((done / 64) as usize..).unwrap_or_default();
            first += done;
        }
        Ok(())
    }

    /// Gives back what was populated and is not the domain's. It costs what that is, not what the domain has.
    pub(super) fn trim(&mut self, hypervisor: &impl Hypervisor) -> Result<(), OperateError> {
        self.release(hypervisor, 0, self.vacant.capacity())
    }

    fn release(
        &mut self,
        hypervisor: &impl Hypervisor,
        first: u64,
        end: u64,
    ) -> Result<(), OperateError> {
        let mut cursor = first;
        while cursor < end {
            let most = RELEASE_PAGES.min((end - cursor) as usize);
            let mut holes = self.vacant.take_from(&mut cursor, most);
            // What lies beyond is left alone.
            while let Some(page) = holes.pop_if(|page| *page >= end) {
                self.vacant.insert(page);
            }
            if holes.is_empty() {
                break;
            }
            hypervisor.memory_release(self.domain, &holes)?;
            holes.iter().for_each(|page| self.released.insert(*page));
        }
        Ok(())
    }

    /// Reads all memory again and compares it with what came.
    pub(super) async fn verify(
        &mut self,
        hypervisor: &impl Hypervisor,
    ) -> Result<(), OperateError> {
        let different = self
            .hashes
            .different(hypervisor, self.domain, &mut self.page);
        match different.await?.as_slice() {
            [] => Ok(()),
            pages => Err(OperateError::Other(format!(
                "its memory here is not what was sent: pages {pages:x?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::near;

    #[test]
    fn pages_with_small_gaps_are_read_together() {
        let length = |pages: &[u64], most| near(pages[0], pages.iter().copied(), most);
        assert_eq!(length(&[10, 11, 19, 28], 64), 10);
        assert_eq!(length(&[10, 80], 64), 1);
        assert_eq!(length(&[10, 12, 14, 16], 5), 5);
        assert_eq!(length(&[10, 12, 11], 64), 3);
        assert_eq!(length(&[10], 64), 1);
    }
}
