//! Stores, volumes, the configuration file system, and disks elsewhere (NBD).
//!
//! Everything is a [`crate::disk::Disk`] at the bottom and most of it one at the top:
//!
//! ```text
//!   guest's virtio-blk ── mirror::SwitchDisk ──┬── volume::Volume ── store::Store ── drive of the host
//!                                              └── nbd::NbdDisk ─ ─ ─ server
//!   configurations, kernels, keys ── files::Files ──┐
//!   migration jobs ── journal::Journal ─────────────┴── partitions of a store
//! ```
//!
//! **A store.** [`store::Store::open`] on each drive at start: [`error::StoreError::NotAStore`] and
//! [`gpt::GptError::NotGpt`] mean that it is none; show [`store::Store::findings`] to the operator,
//! and [`store::Store::repair`] on request. [`store::Store::create`] makes one. A volume is opened
//! by name with [`store::Store::open_volume`]; what that gives is the disk *and* the guard that
//! keeps others from writing to it, so hold it exactly as long as the guest has the disk.
//!
//! **Files and journal.** `store.open_files(Access::Write, "dom0")` gives the partition;
//! [`blocks::Blocks::new`] pairs it with memory; [`files::Files::open`] (or `format`) makes files
//! of it. The same with `open_journal` and [`journal::Journal::open_or_format`], which gives all
//! records there are; `Full` asks for a [`journal::Journal::checkpoint`] with those still needed.
//!
//! **NBD.** Parse [`nbd::url::NbdUrl`], implement [`nbd::Connector`] and [`nbd::Stream`] over a TCP
//! socket and [`nbd::Timer`] over the clock, call [`nbd::NbdDisk::connect`], spawn the driver it
//! gives, show [`nbd::NbdDisk::link`].
//!
//! **Power cuts.** Every change here either happened or did not, and what returned `Ok` has; the
//! module heads say why, and tests cut at every write and lose any part of what was not flushed
//! (`cached::CachedDisk`). All futures are to be polled by one executor; dropping one in the middle
//! of a change counts as a power cut of that change.

pub mod blocks;
#[cfg(any(test, feature = "fake"))]
pub mod cached;
pub mod copy;
pub mod error;
pub mod fat;
pub mod files;
#[cfg(test)]
mod files_tests;
pub mod gpt;
pub mod info;
pub mod journal;
#[cfg(test)]
mod journal_tests;
pub mod mirror;
mod names;
pub mod nbd;
pub mod store;
#[cfg(test)]
mod store_tests;
pub mod volume;
