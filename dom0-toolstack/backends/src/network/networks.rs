//! The networks of a host: a bridge with the card, the gateway with the guests behind it, and a
//! port for each guest's card.

use super::Clock;
use super::announce;
use super::attachment::{Attachment, Forward, Kind};
use super::bridge::{Bridge, BridgePort, PlugError, PortOptions};
use super::gateway::Gateway;
use super::mac::MacAddress;
use super::nat::connections::ForwardError;
use super::nat::packet::{Endpoint, Protocol};
use super::nat::router::{GATEWAY_MAC, Mode, Outside, Router};
use super::offload::Takes;
use super::policy::{Limits, Sources};
use super::segment::Segment;
use super::statistics::PortStatistics;
use crate::frame::{Frame, FramePort};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::net::Ipv4Addr;
use core::task::{Context, Poll};

/// Bytes that wait for the card: some 20 ms at a gigabit a second.
pub const UPLINK_QUEUE_BYTES: usize = 3 << 20;
/// The hardware address of the host's side on a host without a card.
const HOST_MAC: MacAddress = MacAddress([0x02, 0x47, 0x4f, 0x44, 0x00, 0x02]);

/// The host's card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its hardware address, which is the host's.
    pub mac: MacAddress,
    /// Whether it receives frames for others.
    pub is_promiscuous: bool,
    /// What it can do of what senders leave out.
    pub takes: Takes,
}

/// Why a guest cannot be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// Another guest, or the host, has that hardware address.
    MacInUse(MacAddress),
    /// There are too many ports.
    Full,
    /// The card does not receive frames for others.
    NotPromiscuous,
    /// Only guests behind the gateway have forwards.
    ForwardOnBridge,
    /// Who may use any address cannot be held to one, and not be behind the gateway.
    SpoofingAndAddress,
    /// No address of a guest in the segment.
    Outside(Ipv4Addr, Segment),
    /// Another guest has that address.
    AddressInUse(Ipv4Addr),
    /// All addresses of the segment are in use.
    NoAddress(Segment),
    /// A port cannot be forwarded.
    Forward(ForwardError),
    /// The host itself listens there.
    HostListens(Protocol, u16),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::MacInUse(mac) => {
                write!(f, "the hardware address {mac} is in use: give another one with mac=")
            }
            AttachError::Full => f.write_str("the bridge has no port left: detach another card"),
            AttachError::NotPromiscuous => f.write_str(
                "this host's card receives only what is addressed to itself: use type=nat",
            ),
            AttachError::ForwardOnBridge => {
                f.write_str("forward= is for type=nat and type=routed; on the bridge the guest has its own address")
            }
            AttachError::SpoofingAndAddress => {
                f.write_str("spoofing=allowed is for type=bridge without ip=")
            }
            AttachError::Outside(address, segment) => {
                write!(f, "{address} is no guest's address in {segment}: choose another with ip=")
            }
            AttachError::AddressInUse(address) => {
                write!(f, "another guest has {address}: choose another with ip=")
            }
            AttachError::NoAddress(segment) => write!(f, "all addresses of {segment} are in use"),
            AttachError::Forward(ForwardError::InUse(_, port)) => {
                write!(f, "port {port} is forwarded to another guest: choose another")
            }
            AttachError::Forward(ForwardError::Range(port)) => {
                write!(f, "port {port} cannot be forwarded: choose one below 32768")
            }
            AttachError::Forward(ForwardError::Full) => {
                f.write_str("no further port can be forwarded: detach another card")
            }
            AttachError::HostListens(_, port) => {
                write!(f, "the host itself listens on port {port}: choose another")
            }
        }
    }
}

/// The networks of a host.
pub struct Networks {
    bridge: Bridge,
    inside: Bridge,
    uplink: Option<(Card, Rc<BridgePort>)>,
    gateway: Rc<Gateway>,
    /// Ports on which the host itself listens.
    listening: Vec<(Protocol, u16)>,
}

/// A guest's card's end of the cable. Dropping it detaches the guest.
pub struct GuestPort {
    port: BridgePort,
    mac: MacAddress,
    kind: Kind,
    address: Option<Ipv4Addr>,
    gateway: Option<Rc<Gateway>>,
    is_detached: Cell<bool>,
}

