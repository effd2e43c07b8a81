//! Tests of the parts together.

mod bench;
mod bridge;
mod dhcp;
mod nat;
mod nat_kept;
mod nat_limits;
mod networks;
mod offload;
