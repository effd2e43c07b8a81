//! Debian's kernel packages: the image, and its modules in the order they must be loaded.

use super::package;
use anyhow::{Context, Result, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of Debian's kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `linux-image-cloud-amd64`: small, LZ4.
    Cloud,
    /// `linux-image-amd64`: the one for real machines, XZ.
    Generic,
}

impl Flavour {
    fn package(self) -> &'static str {
        match self {
            Flavour::Cloud => "linux-image-cloud-amd64",
            Flavour::Generic => "linux-image-amd64",
        }
    }
}

/// An unpacked kernel package.
#[derive(Clone, Debug)]
pub struct GuestKernel {
    image: PathBuf,
    /// Module name, with `_` for `-`, and file.
    modules: HashMap<String, PathBuf>,
}

impl GuestKernel {
    /// Unpacks the kernel that the flavour's package stands for today.
    pub fn fetch(flavour: Flavour) -> Result<GuestKernel> {
        let meta = flavour.package();
        let tree = package::unpacked_as(meta, || package::dependency(meta, "linux-image-"))?;
        let image = files(&tree.join("boot"))?
            .into_iter()
            .find(|path| file_name(path).starts_with("vmlinuz-"))
            .with_context(|| format!("{meta} holds no kernel"))?;
        let modules = files(&tree.join("lib/modules"))?
            .into_iter()
            .filter_map(|path| {
                let name = file_name(&path).strip_suffix(".ko")?.replace('-', "_");
                Some((name, path))
            })
            .collect();
        Ok(GuestKernel { image, modules })
    }

    /// The bzImage.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// The kernel's version, the directory with its modules, and its configuration file.
    pub(super) fn installed(&self) -> Result<(String, PathBuf, PathBuf)> {
        let version = file_name(&self.image)
            .strip_prefix("vmlinuz-")
            .context("a kernel without a version")?;
        let boot = self.image.parent().context("a kernel at the root")?;
        let tree = boot.parent().context("a kernel outside a package")?;
        let modules = tree.join("lib/modules").join(version);
        let config = boot.join(format!("config-{version}"));
        Ok((version.to_owned(), modules, config))
    }

    /// Files of the modules `wanted` and of all they depend on, each after what it depends on.
    pub fn modules(&self, wanted: &[&str]) -> Result<Vec<PathBuf>> {
        let mut order = Vec::new();
        for name in wanted {
            self.load_after_its_needs(name, &mut order)?;
        }
        Ok(order)
    }

    fn load_after_its_needs(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let path = self
            .modules
            .get(&name.replace('-', "_"))
            .with_context(|| format!("{} has no module {name}", self.image.display()))?;
        if order.contains(path) {
            return Ok(());
        }
        let needs = depends(&fs::read(path)?)
            .with_context(|| format!("{} is no kernel module", path.display()))?;
        for need in needs {
            self.load_after_its_needs(&need, order)?;
        }
        // A cycle would have recursed for ever: the kernel's build refuses them.
        ensure!(!order.contains(path), "{name} depends on itself");
        order.push(path.clone());
        Ok(())
    }
}

/// The names in a module's `depends=` entry (section `.modinfo`: strings, each ended by NUL).
fn depends(module: &[u8]) -> Option<Vec<String>> {
    const KEY: &[u8] = b"\0depends=";
    let start = module.windows(KEY.len()).position(|at| at == KEY)? + KEY.len();
    let length = module[start..].iter().position(|&byte| byte == 0)?;
    let list = std::str::from_utf8(&module[start..start + length]).ok()?;
    Some(
        list.split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    )
}

/// All files below a directory, sorted.
pub(super) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(dir: &Path, name: &str, depends: &str) -> (String, PathBuf) {
        let path = dir.join(format!("{name}.ko"));
        fs::write(&path, format!("\x7fELF\0license=GPL\0depends={depends}\0x")).unwrap();
        (name.replace('-', "_"), path)
    }

    #[test]
    fn a_module_comes_after_what_it_needs_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let kernel = GuestKernel {
            image: PathBuf::from("vmlinuz"),
            modules: [
                module(dir.path(), "virtio_pci", "virtio,virtio_ring"),
                module(dir.path(), "virtio_ring", "virtio"),
                module(dir.path(), "virtio", ""),
                module(dir.path(), "virtio-rng", "virtio"),
            ]
            .into(),
        };
        let order = kernel.modules(&["virtio_pci", "virtio-rng"]).unwrap();
        let names: Vec<&str> = order.iter().map(|path| file_name(path)).collect();
        assert_eq!(
            names,
            [
                "virtio.ko",
                "virtio_ring.ko",
                "virtio_pci.ko",
                "virtio-rng.ko"
            ]
        );
        assert!(kernel.modules(&["nvme"]).is_err());
        assert_eq!(depends(b"no module"), None);
    }
}