fn plugged(result: Result<BridgePort, PlugError>) -> Result<BridgePort, AttachError> {
    result.map_err(|error| match error {
        PlugError::MacInUse(mac) => AttachError::MacInUse(mac),
        PlugError::Full => AttachError::Full,
    })
}

fn trusted(sources: Sources, takes: Takes) -> PortOptions {
    PortOptions {
        is_uplink: false,
        sources,
        limits: Limits {
            rate: None,
            queue_bytes: UPLINK_QUEUE_BYTES,
        },
        takes,
        is_trusted: true,
    }
}

impl Networks {
    /// The networks of a host with `card`, or with none; `listening` are the ports on which the
    /// host's own services are.
    pub fn new(
        clock: Rc<dyn Clock>,
        card: Option<Card>,
        segment: Segment,
        listening: &[(Protocol, u16)],
    ) -> Self {
        let bridge = Bridge::new(clock.clone());
        let inside = Bridge::new(clock.clone());
        let plug =
            |bridge: &Bridge, options| bridge.plug(options).expect("the first ports of a bridge");
        let uplink = card.map(|card| {
            let mut options = trusted(Sources::Any, card.takes);
            options.is_uplink = true;
            (card, Rc::new(plug(&bridge, options)))
        });
        let host_mac = card.map_or(HOST_MAC, |card| card.mac);
        let takes = Takes {
            segmentation: true,
            ..Takes::ALL
        };
        let outer = plug(&bridge, trusted(Sources::Mac(host_mac), takes));
        let leaving = plug(&bridge, trusted(Sources::Alias(host_mac), takes));
        let inner = plug(&inside, trusted(Sources::Mac(GATEWAY_MAC), takes));
        let gateway = Gateway::new(clock, [outer, leaving], inner, Router::new(segment));
        Networks {
            bridge,
            inside,
            uplink,
            gateway: Rc::new(gateway),
            listening: listening.to_vec(),
        }
    }

    /// The card's port: what the card receives is sent here, what comes from here it transmits.
    pub fn uplink(&self) -> Option<Rc<BridgePort>> {
        self.uplink.as_ref().map(|(_, port)| port.clone())
    }

    /// The gateway, which is also the port of the host's own stack.
    pub fn gateway(&self) -> Rc<Gateway> {
        self.gateway.clone()
    }

    /// The bridge, and the one of the guests behind the gateway; to be released both.
    pub fn bridges(&self) -> [Bridge; 2] {
        [self.bridge.clone(), self.inside.clone()]
    }

    /// The host has got an address, another one, or none, and name servers.
    pub fn set_outside(&self, outside: Option<Outside>, dns: &[Ipv4Addr]) {
        self.gateway
            .with_router(|router| router.set_outside(outside, dns));
    }

    /// What `ip` shows of them, below the host's own interface.
    pub fn text(&self) -> String {
        let uplink = match &self.uplink {
            Some((card, _)) if card.is_promiscuous => "eth0",
            Some(_) => "eth0, for the host alone",
            None => "none",
        };
        let (segment, guests, connections) = self
            .gateway
            .with_router(|router| (router.segment(), router.guests(), router.connections()));
        format!(
            "bridge: uplink {uplink}, {} stations\ngateway: {segment}, {guests} guests, {connections} connections\n",
            self.bridge.stations()
        )
    }

    /// Attaches a guest's card with the hardware address `mac` as `wanted` says.
    pub fn attach(
        &self,
        mac: MacAddress,
        wanted: &Attachment,
    ) -> Result<Rc<GuestPort>, AttachError> {
        let can_bridge = self
            .uplink
            .as_ref()
            .is_none_or(|(card, _)| card.is_promiscuous);
        let kind = match wanted.kind {
            Some(kind) => kind,
            None if can_bridge && wanted.forwards.is_empty() => Kind::Bridge,
            None => Kind::Nat,
        };
        if wanted.may_spoof && (kind != Kind::Bridge || wanted.address.is_some()) {
            return Err(AttachError::SpoofingAndAddress);
        }
        let port = match kind {
            Kind::Bridge if !can_bridge => return Err(AttachError::NotPromiscuous),
            Kind::Bridge => self.attach_bridged(mac, wanted)?,
            Kind::Nat => self.attach_behind(mac, wanted, kind, Mode::Translated)?,
            Kind::Routed => self.attach_behind(mac, wanted, kind, Mode::Routed)?,
        };
        Ok(Rc::new(port))
    }

