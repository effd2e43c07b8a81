//! An NBD server that says anything: the handshake and the replies are decoded without a panic,
//! and data only ever belongs to what was asked for. And a client that says anything to our server.

use godwit_backends::fake::{Arena, RamDisk, finish};
use godwit_backends::storage::nbd::replies::{Event, Expected, Replies};
use godwit_backends::storage::nbd::serve::{Served, TRANSFER_BYTES_MAX};
use godwit_backends::storage::nbd::{Stream, haggle};
use std::rc::Rc;
use std::task::{Context, Poll};

/// A server that says what the input says, then closes; what we say is ignored.
struct Said<'a>(&'a [u8]);

impl Stream for Said<'_> {
    fn poll_read(&mut self, _: &mut Context<'_>, out: &mut [u8]) -> Poll<Result<usize, String>> {
        let (now, later) = self.0.split_at(out.len().min(self.0.len()));
        out[..now.len()].copy_from_slice(now);
        self.0 = later;
        Poll::Ready(Ok(now.len()))
    }

    fn poll_write(&mut self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, String>> {
        Poll::Ready(Ok(bytes.len()))
    }
}

/// Requests 1 and 2 are reads of 4096 bytes at byte 8192, request 3 is a write.
fn expected(cookie: u64) -> Option<Expected> {
    match cookie {
        1 | 2 => Some(Expected::Data {
            offset: 8192,
            bytes: 4096,
        }),
        3 => Some(Expected::Nothing),
        _ => None,
    }
}

/// One input: 0 and a handshake with replies, 1 and a list of exports, or 2 (3: with chunks) and
/// replies; or 4 and a client of a disk, 5 of one that is read-only. Returns whether it ended without a protocol error.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else {
        return false;
    };
    let mut server = Said(rest);
    match kind {
        0 => match finish(haggle::go(&mut server, "export")) {
            Ok(export) => {
                assert!(matches!(export.block_bytes, 512 | 4096));
                assert!(export.transfer_bytes_max >= export.block_bytes);
                replies(server.0, export.structured)
            }
            Err(error) => {
                assert!(!error.to_string().chars().any(char::is_control));
                false
            }
        },
        1 => finish(haggle::list(&mut server)).is_ok(),
        4 | 5 => client(server, kind & 1 != 0),
        _ => replies(rest, kind & 1 != 0),
    }
}

/// Decodes in pieces of growing length; every piece must lie in an announced range.
fn replies(input: &[u8], structured: bool) -> bool {
    let mut decoder = Replies::new(structured);
    let (mut rest, mut length) = (input, 1);
    let mut announced = (0, 0, 0);
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(rest.len().min(length));
        (rest, length) = (later, length % 37 + 3);
        loop {
            match decoder.next(&mut piece, expected) {
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return false;
                }
                Ok(None) => break,
                Ok(Some(Event::Range {
                    cookie, at, bytes, ..
                })) => {
                    assert!(bytes > 0 && at + bytes <= 4096);
                    announced = (cookie, at, at + bytes);
                }
                Ok(Some(Event::Bytes { cookie, at, data })) => {
                    assert_eq!((cookie, at), (announced.0, announced.1));
                    announced.1 += data.len() as u32;
                    assert!(announced.1 <= announced.2);
                }
                Ok(Some(Event::Error { message, .. })) => {
                    assert!(!message.chars().any(char::is_control));
                }
                Ok(Some(Event::Done { cookie })) => assert!(expected(cookie).is_some()),
            }
        }
        assert!(piece.is_empty(), "input was left over");
    }
    true
}

/// Serves a small disk, of which nothing changes if it is read-only.
fn client(mut said: Said<'_>, read_only: bool) -> bool {
    let memory = Arena::new(2 * TRANSFER_BYTES_MAX as usize);
    let disk = Rc::new(RamDisk::with_contents(
        memory.clone(),
        vec![7; 16 << 10],
        512,
    ));
    let served = Served::new("disk", disk.clone(), memory, read_only);
    let ended = finish(served.serve(&mut said));
    assert!(!read_only || disk.contents().iter().all(|byte| *byte == 7));
    if let Err(error) = &ended {
        assert!(!error.to_string().chars().any(char::is_control));
    }
    ended.is_ok()
}
