//! Which pages differ when two digests do: the destination asks the source for the digests of the parts, and of the parts that differ for
//! the hash of each page. Asked only then, so it costs an ordinary stop nothing.
//!
//! A COMPARE is a level (u8: 0 parts of 512 pages, 1 the pages of a part) and the number of the first part (u64); the answer is the same
//! and then digests of parts from there on, or the 512 hashes of that part, 0 for a page that is not there.

use super::hashes::{CHUNK_PAGES, DIFFERENT_MAX, Hashes};
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, WORK_LIMIT_US};
use crate::operate::OperateError;
use crate::site::Site;
use alloc::vec::Vec;
use godwit_migrate::link::Link;
use godwit_migrate::stream::{DIGEST_BYTES, Frame, FrameKind, MemoryDigest};

/// Level and part.
const HEAD_BYTES: usize = 9;
/// Parts in an answer: a quarter of a MiB.
const PARTS_PER_ANSWER: u64 = 10_000;
const PARTS: u8 = 0;
const PAGES: u8 = 1;

/// Answers that a source gives about one memory of so many pages.
pub(super) fn answers_max(pages: u64) -> u64 {
    pages.div_ceil(CHUNK_PAGES).div_ceil(PARTS_PER_ANSWER) + DIFFERENT_MAX as u64
}

fn head(level: u8, part: u64) -> [u8; HEAD_BYTES] {
    let mut head = [level; HEAD_BYTES];
    head[1..].copy_from_slice(&part.to_le_bytes());
    head
}

/// The answer to a question; `None` for one that is none.
pub(super) fn answer(hashes: &Hashes, asked: &[u8]) -> Option<Vec<u8>> {
    let (level, part) = asked.split_first()?;
    let part = u64::from_le_bytes(part.try_into().ok()?);
    let mut body = asked.to_vec();
    match *level {
        PARTS => {
            let parts = part.min(hashes.parts())..hashes.parts();
            for part in parts.take(PARTS_PER_ANSWER as usize) {
                body.extend_from_slice(&hashes.part(part).encode());
            }
        }
        PAGES if part < hashes.parts() => {
            for page in part * CHUNK_PAGES..(part + 1) * CHUNK_PAGES {
                let hash = hashes.known(page).unwrap_or(0);
                body.extend_from_slice(&hash.to_le_bytes());
            }
        }
        _ => return None,
    }
    Some(body)
}

/// Asks the source of a memory of at most `pages` pages which of them differ, and returns the first of them.
pub(super) async fn find<S: Site, L: Link>(
    talk: &mut Talk<'_, S, L>,
    hashes: &Hashes,
    pages: u64,
) -> Result<Vec<u64>, OperateError> {
    let mut parts = Vec::new();
    let (mut first, end) = (0, pages.div_ceil(CHUNK_PAGES));
    while first < end && parts.len() < DIFFERENT_MAX {
        let count = (end - first).min(PARTS_PER_ANSWER);
        let theirs = ask(talk, PARTS, first).await?;
        let (theirs, rest) = theirs.as_chunks::<DIGEST_BYTES>();
        if !rest.is_empty() {
            return Err(talk.trouble("a comparison that is none"));
        }
        for part in first..first + count {
            let known = theirs.get((part - first) as usize);
            let theirs = known.and_then(|bytes| MemoryDigest::decode(bytes));
            if theirs.unwrap_or_default() != hashes.part(part) {
                parts.push(part);
            }
        }
        first += count;
    }
    let mut different = Vec::new();
    for part in parts.into_iter().take(DIFFERENT_MAX) {
        let pages = part * CHUNK_PAGES..(part + 1) * CHUNK_PAGES;
        // A part that the source does not have at all is all different.
        let theirs = ask(talk, PAGES, part).await?;
        for (page, theirs) in pages.zip(theirs.as_chunks().0) {
            let ours = hashes.known(page).unwrap_or(0);
            if ours != u128::from_le_bytes(*theirs) && different.len() < DIFFERENT_MAX {
                different.push(page);
            }
        }
    }
    Ok(different)
}

async fn ask<S: Site, L: Link>(
    talk: &mut Talk<'_, S, L>,
    level: u8,
    part: u64,
) -> Result<Vec<u8>, OperateError> {
    let head = head(level, part);
    talk.say(FrameKind::COMPARE, &[&head], ANSWER_LIMIT_US)
        .await?;
    let Frame { kind, mut body, .. } = talk.hear(WORK_LIMIT_US).await?;
    match (kind, body.starts_with(&head)) {
        (FrameKind::COMPARE, true) => Ok(body.split_off(HEAD_BYTES)),
        (_, _) => Err(talk.trouble("it does not answer the comparison")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_answered_or_refused() {
        let mut hashes = Hashes::default();
        hashes.set(3, 7);
        hashes.set(1000, 9);
        let parts = answer(&hashes, &head(PARTS, 0)).unwrap();
        assert_eq!(parts.len(), HEAD_BYTES + 2 * DIGEST_BYTES);
        assert_eq!(
            answer(&hashes, &head(PARTS, u64::MAX)).unwrap().len(),
            HEAD_BYTES
        );
        let pages = answer(&hashes, &head(PAGES, 1)).unwrap();
        assert_eq!(pages.len(), HEAD_BYTES + 512 * 16);
        let at = HEAD_BYTES + (1000 - 512) * 16;
        assert_eq!(pages[at..at + 16], 9u128.to_le_bytes());
        for bad in [
            &head(PAGES, 2)[..],
            &head(PAGES, u64::MAX),
            &[2; 9],
            &[0; 8],
            &[],
        ] {
            assert_eq!(answer(&hashes, bad), None);
        }
    }
}
