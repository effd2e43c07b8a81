//! A stream on a volume.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_backends::disk::DiskError;
use godwit_backends::storage::blocks::Blocks;
use godwit_migrate::stream::{Sink, Source, SourceError};

/// Bytes that are written or read at once; whole blocks of every disk.
const PIECE_BYTES: usize = 512 << 10;

/// Writes a stream to a disk from its first block on.
pub(super) struct VolumeSink<'a> {
    blocks: &'a Blocks,
    waiting: Vec<u8>,
    offset: u64,
}

impl<'a> VolumeSink<'a> {
    pub(super) fn new(blocks: &'a Blocks) -> Self {
        Self {
            blocks,
            waiting: Vec::with_capacity(PIECE_BYTES),
            offset: 0,
        }
    }

    async fn hand_on(&mut self) -> Result<(), String> {
        let written = self.blocks.write_at(self.offset, &self.waiting).await;
        written.map_err(|error| match error {
            DiskError::OutOfRange => {
                let kib = self.blocks.disk().geometry().bytes() >> 10;
                format!("the domain does not fit into {kib} KiB")
            }
            DiskError::ReadOnly
            | DiskError::Unsupported
            | DiskError::NoSpace
            | DiskError::Failed(_)
            | DiskError::Gone(_) => error.to_string(),
        })?;
        self.offset += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

impl Sink for VolumeSink<'_> {
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        while !bytes.is_empty() {
            let room = PIECE_BYTES - self.waiting.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.waiting.extend_from_slice(now);
            bytes = later;
            if self.waiting.len() == PIECE_BYTES {
                self.hand_on().await?;
            }
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), String> {
        self.hand_on().await?;
        self.blocks.flush().await.map_err(|error| error.to_string())
    }
}

/// Reads a stream from a disk.
pub(super) struct VolumeSource<'a> {
    blocks: &'a Blocks,
    read: Vec<u8>,
    /// Of `read`, what was given out.
    given: usize,
    offset: u64,
}

impl<'a> VolumeSource<'a> {
    pub(super) fn new(blocks: &'a Blocks) -> Self {
        Self {
            blocks,
            read: Vec::new(),
            given: 0,
            offset: 0,
        }
    }

    async fn fetch(&mut self) -> Result<(), SourceError> {
        let left = self.blocks.disk().geometry().bytes() - self.offset;
        if left == 0 {
            return Err(SourceError::End);
        }
        self.read.resize(left.min(PIECE_BYTES as u64) as usize, 0);
        let read = self.blocks.read_at(self.offset, &mut self.read).await;
        read.map_err(|error| SourceError::Failed(error.to_string()))?;
        self.offset += self.read.len() as u64;
        self.given = 0;
        Ok(())
    }
}

impl Source for VolumeSource<'_> {
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError> {
        let mut done = 0;
        while done < out.len() {
            if self.given == self.read.len() {
                self.fetch().await?;
            }
            let count = (out.len() - done).min(self.read.len() - self.given);
            let from = &self.read[self.given..self.given + count];
            out[done..done + count].copy_from_slice(from);
            (done, self.given) = (done + count, self.given + count);
        }
        Ok(())
    }
}
