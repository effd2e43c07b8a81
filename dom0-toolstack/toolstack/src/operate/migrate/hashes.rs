//! The digest of a domain's memory on its way: page by page, each page's hash remembered, so that a
//! page that comes again replaces what it was.

use crate::host::Hypervisor;
use crate::site::yield_now;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES, Status};
use godwit_migrate::encode::{Page, is_zero};
use godwit_migrate::stream::MemoryDigest;

/// Hashes kept together.
const CHUNK_PAGES: u64 = 512;

/// Pages that are named when contents differ.
const DIFFERENT_MAX: usize = 16;

/// Hashes by page, and their sum.
#[derive(Default)]
pub(super) struct Hashes {
    chunks: BTreeMap<u64, Box<[Option<u128>; CHUNK_PAGES as usize]>>,
    digest: MemoryDigest,
}

/// The hash of a page.
pub(super) fn hash(page: u64, contents: &Page) -> u128 {
    match is_zero(contents) {
        true => MemoryDigest::of_zero(page),
        false => MemoryDigest::of(page, contents),
    }
}

impl Hashes {
    fn slot(&mut self, page: u64) -> &mut Option<u128> {
        let chunk = self.chunks.entry(page / CHUNK_PAGES);
        let chunk = chunk.or_insert_with(|| Box::new([None; CHUNK_PAGES as usize]));
        &mut chunk[(page % CHUNK_PAGES) as usize]
    }

    /// A page has these contents now.
    pub(super) fn set(&mut self, page: u64, hash: u128) {
        if let Some(old) = self.slot(page).replace(hash) {
            self.digest.remove(old);
        }
        self.digest.put(hash);
    }

    /// A page is no more. Whether it was there.
    pub(super) fn remove(&mut self, page: u64) -> bool {
        let old = self.slot(page).take();
        if let Some(old) = old {
            self.digest.remove(old);
        }
        old.is_some()
    }

    /// Whether a page is there.
    pub(super) fn contains(&self, page: u64) -> bool {
        let chunk = self.chunks.get(&(page / CHUNK_PAGES));
        chunk.is_some_and(|chunk| chunk[(page % CHUNK_PAGES) as usize].is_some())
    }

    /// The digest of all pages there are.
    pub(super) fn digest(&self) -> MemoryDigest {
        self.digest
    }

    /// The first pages whose contents are not those remembered.
    pub(super) async fn different(
        &self,
        hypervisor: &impl Hypervisor,
        domain: DomainId,
        page_bytes: &mut Page,
    ) -> Result<Vec<u64>, Status> {
        let mut different = Vec::new();
        for (chunk, hashes) in &self.chunks {
            for (page, remembered) in (chunk * CHUNK_PAGES..).zip(hashes.iter()) {
                let Some(remembered) = remembered else {
                    continue;
                };
                let address = page * PAGE_SIZE_BYTES;
                hypervisor.memory_read(domain, address, &mut page_bytes[..])?;
                if hash(page, page_bytes) != *remembered && different.len() < DIFFERENT_MAX {
                    different.push(page);
                }
            }
            yield_now().await;
        }
        Ok(different)
    }
}
