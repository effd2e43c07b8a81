//! Going through all memory of a paused domain: pages, holes that its balloon left, zero pages.

use super::OperateError;
use super::save::{frame, is_hole};
use crate::build::PAGES_PER_MIB;
use crate::config::Config;
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::site::yield_now;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, PAGE_SIZE_BYTES, Status};
use godwit_migrate::stream::{
    FrameKind, MemoryDigest, PAGES_PER_FRAME_MAX, Sink, Writer, encode_pages, encode_zeroes,
};

/// Pages that are read at once.
const CHUNK_PAGES: usize = 256;
/// Runs of zero pages of one frame.
const ZERO_RUNS_MAX: usize = 4096;
const PAGE_BYTES: usize = PAGE_SIZE_BYTES as usize;
static ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
const _: () = assert!(CHUNK_PAGES <= PAGES_PER_FRAME_MAX && PAGES_PER_MIB as usize == CHUNK_PAGES);

/// A chunk of memory: which pages are there, and what is in them.
struct Chunk {
    bytes: Vec<u8>,
    there: [bool; CHUNK_PAGES],
}

impl Chunk {
    fn new() -> Self {
        Self {
            bytes: alloc::vec![0; CHUNK_PAGES * PAGE_BYTES],
            there: [false; CHUNK_PAGES],
        }
    }

    /// Reads `pages`, at most [`CHUNK_PAGES`].
    fn read(
        &mut self,
        hypervisor: &impl Hypervisor,
        domain: DomainId,
        pages: &Range<u64>,
    ) -> Result<(), Status> {
        let count = (pages.end - pages.start) as usize;
        let bytes = &mut self.bytes[..count * PAGE_BYTES];
        match hypervisor.memory_read(domain, pages.start * PAGE_SIZE_BYTES, bytes) {
            Ok(()) => {
                self.there = [true; CHUNK_PAGES];
                return Ok(());
            }
            Err(status) if is_hole(status) => {}
            Err(status) => return Err(status),
        }
        // There is a hole somewhere: page by page.
        for (index, page) in pages.clone().enumerate() {
            let bytes = &mut self.bytes[index * PAGE_BYTES..(index + 1) * PAGE_BYTES];
            self.there[index] = match hypervisor.memory_read(domain, page * PAGE_SIZE_BYTES, bytes)
            {
                Ok(()) => true,
                Err(status) if is_hole(status) => false,
                Err(status) => return Err(status),
            };
        }
        Ok(())
    }

    fn page(&self, index: usize) -> Option<&[u8]> {
        let bytes = &self.bytes[index * PAGE_BYTES..(index + 1) * PAGE_BYTES];
        self.there[index].then_some(bytes)
    }
}

/// The chunks that a domain's memory is read in: ranges of page numbers.
fn chunks(config: &Config) -> impl Iterator<Item = Range<u64>> {
    let ranges = memory_of(config.memory_max_mib << 20).into_iter();
    ranges.flat_map(|range| {
        let end = range.end / PAGE_SIZE_BYTES;
        let starts = (range.start / PAGE_SIZE_BYTES..end).step_by(CHUNK_PAGES);
        starts.map(move |start| start..end.min(start + CHUNK_PAGES as u64))
    })
}

/// The digest of all memory as it is now.
pub(super) async fn digest(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    config: &Config,
) -> Result<MemoryDigest, OperateError> {
    let (mut chunk, mut digest) = (Chunk::new(), MemoryDigest::default());
    for pages in chunks(config) {
        chunk.read(hypervisor, domain, &pages)?;
        for (index, page) in pages.enumerate() {
            if let Some(bytes) = chunk.page(index) {
                digest.add(page, bytes);
            }
        }
        yield_now().await;
    }
    Ok(digest)
}

/// Writes all memory. Returns its digest.
pub(super) async fn write(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
    config: &Config,
    writer: &mut Writer<impl Sink>,
) -> Result<MemoryDigest, OperateError> {
    let (mut chunk, mut digest) = (Chunk::new(), MemoryDigest::default());
    let mut zeroes: Vec<Range<u64>> = Vec::new();
    for pages in chunks(config) {
        chunk.read(hypervisor, domain, &pages)?;
        // Where the run of pages with contents begins.
        let mut run: Option<usize> = None;
        let count = (pages.end - pages.start) as usize;
        for index in 0..=count {
            let bytes = (index < count).then(|| chunk.page(index)).flatten();
            let number = pages.start + index as u64;
            if let Some(bytes) = bytes {
                digest.add(number, bytes);
            }
            let is_zero = bytes == Some(&ZERO_PAGE[..]);
            if is_zero {
                add_zero(&mut zeroes, number);
            }
            match (run, bytes.is_some() && !is_zero) {
                (None, true) => run = Some(index),
                (Some(first), false) => {
                    let head = encode_pages(pages.start + first as u64);
                    let body = &chunk.bytes[first * PAGE_BYTES..index * PAGE_BYTES];
                    frame(writer, FrameKind::PAGES, &[&head, body]).await?;
                    run = None;
                }
                (None, false) | (Some(_), true) => {}
            }
        }
        if zeroes.len() >= ZERO_RUNS_MAX {
            flush_zeroes(&mut zeroes, writer).await?;
        }
        yield_now().await;
    }
    flush_zeroes(&mut zeroes, writer).await?;
    Ok(digest)
}

fn add_zero(zeroes: &mut Vec<Range<u64>>, page: u64) {
    match zeroes.last_mut() {
        Some(last) if last.end == page => last.end += 1,
        Some(_) | None => zeroes.push(page..page + 1),
    }
}

async fn flush_zeroes(
    zeroes: &mut Vec<Range<u64>>,
    writer: &mut Writer<impl Sink>,
) -> Result<(), OperateError> {
    if zeroes.is_empty() {
        return Ok(());
    }
    let body = encode_zeroes(zeroes);
    zeroes.clear();
    frame(writer, FrameKind::ZEROES, &[&body]).await
}
