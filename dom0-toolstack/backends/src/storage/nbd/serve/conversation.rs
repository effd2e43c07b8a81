//! Whole numbers and byte runs over a stream; what is said is gathered and goes out in one piece.

use super::ServeError;
use crate::storage::nbd::Stream;
use alloc::vec::Vec;
use core::future::poll_fn;

/// A stream with a client.
pub(super) struct Conversation<'a> {
    stream: &'a mut dyn Stream,
    out: Vec<u8>,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(stream: &'a mut dyn Stream) -> Self {
        Self {
            stream,
            out: Vec::new(),
        }
    }

    /// Hears exactly so many bytes.
    pub(super) async fn hear(&mut self, out: &mut [u8]) -> Result<(), ServeError> {
        let mut at = 0;
        while at < out.len() {
            let stream = &mut self.stream;
            let read = poll_fn(|context| stream.poll_read(context, &mut out[at..])).await;
            match read.map_err(ServeError::Stream)? {
                0 => return Err(ServeError::Closed),
                bytes => at += bytes,
            }
        }
        Ok(())
    }

    pub(super) async fn hear_array<const N: usize>(&mut self) -> Result<[u8; N], ServeError> {
        let mut bytes = [0; N];
        self.hear(&mut bytes).await?;
        Ok(bytes)
    }

    /// Adds to what is to be said.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Says what was added.
    pub(super) async fn say(&mut self) -> Result<(), ServeError> {
        let mut at = 0;
        while at < self.out.len() {
            let (stream, rest) = (&mut self.stream, &self.out[at..]);
            let written = poll_fn(|context| stream.poll_write(context, rest)).await;
            match written.map_err(ServeError::Stream)? {
                0 => return Err(ServeError::Closed),
                bytes => at += bytes,
            }
        }
        self.out.clear();
        Ok(())
    }
}
