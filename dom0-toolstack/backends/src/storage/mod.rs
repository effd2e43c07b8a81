//! Stores, volumes, the configuration file system, and disks elsewhere (NBD).

pub mod blocks;
#[cfg(any(test, feature = "fake"))]
pub mod cached;
pub mod gpt;
