//! Two hosts, and everything that may be done to what is between them.

mod golden;
mod handshake;
mod hostile;
mod link;
mod records;

use super::*;
use std::string::ToString;

/// Numbers that are the same in every run, so that transcripts are too.
pub(super) struct Fixed(pub(super) u8);

impl Random for Fixed {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), String> {
        for byte in out {
            self.0 = self.0.wrapping_mul(5).wrapping_add(0x3b);
            *byte = self.0;
        }
        Ok(())
    }
}

pub(super) struct NoChance;

impl Random for NoChance {
    fn fill(&mut self, _: &mut [u8]) -> Result<(), String> {
        Err("no RDRAND".into())
    }
}

/// Known hosts of a test.
pub(super) struct Book(pub(super) Vec<(Fingerprint, &'static str)>);

impl Hosts for Book {
    fn name_of(&self, fingerprint: &Fingerprint) -> Option<String> {
        let mut known = self.0.iter();
        let found = known.find(|(known, _)| known == fingerprint);
        found.map(|(_, name)| (*name).into())
    }
}

pub(super) fn identity(seed: u8) -> Identity {
    Identity::generate(&mut Fixed(seed)).unwrap()
}

pub(super) fn fingerprint(seed: u8) -> Fingerprint {
    identity(seed).public().fingerprint()
}

pub(super) const A: u8 = 1;
pub(super) const B: u8 = 2;
pub(super) const STRANGER: u8 = 3;
pub(super) const SESSION: Session = Session {
    purpose: Purpose::Migration,
    id: *b"sixteen octets!!",
    connection: 1,
    connections: 2,
};

pub(super) fn terms() -> Terms {
    Terms::with_stream(Versions {
        newest: 4,
        oldest: 3,
    })
}

/// What both sides are given.
pub(super) struct Case {
    pub(super) connecting: u8,
    pub(super) accepting: u8,
    pub(super) expected: Fingerprint,
    pub(super) hosts: Book,
    pub(super) terms: [Terms; 2],
    pub(super) sessions: Sessions,
}

impl Default for Case {
    fn default() -> Self {
        Self {
            connecting: A,
            accepting: B,
            expected: fingerprint(B),
            hosts: Book(std::vec![(fingerprint(A), "host-a")]),
            terms: [terms(); 2],
            sessions: Sessions::default(),
        }
    }
}

pub(super) type Outcome = Result<Established, ChannelError>;

/// The flights of a handshake: each thing that is sent, with who sends it.
pub(super) type Flights = Vec<(Sender, Vec<u8>)>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sender {
    Initiator,
    Responder,
}

impl Case {
    pub(super) fn initiator(&self) -> (Initiator, Vec<u8>) {
        Initiator::begin(
            &identity(self.connecting),
            ("host-b", self.expected),
            self.terms[0],
            SESSION,
            &mut Fixed(77),
        )
        .unwrap()
    }

    pub(super) fn responder(&self, seed: u8) -> Responder<'_, Book> {
        let identity = identity(self.accepting);
        let random = &mut Fixed(seed);
        Responder::begin(
            &identity,
            &self.hosts,
            &self.sessions,
            self.terms[1],
            random,
        )
        .unwrap()
    }

    /// Runs the handshake; `meddle` may change each flight on its way.
    pub(super) fn run(
        &self,
        mut meddle: impl FnMut(Sender, &mut Vec<u8>),
    ) -> ([Outcome; 2], Flights) {
        let (mut initiator, first) = self.initiator();
        let mut responder = self.responder(99);
        let (mut ends, mut flights) = ([None, None], Flights::new());
        let mut on_the_way = std::vec![(Sender::Initiator, first)];
        while let Some((sender, mut flight)) = on_the_way.pop() {
            flights.push((sender, flight.clone()));
            meddle(sender, &mut flight);
            let mut rest = flight.as_slice();
            while !rest.is_empty() {
                let (side, answering) = match sender {
                    Sender::Initiator => (1, Sender::Responder),
                    Sender::Responder => (0, Sender::Initiator),
                };
                if ends[side].is_some() {
                    break;
                }
                let wanted = match side {
                    0 => initiator.wanted(),
                    _ => responder.wanted(),
                };
                let (now, later) = rest.split_at(wanted.min(rest.len()));
                rest = later;
                let next = match side {
                    0 => initiator.receive(now),
                    _ => responder.receive(now),
                };
                if !next.send.is_empty() {
                    on_the_way.push((answering, next.send));
                }
                ends[side] = next.outcome;
            }
        }
        let [first, second] = ends;
        let cut = |within| Err(ChannelError::Truncated(within));
        let first = first.unwrap_or_else(|| cut(initiator.ended_within()));
        let second = second.unwrap_or_else(|| cut(responder.ended_within()));
        ([first, second], flights)
    }

    pub(super) fn established(&self) -> [Established; 2] {
        let ([a, b], _) = self.run(|_, _| {});
        [a.unwrap(), b.unwrap()]
    }

    /// The errors that both sides end with.
    pub(super) fn errors(&self) -> [ChannelError; 2] {
        let ([a, b], _) = self.run(|_, _| {});
        [a.unwrap_err(), b.unwrap_err()]
    }
}

#[test]
fn fingerprints_are_read_as_they_are_written() {
    let print = fingerprint(A);
    let text = print.to_string();
    assert_eq!(text.len(), 39, "{text}");
    assert_eq!(Fingerprint::parse(&text), Ok(print));
    let loud = text.replace('-', "").to_uppercase();
    assert_eq!(Fingerprint::parse(&loud), Ok(print));
    assert_ne!(fingerprint(B), print);
    let short = Fingerprint::parse(&text[..38]);
    assert_eq!(short, Err(FingerprintError::Length(31)));
    let wrong = Fingerprint::parse("abc1");
    assert_eq!(wrong, Err(FingerprintError::Character('1')));
    assert_eq!(
        std::format!("{:?}", identity(A)),
        std::format!("Identity({text})"),
        "the secret is not shown"
    );
}

#[test]
fn keys_are_those_of_the_standard() {
    // RFC 7748, section 5.2: the first scalar of the iterated test is the base point's own number.
    let mut nine = [0; 32];
    nine[0] = 9;
    let public = Identity::from_secret(nine).public().0;
    let want = [
        0x42, 0x2c, 0x8e, 0x7a, 0x62, 0x27, 0xd7, 0xbc, 0xa1, 0x35, 0x0b, 0x3e, 0x2b, 0xb7, 0x27,
        0x9f, 0x78, 0x97, 0xb8, 0x7b, 0xb6, 0x85, 0x4b, 0x78, 0x3c, 0x60, 0xe8, 0x03, 0x11, 0xae,
        0x30, 0x79,
    ];
    assert_eq!(public, want);
}
