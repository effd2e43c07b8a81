//! Tests of the parts together.

mod bench;
mod bridge;
mod offload;
