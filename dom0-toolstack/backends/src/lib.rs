//! What stands behind the devices of guests: virtio devices, disks and volumes, networks.
//!
//! Everything here decides and nothing touches the machine: memory, disks and the network card are
//! traits ([`memory::Memory`], [`disk::Disk`], [`frame::FramePort`]) that dom0 implements over the
//! hardware and tests over plain vectors. Futures are polled by dom0's executor on one vCPU, so
//! nothing here is `Send`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod absent;
pub mod disk;
pub mod drive;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod frame;
pub mod memory;
pub mod network;
pub mod storage;
pub mod virtio;
