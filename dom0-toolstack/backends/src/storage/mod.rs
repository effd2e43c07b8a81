//! Stores, volumes, the configuration file system, and disks elsewhere (NBD).

pub mod blocks;
#[cfg(any(test, feature = "fake"))]
pub mod cached;
pub mod copy;
pub mod error;
pub mod gpt;
pub mod info;
mod names;
pub mod nbd;
pub mod store;
#[cfg(test)]
mod store_tests;
pub mod volume;
