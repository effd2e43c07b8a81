//! Exhaustive exploration of the parts whose errors are rare interleavings: every reachable state of a small world, with the
//! hypervisor's own transition functions, and beside each model a broken variant that must be found out.
#![forbid(unsafe_code)]

pub mod domain_life;
pub mod handover;
pub mod page_ownership;
pub mod postcopy;
