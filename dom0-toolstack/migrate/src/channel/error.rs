//! Why a channel is not, or no longer, to be trusted.

use super::hello::Versions;
use super::identity::Fingerprint;
use crate::link::LinkError;
use alloc::string::String;
use core::fmt;

/// Why the peer says it refuses. In its hello this is in clear, so anybody on the way may have said
/// it; in its verdict it is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// No version of the channel in common.
    ChannelVersion,
    /// No version of the stream in common.
    StreamVersion,
    /// It has had this connection already.
    Replay,
    /// Its `hosts.conf` does not have our key.
    UnknownHost,
    /// It has no room for one more connection.
    Busy,
    /// It does not take what was sent without encryption.
    PlaintextRefused,
    /// What it saw of the hellos is not what we sent.
    Downgrade,
    /// It has no key, so it cannot speak to anybody.
    NoKey,
    /// A reason of a later version.
    Other(u16),
}

impl Refusal {
    /// From its code on the wire; 0 is no refusal.
    pub fn from_code(code: u16) -> Option<Self> {
        Some(match code {
            0 => return None,
            1 => Self::ChannelVersion,
            2 => Self::StreamVersion,
            3 => Self::Replay,
            4 => Self::UnknownHost,
            5 => Self::Busy,
            6 => Self::PlaintextRefused,
            7 => Self::Downgrade,
            8 => Self::NoKey,
            code => Self::Other(code),
        })
    }

    /// Its code on the wire.
    pub fn code(self) -> u16 {
        match self {
            Self::ChannelVersion => 1,
            Self::StreamVersion => 2,
            Self::Replay => 3,
            Self::UnknownHost => 4,
            Self::Busy => 5,
            Self::PlaintextRefused => 6,
            Self::Downgrade => 7,
            Self::NoKey => 8,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChannelVersion => "it knows no version of the channel that this host knows",
            Self::StreamVersion => "it knows no version of the stream that this host knows",
            Self::Replay => "it has had this connection already",
            Self::UnknownHost => {
                "it does not know this host: type there xl host-add with this host's name, address \
                 and fingerprint (xl host-key shows it)"
            }
            Self::Busy => "it has no room for one more connection: try again later",
            Self::PlaintextRefused => {
                "it takes only encrypted connections: leave out --plaintext, or boot it with \
                 migrate=plaintext"
            }
            Self::Downgrade => "the greeting was changed on the way to it",
            Self::NoKey => "it has no host key: xl host-key there says why",
            Self::Other(code) => {
                return write!(f, "for reason {code}, which this version does not know");
            }
        })
    }
}

/// Why a channel was not opened, or was given up. None can be gone on from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChannelError {
    /// The peer does not speak this protocol; what it said first.
    Plaintext([u8; 8]),
    /// A greeting that no version of this protocol makes.
    BadHello(&'static str),
    /// No version in common.
    Version {
        /// Of what.
        what: &'static str,
        /// What this host knows.
        ours: Versions,
        /// What the peer knows.
        theirs: Versions,
    },
    /// The peer has another key than the one its operator told.
    WrongKey {
        /// In `hosts.conf`.
        expected: Fingerprint,
        /// Of the key it has.
        found: Fingerprint,
    },
    /// No known host has this key.
    UnknownHost(Fingerprint),
    /// The peer refuses.
    Refused(Refusal),
    /// A handshake or record that came before came again.
    Replay,
    /// The greetings were changed on the way, so that other versions or purposes would be agreed.
    Downgrade,
    /// A record is missing before this one.
    OutOfOrder {
        /// The number that was next.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// What came was not made by who holds the keys, or not for this connection.
    Forged(&'static str),
    /// The connection ended within something.
    Truncated(&'static str),
    /// A length beyond the limit, or below what anything takes.
    TooLong {
        /// Octets announced.
        bytes: u64,
        /// The most there may be.
        most: usize,
    },
    /// There are no random numbers to make keys of.
    NoEntropy(String),
    /// The connection below failed.
    Link(LinkError),
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext(first) => write!(
                f,
                "the peer does not speak the encrypted protocol (it began with '{}'): is it a \
                 Godwit host, and the port the right one?",
                first.escape_ascii()
            ),
            Self::BadHello(what) => write!(f, "a greeting that no version makes: {what}"),
            Self::Version { what, ours, theirs } => write!(
                f,
                "no version of the {what} in common: this host knows {ours}, the peer {theirs}; \
                 update the older one"
            ),
            Self::WrongKey { expected, found } => write!(
                f,
                "wrong key: the host there has {found}, hosts.conf says {expected}. If it has a \
                 new key, xl host-remove and xl host-add it; if not, somebody is in between"
            ),
            Self::UnknownHost(fingerprint) => write!(
                f,
                "unknown host with key {fingerprint}: if it is yours, xl host-add it"
            ),
            Self::Refused(why) => write!(f, "the peer refuses: {why}"),
            Self::Replay => f.write_str("replay: what came had come before"),
            Self::Downgrade => {
                f.write_str("downgrade: somebody on the way changed what the hosts say they know")
            }
            Self::OutOfOrder { expected, found } => {
                write!(f, "record {found} came where {expected} was next")
            }
            Self::Forged(what) => write!(
                f,
                "forged: {what} was altered on the way or is from another connection"
            ),
            Self::Truncated(what) => write!(f, "truncated: the connection ended within {what}"),
            Self::TooLong { bytes, most } => {
                write!(f, "a length of {bytes} octets; there are at most {most}")
            }
            Self::NoEntropy(why) => write!(f, "no random numbers for keys: {why}"),
            Self::Link(error) => error.fmt(f),
        }
    }
}

impl From<LinkError> for ChannelError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}
