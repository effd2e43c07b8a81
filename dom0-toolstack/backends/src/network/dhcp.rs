//! A DHCP server (RFC 2131) for guests behind the gateway.
//!
//! Every guest that is attached has a reservation: an address asked for by its configuration, or
//! one that follows from its hardware address, so that it is the same after a restart and on
//! another host, unless two guests' addresses collide. Others get no answer. Nothing expires:
//! an address is the guest's as long as it is attached.

use super::mac::MacAddress;
use super::segment::Segment;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use smoltcp::wire::{DHCP_MAX_DNS_SERVER_COUNT, DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr};

/// The server's UDP port.
pub const SERVER_PORT: u16 = 67;
/// The client's UDP port.
pub const CLIENT_PORT: u16 = 68;
/// How long a lease is; a guest asks again after half of it.
pub const LEASE_SECONDS: u32 = 86_400;
/// The longest answer: what every client takes (RFC 2131, 2), less IP and UDP headers.
const ANSWER_BYTES: usize = 548;
/// Option "client identifier", to be sent back as it came (RFC 6842).
const CLIENT_IDENTIFIER: u8 = 61;
/// The longest client identifier sent back.
const CLIENT_IDENTIFIER_BYTES_MAX: usize = 64;

/// Why a guest cannot have an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReserveError {
    /// Not an address of a guest in the segment.
    Outside(Ipv4Addr),
    /// Another guest has it.
    InUse(Ipv4Addr),
    /// All are in use.
    Full,
}

/// An answer to a client, in UDP from [`SERVER_PORT`] to [`CLIENT_PORT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// IPv4 destination.
    pub address: Ipv4Addr,
    /// Ethernet destination.
    pub mac: MacAddress,
    /// The DHCP message.
    pub message: Vec<u8>,
}

/// The server and what it has given away.
pub struct Server {
    segment: Segment,
    addresses: BTreeMap<MacAddress, Ipv4Addr>,
    guests: BTreeMap<Ipv4Addr, MacAddress>,
    dns: Vec<Ipv4Addr>,
}

impl Server {
    /// Without reservations.
    pub fn new(segment: Segment) -> Self {
        Server {
            segment,
            addresses: BTreeMap::new(),
            guests: BTreeMap::new(),
            dns: Vec::new(),
        }
    }

    /// The name servers to tell of; the first three count.
    pub fn set_dns(&mut self, servers: &[Ipv4Addr]) {
        self.dns = servers.to_vec();
        self.dns.truncate(DHCP_MAX_DNS_SERVER_COUNT);
    }

    /// Reserves an address for a guest that has none: `wanted`, or one that follows from `mac`.
    pub fn reserve(
        &mut self,
        mac: MacAddress,
        wanted: Option<Ipv4Addr>,
    ) -> Result<Ipv4Addr, ReserveError> {
        let is_free = |address: &Ipv4Addr| {
            *address != self.segment.gateway() && !self.guests.contains_key(address)
        };
        let address = match wanted {
            Some(wanted) if !self.segment.is_host(wanted) => {
                return Err(ReserveError::Outside(wanted));
            }
            Some(wanted) if !is_free(&wanted) => return Err(ReserveError::InUse(wanted)),
            Some(wanted) => wanted,
            None => {
                let hosts = self.segment.hosts();
                let first = hash(mac) % hosts;
                (0..hosts)
                    .map(|step| self.segment.host((first + step) % hosts))
                    .find(is_free)
                    .ok_or(ReserveError::Full)?
            }
        };
        self.release(mac);
        self.addresses.insert(mac, address);
        self.guests.insert(address, mac);
        Ok(address)
    }

    /// Takes a guest's address back.
    pub fn release(&mut self, mac: MacAddress) -> Option<Ipv4Addr> {
        let address = self.addresses.remove(&mac)?;
        self.guests.remove(&address);
        Some(address)
    }

    /// The guest with an address.
    pub fn mac_of(&self, address: Ipv4Addr) -> Option<MacAddress> {
        self.guests.get(&address).copied()
    }

    /// The address of a guest.
    pub fn address_of(&self, mac: MacAddress) -> Option<Ipv4Addr> {
        self.addresses.get(&mac).copied()
    }

