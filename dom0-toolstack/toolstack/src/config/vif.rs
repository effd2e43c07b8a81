//! Entries of `vif`: `mac=..,type=bridge|nat|routed,bridge=..,rate=10MB/s,ip=..,forward=tcp:2222:22`.

use super::pairs::{Pairs, once, words};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;

/// Most network devices of a domain.
pub const VIFS_MAX: usize = 8;
/// Most forwarded ports of a network device.
pub const FORWARDS_MAX: usize = 16;
/// Longest name of a bridge, in bytes.
const BRIDGE_BYTES_MAX: usize = 15;
/// Least rate, bytes a second: a full frame every 16 ms.
pub const RATE_BYTES_MIN: u64 = 100_000;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Reads `00:16:3e:01:02:03`. Neither a group address nor all zeroes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().unwrap_or("");
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = match u8::from_str_radix(part, 16) {
                Ok(value) if plain => value,
                Ok(_) | Err(_) => {
                    return Err(format!("mac '{text}' has not the form 00:16:3e:01:02:03"));
                }
            };
        }
        if parts.next().is_some() {
            return Err(format!("mac '{text}' has not the form 00:16:3e:01:02:03"));
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("mac '{text}' is no address of one device"));
        }
        Ok(Self(bytes))
    }

    /// One of Xen's own (prefix 00:16:3e) from random bytes.
    pub fn random(random: [u8; 3]) -> Self {
        let [a, b, c] = random;
        Self([0x00, 0x16, 0x3e, a & 0x7f, b, c])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// How a network device reaches the world.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// A port of the learning bridge with the host's card.
    Bridge {
        /// Name of the bridge, if one was given; there is one.
        bridge: Option<String>,
    },
    /// A network of the host's own with the host as its gateway; the guest gets its address by DHCP.
    Gateway {
        /// Whether others see the guest's address, and need a route to it by this host; otherwise
        /// they see the host's (NAT).
        routed: bool,
        /// The address the guest is to get; any if none is given.
        ip: Option<Ipv4Addr>,
        /// Ports of the host that lead to the guest.
        forwards: Vec<Forward>,
    },
}

/// Protocol of a forwarded port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the host that leads to a guest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Forward {
    /// Protocol.
    pub protocol: Protocol,
    /// Port on the host.
    pub host_port: u16,
    /// Port in the guest.
    pub guest_port: u16,
}

impl Forward {
    /// Reads `tcp:2222:22`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused = || format!("forward '{text}' has not the form tcp:HOSTPORT:GUESTPORT");
        let mut parts = text.split(':');
        let protocol = match parts.next() {
            Some("tcp") => Protocol::Tcp,
            Some("udp") => Protocol::Udp,
            Some(_) | None => return Err(refused()),
        };
        let mut port = || {
            let port: u16 = parts.next()?.parse().ok()?;
            (port != 0).then_some(port)
        };
        let host_port = port().ok_or_else(refused)?;
        let guest_port = port().ok_or_else(refused)?;
        match parts.next() {
            Some(_) => Err(refused()),
            None => Ok(Self {
                protocol,
                host_port,
                guest_port,
            }),
        }
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}:{}:{}", self.host_port, self.guest_port)
    }
}

/// A network device of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Vif {
    /// Its address; a random one is chosen at the creation and kept, if none is given.
    pub mac: Option<Mac>,
    /// How it reaches the world.
    pub attachment: Attachment,
    /// What it may send, bytes a second.
    pub rate_bytes: Option<u64>,
}

impl Vif {
    /// Reads an entry of `vif`; an empty one is a port of the bridge. The error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pairs = Pairs::default();
        for word in words(text) {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("'{word}' is no KEY=VALUE"))?;
            pairs.add(key.trim(), value)?;
        }
        let (mut mac, mut rate_bytes) = (None, None);
        let (mut kind, mut bridge, mut ip) = (None, None, None);
        let mut forwards = Vec::new();
        for (key, value) in pairs.take() {
            match key.as_str() {
                "mac" => once(&mut mac, "mac", Mac::parse(&value)?)?,
                "rate" => once(&mut rate_bytes, "rate", rate(&value)?)?,
                "bridge" => once(&mut bridge, "bridge", bridge_name(&value)?)?,
                "type" => once(&mut kind, "type", Kind::parse(&value)?)?,
                "ip" => {
                    let parsed = value.parse::<Ipv4Addr>();
                    let parsed = parsed.map_err(|_| format!("ip '{value}' is no IPv4 address"))?;
                    once(&mut ip, "ip", parsed)?;
                }
                "forward" if forwards.len() == FORWARDS_MAX => {
                    return Err(format!("more than {FORWARDS_MAX} forwarded ports"));
                }
                "forward" => forwards.push(Forward::parse(&value)?),
                "model" if value == "virtio-net" || value == "virtio" => {}
                "model" | "script" | "vifname" | "backend" | "gatewaydev" => {
                    return Err(format!("not implemented: '{key}={value}' of a vif"));
                }
                _ => {
                    let known = "mac type bridge rate ip forward model";
                    return Err(format!("unknown key '{key}'; there are: {known}"));
                }
            }
        }
        let attachment = match kind {
            Some(Kind::Nat | Kind::Routed) if bridge.is_some() => {
                return Err("'bridge' needs type=bridge".into());
            }
            Some(kind @ (Kind::Nat | Kind::Routed)) => Attachment::Gateway {
                routed: kind == Kind::Routed,
                ip,
                forwards,
            },
            Some(Kind::Bridge) | None if ip.is_some() || !forwards.is_empty() => {
                return Err("'ip' and 'forward' need type=nat or type=routed".into());
            }
            Some(Kind::Bridge) | None => Attachment::Bridge { bridge },
        };
        Ok(Self {
            mac,
            attachment,
            rate_bytes,
        })
    }
}

