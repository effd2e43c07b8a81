//! Who a host is: its static key pair, and the fingerprint that operators compare.

use super::Random;
use super::error::ChannelError;
use super::noise;
use alloc::string::String;
use core::fmt::{self, Write};

/// Octets of a fingerprint: 160 bits of BLAKE2s.
const FINGERPRINT_BYTES: usize = 20;
/// Its letters: RFC 4648 base32, in lower case.
const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters of a fingerprint.
const FINGERPRINT_LETTERS: usize = 32;
/// Letters of a group.
const GROUP_LETTERS: usize = 4;
/// What is hashed before the key, so that the hash means nothing else.
const FINGERPRINT_LABEL: &[u8] = b"Godwit host key 1";

/// A host's public X25519 key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// What stands for the key among people.
    pub fn fingerprint(&self) -> Fingerprint {
        let hash = noise::blake2s(&[FINGERPRINT_LABEL, &self.0]);
        let mut short = [0; FINGERPRINT_BYTES];
        short.copy_from_slice(&hash[..FINGERPRINT_BYTES]);
        Fingerprint(short)
    }
}

/// A host's key pair. Its `Debug` shows only the public half.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    secret: [u8; 32],
    public: PublicKey,
}

impl Identity {
    /// A new key pair.
    pub fn generate(random: &mut impl Random) -> Result<Self, ChannelError> {
        let mut secret = [0; 32];
        random.fill(&mut secret).map_err(ChannelError::NoEntropy)?;
        Ok(Self::from_secret(secret))
    }

    /// The pair of a secret key. Every 32 octets are one (RFC 7748 section 5 clamps them).
    pub fn from_secret(secret: [u8; 32]) -> Self {
        Self {
            secret,
            public: PublicKey(noise::public_key(&secret)),
        }
    }

    /// The secret half, to be kept and shown to nobody.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public.fingerprint())
    }
}

/// A fingerprint: eight groups of four letters or digits, `ab2c-...`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; FINGERPRINT_BYTES]);

/// Why a text is no fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FingerprintError {
    /// A character that no fingerprint has.
    Character(char),
    /// So many letters.
    Length(usize),
}

impl fmt::Display for FingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Character(found) => write!(
                f,
                "'{}' is not in any fingerprint (letters, and digits 2 to 7)",
                found.escape_default()
            ),
            Self::Length(found) => write!(
                f,
                "a fingerprint has {FINGERPRINT_LETTERS} letters and digits, this has {found}"
            ),
        }
    }
}

impl Fingerprint {
    /// Reads one, in either case, with its hyphens or without.
    pub fn parse(text: &str) -> Result<Self, FingerprintError> {
        let (mut out, mut count) = ([0; FINGERPRINT_BYTES], 0);
        for letter in text.chars().filter(|letter| *letter != '-') {
            let value = LETTERS
                .iter()
                .position(|known| char::from(*known) == letter.to_ascii_lowercase());
            let value = value.ok_or(FingerprintError::Character(letter))?;
            for bit in 0..5 {
                let at = count * 5 + bit;
                if value & (16 >> bit) != 0 && at / 8 < FINGERPRINT_BYTES {
                    out[at / 8] |= 0x80 >> (at % 8);
                }
            }
            count += 1;
        }
        match count {
            FINGERPRINT_LETTERS => Ok(Self(out)),
            count => Err(FingerprintError::Length(count)),
        }
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        for index in 0..FINGERPRINT_LETTERS {
            if index > 0 && index % GROUP_LETTERS == 0 {
                text.push('-');
            }
            let mut value = 0;
            for at in index * 5..index * 5 + 5 {
                value = value << 1 | usize::from(self.0[at / 8] >> (7 - at % 8) & 1);
            }
            text.write_char(char::from(LETTERS[value]))?;
        }
        f.pad(&text)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
