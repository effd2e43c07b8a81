//! What a stranger may send to a host's port, or answer on it, and the files of keys and hosts.
//!
//! All chance is fixed, so that a handshake that was recorded is accepted here, and only here.

use godwit_migrate::channel::{
    ChannelError, Established, Fingerprint, Hosts, Identity, Initiator, Next, Purpose,
    RECORD_HEADER_BYTES, Random, Responder, Session, Sessions, Terms, Versions,
};
use godwit_toolstack::hosts::{KnownHosts, key};

struct Fixed(u8);

impl Random for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), String> {
        for byte in out {
            self.0 = self.0.wrapping_mul(5).wrapping_add(0x3b);
            *byte = self.0;
        }
        Ok(())
    }
}

struct Book(Fingerprint);

impl Hosts for Book {
    fn name_of(&self, fingerprint: &Fingerprint) -> Option<String> {
        (*fingerprint == self.0).then(|| "host-a".into())
    }
}

const SESSION: Session = Session {
    purpose: Purpose::Migration,
    id: *b"sixteen octets!!",
    connection: 1,
    connections: 2,
};

fn identity(seed: u8) -> Identity {
    Identity::generate(&mut Fixed(seed)).expect("fixed numbers do not fail")
}

fn terms() -> Terms {
    Terms::with_stream(Versions {
        newest: 4,
        oldest: 3,
    })
}

type Outcome = Result<Established, ChannelError>;

/// Feeds a handshake in pieces of growing length until it ends or the input does. What is left over goes
/// to the records, if the handshake ends well.
fn feed(
    mut input: &[u8],
    wanted: impl Fn() -> usize,
    mut receive: impl FnMut(&[u8]) -> Next,
) -> (Option<Outcome>, &[u8]) {
    let mut length = 1;
    while !input.is_empty() {
        let most = wanted();
        assert!(most > 0);
        let (now, later) = input.split_at(input.len().min(length).min(most));
        (input, length) = (later, length % 61 + 7);
        if let Some(outcome) = receive(now).outcome {
            return (Some(outcome), input);
        }
    }
    (None, input)
}

/// Opens records until one is refused. What is opened is no longer than what was sealed.
fn records(done: &mut Established, mut input: &[u8]) -> bool {
    let mut out = vec![0; 65535];
    while let Some((header, rest)) = input.split_first_chunk::<RECORD_HEADER_BYTES>() {
        let opened = done.records.header(header).and_then(|bytes| {
            assert!(bytes <= out.len());
            let body = rest.get(..bytes).ok_or(ChannelError::Truncated("input"))?;
            input = &rest[bytes..];
            done.records.open(body, &mut out)
        });
        if let Err(error) = opened {
            assert!(!error.to_string().chars().any(char::is_control));
            return false;
        }
    }
    true
}

fn judged(outcome: Option<Outcome>, rest: &[u8]) -> bool {
    match outcome {
        Some(Ok(mut done)) => {
            assert_eq!(done.session, SESSION);
            records(&mut done, rest)
        }
        Some(Err(error)) => {
            assert!(!error.to_string().chars().any(char::is_control));
            false
        }
        None => false,
    }
}

/// One input: 0 and what comes to who listens, 1 and what comes to who connects, 2 and a file of hosts,
/// 3 and a file with a key. Returns whether it was accepted.
pub(crate) fn judge(input: &[u8]) -> bool {
    let Some((kind, rest)) = input.split_first() else {
        return false;
    };
    match kind {
        0 => {
            let hosts = Book(identity(1).public().fingerprint());
            let sessions = Sessions::default();
            let own = identity(2);
            let responder = Responder::begin(&own, &hosts, &sessions, terms(), &mut Fixed(99));
            let responder = core::cell::RefCell::new(responder.expect("there are numbers"));
            let wanted = || responder.borrow().wanted();
            let (end, rest) = feed(rest, wanted, |now| responder.borrow_mut().receive(now));
            judged(end, rest)
        }
        1 => {
            let peer = ("host-b", identity(2).public().fingerprint());
            let begun = Initiator::begin(&identity(1), peer, terms(), SESSION, &mut Fixed(77));
            let initiator = core::cell::RefCell::new(begun.expect("there are numbers").0);
            let wanted = || initiator.borrow().wanted();
            let (end, rest) = feed(rest, wanted, |now| initiator.borrow_mut().receive(now));
            judged(end, rest)
        }
        2 => {
            let known = KnownHosts::parse(rest);
            let again = KnownHosts::parse(known.render().as_bytes());
            assert!(known.iter().eq(again.iter()));
            for problem in known.problems() {
                assert!(!problem.chars().any(char::is_control), "{problem:?}");
            }
            known.problems().is_empty() && known.iter().next().is_some()
        }
        _ => match key::decode(rest) {
            Ok(identity) => key::decode(key::encode(&identity).as_bytes()) == Ok(identity),
            Err(_) => false,
        },
    }
}
