//! The memory of a domain that comes: populated as pages arrive, in large pieces so that large pages
//! can be used, and with a digest kept along the way.

use super::hashes::{Hashes, hash};
use crate::build::{self, Step, refused};
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::operate::OperateError;
use crate::site::yield_now;
use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES};
use godwit_migrate::encode::batch::{self, Item};
use godwit_migrate::encode::choice::{Encoding, decode};
use godwit_migrate::encode::{PAGE_BYTES, Page};
use godwit_migrate::stream::{MemoryDigest, Zeroes};

/// Pages populated together: a large page.
const CHUNK_PAGES: u64 = 512;
/// Pages written at once.
const WRITE_PAGES: usize = 64;
/// Most pages given back by one call.
const RELEASE_PAGES: usize = 4096;

/// The memory of an arriving domain.
pub(super) struct Landing {
    domain: DomainId,
    /// Guest pages it may have.
    ranges: Vec<Range<u64>>,
    /// Chunks that are populated.
    chunks: BTreeSet<u64>,
    hashes: Hashes,
    page: Box<Page>,
    /// Consecutive pages to be written, and the first one's number.
    run: Vec<u8>,
    run_page: u64,
}

fn bad(what: &str) -> OperateError {
    OperateError::Other(format!("the other host sends {what}"))
}

impl Landing {
    pub(super) fn new(domain: DomainId, memory_max_mib: u64) -> Self {
        let pages = |range: Range<u64>| range.start / PAGE_SIZE_BYTES..range.end / PAGE_SIZE_BYTES;
        Self {
            domain,
            ranges: memory_of(memory_max_mib << 20)
                .into_iter()
                .map(pages)
                .collect(),
            chunks: BTreeSet::new(),
            hashes: Hashes::default(),
            page: Box::new([0; PAGE_BYTES]),
            run: Vec::new(),
            run_page: 0,
        }
    }

    /// The digest of what has come.
    pub(super) fn digest(&self) -> MemoryDigest {
        self.hashes.digest()
    }

    /// Takes a BATCH.
    pub(super) async fn take(
        &mut self,
        hypervisor: &impl Hypervisor,
        body: &[u8],
    ) -> Result<(), OperateError> {
        let items = batch::decode(body).map_err(|_| bad("a batch that is none"))?;
        for (count, item) in items.iter().enumerate() {
            self.populate(hypervisor, item.page..item.page + item.pages)
                .await?;
            match item.encoding {
                Encoding::Zero => self.take_zeroes(hypervisor, item)?,
                Encoding::Delta | Encoding::Lz4 | Encoding::Raw => {
                    self.take_page(hypervisor, item)?;
                }
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
            self.hashes.set(page, MemoryDigest::of_zero(page));
        }
        Ok(())
    }

    fn take_page(
        &mut self,
        hypervisor: &impl Hypervisor,
        item: &Item<'_>,
    ) -> Result<(), OperateError> {
        if item.encoding == Encoding::Delta {
            self.flush(hypervisor)?;
            let address = item.page * PAGE_SIZE_BYTES;
            hypervisor.memory_read(self.domain, address, &mut self.page[..])?;
        }
        decode(item.encoding, item.bytes, &mut self.page)
            .map_err(|_| bad("a page that cannot be decoded"))?;
        self.put(hypervisor, item.page)?;
        self.hashes.set(item.page, hash(item.page, &self.page));
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
        let Some(range) = self.ranges.iter().find(|range| inside(range)) else {
            return Err(bad("pages where the domain has no memory"));
        };
        for chunk in pages.start / CHUNK_PAGES..=(pages.end - 1) / CHUNK_PAGES {
            if self.chunks.insert(chunk) {
                let first = (chunk * CHUNK_PAGES).max(range.start);
                let end = ((chunk + 1) * CHUNK_PAGES).min(range.end);
                let bytes = first * PAGE_SIZE_BYTES..end * PAGE_SIZE_BYTES;
                build::populate(hypervisor, self.domain, &bytes).await?;
            }
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
                self.hashes.remove(page);
            }
        }
        Ok(())
    }

    /// Gives back what was populated and is not the domain's.
    pub(super) fn trim(&self, hypervisor: &impl Hypervisor) -> Result<(), OperateError> {
        let mut holes = Vec::new();
        for chunk in &self.chunks {
            let pages = chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES;
            let ours = |page: &u64| self.ranges.iter().any(|range| range.contains(page));
            holes.extend(
                pages
                    .filter(ours)
                    .filter(|page| !self.hashes.contains(*page)),
            );
            if holes.len() + CHUNK_PAGES as usize > RELEASE_PAGES {
                hypervisor.memory_release(self.domain, &holes)?;
                holes.clear();
            }
        }
        if !holes.is_empty() {
            hypervisor.memory_release(self.domain, &holes)?;
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