    fn attach_bridged(
        &self,
        mac: MacAddress,
        wanted: &Attachment,
    ) -> Result<GuestPort, AttachError> {
        if !wanted.forwards.is_empty() {
            return Err(AttachError::ForwardOnBridge);
        }
        let sources = match wanted.address {
            _ if wanted.may_spoof => Sources::Any,
            Some(address) => Sources::Pinned(mac, [address].into()),
            None => Sources::Mac(mac),
        };
        Ok(GuestPort {
            port: plugged(self.bridge.plug(guest(sources, wanted)))?,
            mac,
            kind: Kind::Bridge,
            address: wanted.address,
            gateway: None,
            is_detached: Cell::new(false),
        })
    }

    fn attach_behind(
        &self,
        mac: MacAddress,
        wanted: &Attachment,
        kind: Kind,
        mode: Mode,
    ) -> Result<GuestPort, AttachError> {
        let listens =
            |forward: &&Forward| self.listening.contains(&(forward.protocol, forward.host));
        if let Some(forward) = wanted.forwards.iter().find(listens) {
            return Err(AttachError::HostListens(forward.protocol, forward.host));
        }
        // The port first: with it a hardware address is known to be nobody else's.
        let port = plugged(self.inside.plug(guest(Sources::Mac(mac), wanted)))?;
        let address = self.gateway.with_router(|router| {
            use super::dhcp::ReserveError;
            let segment = router.segment();
            router
                .add_guest(mac, wanted.address, mode)
                .map_err(|error| match error {
                    ReserveError::Outside(address) => AttachError::Outside(address, segment),
                    ReserveError::InUse(address) => AttachError::AddressInUse(address),
                    ReserveError::Full => AttachError::NoAddress(segment),
                })
        })?;
        // From here on dropping it undoes everything.
        let port = GuestPort {
            port,
            mac,
            kind,
            address: Some(address),
            gateway: Some(self.gateway.clone()),
            is_detached: Cell::new(false),
        };
        let pinned = Sources::Pinned(mac, [address].into());
        port.port
            .set_sources(pinned)
            .expect("the same hardware address");
        for forward in &wanted.forwards {
            let inside = Endpoint {
                address,
                port: forward.guest,
            };
            self.gateway
                .with_router(|router| router.forward(forward.protocol, forward.host, inside))
                .map_err(AttachError::Forward)?;
        }
        Ok(port)
    }

    /// Detaches a guest's card: its port is dead from now on, whoever still has it.
    pub fn detach(&self, port: &GuestPort) {
        port.detach();
    }
}

fn guest(sources: Sources, wanted: &Attachment) -> PortOptions {
    PortOptions {
        is_uplink: false,
        sources,
        limits: Limits {
            rate: wanted.rate,
            ..Limits::default()
        },
        takes: Takes::ALL,
        is_trusted: false,
    }
}

impl GuestPort {
    /// Its hardware address.
    pub fn mac(&self) -> MacAddress {
        self.mac
    }

    /// How it is attached.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The guest's address: what it gets behind the gateway, what it is held to on the bridge.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.address
    }

    /// What it has counted; zeroes once it is detached.
    pub fn statistics(&self) -> PortStatistics {
        self.port.statistics()
    }

    /// Tells the network that the guest is here: one of several rounds, see
    /// [`announce::ROUND_PAUSES_MS`]. Behind the gateway nobody needs to know.
    pub fn announce(&self) {
        if self.kind == Kind::Bridge {
            for frame in announce::frames(self.mac, self.address.as_slice()) {
                self.port.send(frame);
            }
        }
    }

    fn detach(&self) {
        // Once only: another guest may have the hardware address afterwards.
        if self.is_detached.replace(true) {
            return;
        }
        self.port.unplug();
        if let Some(gateway) = &self.gateway {
            gateway.with_router(|router| router.remove_guest(self.mac));
        }
    }
}

impl FramePort for GuestPort {
    fn send(&self, frame: Frame) -> bool {
        self.port.send(frame)
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Frame> {
        self.port.poll_receive(context)
    }

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<()> {
        self.port.poll_ready(context)
    }
}

impl Drop for GuestPort {
    fn drop(&mut self) {
        self.detach();
    }
}
