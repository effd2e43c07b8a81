//! The migration engine: the handover, pre-copy, the stream, the estimators.
//!
//! Nothing here does I/O or looks at a clock: what comes in and what time it is are arguments, what
//! is to be done is returned. So every part runs on the build machine, under exhaustive exploration
//! and in simulated time.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod channel;
pub mod encode;
pub mod handover;
pub mod link;
pub mod pipe;
pub mod postcopy;
pub mod precopy;
pub mod stream;
