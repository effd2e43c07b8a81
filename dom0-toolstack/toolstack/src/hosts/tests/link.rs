//! Two hosts in memory that meet, or do not.

use super::super::link::{HostLink, PLAINTEXT_PREFIX};
use super::*;
use crate::site::yield_now;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use godwit_migrate::channel::{ChannelError, Refusal};
use godwit_migrate::link::{Link, LinkError};
use std::collections::VecDeque;

type Bytes = Rc<RefCell<VecDeque<u8>>>;

/// One end of a connection.
struct End {
    inward: Bytes,
    outward: Bytes,
    is_open: Rc<Cell<bool>>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.is_open.set(false);
    }
}

impl Link for End {
    async fn read(&mut self, out: &mut [u8]) -> Result<usize, LinkError> {
        while self.inward.borrow().is_empty() {
            if !self.is_open.get() {
                return Err(LinkError::Closed);
            }
            yield_now().await;
        }
        let mut inward = self.inward.borrow_mut();
        let count = inward.len().min(out.len());
        let bytes = inward.drain(..count);
        out.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        Ok(count)
    }

    async fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.outward.borrow_mut().extend(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        Ok(())
    }
}

fn ends() -> [End; 2] {
    let (there, back) = (Bytes::default(), Bytes::default());
    let is_open = Rc::new(Cell::new(true));
    let end = |inward: &Bytes, outward: &Bytes| End {
        inward: Rc::clone(inward),
        outward: Rc::clone(outward),
        is_open: Rc::clone(&is_open),
    };
    [end(&back, &there), end(&there, &back)]
}

fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    block_on(async {
        let (mut a, mut b) = (pin!(a), pin!(b));
        let (mut a_end, mut b_end) = (None, None);
        poll_fn(|context| {
            if a_end.is_none()
                && let Poll::Ready(end) = a.as_mut().poll(context)
            {
                a_end = Some(end);
            }
            if b_end.is_none()
                && let Poll::Ready(end) = b.as_mut().poll(context)
            {
                b_end = Some(end);
            }
            match a_end.is_some() && b_end.is_some() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
        (a_end.expect("ended"), b_end.expect("ended"))
    })
}

/// Two hosts with keys of their own.
fn hosts() -> [Toolstack<FakeSite>; 2] {
    let [a, b] = [host(), host()];
    b.site.randoms.set(100);
    for host in [&a, &b] {
        assert_eq!(block_on(host.load_hosts()), [""; 0]);
    }
    [a, b]
}

fn know(host: &Toolstack<FakeSite>, name: &str, other: &Toolstack<FakeSite>) {
    let fingerprint = other.identity().unwrap().public().fingerprint();
    let line = format!("xl host-add {name} 10.0.0.9 {fingerprint}");
    assert_eq!(enter(host, &line), Ok(String::new()));
}

type Admitted = Result<(HostLink<End>, String), ChannelError>;

/// Connects `a` to `b` as an operator would; also says something over it.
fn connect(
    a: &Toolstack<FakeSite>,
    peer: &str,
    b: &Toolstack<FakeSite>,
    plaintext: bool,
) -> (Result<(), String>, Admitted) {
    let [one, other] = ends();
    let calling = async {
        let target = a.target(peer)?;
        let mut link = a.greet(one, &target).await?;
        let said = link.write_all(b"this is it!").await;
        said.map_err(|error| error.to_string())?;
        let mut answer = [0; 6];
        let heard = link.read(&mut answer).await;
        heard.map_err(|error| error.to_string())?;
        assert_eq!(&answer, b"so it ", "the beginning");
        Ok(())
    };
    let called = async {
        let (mut link, name) = b.admit(other, "10.0.0.1", plaintext).await?;
        let mut all: Vec<u8> = Vec::new();
        while all.len() < 11 {
            let mut some = [0; 4];
            let count = link.read(&mut some).await?;
            all.extend(&some[..count]);
        }
        assert_eq!(all, b"this is it!");
        link.write_all(b"so it is").await?;
        link.flush().await?;
        Ok((link, name))
    };
    both(calling, called)
}

#[test]
fn known_hosts_meet_encrypted() {
    let [a, b] = hosts();
    know(&a, "host-b", &b);
    know(&b, "host-a", &a);
    let (calling, called) = connect(&a, "host-b", &b, false);
    assert_eq!(calling, Ok(()));
    let (link, name) = called.unwrap();
    assert_eq!(name, "host-a");
    assert!(matches!(link, HostLink::Secure(_)));
    // Where plaintext is allowed, encryption still is what known hosts speak.
    let (_, called) = connect(&a, "host-b", &b, true);
    assert!(matches!(called, Ok((HostLink::Secure(_), _))));
}

#[test]
fn hosts_that_do_not_know_each_other_say_so() {
    let [a, b] = hosts();
    let (calling, _) = connect(&a, "host-b", &b, false);
    assert!(calling.unwrap_err().starts_with("no host 'host-b': "));
    know(&a, "host-b", &b);
    let (calling, called) = connect(&a, "host-b", &b, false);
    let error = calling.unwrap_err();
    assert!(
        error.starts_with("host-b (10.0.0.9:8002): the peer refuses: it does not know this host"),
        "{error}"
    );
    let own = a.identity().unwrap().public().fingerprint();
    assert_eq!(called.err(), Some(ChannelError::UnknownHost(own)));
    know(&b, "host-a", &a);
    assert!(enter(&b, "xl host-key --new").is_ok());
    let (calling, _) = connect(&a, "host-b", &b, false);
    assert!(calling.unwrap_err().contains("wrong key: "));
}

#[test]
fn plaintext_takes_two() {
    let [a, b] = hosts();
    for peer in ["10.0.0.9", "[::1]:9000"] {
        let peer = format!("{PLAINTEXT_PREFIX}{peer}");
        let (calling, called) = connect(&a, &peer, &b, true);
        assert_eq!(calling, Ok(()));
        assert_eq!(called.unwrap().1, "10.0.0.1");
        let (calling, called) = connect(&a, &peer, &b, false);
        let error = calling.unwrap_err();
        assert!(
            error.contains("it takes only encrypted connections"),
            "{error}"
        );
        assert_eq!(called.err(), Some(ChannelError::Plaintext(*b"this is ")));
    }
    assert!(a.target("plaintext:no port:").is_err());
}

#[test]
fn a_host_without_a_key_says_so() {
    let [a, b] = hosts();
    know(&a, "host-b", &b);
    let keyless = host();
    keyless.site.no_entropy.set(true);
    block_on(keyless.load_hosts());
    let (calling, called) = connect(&a, "host-b", &keyless, false);
    let error = calling.unwrap_err();
    assert!(error.contains(&Refusal::NoKey.to_string()), "{error}");
    assert!(matches!(called.err(), Some(ChannelError::NoEntropy(_))));
    know(&keyless, "host-a", &a);
    assert!(keyless.target("host-a").unwrap_err().contains("no key"));
}
