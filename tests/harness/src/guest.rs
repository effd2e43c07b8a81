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
pub use root_disk::Debian;

use crate::paths::{self, Artefact};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A Debian root file system, an ext4 image to be copied into a volume: `godwit.root=/dev/vda`.
pub fn root_disk() -> Result<PathBuf> {
    Ok(root_disk::system()?.root)
}

/// The same with the ramdisk that Debian makes for it: `root=/dev/vda`.
pub fn debian() -> Result<Debian> {
    root_disk::system()
}

/// The number on the guest's line `GUEST key=N`.
pub fn guest_fact(said: &str, key: &str) -> Result<f64> {
    said.lines()
        .find_map(|line| {
            line.strip_prefix("GUEST ")?
                .strip_prefix(key)?
                .strip_prefix('=')
        })
        .and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("no line GUEST {key}=N in:\n{said}"))
}

/// Path and contents of the programs that ramdisk and root disk have in common.
fn programs() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let read =
        |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let busybox = package::unpacked("busybox-static")?.join("bin/busybox");
    Ok(vec![
        ("init", include_bytes!("guest/init.sh").to_vec()),
        ("bin/dhcp.sh", include_bytes!("guest/dhcp.sh").to_vec()),
        ("bin/busybox", read(&busybox)?),
        ("bin/guest", read(&Artefact::Guest.built()?)?),
    ])
}

/// `out/guest/`.
fn directory() -> Result<PathBuf> {
    Ok(paths::root()?.join("out/guest"))
}
