//! What the source keeps with a domain that moves, where a restarted dom0 finds it:
//!
//! ```text
//! godwit-move 1
//! attempt 0123456789abcdef
//! boot 00c0ffee00c0ffee          of the destination
//! state copying                  copying | committing
//! pauses 0                       how often the operator had paused it
//! peer host-b
//! rest 1                         if memory stays here that the other host fetches (post-copy)
//! ```
//!
//! Entry point for bytes nobody vouches for: [`Kept::decode`].

use alloc::format;
use alloc::string::String;
use godwit_migrate::handover::{Attempt, Boot};

/// Key of the domain's blob.
pub(crate) const MOVE_BLOB: u32 = 2;
const MAGIC: &str = "godwit-move 1";

/// A move that a restarted dom0 has to settle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) attempt: Attempt,
    pub(crate) boot: Boot,
    /// The domain is given up: only the destination's word brings it back.
    pub(crate) is_committing: bool,
    pub(crate) pauses: u32,
    pub(crate) peer: String,
    /// Memory that has not gone with it.
    pub(crate) rest: bool,
}

impl Kept {
    pub(crate) fn encode(&self) -> String {
        let Self {
            attempt,
            boot,
            is_committing,
            pauses,
            peer,
            rest,
        } = self;
        let rest = if *rest { "rest 1\n" } else { "" };
        let state = match is_committing {
            true => "committing",
            false => "copying",
        };
        format!(
            "{MAGIC}\nattempt {:016x}\nboot {:016x}\nstate {state}\npauses {pauses}\npeer {peer}\n{rest}",
            attempt.0, boot.0
        )
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut lines = core::str::from_utf8(bytes).ok()?.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        value("godwit-move").filter(|version| *version == "1")?;
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        Some(Self {
            attempt: Attempt(hex(value("attempt")?)?),
            boot: Boot(hex(value("boot")?)?),
            is_committing: match value("state")? {
                "copying" => false,
                "committing" => true,
                _ => return None,
            },
            pauses: value("pauses")?.parse().ok()?,
            peer: value("peer")?.into(),
            rest: value("rest") == Some("1"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        for is_committing in [false, true] {
            let kept = Kept {
                attempt: Attempt(7),
                boot: Boot(u64::MAX),
                is_committing,
                pauses: 1,
                peer: "10.77.0.2".into(),
                rest: is_committing,
            };
            assert_eq!(Kept::decode(kept.encode().as_bytes()), Some(kept));
        }
        assert_eq!(Kept::decode(b"godwit-move 2\n"), None);
        assert_eq!(Kept::decode(&[0xff]), None);
    }
}
