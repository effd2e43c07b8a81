//! The encrypted link over a pipe that gives bytes in any pieces, or ends.

use super::*;
use crate::link::{Link, LinkError};
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Default)]
struct Pipe {
    bytes: VecDeque<u8>,
    ended: bool,
}

/// One end of two pipes. Reads at most as many bytes as `pieces` says, over and over.
struct End {
    from: Rc<RefCell<Pipe>>,
    to: Rc<RefCell<Pipe>>,
    pieces: Vec<usize>,
    reads: usize,
}

impl Link for End {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        let piece = self.pieces[self.reads % self.pieces.len()];
        self.reads += 1;
        poll_fn(|_| {
            let mut from = self.from.borrow_mut();
            match (from.bytes.len(), from.ended) {
                (0, true) => Poll::Ready(Err(LinkError::Closed)),
                (0, false) => Poll::Pending,
                (there, _) => {
                    let count = there.min(piece).min(out.len());
                    for (place, byte) in out.iter_mut().zip(from.bytes.drain(..count)) {
                        *place = byte;
                    }
                    Poll::Ready(Ok(count))
                }
            }
        })
        .await
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.to.borrow_mut().bytes.extend(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.to.borrow_mut().ended = true;
    }
}

fn ends(pieces: [&[usize]; 2]) -> [End; 2] {
    let (there, back) = (Rc::new(RefCell::default()), Rc::new(RefCell::default()));
    let end = |from: &Rc<_>, to: &Rc<_>, pieces: &[usize]| End {
        from: Rc::clone(from),
        to: Rc::clone(to),
        pieces: pieces.into(),
        reads: 0,
    };
    [end(&back, &there, pieces[0]), end(&there, &back, pieces[1])]
}

/// Runs both to their ends, turn by turn.
fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let mut context = Context::from_waker(Waker::noop());
    let (mut a_end, mut b_end) = (None, None);
    for _ in 0..1_000_000 {
        if a_end.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(&mut context)
        {
            a_end = Some(value);
        }
        if b_end.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(&mut context)
        {
            b_end = Some(value);
        }
        if a_end.is_some() && b_end.is_some() {
            break;
        }
    }
    let stuck = "both wait for each other";
    (a_end.expect(stuck), b_end.expect(stuck))
}

async fn connect(end: End) -> Result<SecureLink<End>, ChannelError> {
    let peer = ("host-b", fingerprint(B));
    SecureLink::connect(end, &identity(A), peer, terms(), SESSION, &mut Fixed(7)).await
}

async fn accept(end: End, case: &Case) -> Result<SecureLink<End>, ChannelError> {
    let known = (&case.hosts, &case.sessions);
    SecureLink::accept(end, &identity(B), known, terms(), &mut Fixed(8)).await
}

async fn read_exactly(link: &mut SecureLink<End>, count: usize) -> Result<Vec<u8>, LinkError> {
    let mut all = std::vec![0; count];
    let mut at = 0;
    while at < count {
        at += link.read(&mut all[at..]).await?;
    }
    Ok(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_however_it_is_cut(
        pieces in prop::collection::vec(1usize..5000, 1..8),
        writes in prop::collection::vec(0usize..70_000, 0..6),
        reads in 1usize..9000,
    ) {
        let case = Case::default();
        let [a, b] = ends([&pieces, &pieces]);
        let all: Vec<Vec<u8>> = writes
            .iter()
            .enumerate()
            .map(|(index, length)| (0..*length).map(|at| (at * 7 + index) as u8).collect())
            .collect();
        let want: Vec<u8> = all.concat();
        let sending = async {
            let mut link = connect(a).await.unwrap();
            for bytes in &all {
                link.write_all(bytes).await.unwrap();
            }
            link.close().await.unwrap();
            read_exactly(&mut link, 4).await.unwrap()
        };
        let receiving = async {
            let mut link = accept(b, &case).await.unwrap();
            let (mut got, mut piece) = (Vec::<u8>::new(), std::vec![0; reads]);
            let end = loop {
                match link.read(&mut piece).await {
                    Ok(count) => got.extend(&piece[..count]),
                    Err(end) => break end,
                }
            };
            link.write_all(b"done").await.unwrap();
            (got, end)
        };
        let (answer, (got, end)) = both(sending, receiving);
        prop_assert_eq!(&answer, b"done");
        prop_assert!(got == want);
        prop_assert_eq!(end, LinkError::Closed);
    }
}

#[test]
fn an_end_without_a_close_is_a_truncation() {
    let case = Case::default();
    let [a, b] = ends([&[usize::MAX], &[usize::MAX]]);
    let sending = async { connect(a).await.unwrap().write_all(b"begun").await };
    let receiving = async {
        let mut link = accept(b, &case).await.unwrap();
        assert_eq!(read_exactly(&mut link, 5).await.unwrap(), b"begun");
        let first = link.read(&mut [0]).await.unwrap_err();
        // It stays so, and nothing is sent any more.
        assert_eq!(link.read(&mut [0]).await.unwrap_err(), first);
        assert_eq!(link.write_all(b"x").await.unwrap_err(), first);
        first
    };
    let (_, end) = both(sending, receiving);
    assert!(end.to_string().starts_with("truncated: "), "{end}");
}

#[test]
fn a_changed_record_ends_the_link() {
    let case = Case::default();
    let [a, b] = ends([&[usize::MAX], &[usize::MAX]]);
    let (mut a, mut b) = match both(connect(a), accept(b, &case)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => panic!("{:?} {:?}", a.err(), b.err()),
    };
    let wire = Rc::clone(&a.link().to);
    let work = async {
        a.write_all(b"one").await.unwrap();
        let last = wire.borrow().bytes.len() - 1;
        wire.borrow_mut().bytes[last] ^= 1;
        b.read(&mut [0; 8]).await.unwrap_err()
    };
    let (error, ()) = both(work, async {});
    assert!(error.to_string().starts_with("forged: "), "{error}");
}

#[test]
fn whoever_is_refused_hears_it_over_the_link() {
    let case = Case {
        hosts: Book(Vec::new()),
        ..Case::default()
    };
    let [a, b] = ends([&[3], &[5]]);
    let (a, b) = both(connect(a), accept(b, &case));
    assert_eq!(a.err(), Some(ChannelError::Refused(Refusal::UnknownHost)));
    assert_eq!(b.err(), Some(ChannelError::UnknownHost(fingerprint(A))));
}
