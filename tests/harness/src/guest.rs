//! Guests with an operating system: Debian's kernels, and a ramdisk of ours around busybox.
//!
//! Nothing of third parties is committed. Packages are fetched by `apt-get download`, unpacked
//! (never installed) and kept under `out/guest/`; delete that to fetch anew. The same packages give
//! the same ramdisk, byte for byte.
//!
//! What a guest says on its console, one line each: `GUEST uptime=SECONDS` as the first thing in
//! user space, `GUEST cpus=N`, `GUEST ready`, then what `godwit.run=` on its command line asked
//! for, each ending in `GUEST ran status=N`, then `GUEST end`. See `guest/init.sh`.

mod cpio;
mod kernel;
mod package;
mod ramdisk;
mod root_disk;

pub use kernel::{Flavour, GuestKernel};
pub use ramdisk::Ramdisk;

use crate::paths;
use anyhow::Result;
use std::path::PathBuf;

/// A Debian root file system, an ext4 image to be copied into a volume: `godwit.root=/dev/vda`.
pub fn root_disk() -> Result<PathBuf> {
    root_disk::image()
}

/// `out/guest/`.
fn directory() -> Result<PathBuf> {
    Ok(paths::root()?.join("out/guest"))
}
