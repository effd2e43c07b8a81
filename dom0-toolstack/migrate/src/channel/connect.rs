//! The handshake of the host that connects.
//!
//! ```text
//!   Magic -> Hello -> Length -> Message -> VerdictHeader -> Verdict -> ended
//! ```

use super::error::{ChannelError, Refusal};
use super::hello::{HELLO_BYTES, Hello, MAGIC, Role, Session, Terms};
use super::identity::{Fingerprint, Identity};
use super::intake::Intake;
use super::noise::{self, MESSAGE_BYTES_MAX};
use super::records::{RECORD_HEADER_BYTES, Records};
use super::{Established, Next, Peer, Random};
use alloc::string::String;
use alloc::vec::Vec;
use snow::HandshakeState;

/// Instead of the length of a message: there is none.
const GO_AWAY: [u8; 2] = [0; 2];
/// The octets of a verdict's body: a code and a tag.
const VERDICT_BYTES: usize = 2 + 16;

/// What a greeting says to who has not greeted: it came in answer to something in clear.
pub fn refusal_of(magic: &[u8; 8], rest: &[u8; HELLO_BYTES - 8]) -> ChannelError {
    let mut octets = [0; HELLO_BYTES];
    octets[..8].copy_from_slice(magic);
    octets[8..].copy_from_slice(rest);
    match Hello::decode(&octets, Role::Responder) {
        Ok(Hello {
            refusal: Some(refusal),
            ..
        }) => ChannelError::Refused(refusal),
        Ok(_) => ChannelError::BadHello("a greeting where none was asked for"),
        Err(error) => error,
    }
}

enum Stage {
    Magic,
    Hello,
    Length(Hello),
    Message(Hello),
    VerdictHeader,
    Verdict,
    Ended,
}

/// A handshake under way.
pub struct Initiator {
    noise: Option<HandshakeState>,
    own: Hello,
    expected: Fingerprint,
    name: String,
    intake: Intake,
    stage: Stage,
    done: Option<Established>,
}

impl Initiator {
    /// Begins a handshake with the host that `hosts.conf` calls `name` and gives this fingerprint.
    /// Returns what is to be sent first.
    pub fn begin(
        identity: &Identity,
        (name, expected): (&str, Fingerprint),
        terms: Terms,
        session: Session,
        random: &mut impl Random,
    ) -> Result<(Self, Vec<u8>), ChannelError> {
        let mut noise = noise::handshake(identity, random, true)?;
        let own = Hello {
            terms,
            role: Role::Initiator,
            session,
            refusal: None,
        };
        let mut first = own.encode().to_vec();
        noise::write(&mut noise, &[], &mut first);
        let handshake = Self {
            noise: Some(noise),
            own,
            expected,
            name: name.into(),
            intake: Intake::new(MAGIC.len()),
            stage: Stage::Magic,
            done: None,
        };
        Ok((handshake, first))
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
        match self.step() {
            Ok(next) => next,
            Err(error) => {
                self.stage = Stage::Ended;
                // The peer need not wait for the third message.
                Next::ended(GO_AWAY.to_vec(), Err(error))
            }
        }
    }

    /// What the connection ended within, when it ends now.
    pub fn ended_within(&self) -> &'static str {
        match self.stage {
            Stage::Magic | Stage::Hello | Stage::Ended => "the greeting",
            Stage::Length(_) | Stage::Message(_) => "the handshake",
            Stage::VerdictHeader | Stage::Verdict => "the verdict",
        }
    }

    fn step(&mut self) -> Result<Next, ChannelError> {
        let stage = core::mem::replace(&mut self.stage, Stage::Ended);
        match stage {
            Stage::Magic => {
                super::check_magic(self.intake.octets())?;
                self.intake.want(HELLO_BYTES);
                self.stage = Stage::Hello;
            }
            Stage::Hello => {
                let hello = self.hello()?;
                self.intake.clear(2);
                self.stage = Stage::Length(hello);
            }
            Stage::Length(hello) => {
                self.intake
                    .clear(super::message_bytes(self.intake.octets())?);
                self.stage = Stage::Message(hello);
            }
            Stage::Message(hello) => {
                let send = self.message(&hello)?;
                self.intake.clear(RECORD_HEADER_BYTES);
                self.stage = Stage::VerdictHeader;
                return Ok(Next::go_on(send));
            }
            Stage::VerdictHeader => {
                let header = self.intake.octets().try_into().expect("a header's octets");
                let done = self.done.as_ref().expect("made by the message before");
                match done.records.header(header)? {
                    VERDICT_BYTES => self.intake.clear(VERDICT_BYTES),
                    _ => return Err(ChannelError::Forged("the verdict")),
                }
                self.stage = Stage::Verdict;
            }
            Stage::Verdict => {
                let mut done = self.done.take().expect("made by the message before");
                let mut verdict = [0; VERDICT_BYTES];
                done.records.open(self.intake.octets(), &mut verdict)?;
                let code = u16::from_le_bytes([verdict[0], verdict[1]]);
                let outcome = match Refusal::from_code(code) {
                    Some(refusal) => Err(ChannelError::Refused(refusal)),
                    None => Ok(done),
                };
                return Ok(Next::ended(Vec::new(), outcome));
            }
            Stage::Ended => panic!("a handshake that has ended is given more"),
        }
        Ok(Next::go_on(Vec::new()))
    }

    fn hello(&self) -> Result<Hello, ChannelError> {
        let octets = self.intake.octets().try_into().expect("a hello's octets");
        let hello = Hello::decode(octets, Role::Responder)?;
        match hello.refusal {
            // Our words for it have both ranges; they are equal only if the refusal is made up.
            Some(Refusal::ChannelVersion | Refusal::StreamVersion) => {
                self.own
                    .terms
                    .agree(hello.terms)
                    .map_err(|differ| differ.1)?;
                Err(ChannelError::Downgrade)
            }
            Some(refusal) => Err(ChannelError::Refused(refusal)),
            None => Ok(hello),
        }
    }

    /// Reads message 2, settles who is there and what both know, and writes message 3.
    fn message(&mut self, hello: &Hello) -> Result<Vec<u8>, ChannelError> {
        let mut noise = self.noise.take().expect("used here only");
        let octets = self.intake.octets();
        let seen: [u8; 2 * HELLO_BYTES] = noise::read(&mut noise, octets, "the answer")?;
        let key = noise::peer_key(&noise);
        let found = key.fingerprint();
        if found != self.expected {
            return Err(ChannelError::WrongKey {
                expected: self.expected,
                found,
            });
        }
        let hellos = super::hellos(&self.own, hello);
        if seen != hellos || hello.session != self.own.session {
            return Err(ChannelError::Downgrade);
        }
        let agreed = self.own.terms.agree(hello.terms);
        let (_, stream_version) = agreed.map_err(|differ| differ.1)?;
        let mut send = Vec::with_capacity(MESSAGE_BYTES_MAX);
        noise::write(&mut noise, &hellos, &mut send);
        let transport = noise
            .into_stateless_transport_mode()
            .expect("the third message is the last");
        self.done = Some(Established {
            records: Records::new(transport),
            peer: Peer {
                name: core::mem::take(&mut self.name),
                key,
            },
            session: self.own.session,
            stream_version,
        });
        Ok(send)
    }
}
