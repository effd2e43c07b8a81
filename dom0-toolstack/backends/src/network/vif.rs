//! A guest's network card as its configuration describes it: one entry of `vif`, as
//! `mac=00:16:3e:00:00:01,type=nat,forward=tcp:2222:22,rate=10MB/s`.

use super::bucket::Rate;
use super::mac::MacAddress;
use super::nat::packet::Protocol;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// How a guest is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A station of the host's network. Needs a card that receives frames for others.
    Bridge,
    /// Behind the gateway, with the host's address towards the outside.
    Nat,
    /// Behind the gateway, with its own address; others have a route to it by this host.
    Routed,
}

/// A port of the host that leads to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The host's port.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// One entry of `vif`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vif {
    /// Hardware address; `None`: to be made up.
    pub mac: Option<MacAddress>,
    /// `None`: [`Kind::Bridge`] where the card can, else [`Kind::Nat`].
    pub kind: Option<Kind>,
    /// The guest's address. On the bridge: the only one it may use; behind the gateway: the one it
    /// gets.
    pub address: Option<Ipv4Addr>,
    /// Ports of the host that lead to it, behind the gateway only.
    pub forwards: Vec<Forward>,
    /// How fast it may send.
    pub rate: Option<Rate>,
    /// It may send with hardware addresses that are not its own, as guests that bridge must.
    pub may_spoof: bool,
}

/// Forwards of one guest.
pub const FORWARDS_MAX: usize = 64;
/// How long a burst is unless said otherwise, as with `xl`.
const INTERVAL_US: u64 = 50_000;

impl Vif {
    /// Reads an entry. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Vif, String> {
        let mut vif = Vif::default();
        let mut seen: Vec<&str> = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("vif: `{part}` is no setting, write key=value"))?;
            let (key, value) = (key.trim(), value.trim());
            if key != "forward" && seen.contains(&key) {
                return Err(format!("vif: {key} is given twice"));
            }
            seen.push(key);
            vif.set(key, value)
                .map_err(|problem| format!("vif: {key}={value}: {problem}"))?;
        }
        Ok(vif)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "mac" => {
                let mac = MacAddress::parse(value)?;
                if !mac.is_station() {
                    return Err("a group address, or zero".into());
                }
                self.mac = Some(mac);
            }
            "type" => {
                self.kind = Some(match value {
                    "bridge" => Kind::Bridge,
                    "nat" => Kind::Nat,
                    "routed" => Kind::Routed,
                    _ => return Err("not bridge, nat or routed".into()),
                });
            }
            "ip" => {
                let address = value.parse().map_err(|_| "not an IPv4 address")?;
                self.address = Some(address);
            }
            "forward" if self.forwards.len() >= FORWARDS_MAX => {
                return Err(format!("more than {FORWARDS_MAX} forwards"));
            }
            "forward" => self.forwards.push(forward(value)?),
            "rate" => self.rate = Some(rate(value)?),
            "spoofing" => {
                self.may_spoof = match value {
                    "allowed" => true,
                    "dropped" => false,
                    _ => return Err("not allowed or dropped".into()),
                };
            }
            "model" if value == "virtio-net" => {}
            "model" => return Err("only virtio-net is there".into()),
            "bridge" => return Err("there is one bridge only, write type=bridge".into()),
            _ => {
                return Err(
                    "no such setting; there are mac, type, ip, forward, rate, spoofing and model"
                        .into(),
                );
            }
        }
        Ok(())
    }
}

/// `tcp:2222:22`.
fn forward(text: &str) -> Result<Forward, &'static str> {
    const WANTED: &str = "write tcp:HOST-PORT:GUEST-PORT or udp:HOST-PORT:GUEST-PORT";
    let mut parts = text.split(':');
    let protocol = match parts.next() {
        Some("tcp") => Protocol::Tcp,
        Some("udp") => Protocol::Udp,
        Some(_) | None => return Err(WANTED),
    };
    let mut port = || parts.next()?.parse().ok().filter(|port| *port != 0);
    let (host, guest) = (port().ok_or(WANTED)?, port().ok_or(WANTED)?);
    match parts.next() {
        None => Ok(Forward {
            protocol,
            host,
            guest,
        }),
        Some(_) => Err(WANTED),
    }
}

