//! The router between the guests behind the gateway and the network of the host, with or without
//! translation of addresses (RFC 3022, 4787, 5382, 5508).
//!
//! Pure: [`router::Router`] gets a frame and the time and says which frames are to go where.
//! Reading order: [`packet`] (what a packet is, and changing it), [`connections`] (what belongs
//! together), [`neighbours`] (who is next on the host's network), [`router`].
//!
//! Not done: guests behind the gateway do not reach forwarded ports of their own host by the host's
//! address; IPv6 is not routed.

pub mod connections;
pub mod neighbours;
pub mod packet;
pub mod router;
mod translate;
