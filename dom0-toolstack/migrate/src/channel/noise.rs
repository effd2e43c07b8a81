//! The one place that knows the Noise library: its parameters, and its primitives by themselves.
//!
//! Chance is drawn before the library runs, so that a lack of it is our error and not its. An
//! ephemeral key is all that the pattern asks for.

use super::Random;
use super::error::ChannelError;
use super::identity::{Identity, PublicKey};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash};
use snow::{Builder, HandshakeState};

/// The protocol's name, which the handshake binds.
const PROTOCOL: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
/// What else the handshake binds: whose protocol this is.
const PROLOGUE: &[u8] = b"Godwit channel, handshake 1";
/// Octets of a key.
const KEY_BYTES: usize = 32;

/// The most octets of a handshake message.
pub(super) const MESSAGE_BYTES_MAX: usize = 512;

/// The library's primitives with one ephemeral secret that was drawn before.
struct Drawn {
    secret: [u8; KEY_BYTES],
    taken: AtomicBool,
}

/// Gives the secret once.
struct Once([u8; KEY_BYTES]);

impl snow::types::Random for Once {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), snow::Error> {
        let secret = core::mem::replace(&mut self.0, [0; KEY_BYTES]);
        if out.len() != KEY_BYTES || secret == [0; KEY_BYTES] {
            return Err(snow::Error::Rng);
        }
        out.copy_from_slice(&secret);
        Ok(())
    }
}

impl CryptoResolver for Drawn {
    fn resolve_rng(&self) -> Option<Box<dyn snow::types::Random>> {
        match self.taken.swap(true, Ordering::Relaxed) {
            true => None,
            false => Some(Box::new(Once(self.secret))),
        }
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// The handshake of one side.
pub(super) fn handshake(
    identity: &Identity,
    random: &mut impl Random,
    initiator: bool,
) -> Result<HandshakeState, ChannelError> {
    let mut secret = [0; KEY_BYTES];
    random.fill(&mut secret).map_err(ChannelError::NoEntropy)?;
    let params: NoiseParams = PROTOCOL.parse().expect("the protocol's name is one");
    let drawn = Drawn {
        secret,
        taken: AtomicBool::new(false),
    };
    let builder = Builder::with_resolver(params, Box::new(drawn))
        .local_private_key(identity.secret())
        .and_then(|builder| builder.prologue(PROLOGUE));
    let built = builder.and_then(|builder| match initiator {
        true => builder.build_initiator(),
        false => builder.build_responder(),
    });
    Ok(built.expect("the library has what the protocol's name asks for"))
}

/// Writes a message of the handshake behind its length.
pub(super) fn write(noise: &mut HandshakeState, payload: &[u8], out: &mut alloc::vec::Vec<u8>) {
    let mut message = [0; MESSAGE_BYTES_MAX];
    let bytes = noise
        .write_message(payload, &mut message)
        .expect("it is our turn, and there is room");
    out.extend((bytes as u16).to_le_bytes());
    out.extend(&message[..bytes]);
}

/// Reads a message of the handshake, with a payload of exactly `N` octets.
pub(super) fn read<const N: usize>(
    noise: &mut HandshakeState,
    message: &[u8],
    what: &'static str,
) -> Result<[u8; N], ChannelError> {
    let mut payload = [0; MESSAGE_BYTES_MAX];
    match noise.read_message(message, &mut payload) {
        Ok(bytes) if bytes == N => Ok(payload[..N].try_into().expect("so many")),
        Ok(_) | Err(_) => Err(ChannelError::Forged(what)),
    }
}

/// The peer's static key; it has been proven once the message that carries it was read.
pub(super) fn peer_key(noise: &HandshakeState) -> PublicKey {
    let key = noise.get_remote_static().expect("its message was read");
    PublicKey(key.try_into().expect("an X25519 key"))
}

/// The public key of a secret one.
pub(super) fn public_key(secret: &[u8; KEY_BYTES]) -> [u8; KEY_BYTES] {
    let dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519);
    let mut dh = dh.expect("the library has the curve");
    dh.set(secret);
    dh.pubkey().try_into().expect("an X25519 key")
}

/// BLAKE2s-256 (RFC 7693) of some pieces in a row.
pub(super) fn blake2s(pieces: &[&[u8]]) -> [u8; 32] {
    let hash = DefaultResolver.resolve_hash(&HashChoice::Blake2s);
    let mut hash = hash.expect("the library has the hash");
    pieces.iter().for_each(|piece| hash.input(piece));
    let mut out = [0; 32];
    hash.result(&mut out);
    out
}

/// The channel's cipher by itself, under a key that protects nothing: to measure what it costs.
pub struct Sealer(Box<dyn Cipher>);

impl Sealer {
    /// Octets that sealing adds.
    pub const TAG_BYTES: usize = 16;

    /// One.
    #[allow(clippy::new_without_default, reason = "there is no default key")]
    pub fn new() -> Self {
        let cipher = DefaultResolver.resolve_cipher(&CipherChoice::ChaChaPoly);
        let mut cipher = cipher.expect("the library has the cipher");
        cipher.set(&[0; KEY_BYTES]);
        Self(cipher)
    }

    /// Seals some octets into `out`, which has room for the tag.
    pub fn seal(&mut self, nonce: u64, payload: &[u8], out: &mut [u8]) {
        self.0.encrypt(nonce, &[], payload, out);
    }
}
