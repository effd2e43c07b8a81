//! What the network side of dom0 decides: options, descriptor rings, ping statistics, reports.
//!
//! Entry points for input nobody vouches for: [`options::HostOptions::parse`] (boot command line),
//! [`e1000_ring::Received::decode`] and [`virtqueue::Descriptors::used`] (written by a device). All
//! are total.

pub mod address;
pub mod clock;
pub mod e1000_ring;
pub mod options;
pub mod ping;
pub mod report;
pub mod virtqueue;
