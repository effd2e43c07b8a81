//! The greeting in clear, 48 octets: what each side knows, and which connection of which session
//! this is. It is only believed once both sides have said inside the handshake what they saw.

use super::error::{ChannelError, Refusal};
use core::fmt;

/// How a hello begins.
pub const MAGIC: [u8; 8] = *b"GODWITch";
/// Octets of a hello.
pub const HELLO_BYTES: usize = 48;
/// The most connections of one session.
pub const SESSION_CONNECTIONS_MAX: u16 = 16;

/// A range of versions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Versions {
    /// The newest that is known.
    pub newest: u16,
    /// The oldest that is still known.
    pub oldest: u16,
}

impl Versions {
    /// The newest version in both.
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.newest == self.oldest {
            true => write!(f, "{}", self.newest),
            false => write!(f, "{} to {}", self.oldest, self.newest),
        }
    }
}

/// What a host knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Of the records that follow the handshake. (Hello and handshake have no versions: what changes
    /// them changes [`MAGIC`].)
    pub channel: Versions,
    /// Of the stream that goes through.
    pub stream: Versions,
}

impl Terms {
    /// What this version of Godwit knows, of the channel; a stream is given.
    pub fn with_stream(stream: Versions) -> Self {
        let channel = Versions {
            newest: 1,
            oldest: 1,
        };
        Self { channel, stream }
    }

    /// The newest versions of channel and stream that both know.
    pub(super) fn agree(self, theirs: Self) -> Result<(u16, u16), (Refusal, ChannelError)> {
        let pick = |what, refusal, ours: Versions, theirs| {
            let differ = ChannelError::Version { what, ours, theirs };
            ours.common(theirs).ok_or((refusal, differ))
        };
        let channel = pick(
            "channel",
            Refusal::ChannelVersion,
            self.channel,
            theirs.channel,
        )?;
        let stream = pick("stream", Refusal::StreamVersion, self.stream, theirs.stream)?;
        Ok((channel, stream))
    }
}

/// What a connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// Moving a domain.
    Migration,
}

/// Which connection of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Session {
    /// What for.
    pub purpose: Purpose,
    /// The session: chance, the connecting host's choice.
    pub id: [u8; 16],
    /// The number of this connection, from 0.
    pub connection: u16,
    /// How many connections the session has.
    pub connections: u16,
}

impl Session {
    /// The only connection of a session.
    pub fn alone(id: [u8; 16]) -> Self {
        Self {
            purpose: Purpose::Migration,
            id,
            connection: 0,
            connections: 1,
        }
    }
}

/// Who sends a hello.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Initiator = 1,
    Responder = 2,
}

/// The greeting.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) terms: Terms,
    pub(super) role: Role,
    pub(super) session: Session,
    /// Only of the responder: why it does not go on.
    pub(super) refusal: Option<Refusal>,
}

impl Hello {
    pub(super) fn encode(&self) -> [u8; HELLO_BYTES] {
        let Self {
            terms: Terms { channel, stream },
            role,
            session,
            refusal,
        } = self;
        let purpose = match session.purpose {
            Purpose::Migration => 1,
        };
        let refusal = refusal.map_or(0, Refusal::code);
        let mut out = [0; HELLO_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        let numbers = [channel.newest, channel.oldest, stream.newest, stream.oldest];
        put(&mut out[8..16], &numbers);
        out[16] = *role as u8;
        out[17] = purpose;
        put(
            &mut out[18..24],
            &[session.connection, session.connections, refusal],
        );
        out[24..40].copy_from_slice(&session.id);
        out
    }

    /// Reads the peer's hello, whose role must be `role`.
    pub(super) fn decode(octets: &[u8; HELLO_BYTES], role: Role) -> Result<Self, ChannelError> {
        let bad = |what| Err(ChannelError::BadHello(what));
        if octets[..8] != MAGIC {
            let first = octets[..8].try_into().expect("eight octets");
            return Err(ChannelError::Plaintext(first));
        }
        let number = |at: usize| u16::from_le_bytes([octets[at], octets[at + 1]]);
        let versions = |at| Versions {
            newest: number(at),
            oldest: number(at + 2),
        };
        let terms = Terms {
            channel: versions(8),
            stream: versions(12),
        };
        let refusal = Refusal::from_code(number(22));
        let hello = Self {
            terms,
            role,
            session: Session {
                purpose: Purpose::Migration,
                id: octets[24..40].try_into().expect("16 octets"),
                connection: number(18),
                connections: number(20),
            },
            refusal,
        };
        let Session {
            connection,
            connections,
            ..
        } = hello.session;
        match () {
            () if octets[16] != role as u8 => bad("both ends play the same part"),
            () if octets[17] != 1 => bad("a purpose that this version does not know"),
            () if connection >= connections || connections > SESSION_CONNECTIONS_MAX => {
                bad("a connection beyond those of its session")
            }
            () if octets[40..] != [0; 8] => bad("octets that have no meaning are not 0"),
            () if role == Role::Initiator && refusal.is_some() => bad("who connects cannot refuse"),
            () => Ok(hello),
        }
    }
}

fn put(out: &mut [u8], numbers: &[u16]) {
    for (place, number) in out.chunks_exact_mut(2).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
}