    /// Guests with an address.
    pub fn guests(&self) -> usize {
        self.addresses.len()
    }

    /// Whether there are no guests.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// Answers a DHCP message that the station `from` has sent. `None`: no answer is due.
    pub fn answer(&self, from: MacAddress, message: &[u8]) -> Option<Answer> {
        let packet = DhcpPacket::new_checked(message).ok()?;
        let request = DhcpRepr::parse(&packet).ok()?;
        if request.client_hardware_address.0 != from.0 || !request.relay_agent_ip.is_unspecified() {
            return None;
        }
        let address = self.address_of(from)?;
        let kind = self.kind_of_answer(&request, address)?;
        let identifier = packet.options().find(|option| {
            option.kind == CLIENT_IDENTIFIER && option.data.len() <= CLIENT_IDENTIFIER_BYTES_MAX
        });
        let identifier = identifier.as_slice();
        let message = self.compose(kind, &request, address, identifier)?;
        let (address, mac) = receiver(kind, &request, address, from);
        Some(Answer {
            address,
            mac,
            message,
        })
    }

    /// RFC 2131, 4.3.
    fn kind_of_answer(&self, request: &DhcpRepr<'_>, address: Ipv4Addr) -> Option<DhcpMessageType> {
        let chosen = request.server_identifier;
        match request.message_type {
            DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
            DhcpMessageType::Request if chosen.is_some_and(|it| it != self.segment.gateway()) => {
                None
            }
            DhcpMessageType::Request => {
                let wanted = request.requested_ip.unwrap_or(request.client_ip);
                if wanted == address {
                    Some(DhcpMessageType::Ack)
                } else {
                    Some(DhcpMessageType::Nak)
                }
            }
            DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
            // It stays reserved in any case.
            DhcpMessageType::Release | DhcpMessageType::Decline => None,
            DhcpMessageType::Offer | DhcpMessageType::Ack | DhcpMessageType::Nak => None,
            DhcpMessageType::Unknown(_) => None,
        }
    }

    fn compose(
        &self,
        kind: DhcpMessageType,
        request: &DhcpRepr<'_>,
        address: Ipv4Addr,
        identifier: &[DhcpOption<'_>],
    ) -> Option<Vec<u8>> {
        let gives = kind != DhcpMessageType::Nak;
        let leases = gives && request.message_type != DhcpMessageType::Inform;
        let answer = DhcpRepr {
            message_type: kind,
            transaction_id: request.transaction_id,
            secs: 0,
            client_hardware_address: request.client_hardware_address,
            client_ip: if gives {
                request.client_ip
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            your_ip: if leases {
                address
            } else {
                Ipv4Addr::UNSPECIFIED
            },
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: gives.then_some(self.segment.gateway()),
            subnet_mask: gives.then_some(self.segment.mask()),
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: request.broadcast,
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(self.segment.gateway()),
            parameter_request_list: None,
            dns_servers: (gives && !self.dns.is_empty())
                .then(|| self.dns.iter().copied().collect()),
            max_size: None,
            lease_duration: leases.then_some(LEASE_SECONDS),
            renew_duration: None,
            rebind_duration: None,
            additional_options: identifier,
        };
        let mut message = vec![0; ANSWER_BYTES];
        let mut packet = DhcpPacket::new_unchecked(&mut message[..]);
        answer.emit(&mut packet).ok()?;
        Some(message)
    }
}

/// Where an answer goes (RFC 2131, 4.1).
fn receiver(
    kind: DhcpMessageType,
    request: &DhcpRepr<'_>,
    address: Ipv4Addr,
    from: MacAddress,
) -> (Ipv4Addr, MacAddress) {
    if kind == DhcpMessageType::Nak {
        (Ipv4Addr::BROADCAST, MacAddress::BROADCAST)
    } else if !request.client_ip.is_unspecified() {
        (request.client_ip, from)
    } else if request.broadcast {
        (Ipv4Addr::BROADCAST, MacAddress::BROADCAST)
    } else {
        (address, from)
    }
}

/// FNV-1a: addresses that differ in little come to lie apart.
fn hash(mac: MacAddress) -> u32 {
    mac.0.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}
