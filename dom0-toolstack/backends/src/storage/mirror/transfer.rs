//! Transfers of any length, cut to what a disk takes at once.

use crate::disk::{Disk, DiskError};
use crate::memory::Span;
use alloc::vec::Vec;

/// Which way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

/// Bytes of spans.
pub(super) fn bytes_of(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.bytes)).sum()
}

/// Reads into spans, or writes them. Whoever cut them knew another disk's limit.
pub(super) async fn transfer(
    disk: &dyn Disk,
    way: Way,
    block: u64,
    spans: &[Span],
) -> Result<(), DiskError> {
    let geometry = disk.geometry();
    let most = (geometry.transfer_bytes_max / geometry.block_bytes).max(1) * geometry.block_bytes;
    let one = async |at: u64, part: &[Span]| match way {
        Way::Read => disk.read(at, part).await,
        Way::Write => disk.write(at, part).await,
    };
    if bytes_of(spans) <= u64::from(most) {
        return one(block, spans).await;
    }
    let (mut at, mut part, mut room) = (block, Vec::new(), most);
    for span in spans {
        let mut rest = *span;
        while rest.bytes > 0 {
            let bytes = rest.bytes.min(room);
            part.push(Span { bytes, ..rest });
            rest.address += u64::from(bytes);
            rest.bytes -= bytes;
            room -= bytes;
            if room == 0 {
                one(at, &part).await?;
                part.clear();
                at += u64::from(most / geometry.block_bytes);
                room = most;
            }
        }
    }
    match part.is_empty() {
        true => Ok(()),
        false => one(at, &part).await,
    }
}
