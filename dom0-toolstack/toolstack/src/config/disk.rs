//! Entries of `disk`: Xen's `target, format, vdev, access` by position or by key.
//!
//! What a target names is a volume of a store or an NBD export. Whether it is there is for the
//! back ends to say.

use super::pairs::{Pairs, once, words};
use alloc::format;
use alloc::string::String;
use core::fmt;

/// Most disks of a domain: `vda` to `vdp`.
pub const DISKS_MAX: usize = 16;
/// Longest name of a store, volume, host or export, in bytes.
pub const PART_BYTES_MAX: usize = 128;
/// The port of NBD servers (IANA).
pub const NBD_PORT: u16 = 10809;
/// What a target on an NBD server begins with.
const NBD_PREFIX: &str = "nbd://";
/// Xen's names for the four fields, in their order.
const POSITIONS: [&str; 4] = ["target", "format", "vdev", "access"];

/// What stands behind a disk.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DiskTarget {
    /// A volume: `STORE/VOLUME`.
    Volume {
        /// Name of the store.
        store: String,
        /// Name of the volume.
        volume: String,
    },
    /// An export: `nbd://HOST[:PORT]/EXPORT`.
    Nbd {
        /// Name or address of the server; an IPv6 address without brackets.
        host: String,
        /// TCP port.
        port: u16,
        /// Name of the export; empty for the server's default.
        export: String,
    },
}

impl DiskTarget {
    /// Reads a target. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let target = match text.strip_prefix(NBD_PREFIX) {
            Some(rest) => nbd(rest),
            None => text
                .split_once('/')
                .map(|(store, volume)| DiskTarget::Volume {
                    store: store.into(),
                    volume: volume.into(),
                }),
        };
        let form = "STORE/VOLUME or nbd://HOST[:PORT]/EXPORT";
        let target = target.ok_or_else(|| format!("'{text}' is no target: {form}"))?;
        let parts = match &target {
            DiskTarget::Volume { store, volume } => [store, volume],
            DiskTarget::Nbd { host, export, .. } => [host, export],
        };
        let may_be_empty = [false, matches!(target, DiskTarget::Nbd { .. })];
        for (part, may_be_empty) in parts.into_iter().zip(may_be_empty) {
            let odd =
                |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | '"' | '\\');
            if part.len() > PART_BYTES_MAX || part.chars().any(odd) {
                return Err(format!(
                    "'{part}' is no name: at most {PART_BYTES_MAX} bytes without blanks, commas and quotes"
                ));
            }
            if part.is_empty() && !may_be_empty {
                return Err(format!("'{text}' is no target: {form}"));
            }
        }
        match &target {
            DiskTarget::Volume { volume, .. } if volume.contains('/') => {
                Err(format!("'{text}' is no target: a volume's name has no '/'"))
            }
            DiskTarget::Volume { .. } | DiskTarget::Nbd { .. } => Ok(target),
        }
    }
}

/// `HOST[:PORT]/EXPORT`.
fn nbd(rest: &str) -> Option<DiskTarget> {
    let (server, export) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match server.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            match port {
                "" => (host, None),
                port => (host, Some(port.strip_prefix(':')?)),
            }
        }
        None => match server.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (server, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => NBD_PORT,
    };
    Some(DiskTarget::Nbd {
        host: host.into(),
        port,
        export: export.into(),
    })
}

impl fmt::Display for DiskTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskTarget::Volume { store, volume } => write!(f, "{store}/{volume}"),
            DiskTarget::Nbd { host, port, export } => {
                let host = match host.contains(':') {
                    true => format!("[{host}]"),
                    false => host.clone(),
                };
                write!(f, "{NBD_PREFIX}{host}:{port}/{export}")
            }
        }
    }
}

/// A disk of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Its number: 0 is `vda` in the guest. Less than [`DISKS_MAX`].
    pub index: u8,
    /// What stands behind it.
    pub target: DiskTarget,
    /// The guest cannot write it.
    pub read_only: bool,
}