impl fmt::Display for Vif {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.attachment {
            Attachment::Bridge { bridge } => {
                f.write_str("type=bridge")?;
                if let Some(bridge) = bridge {
                    write!(f, ",bridge={bridge}")?;
                }
            }
            Attachment::Gateway {
                routed,
                ip,
                forwards,
            } => {
                f.write_str(if *routed { "type=routed" } else { "type=nat" })?;
                if let Some(ip) = ip {
                    write!(f, ",ip={ip}")?;
                }
                for forward in forwards {
                    write!(f, ",forward={forward}")?;
                }
            }
        }
        if let Some(mac) = &self.mac {
            write!(f, ",mac={mac}")?;
        }
        if let Some(rate) = self.rate_bytes {
            write!(f, ",rate={rate}B/s")?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bridge,
    Nat,
    Routed,
}

impl Kind {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "bridge" => Ok(Self::Bridge),
            "nat" => Ok(Self::Nat),
            "routed" => Ok(Self::Routed),
            other => Err(format!(
                "type '{other}' is neither 'nat' nor 'routed' nor 'bridge'"
            )),
        }
    }
}

fn bridge_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > BRIDGE_BYTES_MAX || !text.chars().all(plain) {
        return Err(format!("'{text}' is no name of a bridge"));
    }
    Ok(text.into())
}

/// Xen's rates: `10MB/s`, `100Mb/s`, decimal prefixes. Bytes a second.
fn rate(text: &str) -> Result<u64, String> {
    if text.contains('@') {
        return Err(format!("not implemented: the interval in rate '{text}'"));
    }
    let refused = || format!("rate '{text}' has not the form 10MB/s or 100Mb/s");
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refused())?;
    let unit = unit.strip_suffix("/s").ok_or_else(refused)?;
    let (factor, in_bits) = match unit {
        "B" => (1, false),
        "KB" => (1_000, false),
        "MB" => (1_000_000, false),
        "GB" => (1_000_000_000, false),
        "b" => (1, true),
        "Kb" => (1_000, true),
        "Mb" => (1_000_000, true),
        "Gb" => (1_000_000_000, true),
        _ => return Err(refused()),
    };
    let rate = number.checked_mul(factor).ok_or_else(refused)?;
    let rate = if in_bits { rate / 8 } else { rate };
    if rate < RATE_BYTES_MIN {
        return Err(format!(
            "rate '{text}' is less than {RATE_BYTES_MIN} bytes a second"
        ));
    }
    Ok(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn entries_read_back_as_they_are_shown() {
        for (text, want) in [
            ("", "type=bridge"),
            ("bridge=xenbr0", "type=bridge,bridge=xenbr0"),
            (
                "mac=00:16:3E:01:02:fF, model=virtio-net",
                "type=bridge,mac=00:16:3e:01:02:ff",
            ),
            (
                "type=nat,rate=100Mb/s,forward=tcp:2222:22,forward=udp:53:53,ip=10.0.3.7",
                "type=nat,ip=10.0.3.7,forward=tcp:2222:22,forward=udp:53:53,rate=12500000B/s",
            ),
            ("type=routed,ip=10.0.3.7", "type=routed,ip=10.0.3.7"),
        ] {
            let vif = Vif::parse(text).unwrap();
            assert_eq!(vif.to_string(), want);
            assert_eq!(Vif::parse(want), Ok(vif));
        }
        assert_eq!(Mac::random([0xff; 3]).to_string(), "00:16:3e:7f:ff:ff");
    }

    #[test]
    fn refusals_say_what() {
        for (text, part) in [
            ("nat", "no KEY=VALUE"),
            ("type=tap", "neither 'nat' nor 'routed' nor 'bridge'"),
            ("mac=1", "has not the form"),
            ("mac=00:16:3e:01:02:03:04", "has not the form"),
            ("mac=00:16:3e:01:02:+3", "has not the form"),
            ("mac=01:00:5e:00:00:01", "no address of one device"),
            ("mac=00:00:00:00:00:00", "no address of one device"),
            ("mac=02:00:00:00:00:01,mac=02:00:00:00:00:01", "given twice"),
            ("rate=10", "has not the form"),
            ("rate=99999999999999999GB/s", "has not the form"),
            ("rate=1KB/s", "less than 100000"),
            ("rate=1MB/s@50ms", "not implemented: the interval"),
            ("ip=10.0.0.1", "need type=nat"),
            ("type=nat,bridge=a", "needs type=bridge"),
            ("type=routed,bridge=a", "needs type=bridge"),
            ("type=nat,ip=10.0.0.256", "no IPv4 address"),
            ("type=nat,forward=tcp:0:22", "has not the form"),
            ("type=nat,forward=sctp:1:22", "has not the form"),
            ("bridge=a b", "no name of a bridge"),
            ("script=x", "not implemented: 'script=x'"),
            ("colour=red", "unknown key 'colour'"),
        ] {
            let error = Vif::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = "forward=tcp:1:1,".repeat(FORWARDS_MAX + 1);
        let error = Vif::parse(many.trim_end_matches(',')).unwrap_err();
        assert!(error.contains("more than 16 forwarded"), "{error}");
    }
}
