//! Requests and replies as octets, little endian:
//!
//! ```text
//!   0  attempt (u64)
//!   8  boot (u64): of a request 0 when any is meant, of a reply always one
//!  16  what is asked or told (u8)
//! ```
//!
//! Entry points for bytes nobody vouches for: [`Request::decode`] and [`Reply::decode`].

use super::{Ask, Attempt, Boot, Reply, Request, Tell};

/// Octets of either.
pub const MESSAGE_BYTES: usize = 17;

fn encode(attempt: Attempt, boot: u64, what: u8) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    bytes[..8].copy_from_slice(&attempt.0.to_le_bytes());
    bytes[8..16].copy_from_slice(&boot.to_le_bytes());
    bytes[16] = what;
    bytes
}

fn decode(bytes: &[u8]) -> Option<(Attempt, u64, u8)> {
    let bytes: &[u8; MESSAGE_BYTES] = bytes.try_into().ok()?;
    let long = |at: usize| {
        let long: [u8; 8] = bytes[at..at + 8].try_into().expect("eight octets");
        u64::from_le_bytes(long)
    };
    Some((Attempt(long(0)), long(8), bytes[16]))
}

impl Request {
    /// As octets.
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        let what = match self.ask {
            Ask::Offer => 0,
            Ask::Prove => 1,
            Ask::Commit => 2,
            Ask::Cancel => 3,
        };
        encode(self.attempt, self.boot.map_or(0, |boot| boot.0), what)
    }

    /// From octets.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (attempt, boot, what) = decode(bytes)?;
        let ask = match what {
            0 => Ask::Offer,
            1 => Ask::Prove,
            2 => Ask::Commit,
            3 => Ask::Cancel,
            _ => return None,
        };
        Some(Request {
            attempt,
            boot: (boot != 0).then_some(Boot(boot)),
            ask,
        })
    }
}

impl Reply {
    /// As octets.
    pub fn encode(self) -> [u8; MESSAGE_BYTES] {
        let what = match self.tell {
            Tell::Accepted => 0,
            Tell::Ready => 1,
            Tell::Running => 2,
            Tell::Refused => 3,
            Tell::Gone { committed: false } => 4,
            Tell::Gone { committed: true } => 5,
            Tell::Unsure => 6,
        };
        encode(self.attempt, self.boot.0, what)
    }

    /// From octets.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (attempt, boot, what) = decode(bytes)?;
        let tell = match what {
            0 => Tell::Accepted,
            1 => Tell::Ready,
            2 => Tell::Running,
            3 => Tell::Refused,
            4 => Tell::Gone { committed: false },
            5 => Tell::Gone { committed: true },
            6 => Tell::Unsure,
            _ => return None,
        };
        Some(Reply {
            attempt,
            boot: Boot(boot),
            tell,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_and_nothing_else_is_one() {
        let (attempt, boot) = (Attempt(0x0102_0304), Boot(9));
        for code in 0..=u8::MAX {
            let bytes = encode(attempt, 9, code);
            let request = Request::decode(&bytes);
            let reply = Reply::decode(&bytes);
            assert_eq!(request.is_some(), code < 4);
            assert_eq!(reply.is_some(), code < 7);
            assert!(request.is_none_or(|request| request.encode() == bytes));
            assert!(reply.is_none_or(|reply| reply.encode() == bytes && reply.boot == boot));
        }
        assert_eq!(Request::decode(&encode(attempt, 0, 0)).unwrap().boot, None);
        assert_eq!(Request::decode(&[0; 16]), None);
        assert_eq!(Reply::decode(&[0; 18]), None);
    }
}
