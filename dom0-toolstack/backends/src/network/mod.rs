//! Networks of guests: a learning bridge, routed and translated attachment, DHCP, limits.
//!
//! # How to use it
//!
//! [`networks::Networks`] is the whole: dom0 makes one with a [`Clock`] and what its card can do,
//! pumps frames between the card and [`networks::Networks::uplink`], gives
//! [`networks::Networks::gateway`] to its own network stack, and runs two endless futures,
//! [`networks::Networks::gateway`]'s `poll_pump` and [`bridge::Bridge::release`] of both bridges.
//! For a guest's card it asks [`networks::Networks::attach`] for a port, with an
//! [`attachment::Attachment`] that follows from the configuration, and gives the port to the device
//! as a [`crate::frame::FramePort`]. Dropping the port, or `detach`, unplugs it.
//!
//! ```text
//!  card -- uplink port -+                              +-- guest port (nat)
//!                       |-- bridge      inside bridge -|
//!  guest port ----------+     |              |         +-- guest port (routed)
//!  (bridge)               outer          inner
//!                             +-- gateway ---+
//!                                    |
//!                            dom0's own stack
//! ```
//!
//! * [`bridge`]: ports with policies ([`policy`]), rate limits ([`bucket`]) and fair queues
//!   ([`queue`]); stations are in [`table`].
//! * [`offload`]: what a sender left to the card is done in software where a frame leaves to
//!   somebody who cannot do it; from guest to guest it stays undone.
//! * [`gateway`]: stands before dom0's stack; what belongs to guests behind [`nat`] it takes out.
//!   A card that receives only what is addressed to itself suffices for it.
//! * [`dhcp`]: addresses for guests behind the gateway, the same for the same hardware address.
//! * [`announce`]: frames that tell switches where a guest is now, for migration.
//!
//! Everything is of one thread (`Rc`), takes the time from [`Clock`], and polls with wakers. Wakers
//! are called while a bridge is borrowed: they must only note that a task is to run.

pub mod announce;
pub mod attachment;
pub mod bridge;
pub mod bucket;
pub mod checksum;
pub mod compose;
pub mod dhcp;
pub mod gateway;
pub mod headers;
pub mod mac;
pub mod nat;
pub mod networks;
pub mod offload;
pub mod policy;
pub mod queue;
pub mod segment;
pub mod statistics;
pub mod table;

/// The time, in microseconds since any moment; never goes back.
pub trait Clock {
    /// Now.
    fn now_us(&self) -> u64;
}

#[cfg(test)]
mod tests;
