//! The digest of a domain's memory on its way: page by page, each page's hash remembered, so that a
//! page that comes again replaces what it was.

use crate::host::Hypervisor;
use crate::site::yield_now;
use alloc::boxed::Box;
use alloc::vec::Vec;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES, Status};
use godwit_migrate::encode::{Page, is_zero};
use godwit_migrate::stream::MemoryDigest;

/// Hashes kept together.
pub(super) const CHUNK_PAGES: u64 = 512;

/// Pages that are named when contents differ.
pub(super) const DIFFERENT_MAX: usize = 16;

/// The hashes of some pages in a row.
struct Chunk {
    hashes: [u128; CHUNK_PAGES as usize],
    /// Which of them are there.
    there: [u64; CHUNK_PAGES as usize / 64],
    /// Their sum.
    digest: MemoryDigest,
}

impl Chunk {
    fn has(&self, at: usize) -> bool {
        self.there[at / 64] >> (at % 64) & 1 != 0
    }
}

#[cfg(test)]
std::thread_local! {
    /// Hashes looked for.
    pub(in crate::operate) static LOOKS: core::cell::Cell<u64> = const { core::cell::Cell::new(0) };
}

/// Hashes by page, and their sum.
#[derive(Default)]
pub(super) struct Hashes {
    /// By the number of the chunk.
    chunks: Vec<Option<Box<Chunk>>>,
    digest: MemoryDigest,
}

/// The hash of a page.
pub(super) fn hash(page: u64, contents: &Page) -> u128 {
    match is_zero(contents) {
        true => MemoryDigest::of_zero(page),
        false => MemoryDigest::of_blocks(page, contents),
    }
}

fn place(page: u64) -> (usize, usize) {
    ((page / CHUNK_PAGES) as usize, (page % CHUNK_PAGES) as usize)
}

impl Hashes {
    /// A page, which is one that the domain may have, has these contents now.
    pub(super) fn set(&mut self, page: u64, hash: u128) {
        let (chunk, at) = place(page);
        if chunk >= self.chunks.len() {
            self.chunks.resize_with(chunk + 1, || None);
        }
        let none = || Chunk {
            hashes: [0; CHUNK_PAGES as usize],
            there: [0; CHUNK_PAGES as usize / 64],
            digest: MemoryDigest::default(),
        };
        let chunk = self.chunks[chunk].get_or_insert_with(|| Box::new(none()));
        if chunk.has(at) {
            self.digest.remove(chunk.hashes[at]);
            chunk.digest.remove(chunk.hashes[at]);
        }
        chunk.hashes[at] = hash;
        chunk.there[at / 64] |= 1 << (at % 64);
        self.digest.put(hash);
        chunk.digest.put(hash);
    }

    /// A page is no more. Whether it was there.
    pub(super) fn remove(&mut self, page: u64) -> bool {
        let Some(old) = self.known(page) else {
            return false;
        };
        self.digest.remove(old);
        let (chunk, at) = place(page);
        if let Some(Some(chunk)) = self.chunks.get_mut(chunk) {
            chunk.there[at / 64] &= !(1 << (at % 64));
            chunk.digest.remove(old);
        }
        true
    }

    /// The hash of a page, if it is there.
    pub(super) fn known(&self, page: u64) -> Option<u128> {
        #[cfg(test)]
        LOOKS.with(|looks| looks.set(looks.get() + 1));
        let (chunk, at) = place(page);
        let chunk = self.chunks.get(chunk)?.as_deref()?;
        chunk.has(at).then(|| chunk.hashes[at])
    }

    /// Whether a page is there.
    pub(super) fn contains(&self, page: u64) -> bool {
        self.known(page).is_some()
    }

    /// Parts of 512 pages that there may be something in.
    pub(super) fn parts(&self) -> u64 {
        self.chunks.len() as u64
    }

    /// The digest of a part.
    pub(super) fn part(&self, part: u64) -> MemoryDigest {
        let chunk = self.chunks.get(part as usize).and_then(Option::as_ref);
        chunk.map_or_else(MemoryDigest::default, |chunk| chunk.digest)
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
        for chunk in 0..self.chunks.len() as u64 {
            for page in chunk * CHUNK_PAGES..(chunk + 1) * CHUNK_PAGES {
                let Some(remembered) = self.known(page) else {
                    continue;
                };
                let address = page * PAGE_SIZE_BYTES;
                hypervisor.memory_read(domain, address, &mut page_bytes[..])?;
                if hash(page, page_bytes) != remembered && different.len() < DIFFERENT_MAX {
                    different.push(page);
                }
            }
            yield_now().await;
        }
        Ok(different)
    }
}
