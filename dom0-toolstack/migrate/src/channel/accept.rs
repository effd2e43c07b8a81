//! The handshake of the host that is connected to.
//!
//! ```text
//!   Magic -> Hello -> Length -> First -> Length -> Third -> ended, with a verdict to send
//! ```

use super::error::{ChannelError, Refusal};
use super::hello::{HELLO_BYTES, Hello, MAGIC, Role, Session, Terms};
use super::identity::{Fingerprint, Identity};
use super::intake::Intake;
use super::noise;
use super::records::Records;
use super::{Established, Next, Peer, Random};
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use snow::HandshakeState;

/// How many connections are remembered, so that they are not accepted twice.
const SEEN_MAX: usize = 1024;

/// The hosts that may connect.
pub trait Hosts {
    /// The name of the host with this fingerprint.
    fn name_of(&self, fingerprint: &Fingerprint) -> Option<String>;
}

/// The connections that were accepted last. Only proven ones are in it, so that a stranger cannot make
/// it forget; what it has forgotten fails at message 3, whose keys are new each time.
#[derive(Default)]
pub struct Sessions(RefCell<VecDeque<([u8; 16], u16)>>);

impl Sessions {
    fn has(&self, session: &Session) -> bool {
        let seen = self.0.borrow();
        seen.contains(&(session.id, session.connection))
    }

    fn remember(&self, session: &Session) {
        let mut seen = self.0.borrow_mut();
        if seen.len() == SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back((session.id, session.connection));
    }
}

/// What is to be sent to a peer that is turned away before any handshake; in clear, so it may only
/// say what is no secret.
pub fn turn_away(terms: Terms, refusal: Refusal) -> [u8; HELLO_BYTES] {
    let hello = Hello {
        terms,
        role: Role::Responder,
        session: Session::alone([0; 16]),
        refusal: Some(refusal),
    };
    hello.encode()
}

enum Stage {
    Magic,
    Hello,
    Length(Hello, Message),
    Message(Hello, Message),
    Ended,
}

#[derive(Clone, Copy)]
enum Message {
    First,
    Third,
}

/// A handshake under way.
pub struct Responder<'a, H: Hosts> {
    noise: Option<HandshakeState>,
    terms: Terms,
    hosts: &'a H,
    sessions: &'a Sessions,
    intake: Intake,
    stage: Stage,
}

impl<'a, H: Hosts> Responder<'a, H> {
    /// Waits for a handshake of one of `hosts`.
    pub fn begin(
        identity: &Identity,
        hosts: &'a H,
        sessions: &'a Sessions,
        terms: Terms,
        random: &mut impl Random,
    ) -> Result<Self, ChannelError> {
        Ok(Self {
            noise: Some(noise::handshake(identity, random, false)?),
            terms,
            hosts,
            sessions,
            intake: Intake::new(MAGIC.len()),
            stage: Stage::Magic,
        })
    }

    /// How many octets are wanted next, at most.
    pub fn wanted(&self) -> usize {
        self.intake.missing()
    }

    /// Takes octets, at most [`Self::wanted`].
    pub fn receive(&mut self, bytes: &[u8]) -> Next {
        if !self.intake.take(bytes) {
            return Next::go_on(Vec::new());
        }
        let mut send = Vec::new();
        match self.step(&mut send) {
            Ok(None) => Next::go_on(send),
            Ok(Some(done)) => Next::ended(send, Ok(done)),
            Err(error) => {
                self.stage = Stage::Ended;
                Next::ended(send, Err(error))
            }
        }
    }

    /// What the connection ended within, when it ends now.
    pub fn ended_within(&self) -> &'static str {
        match self.stage {
            Stage::Magic | Stage::Hello | Stage::Ended => "the greeting",
            Stage::Length(..) | Stage::Message(..) => "the handshake",
        }
    }

    fn step(&mut self, send: &mut Vec<u8>) -> Result<Option<Established>, ChannelError> {
        let stage = core::mem::replace(&mut self.stage, Stage::Ended);
        match stage {
            Stage::Magic => {
                super::check_magic(self.intake.octets())?;
                self.intake.want(HELLO_BYTES);
                self.stage = Stage::Hello;
            }
            Stage::Hello => {
                let hello = self.hello(send)?;
                self.intake.clear(2);
                self.stage = Stage::Length(hello, Message::First);
            }
            Stage::Length(hello, message) => {
                self.intake
                    .clear(super::message_bytes(self.intake.octets())?);
                self.stage = Stage::Message(hello, message);
            }
            Stage::Message(hello, Message::First) => {
                let noise = self.noise.as_mut().expect("there until the third message");
                let _: [u8; 0] = noise::read(noise, self.intake.octets(), "the first message")?;
                let answer = self.answer(&hello, None);
                send.extend(answer.encode());
                let noise = self.noise.as_mut().expect("there until the third message");
                noise::write(noise, &super::hellos(&hello, &answer), send);
                self.intake.clear(2);
                self.stage = Stage::Length(hello, Message::Third);
            }
            Stage::Message(hello, Message::Third) => return self.third(&hello, send).map(Some),
            Stage::Ended => panic!("a handshake that has ended is given more"),
        }
        Ok(None)
    }

    fn answer(&self, hello: &Hello, refusal: Option<Refusal>) -> Hello {
        Hello {
            terms: self.terms,
            role: Role::Responder,
            session: hello.session,
            refusal,
        }
    }

    fn hello(&self, send: &mut Vec<u8>) -> Result<Hello, ChannelError> {
        let octets = self.intake.octets().try_into().expect("a hello's octets");
        let hello = Hello::decode(octets, Role::Initiator)?;
        let refused = match self.terms.agree(hello.terms) {
            Err(refused) => refused,
            Ok(_) if self.sessions.has(&hello.session) => (Refusal::Replay, ChannelError::Replay),
            Ok(_) => return Ok(hello),
        };
        send.extend(self.answer(&hello, Some(refused.0)).encode());
        Err(refused.1)
    }

    /// Reads message 3: who is there is proven now, and hears whether it is welcome.
    fn third(&mut self, hello: &Hello, send: &mut Vec<u8>) -> Result<Established, ChannelError> {
        let mut noise = self.noise.take().expect("the third message comes once");
        let octets = self.intake.octets();
        let seen: [u8; 2 * HELLO_BYTES] = noise::read(&mut noise, octets, "the third message")?;
        let key = noise::peer_key(&noise);
        let transport = noise
            .into_stateless_transport_mode()
            .expect("the third message is the last");
        let mut records = Records::new(transport);
        let fingerprint = key.fingerprint();
        let outcome = if seen != super::hellos(hello, &self.answer(hello, None)) {
            Err((Refusal::Downgrade, ChannelError::Downgrade))
        } else if self.sessions.has(&hello.session) {
            Err((Refusal::Replay, ChannelError::Replay))
        } else {
            let unknown = ChannelError::UnknownHost(fingerprint);
            let name = self.hosts.name_of(&fingerprint);
            let name = name.ok_or((Refusal::UnknownHost, unknown));
            name.and_then(|name| Ok((name, self.terms.agree(hello.terms)?.1)))
        };
        let code = outcome.as_ref().err().map_or(0, |refused| refused.0.code());
        records.seal(&code.to_le_bytes(), send);
        let (name, stream_version) = outcome.map_err(|refused| refused.1)?;
        self.sessions.remember(&hello.session);
        Ok(Established {
            records,
            peer: Peer { name, key },
            session: hello.session,
            stream_version,
        })
    }
}
