//! The channel between two hosts: mutually authenticated, encrypted, and refused by name.
//!
//! ```text
//!   connecting host                            accepting host
//!   hello, Noise message 1 (e)        ->
//!                                     <-       hello, Noise message 2 (e, ee, s, es; both hellos)
//!   Noise message 3 (s, se; both hellos) ->
//!                                     <-       record 0: the verdict
//!   records                           <->      records
//! ```
//!
//! Noise_XX_25519_ChaChaPoly_BLAKE2s, each host with a static key whose fingerprint the other was
//! told by its operator. The hellos travel in clear because they say which versions there are; each
//! side repeats both, as it saw them, inside the encrypted messages, so that who changes one on the
//! way is found out and called a downgrade instead of a tag that does not fit. Every connection of a
//! session has a handshake, and so keys, of its own.
//!
//! [`Initiator`], [`Responder`] and [`Records`] are bytes in, bytes out; [`SecureLink`] runs them over
//! a [`Link`](crate::link::Link). Input nobody vouches for: all that [`Initiator::receive`],
//! [`Responder::receive`] and [`Records`] take. After an error nothing more is to be done with a
//! connection than closing it. Octets: `docs/migration.md`.

mod accept;
mod connect;
pub mod entropy;
mod error;
mod hello;
mod identity;
mod intake;
mod noise;
mod records;
mod secure_link;
#[cfg(test)]
mod tests;

pub use accept::{Hosts, Responder, Sessions, turn_away};
pub use connect::{Initiator, refusal_of};
pub use error::{ChannelError, Refusal};
pub use hello::{HELLO_BYTES, MAGIC, Purpose, SESSION_CONNECTIONS_MAX, Session, Terms, Versions};
pub use identity::{Fingerprint, FingerprintError, Identity, PublicKey};
pub use noise::Sealer;
pub use records::{
    PAYLOAD_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, REKEY_RECORDS, Records,
};
pub use secure_link::SecureLink;

use alloc::string::String;
use alloc::vec::Vec;
use hello::Hello;
use noise::MESSAGE_BYTES_MAX;

/// Where keys come from: bytes that nobody can guess, or an error in words.
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), String>;
}

/// What a handshake wants done after it was given bytes: send these, then go on, or be done.
#[derive(Debug)]
pub struct Next {
    /// To be sent, also when the outcome is an error (the peer is told why, as far as it may know).
    pub send: Vec<u8>,
    /// How the handshake ended, if it has.
    pub outcome: Option<Result<Established, ChannelError>>,
}

impl Next {
    fn go_on(send: Vec<u8>) -> Self {
        Self {
            send,
            outcome: None,
        }
    }

    fn ended(send: Vec<u8>, outcome: Result<Established, ChannelError>) -> Self {
        Self {
            send,
            outcome: Some(outcome),
        }
    }
}

/// The host at the other end, proven.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Its name among the known hosts.
    pub name: String,
    /// Its static key.
    pub key: PublicKey,
}

/// A finished handshake.
pub struct Established {
    /// The keys of both directions.
    pub records: Records,
    /// Who is there.
    pub peer: Peer,
    /// Which session the connection belongs to.
    pub session: Session,
    /// The version of the stream to speak: the newest that both know.
    pub stream_version: u16,
}

impl core::fmt::Debug for Established {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self {
            records: _,
            peer,
            session,
            stream_version,
        } = self;
        write!(f, "Established({peer:?}, {session:?}, {stream_version})")
    }
}

/// Whether this is the peer's greeting.
fn check_magic(octets: &[u8]) -> Result<(), ChannelError> {
    match octets.try_into().expect("as many as were wanted") {
        MAGIC => Ok(()),
        first => Err(ChannelError::Plaintext(first)),
    }
}

/// The length of a handshake message.
fn message_bytes(octets: &[u8]) -> Result<usize, ChannelError> {
    let bytes = u16::from_le_bytes(octets.try_into().expect("as many as were wanted"));
    match usize::from(bytes) {
        0 => Err(ChannelError::Truncated("the handshake")),
        bytes if bytes > MESSAGE_BYTES_MAX => Err(ChannelError::TooLong {
            bytes: bytes as u64,
            most: MESSAGE_BYTES_MAX,
        }),
        bytes => Ok(bytes),
    }
}

/// Both hellos, as one side sees them: what the other must have seen too.
fn hellos(initiator: &Hello, responder: &Hello) -> [u8; 2 * HELLO_BYTES] {
    let mut both = [0; 2 * HELLO_BYTES];
    both[..HELLO_BYTES].copy_from_slice(&initiator.encode());
    both[HELLO_BYTES..].copy_from_slice(&responder.encode());
    both
}
