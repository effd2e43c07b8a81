//! The ramdisk: busybox, `/init`, the virtio drivers and the guest program, as one cpio archive.

use super::cpio::{Archive, Kind};
use super::{GuestKernel, directory};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Drivers that a guest may need; what they depend on comes along.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "virtio_balloon",
    "virtio-rng",
    "button",
    "evdev",
];
/// Where they stand in the ramdisk, numbered in load order.
const MODULE_DIRECTORY: &str = "modules";

/// What goes into a ramdisk.
#[derive(Clone, Debug)]
pub struct Ramdisk {
    /// By path, so that directories come before what is in them and the order is always the same.
    entries: BTreeMap<String, Kind>,
}

impl Ramdisk {
    /// The usual contents, with the drivers of `kernel`.
    pub fn new(kernel: &GuestKernel) -> Result<Ramdisk> {
        let mut ramdisk = Ramdisk {
            entries: BTreeMap::new(),
        };
        for directory in ["dev", "mnt", "proc", "run", "sys", "tmp"] {
            ramdisk.put(directory, Kind::Directory)?;
        }
        ramdisk.put("dev/console", Kind::Device(5, 1))?;
        for (path, contents) in super::programs()? {
            ramdisk.put(path, Kind::File(contents, true))?;
        }
        // The shell finds the other applets by itself.
        ramdisk.put("bin/sh", Kind::Link("busybox".to_owned()))?;
        for (index, module) in kernel.modules(MODULES)?.iter().enumerate() {
            let name = module
                .file_name()
                .and_then(|name| name.to_str())
                .context("a module without a name")?;
            let path = format!("{MODULE_DIRECTORY}/{index:02}-{name}");
            ramdisk.put(&path, Kind::File(fs::read(module)?, false))?;
        }
        Ok(ramdisk)
    }

    /// One more file.
    pub fn file(mut self, path: &str, contents: &[u8], may_execute: bool) -> Result<Ramdisk> {
        self.put(path, Kind::File(contents.to_vec(), may_execute))?;
        Ok(self)
    }

    /// Writes it to `out/guest/<name>.cpio` and returns where that is.
    pub fn write(&self, name: &str) -> Result<PathBuf> {
        let mut archive = Archive::default();
        for (path, kind) in &self.entries {
            archive.add(path, kind);
        }
        let directory = directory()?;
        fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{name}.cpio"));
        // Beside its place first: others may be reading it.
        let unfinished = tempfile::NamedTempFile::new_in(&directory)?;
        fs::write(unfinished.path(), archive.finish())?;
        unfinished.persist(&path)?;
        Ok(path)
    }

    /// Adds an entry and the directories it is in.
    fn put(&mut self, path: &str, kind: Kind) -> Result<()> {
        ensure!(
            !path.starts_with('/') && !path.ends_with('/') && !path.is_empty(),
            "{path:?} is no path inside a ramdisk"
        );
        for (at, _) in path.match_indices('/') {
            self.entries
                .entry(path[..at].to_owned())
                .or_insert(Kind::Directory);
        }
        self.entries.insert(path.to_owned(), kind);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_before_what_is_in_them() {
        let mut ramdisk = Ramdisk {
            entries: BTreeMap::new(),
        };
        ramdisk
            .put("usr/lib/x", Kind::File(vec![1], false))
            .unwrap();
        ramdisk.put("usr/bin/y", Kind::File(vec![2], true)).unwrap();
        let paths: Vec<&str> = ramdisk.entries.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            ["usr", "usr/bin", "usr/bin/y", "usr/lib", "usr/lib/x"]
        );
        assert!(ramdisk.put("/init", Kind::Directory).is_err());
    }
}
