//! What the network side of dom0 decides: options, descriptor rings, ping statistics, reports.
//!
//! Entry points for input nobody vouches for: [`options::HostOptions::parse`] (boot command line),
//! [`ping::PingRequest::parse`] (typed by the operator), [`e1000_ring::Received::decode`] (written
//! by a device). All are total.

pub mod address;
pub mod clock;
pub mod e1000_ring;
pub mod options;
pub mod ping;
pub mod report;
pub mod virtqueue;