/// `10Mb/s`, `250KB/s`, `1MB/s@20ms`, as `xl-network-configuration(5)` has it: B is bytes, b is
/// bits, powers of ten; the interval is how much may go at once.
fn rate(text: &str) -> Result<Rate, &'static str> {
    const WANTED: &str = "write a rate as 10Mb/s, 250KB/s or 1MB/s@20ms";
    let (amount, interval) = match text.split_once('@') {
        Some((amount, interval)) => (amount, Some(interval)),
        None => (text, None),
    };
    let interval_us = match interval {
        Some(text) => {
            let units = [("us", 1), ("ms", 1000), ("s", 1_000_000)];
            let find = |(unit, us): &(&str, u64)| {
                text.strip_suffix(unit)?
                    .parse::<u64>()
                    .ok()?
                    .checked_mul(*us)
            };
            units
                .iter()
                .find_map(find)
                .filter(|us| (1..=10_000_000).contains(us))
                .ok_or(WANTED)?
        }
        None => INTERVAL_US,
    };
    let amount = amount.strip_suffix("/s").ok_or(WANTED)?;
    let (amount, bits) = match (amount.strip_suffix('B'), amount.strip_suffix('b')) {
        (Some(amount), _) => (amount, 8),
        (None, Some(amount)) => (amount, 1),
        (None, None) => return Err(WANTED),
    };
    let factors = [('G', 1_000_000_000u64), ('M', 1_000_000), ('K', 1000)];
    let scaled = factors
        .iter()
        .find_map(|(name, factor)| Some((amount.strip_suffix(*name)?, *factor)));
    let (number, factor) = scaled.unwrap_or((amount, 1));
    let number: u64 = number.parse().map_err(|_| WANTED)?;
    let bits_per_second = number
        .checked_mul(factor)
        .and_then(|rate| rate.checked_mul(bits));
    let bytes_per_second = bits_per_second.ok_or("too much")? / 8;
    if bytes_per_second == 0 {
        return Err("nothing would be sent");
    }
    let burst = u128::from(bytes_per_second) * u128::from(interval_us) / 1_000_000;
    Ok(Rate {
        bytes_per_second,
        burst_bytes: u64::try_from(burst).unwrap_or(u64::MAX).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_entry() {
        let vif = Vif::parse("mac=00:16:3e:00:00:01, type=nat,ip=10.99.0.7,forward=tcp:2222:22,forward=udp:53:53,rate=1MB/s@20ms,model=virtio-net").unwrap();
        let forward = |protocol, host, guest| Forward {
            protocol,
            host,
            guest,
        };
        assert_eq!(
            vif,
            Vif {
                mac: Some(MacAddress([0, 0x16, 0x3e, 0, 0, 1])),
                kind: Some(Kind::Nat),
                address: Some(Ipv4Addr::new(10, 99, 0, 7)),
                forwards: [
                    forward(Protocol::Tcp, 2222, 22),
                    forward(Protocol::Udp, 53, 53)
                ]
                .into(),
                rate: Some(Rate {
                    bytes_per_second: 1_000_000,
                    burst_bytes: 20_000
                }),
                may_spoof: false,
            }
        );
        assert_eq!(Vif::parse(""), Ok(Vif::default()));
    }

    #[test]
    fn rates_are_bits_or_bytes() {
        let bytes = |text| Vif::parse(text).unwrap().rate.unwrap().bytes_per_second;
        assert_eq!(bytes("rate=10Mb/s"), 1_250_000);
        assert_eq!(bytes("rate=250KB/s"), 250_000);
        assert_eq!(bytes("rate=1GB/s@1s"), 1_000_000_000);
        assert_eq!(bytes("rate=8b/s"), 1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("mac", "no setting"),
            ("mac=1", "write 00:16:3e"),
            ("mac=01:00:5e:00:00:01", "group"),
            ("type=tap", "not bridge"),
            ("type=nat,type=nat", "twice"),
            ("forward=tcp:22", "write tcp:"),
            ("forward=tcp:0:22", "write tcp:"),
            ("forward=sctp:1:2", "write tcp:"),
            ("rate=10", "write a rate"),
            ("rate=0b/s", "nothing"),
            ("rate=99999999999999999999b/s", "write a rate"),
            ("rate=18446744073709551615GB/s", "too much"),
            ("rate=1MB/s@99999999999999999s", "write a rate"),
            ("bridge=xenbr0", "one bridge"),
            ("model=e1000", "only virtio"),
            ("script=x", "no such setting"),
        ] {
            let error = Vif::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
