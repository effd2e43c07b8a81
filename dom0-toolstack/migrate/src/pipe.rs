//! A link from a host to itself: two ends in one memory, for tasks of one vCPU.
//!
//! Each direction holds at most [`PIPE_BYTES`]; who writes more waits for who reads. An end that is dropped
//! closes both directions; what it had written before can still be read.

use crate::link::{Link, LinkError};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

/// Bytes that are under way in one direction: a few frames of pages.
pub const PIPE_BYTES: usize = 1 << 20;

/// One direction.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    /// One of its ends is gone.
    is_closed: bool,
    /// Who waits for it to change: at most its reader and its writer.
    waiting: [Option<Waker>; 2],
}

/// Who waits for a direction.
#[derive(Clone, Copy)]
enum Role {
    Reader,
    Writer,
}

impl Way {
    fn wait(&mut self, role: Role, context: &Context<'_>) {
        self.waiting[role as usize] = Some(context.waker().clone());
    }

    fn changed(&mut self) {
        self.waiting
            .iter_mut()
            .filter_map(Option::take)
            .for_each(Waker::wake);
    }
}

/// One end.
pub struct Pipe {
    inward: Rc<RefCell<Way>>,
    outward: Rc<RefCell<Way>>,
}

/// A link, both ends of it.
pub fn pipe() -> (Pipe, Pipe) {
    let (one, other) = (Rc::default(), Rc::default());
    let end = |inward: &Rc<_>, outward: &Rc<_>| Pipe {
        inward: Rc::clone(inward),
        outward: Rc::clone(outward),
    };
    (end(&one, &other), end(&other, &one))
}

impl Drop for Pipe {
    fn drop(&mut self) {
        for way in [&self.inward, &self.outward] {
            let mut way = way.borrow_mut();
            way.is_closed = true;
            way.changed();
        }
    }
}

impl Link for Pipe {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        poll_fn(|context| {
            let mut way = self.inward.borrow_mut();
            let count = way.bytes.len().min(out.len());
            if count == 0 && !out.is_empty() {
                if way.is_closed {
                    return Poll::Ready(Err(LinkError::Closed));
                }
                way.wait(Role::Reader, context);
                return Poll::Pending;
            }
            let (front, back) = way.bytes.as_slices();
            let first = front.len().min(count);
            out[..first].copy_from_slice(&front[..first]);
            out[first..count].copy_from_slice(&back[..count - first]);
            way.bytes.drain(..count);
            way.changed();
            Poll::Ready(Ok(count))
        })
        .await
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), LinkError> {
        poll_fn(|context| {
            let mut way = self.outward.borrow_mut();
            if way.is_closed {
                return Poll::Ready(Err(LinkError::Closed));
            }
            let room = PIPE_BYTES - way.bytes.len();
            let (now, later) = bytes.split_at(bytes.len().min(room));
            way.bytes.extend(now);
            bytes = later;
            way.changed();
            if bytes.is_empty() {
                return Poll::Ready(Ok(()));
            }
            way.wait(Role::Writer, context);
            Poll::Pending
        })
        .await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        poll_fn(|context| {
            let mut way = self.outward.borrow_mut();
            if way.bytes.is_empty() || way.is_closed {
                return Poll::Ready(Ok(()));
            }
            way.wait(Role::Writer, context);
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::future::Future;
    use core::pin::pin;
    use core::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::Arc;
    use std::task::Wake;
    use std::vec;
    use std::vec::Vec;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn more_than_it_holds_goes_through_in_order_and_who_waits_is_woken() {
        let (mut one, mut other) = pipe();
        let sent: Vec<u8> = (0..3 * PIPE_BYTES + 5).map(|at| (at % 251) as u8).collect();
        let woken = Arc::new(Count::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        let mut got = Vec::new();
        {
            let mut writing = pin!(one.write_all(&sent));
            let mut is_written = false;
            while got.len() < sent.len() {
                is_written = is_written || writing.as_mut().poll(&mut context).is_ready();
                let before = woken.0.load(Ordering::Relaxed);
                let mut piece = vec![0; 100_000];
                let Poll::Ready(count) = pin!(other.read(&mut piece)).poll(&mut context) else {
                    panic!("there is something to read");
                };
                got.extend_from_slice(&piece[..count.unwrap()]);
                assert!(is_written || woken.0.load(Ordering::Relaxed) > before);
            }
            assert!(is_written);
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn what_was_written_before_the_end_is_read_and_then_the_end() {
        let (mut one, mut other) = pipe();
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(one.write_all(b"last")).poll(&mut context).is_ready());
        assert!(pin!(one.flush()).poll(&mut context).is_pending());
        drop(one);
        let mut piece = [0; 9];
        let read = pin!(other.read(&mut piece)).poll(&mut context);
        assert_eq!(read, Poll::Ready(Ok(4)));
        let read = pin!(other.read(&mut piece)).poll(&mut context);
        assert_eq!(read, Poll::Ready(Err(LinkError::Closed)));
        let written = pin!(other.write_all(b"x")).poll(&mut context);
        assert_eq!(written, Poll::Ready(Err(LinkError::Closed)));
    }
}
