//! How a guest's network card is attached, as its configuration asks for it.

use super::bucket::Rate;
use super::nat::packet::Protocol;
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

/// How one card is attached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// `None`: [`Kind::Bridge`] where the host's card can, else [`Kind::Nat`].
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
