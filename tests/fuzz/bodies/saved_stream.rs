//! A saved domain as it comes from a volume or a peer: reading it is total, allocates no more than one
//! body, and what is read whole is what a writer writes.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use godwit_migrate::stream::{
    BODY_BYTES_MAX, Frame, MemoryDigest, PREAMBLE_BYTES, Pages, Reader, Sink, Source, SourceError,
    Writer, Zeroes, encode_zeroes,
};
use godwit_toolstack::registry::Entry;

struct Bytes(Vec<u8>);

impl Sink for &mut Bytes {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.extend(bytes);
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

struct Input<'a>(&'a [u8]);

impl Source for Input<'_> {
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError> {
        let (taken, rest) = self.0.split_at_checked(out.len()).ok_or(SourceError::End)?;
        out.copy_from_slice(taken);
        self.0 = rest;
        Ok(())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("bytes in memory never wait"),
    }
}

/// The frames and the stream's id, if the input begins with a whole stream.
fn read(input: &[u8]) -> Option<(u64, Vec<Frame>)> {
    run(async {
        let mut reader = Reader::begin(Input(input)).await.ok()?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await.ok()? {
            assert!(frame.body.len() <= BODY_BYTES_MAX);
            frames.push(frame);
        }
        Some((reader.preamble().stream_id, frames))
    })
}

/// One input: a stream, or the body of a frame. Returns whether it is a whole stream.
pub(crate) fn judge(input: &[u8]) -> bool {
    if let Ok(entry) = Entry::decode(input) {
        assert_eq!(Entry::decode(entry.encode().as_bytes()), Ok(entry));
    }
    if let Ok(runs) = Zeroes::decode(input) {
        assert_eq!(encode_zeroes(&runs), input);
    }
    if let Ok(pages) = Pages::decode(input) {
        assert!(!pages.bytes.is_empty() && pages.bytes.len().is_multiple_of(4096));
    }
    if let Some(digest) = MemoryDigest::decode(input) {
        assert_eq!(digest.encode(), input);
    }
    let Some((stream_id, frames)) = read(input) else {
        return false;
    };
    let mut again = Bytes(Vec::new());
    let length = run(async {
        let mut writer = Writer::begin(&mut again, stream_id).await?;
        for frame in &frames {
            writer
                .frame(frame.kind, frame.version, &[&frame.body])
                .await?;
        }
        writer.finish().await
    });
    assert_eq!(length, Ok(again.0.len() as u64));
    // All but the preamble, whose version may be another, is the same.
    let written = again.0.len();
    assert_eq!(again.0[PREAMBLE_BYTES..], input[PREAMBLE_BYTES..written]);
    true
}
