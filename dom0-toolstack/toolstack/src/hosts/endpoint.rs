//! Where a host listens: `ADDRESS[:PORT]`.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// The port where hosts take domains, the one Xen uses for it.
pub const MIGRATION_PORT: u16 = 8002;
/// The longest host name of DNS, in characters (RFC 1035, 2.3.4).
const NAME_BYTES_MAX: usize = 253;

/// An address or name, and a port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// An IPv4 or IPv6 address, or a name for DNS.
    pub address: String,
    /// TCP port.
    pub port: u16,
}

impl Endpoint {
    /// Reads `10.0.0.1`, `10.0.0.1:8002`, `fe80::1`, `[fe80::1]:8002`, `host.example:8002`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok(Self {
                address: text.into(),
                port: MIGRATION_PORT,
            });
        }
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or("']' is missing")?;
                let six = address.parse::<Ipv6Addr>();
                six.map_err(|_| format!("'{}' is no IPv6 address", address.escape_debug()))?;
                match rest {
                    "" => (address, None),
                    rest => (
                        address,
                        Some(rest.strip_prefix(':').ok_or("':' is missing")?),
                    ),
                }
            }
            None => match text.split_once(':') {
                Some((address, port)) => (check(address)?, Some(port)),
                None => (check(text)?, None),
            },
        };
        let port = match port {
            None => MIGRATION_PORT,
            Some(port) => match port.parse() {
                Ok(port) if port != 0 => port,
                Ok(_) | Err(_) => {
                    return Err(format!("'{}' is no port, 1 to 65535", port.escape_debug()));
                }
            },
        };
        Ok(Self {
            address: address.into(),
            port,
        })
    }
}

/// An IPv4 address or a DNS name. What looks like an address must be one.
fn check(text: &str) -> Result<&str, String> {
    let shown = text.escape_debug();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.bytes().all(plain) {
        return Err(format!("'{shown}' is neither an address nor a host name"));
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    match numeric && text.parse::<Ipv4Addr>().is_err() {
        true => Err(format!("'{shown}' is no IPv4 address")),
        false => Ok(text),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address.contains(':') {
            true => write!(f, "[{}]:{}", self.address, self.port),
            false => write!(f, "{}:{}", self.address, self.port),
        }
    }
}