impl Disk {
    /// Reads an entry of `disk`. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pairs = Pairs::default();
        for (position, word) in words(text).enumerate() {
            // A target may contain '=', but no key may be mistaken for one.
            match word.split_once('=') {
                Some((key, value)) if key.bytes().all(|b| b.is_ascii_alphanumeric()) => {
                    pairs.add(key, value)?;
                }
                Some(_) | None => match POSITIONS.get(position) {
                    Some(key) if !word.is_empty() => pairs.add(key, word)?,
                    Some(_) => {}
                    None => return Err(format!("'{word}' is one field too many")),
                },
            }
        }
        let (mut target, mut index, mut read_only) = (None, None, None);
        for (key, value) in pairs.take() {
            match key.as_str() {
                "target" => once(&mut target, "target", DiskTarget::parse(&value)?)?,
                "vdev" => once(&mut index, "vdev", vdev(&value)?)?,
                "access" => once(&mut read_only, "access", is_read_only(&value)?)?,
                "format" if value == "raw" => {}
                "format" => {
                    return Err(format!("not implemented: format '{value}'; use 'raw'"));
                }
                "backendtype" | "backend" | "script" | "devtype" | "cdrom" | "discard" => {
                    return Err(format!("not implemented: '{key}' of a disk"));
                }
                _ => {
                    return Err(format!(
                        "unknown key '{key}'; there are: target format vdev access"
                    ));
                }
            }
        }
        Ok(Self {
            index: index.ok_or("'vdev' is missing: vdev=xvda")?,
            target: target.ok_or("'target' is missing: target=STORE/VOLUME")?,
            read_only: read_only.unwrap_or(false),
        })
    }

    /// Its name as the guest's Linux shows it: `vda`.
    pub fn vdev(&self) -> String {
        format!("vd{}", char::from(b'a' + self.index))
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "ro" } else { "rw" };
        write!(
            f,
            "vdev={},access={access},target={}",
            self.vdev(),
            self.target
        )
    }
}

/// The number of a disk from its name: `vda`, or `xvda` as Xen has it.
pub fn vdev(text: &str) -> Result<u8, String> {
    let letter = text.strip_prefix("xvd").or_else(|| text.strip_prefix("vd"));
    let index = match letter.map(str::as_bytes) {
        Some([letter @ b'a'..=b'z']) => usize::from(letter - b'a'),
        Some(_) | None => DISKS_MAX,
    };
    if index < DISKS_MAX {
        return Ok(index as u8);
    }
    let last = char::from(b'a' + (DISKS_MAX - 1) as u8);
    Err(format!(
        "vdev '{text}' is none of vda to vd{last} or xvda to xvd{last}"
    ))
}

fn is_read_only(text: &str) -> Result<bool, String> {
    match text {
        "rw" | "w" => Ok(false),
        "ro" | "r" => Ok(true),
        other => Err(format!("access '{other}' is neither 'rw' nor 'ro'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn xens_forms_mean_the_same() {
        let want = Disk {
            index: 1,
            target: DiskTarget::parse("main/web").unwrap(),
            read_only: true,
        };
        for text in [
            "main/web, raw, xvdb, r",
            "main/web,,vdb,ro",
            "vdev=xvdb,access=ro,target=main/web",
            "access=r, main/web, vdev=vdb",
            " format=raw , target=main/web , vdev=vdb , access=ro ",
        ] {
            // In the fourth form the target is at the second position, which is the format.
            let parsed = Disk::parse(text);
            match text.starts_with("access") {
                true => assert!(parsed.unwrap_err().contains("format 'main/web'")),
                false => assert_eq!(parsed.as_ref(), Ok(&want), "{text}"),
            }
        }
        assert_eq!(Disk::parse(&want.to_string()), Ok(want));
    }

    #[test]
    fn exports_have_a_host_and_a_port() {
        for (text, want) in [
            ("nbd://h/e", "nbd://h:10809/e"),
            ("nbd://10.0.0.1:99/a/b", "nbd://10.0.0.1:99/a/b"),
            ("nbd://[fd00::1]:1/x", "nbd://[fd00::1]:1/x"),
            ("nbd://h", "nbd://h:10809/"),
        ] {
            assert_eq!(DiskTarget::parse(text).unwrap().to_string(), want);
        }
        for text in [
            "nbd:///e",
            "nbd://h:0/e",
            "nbd://h:x/e",
            "nbd://[::1/e",
            "web",
            "/a",
            "a/",
            "a/b/c",
        ] {
            assert!(DiskTarget::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refusals_say_what() {
        for (text, part) in [
            ("", "'vdev' is missing"),
            ("vdev=vda", "'target' is missing"),
            ("target=a/b,vdev=sda", "none of vda to vdp"),
            ("target=a/b,vdev=vdq", "none of vda to vdp"),
            ("a/b,qcow2,vda", "not implemented: format 'qcow2'"),
            ("a/b,raw,vda,x", "neither 'rw' nor 'ro'"),
            ("a/b,raw,vda,rw,more", "one field too many"),
            ("a/b,vdev=vda,vdev=vdb", "'vdev' is given twice"),
            ("a/b,vdev=vda,devtype=cdrom", "not implemented: 'devtype'"),
            ("a/b,vdev=vda,colour=red", "unknown key 'colour'"),
            ("target=a b/c,vdev=vda", "without blanks"),
        ] {
            let error = Disk::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
