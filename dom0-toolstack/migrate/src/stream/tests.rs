//! What was written is read; what was damaged is refused by name.

use super::*;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use std::string::ToString;

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

impl Source for &[u8] {
    async fn read(&mut self, out: &mut [u8]) -> Result<(), SourceError> {
        let taken = self.split_off(..out.len()).ok_or(SourceError::End)?;
        out.copy_from_slice(taken);
        Ok(())
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut context) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("bytes in memory never wait"),
    }
}

fn written(stream_id: u64, frames: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = Bytes(Vec::new());
    let length = run(async {
        let mut writer = Writer::begin(&mut bytes, stream_id).await?;
        for (kind, body) in frames {
            let (left, right) = body.split_at(body.len() / 2);
            writer.frame(FrameKind(*kind), 7, &[left, right]).await?;
        }
        writer.finish().await
    });
    assert_eq!(length, Ok(bytes.0.len() as u64));
    bytes.0
}

fn read(bytes: &[u8]) -> Result<Vec<Frame>, StreamError> {
    run(async {
        let mut reader = Reader::begin(bytes).await?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.next().await? {
            frames.push(frame);
        }
        assert_eq!(reader.next().await, Err(StreamError::AfterEnd));
        Ok(frames)
    })
}

const FRAMES: [(u16, &[u8]); 3] = [(1, b"name"), (0x8001, b""), (0x10, &[7; 5000])];

#[test]
fn a_stream_reads_back() {
    let frames = read(&written(9, &FRAMES)).unwrap();
    let found: Vec<(u16, &[u8])> = frames
        .iter()
        .map(|frame| (frame.kind.0, &frame.body[..]))
        .collect();
    assert_eq!(found, FRAMES);
    assert!(frames.iter().all(|frame| frame.version == 7));
    assert!(frames[1].kind.is_optional() && !frames[2].kind.is_optional());
    assert_eq!(FrameKind(0x33).to_string(), "kind 0x0033");
}

#[test]
fn the_layout_is_the_documented_one() {
    let bytes = written(0x0102_0304_0506_0708, &[(1, b"ab")]);
    assert_eq!(&bytes[..12], b"GODWITms\x01\0\x01\0");
    assert_eq!(bytes[16..24], [8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(bytes[32..44], [1, 0, 7, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&bytes[48..50], b"ab");
    assert_eq!(bytes[50..62], [0xff, 0x7f, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    assert_eq!(bytes.len(), 66);
}

#[test]
fn every_cut_and_every_flipped_bit_is_found() {
    let good = written(9, &[(1, b"name"), (2, &[3; 20])]);
    for length in 0..good.len() {
        let error = read(&good[..length]).unwrap_err();
        let by_name = matches!(error, StreamError::NoStream | StreamError::Truncated(_));
        assert!(by_name, "cut at {length}: {error}");
    }
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&bad).is_err(), "bit {bit}");
    }
}

#[test]
fn frames_of_another_stream_do_not_pass() {
    let (one, other) = (written(9, &FRAMES), written(10, &FRAMES));
    for frame in [32, 32 + 16 + 4] {
        let mixed = [&one[..frame], &other[frame..]].concat();
        assert!(matches!(read(&mixed), Err(StreamError::Damaged(_))));
    }
    // The second frame twice, the first not at all.
    let two = written(9, &[(1, b"ab"), (1, b"cd")]);
    let swapped = [&two[..32], &two[50..68], &two[50..]].concat();
    let want = StreamError::OutOfOrder {
        expected: 0,
        found: 1,
    };
    assert_eq!(read(&swapped), Err(want));
}

#[test]
fn other_versions_are_refused_before_anything_else() {
    let mut bytes = written(9, &FRAMES);
    (bytes[8], bytes[10]) = (9, 9);
    assert_eq!(read(&bytes), Err(StreamError::Version(9)));
    let long = [
        &written(9, &[])[..32],
        &[1, 0, 1, 0, 0xff, 0xff, 0xff, 0xff],
        &[0; 8],
    ]
    .concat();
    assert_eq!(read(&long), Err(StreamError::TooLong(0)));
    assert_eq!(read(b"rubbish"), Err(StreamError::NoStream));
}

#[test]
fn digests_do_not_care_about_order_and_follow_changes() {
    let (mut one, mut other) = (MemoryDigest::default(), MemoryDigest::default());
    one.add(1, b"a");
    one.add(2, b"b");
    other.add(2, b"b");
    other.add(1, b"x");
    assert_ne!(one, other);
    other.remove(MemoryDigest::of(1, b"x"));
    other.add(1, b"a");
    assert_eq!(one, other);
    let mut swapped = MemoryDigest::default();
    swapped.add(1, b"b");
    swapped.add(2, b"a");
    assert_ne!(one, swapped);
    assert_eq!(MemoryDigest::decode(&one.encode()), Some(one));
    assert_eq!(MemoryDigest::decode(&[0; 23]), None);
}

#[test]
fn bodies_of_memory_have_whole_pages_and_sane_numbers() {
    let body = [&encode_pages(5)[..], &[1; 8192]].concat();
    let pages = Pages::decode(&body).unwrap();
    assert_eq!((pages.first, pages.bytes.len()), (5, 8192));
    for bad in [
        &body[..8],
        &body[..9],
        &body[..4],
        &[&[0xff; 8][..], &[0; 4096]].concat(),
    ] {
        assert_eq!(Pages::decode(bad), Err(BadPages));
    }
    let runs = [1..3, 7..8];
    assert_eq!(Zeroes::decode(&encode_zeroes(&runs)).unwrap(), runs);
    assert!(Zeroes::decode(&[0; 16]).is_err(), "an empty run");
    assert!(Zeroes::decode(&[0xff; 16]).is_err());
    assert!(Zeroes::decode(&[0; 15]).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_stream_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), keep in 0usize..120) {
        let _ = read(&bytes);
        let good = written(1, &[(1, b"name"), (4, b"platform")]);
        let mixed = [&good[..keep.min(good.len())], &bytes].concat();
        let _ = read(&mixed);
        let _ = Pages::decode(&bytes);
        let _ = Zeroes::decode(&bytes);
    }
}
