//! `nbd://host[:port]/export`, the NBD URI of a TCP export without TLS.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// The port the IANA has given NBD.
pub const PORT: u16 = 10809;
/// Bytes of a host name (RFC 1035).
pub const HOST_BYTES_MAX: usize = 253;
/// Bytes of any string in the NBD protocol.
pub const EXPORT_BYTES_MAX: usize = 4096;

/// Where an export is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NbdUrl {
    /// Address or name; an IPv6 address without its brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The export's name; empty: the server's default.
    pub export: String,
}

/// Why text is no NBD address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlError {
    /// It does not begin with `nbd://`.
    Scheme,
    /// TLS (`nbds`), Unix sockets (`nbd+unix`) or vsock.
    Transport,
    /// There is no host, or it is too long or has characters no host has.
    Host,
    /// The port is no number from 1 to 65535.
    Port,
    /// A user, a query or a fragment, which we would have to ignore.
    Extra,
    /// The export's name is too long, or its percent-encoding is wrong or no UTF-8.
    Export,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UrlError::Scheme => "an NBD export is written nbd://host[:port]/export",
            UrlError::Transport => "only nbd:// (TCP without TLS) is implemented",
            UrlError::Host => "the host is missing or is no host name or address",
            UrlError::Port => "the port is not a number from 1 to 65535",
            UrlError::Extra => "users, queries and fragments mean nothing here: leave them out",
            UrlError::Export => "the name of the export is too long or wrongly encoded",
        })
    }
}

impl NbdUrl {
    /// Parses an address.
    pub fn parse(text: &str) -> Result<NbdUrl, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        match scheme {
            "nbd" => {}
            "nbds" | "nbd+unix" | "nbds+unix" | "nbd+vsock" => return Err(UrlError::Transport),
            _ => return Err(UrlError::Scheme),
        }
        let (place, export) = rest.split_once('/').unwrap_or((rest, ""));
        if place.contains('@') || text.contains(['?', '#']) {
            return Err(UrlError::Extra);
        }
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or(UrlError::Host)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or(UrlError::Port)?),
                };
                (host, port)
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let of_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(of_host) {
            return Err(UrlError::Host);
        }
        let port = match port {
            None => PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| UrlError::Port)?
            }
            Some(_) => return Err(UrlError::Port),
        };
        if port == 0 {
            return Err(UrlError::Port);
        }
        Ok(NbdUrl {
            host: host.to_string(),
            port,
            export: decode(export)?,
        })
    }
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Result<String, UrlError> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UrlError::Export);
        };
        bytes.push((high * 16 + low) as u8);
    }
    if bytes.len() > EXPORT_BYTES_MAX {
        return Err(UrlError::Export);
    }
    String::from_utf8(bytes).map_err(|_| UrlError::Export)
}

impl fmt::Display for NbdUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "nbd://[{}]", self.host)?,
            false => write!(f, "nbd://{}", self.host)?,
        }
        if self.port != PORT {
            write!(f, ":{}", self.port)?;
        }
        f.write_str("/")?;
        for byte in self.export.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    write!(f, "{}", char::from(byte))?;
                }
                _ => write!(f, "%{byte:02X}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("nbd://store/vm%201/root", "store", PORT, "vm 1/root"),
            ("nbd://10.0.0.1:10810/", "10.0.0.1", 10810, ""),
            ("nbd://[fe80::1]:1/x", "fe80::1", 1, "x"),
            ("nbd://host", "host", PORT, ""),
            ("nbd://host//x", "host", PORT, "/x"),
        ];
        for (text, host, port, export) in cases {
            let url = NbdUrl::parse(text).unwrap();
            let found = (url.host.as_str(), url.port, url.export.as_str());
            assert_eq!(found, (host, port, export), "{text}");
            assert_eq!(NbdUrl::parse(&url.to_string()), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_is_no_address() {
        let cases = [
            ("host/x", UrlError::Scheme),
            ("http://host/x", UrlError::Scheme),
            ("nbds://host/x", UrlError::Transport),
            ("nbd:///x", UrlError::Host),
            ("nbd://ho st/x", UrlError::Host),
            ("nbd://[::1/x", UrlError::Host),
            ("nbd://host:/x", UrlError::Port),
            ("nbd://host:0/x", UrlError::Port),
            ("nbd://host:+1/x", UrlError::Port),
            ("nbd://host:65536/x", UrlError::Port),
            ("nbd://[::1]1/x", UrlError::Port),
            ("nbd://me@host/x", UrlError::Extra),
            ("nbd://host/x?tls=1", UrlError::Extra),
            ("nbd://host/%4", UrlError::Export),
            ("nbd://host/%ff", UrlError::Export),
        ];
        for (text, error) in cases {
            assert_eq!(NbdUrl::parse(text), Err(error), "{text}");
        }
    }
}
