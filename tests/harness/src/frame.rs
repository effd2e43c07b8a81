//! Ethernet, ARP, IPv4 and ICMP echo: as much as a switch and a ping need.

use std::fmt;
use std::net::Ipv4Addr;

const ETHERNET_BYTES: usize = 14;
const TYPE_IPV4: u16 = 0x0800;
const TYPE_ARP: u16 = 0x0806;
const ARP_BYTES: usize = 28;
const IPV4_BYTES: usize = 20;
const ICMP_BYTES: usize = 8;
const PROTOCOL_ICMP: u8 = 1;
/// Shorter frames are padded by whoever sends them (IEEE 802.3, FCS not counted).
const FRAME_BYTES_MIN: usize = 60;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Every station.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether it names a group of stations (broadcast included).
    pub fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A received frame, taken apart as far as it is understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whom it is for.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// What it says.
    pub payload: Payload,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// "Who has `target`?", asked by `sender`.
    ArpRequest {
        /// Asker's address.
        sender: Ipv4Addr,
        /// Address asked for.
        target: Ipv4Addr,
    },
    /// "`sender` is at the frame's source."
    ArpReply {
        /// Address answered for.
        sender: Ipv4Addr,
        /// Asker's address.
        target: Ipv4Addr,
    },
    /// ICMP echo request or reply.
    Echo {
        /// A reply, not a request.
        reply: bool,
        /// IPv4 source.
        from: Ipv4Addr,
        /// IPv4 destination.
        to: Ipv4Addr,
        /// Identifier and sequence number, as sent.
        tag: [u8; 4],
        /// Data carried back unchanged.
        data: Vec<u8>,
    },
    /// Anything else.
    Other,
}

impl Frame {
    /// Takes a frame apart; `None` when it is too short to be one. A damaged checksum makes the
    /// payload `Payload::Other`.
    pub fn parse(bytes: &[u8]) -> Option<Frame> {
        let header = bytes.get(..ETHERNET_BYTES)?;
        let mac = |at: usize| Mac(header[at..at + 6].try_into().expect("six bytes"));
        let body = &bytes[ETHERNET_BYTES..];
        let payload = match u16::from_be_bytes([header[12], header[13]]) {
            TYPE_ARP => parse_arp(body),
            TYPE_IPV4 => parse_echo(body),
            _ => None,
        };
        Some(Frame {
            destination: mac(0),
            source: mac(6),
            payload: payload.unwrap_or(Payload::Other),
        })
    }

    /// The bytes to send; `None` for `Payload::Other`, which has none.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let (kind, body) = match &self.payload {
            Payload::ArpRequest { sender, target } => {
                (TYPE_ARP, arp(1, self.source, *sender, Mac([0; 6]), *target))
            }
            Payload::ArpReply { sender, target } => (
                TYPE_ARP,
                arp(2, self.source, *sender, self.destination, *target),
            ),
            Payload::Echo {
                reply,
                from,
                to,
                tag,
                data,
            } => (TYPE_IPV4, echo(*reply, *from, *to, *tag, data)),
            Payload::Other => return None,
        };
        let mut bytes = [self.destination.0, self.source.0].concat();
        bytes.extend(kind.to_be_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().max(FRAME_BYTES_MIN), 0);
        Some(bytes)
    }
}

fn address(bytes: &[u8]) -> Ipv4Addr {
    Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])
}

fn parse_arp(body: &[u8]) -> Option<Payload> {
    let body = body.get(..ARP_BYTES)?;
    let (sender, target) = (address(&body[14..]), address(&body[24..]));
    // Ethernet, IPv4, lengths 6 and 4.
    if body[..6] != [0, 1, 8, 0, 6, 4] {
        return None;
    }
    match body[7] {
        1 => Some(Payload::ArpRequest { sender, target }),
        2 => Some(Payload::ArpReply { sender, target }),
        _ => None,
    }
}

fn parse_echo(body: &[u8]) -> Option<Payload> {
    let total = usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?]));
    let packet = body.get(..total)?;
    if packet.len() < IPV4_BYTES + ICMP_BYTES || packet[0] != 0x45 || packet[9] != PROTOCOL_ICMP {
        return None;
    }
    let (header, icmp) = packet.split_at(IPV4_BYTES);
    if checksum(header) != 0 || checksum(icmp) != 0 {
        return None;
    }
    let reply = match icmp[0] {
        0 => true,
        8 => false,
        _ => return None,
    };
    Some(Payload::Echo {
        reply,
        from: address(&header[12..]),
        to: address(&header[16..]),
        tag: icmp[4..8].try_into().ok()?,
        data: icmp[ICMP_BYTES..].to_vec(),
    })
}

fn arp(operation: u8, from: Mac, sender: Ipv4Addr, to: Mac, target: Ipv4Addr) -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, operation];
    body.extend(from.0);
    body.extend(sender.octets());
    body.extend(to.0);
    body.extend(target.octets());
    body
}

fn echo(reply: bool, from: Ipv4Addr, to: Ipv4Addr, tag: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut icmp = vec![if reply { 0 } else { 8 }, 0, 0, 0];
    icmp.extend(tag);
    icmp.extend(data);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = (IPV4_BYTES + icmp.len()) as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, PROTOCOL_ICMP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(icmp);
    packet
}

/// The Internet checksum (RFC 1071); over data that includes a right one it is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_parses_back_and_damage_is_seen() {
        let (a, b) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        let payloads = [
            Payload::ArpRequest {
                sender: a,
                target: b,
            },
            Payload::ArpReply {
                sender: a,
                target: b,
            },
            Payload::Echo {
                reply: false,
                from: a,
                to: b,
                tag: [1, 2, 3, 4],
                data: vec![7; 33],
            },
            Payload::Echo {
                reply: true,
                from: b,
                to: a,
                tag: [1, 2, 3, 4],
                data: vec![],
            },
        ];
        for payload in payloads {
            let frame = Frame {
                destination: Mac::BROADCAST,
                source: Mac([2; 6]),
                payload,
            };
            let mut bytes = frame.bytes().unwrap();
            assert!(bytes.len() >= FRAME_BYTES_MIN);
            assert_eq!(Frame::parse(&bytes), Some(frame.clone()));
            if matches!(frame.payload, Payload::Echo { .. }) {
                bytes[40] ^= 0x10;
                assert_eq!(Frame::parse(&bytes).unwrap().payload, Payload::Other);
            }
        }
    }

    #[test]
    fn every_truncation_is_survived() {
        let payload = Payload::Echo {
            reply: false,
            from: Ipv4Addr::LOCALHOST,
            to: Ipv4Addr::LOCALHOST,
            tag: [0; 4],
            data: vec![1; 100],
        };
        let bytes = Frame {
            destination: Mac([2; 6]),
            source: Mac([4; 6]),
            payload,
        }
        .bytes()
        .unwrap();
        for length in 0..bytes.len() {
            let parsed = Frame::parse(&bytes[..length]);
            assert_eq!(parsed.is_some(), length >= ETHERNET_BYTES);
        }
    }

    #[test]
    fn the_checksum_is_the_known_one() {
        // The worked example of RFC 1071, section 3.
        assert_eq!(
            checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]),
            !0xddf2
        );
    }
}
