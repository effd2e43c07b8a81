#![no_std]
#![forbid(unsafe_code)]
//! Guest-visible state, in the architecture's terms and in no vendor's.

mod segment;
mod vcpu;

pub use segment::Segment;
pub use vcpu::{Activity, EventKind, PendingEvent, Shadow, VcpuState};
