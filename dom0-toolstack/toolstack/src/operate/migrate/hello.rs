//! The first frame of each side: who it is.
//!
//! ```text
//! godwit-migrate 1        the version of the conversation, readable alone
//! host host-a
//! boot 00c0ffee00c0ffee
//! purpose move            move | ask | check | recall | offline | fetch
//! wall 1700000000         the time of day, seconds since 1970, if the host knows
//! verify 0
//! postcopy 1              it knows post-copy
//! compare 1               as a source it says where memories differ
//! ```
//!
//! Keys that are not known are passed over: later versions may add some.
//!
//! Entry point for bytes nobody vouches for: [`Hello::decode`].

use alloc::format;
use alloc::string::String;
use godwit_migrate::handover::Boot;

const MAGIC: &str = "godwit-migrate";
const VERSION: u32 = 1;
/// Longest hello, in bytes.
const BYTES_MAX: usize = 4096;
/// Longest host name, in bytes.
const HOST_BYTES_MAX: usize = 32;

/// What the connection is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// A domain is to come.
    Move,
    /// What became of an attempt?
    Ask,
    /// Would it take a domain?
    Check,
    /// Domains are to come back.
    Recall,
    /// A configuration is to come.
    Offline,
    /// A domain has gone before its memory: the asker has the rest.
    Fetch,
}

/// Who is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Hello {
    pub(super) host: String,
    pub(super) boot: Boot,
    pub(super) purpose: Purpose,
    /// All memory is to be read again and compared.
    pub(super) verify: bool,
    /// It knows post-copy.
    pub(super) postcopy: bool,
    /// It answers where its memory differs.
    pub(super) compare: bool,
    /// Its time of day, seconds since 1970, if it knows.
    pub(super) wall_s: Option<u64>,
}

impl Hello {
    pub(super) fn encode(&self) -> String {
        let Self {
            host,
            boot,
            purpose,
            verify,
            postcopy,
            compare,
            wall_s,
        } = self;
        let purpose = match purpose {
            Purpose::Move => "move",
            Purpose::Ask => "ask",
            Purpose::Check => "check",
            Purpose::Recall => "recall",
            Purpose::Offline => "offline",
            Purpose::Fetch => "fetch",
        };
        let wall = wall_s.map_or_else(String::new, |wall_s| format!("wall {wall_s}\n"));
        format!(
            "{MAGIC} {VERSION}\nhost {host}\nboot {:016x}\npurpose {purpose}\nverify {}\npostcopy {}\ncompare {}\n{wall}",
            boot.0,
            u8::from(*verify),
            u8::from(*postcopy),
            u8::from(*compare),
        )
    }

    /// From octets. The error is for the operator.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = core::str::from_utf8(bytes).ok();
        let text = text.filter(|text| text.len() <= BYTES_MAX);
        let mut lines = text.ok_or("its hello is no text")?.lines();
        let first = lines.next().unwrap_or("");
        if first != format!("{MAGIC} {VERSION}") {
            let first: String = first.chars().take(40).collect();
            return Err(format!(
                "version: it speaks '{first}', this host speaks '{MAGIC} {VERSION}'"
            ));
        }
        let (mut host, mut boot, mut purpose) = (None, None, None);
        let (mut verify, mut postcopy, mut compare, mut wall_s) = (false, false, false, None);
        for (key, value) in lines.filter_map(|line| line.split_once(' ')) {
            match key {
                "host" => host = Some(value).filter(|name| is_name(name)),
                "boot" => {
                    boot = u64::from_str_radix(value, 16)
                        .ok()
                        .filter(|boot| *boot != 0)
                }
                "purpose" => {
                    purpose = match value {
                        "move" => Some(Purpose::Move),
                        "ask" => Some(Purpose::Ask),
                        "check" => Some(Purpose::Check),
                        "recall" => Some(Purpose::Recall),
                        "offline" => Some(Purpose::Offline),
                        "fetch" => Some(Purpose::Fetch),
                        _ => None,
                    }
                }
                "verify" => verify = value == "1",
                "postcopy" => postcopy = value == "1",
                "compare" => compare = value == "1",
                "wall" => wall_s = value.parse().ok(),
                _later => {}
            }
        }
        let missing = |what: &str| format!("its hello has no usable {what}");
        Ok(Self {
            host: host.ok_or_else(|| missing("host name"))?.into(),
            boot: Boot(boot.ok_or_else(|| missing("boot"))?),
            purpose: purpose.ok_or_else(|| missing("purpose"))?,
            verify,
            postcopy,
            compare,
            wall_s,
        })
    }
}

/// Printable, and short: it is shown to operators.
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=HOST_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_comes_back_and_a_bad_one_says_what_is_wrong() {
        let hello = Hello {
            host: "host-a".into(),
            boot: Boot(0xabc),
            purpose: Purpose::Ask,
            verify: true,
            postcopy: true,
            compare: true,
            wall_s: Some(1_700_000_000),
        };
        let text = hello.encode();
        assert_eq!(Hello::decode(text.as_bytes()), Ok(hello.clone()));
        let more = format!("{text}colour red\n");
        assert_eq!(Hello::decode(more.as_bytes()), Ok(hello));
        for (old, new, wanted) in [
            ("migrate 1", "migrate 2", "speaks 'godwit-migrate 2'"),
            ("boot 0000000000000abc", "boot 0", "boot"),
            ("ask", "dance", "purpose"),
            ("host-a", "\x1b[2J", "host name"),
        ] {
            let bad = text.replace(old, new);
            let error = Hello::decode(bad.as_bytes()).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
        assert!(Hello::decode(&[0xff]).is_err());
        assert!(Hello::decode(b"").is_err());
    }
}
