//! Writing a stream.

use super::frame::{FrameKind, Head, Preamble};
use super::{FRAME_HEADER_BYTES, Sink};
use alloc::string::String;

/// Writes a stream to a sink, frame by frame.
pub struct Writer<S: Sink> {
    sink: S,
    stream_id: u64,
    sequence: u32,
    bytes: u64,
}

impl<S: Sink> Writer<S> {
    /// Begins a stream. `stream_id` is chance.
    pub async fn begin(mut sink: S, stream_id: u64) -> Result<Self, String> {
        let preamble = Preamble::new(stream_id).encode();
        sink.write(&preamble).await?;
        Ok(Self {
            sink,
            stream_id,
            sequence: 0,
            bytes: preamble.len() as u64,
        })
    }

    /// Writes a frame whose body is in pieces, together at most
    /// [`BODY_BYTES_MAX`](super::BODY_BYTES_MAX).
    pub async fn frame(
        &mut self,
        kind: FrameKind,
        version: u16,
        pieces: &[&[u8]],
    ) -> Result<(), String> {
        let head = Head::new(self.stream_id, self.sequence, (kind, version), pieces);
        self.sink.write(&head.encode()).await?;
        for piece in pieces {
            self.sink.write(piece).await?;
        }
        self.sequence = self
            .sequence
            .checked_add(1)
            .ok_or("more than 2^32 frames")?;
        self.bytes += (FRAME_HEADER_BYTES + head.length as usize) as u64;
        Ok(())
    }

    /// Where the stream goes.
    pub fn sink(&mut self) -> &mut S {
        &mut self.sink
    }

    /// Bytes written so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends the stream and makes it last. Returns its length in bytes.
    pub async fn finish(mut self) -> Result<u64, String> {
        self.frame(FrameKind::END, 1, &[]).await?;
        self.sink.finish().await?;
        Ok(self.bytes)
    }
}
