//! A Debian root file system as an ext4 image, with programs that load a guest (fio, stress-ng,
//! iperf3, ours).
//!
//! Made by `debootstrap` as root, once, and kept as `out/guest/root.ext4`; filled by `mke2fs -d`, so
//! nothing is mounted. It holds no kernel: the guest boots with the usual kernel and ramdisk and
//! `godwit.root=/dev/vda` on its command line. Its `/sbin/init` is the ramdisk's: systemd takes a
//! quarter of a minute of an emulator's time to start nothing that the tests need.
//!
//! Its initramfs-tools also make the ramdisk that Debian itself gives `linux-image-amd64`, with their
//! own settings: `out/guest/initrd.img`, which mounts `root=/dev/vda` by itself.

use super::{Flavour, GuestKernel, directory, package};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Debian's release.
const SUITE: &str = "bookworm";
/// Beyond the minimal base.
const INCLUDE: &str = "iproute2,fio,stress-ng,iperf3,initramfs-tools,zstd";
/// What no guest reads, and what makes the image needlessly large.
const PRUNED: &[&str] = &[
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
];
/// Size of the file system, with room to write.
const IMAGE_SIZE: &str = "560M";
/// Fixed, so that the image does not differ without need.
const UUID: &str = "676f6477-6974-4000-8000-677565737400";

/// A Debian system for a guest.
#[derive(Clone, Debug)]
pub struct Debian {
    /// Its root file system, an image.
    pub root: PathBuf,
    /// The ramdisk of its own for [`Flavour::Generic`].
    pub ramdisk: PathBuf,
}

/// The system: the one that is kept, or a new one.
pub(super) fn system() -> Result<Debian> {
    let directory = directory()?;
    fs::create_dir_all(&directory)?;
    let debian = Debian {
        root: directory.join("root.ext4"),
        ramdisk: directory.join("initrd.img"),
    };
    let lock = fs::File::create(directory.join(".root.lock"))?;
    lock.lock()?;
    if debian.root.is_file() && debian.ramdisk.is_file() {
        return Ok(debian);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "a Debian root file system is made by debootstrap as root: run this once as root"
    );
    let work = tempfile::tempdir_in(&directory)?;
    let tree = work.path().join("tree");
    bootstrap(&tree)?;
    let ramdisk = make_ramdisk(&tree)?;
    prepare(&tree)?;
    let unfinished = work.path().join("root.ext4");
    pack(&tree, &unfinished)?;
    fs::rename(&ramdisk, &debian.ramdisk)?;
    fs::rename(&unfinished, &debian.root)?;
    Ok(debian)
}

/// Debian's own ramdisk: `mkinitramfs` inside the tree, with a kernel that is there only meanwhile.
fn make_ramdisk(tree: &Path) -> Result<PathBuf> {
    let kernel = GuestKernel::fetch(Flavour::Generic)?;
    let (version, modules, config) = kernel.installed()?;
    let there = tree.join("usr/lib/modules").join(&version);
    let within = tree.to_string_lossy();
    let copy = |from: &Path, to: &Path| {
        let arguments = [
            "-r".as_ref(),
            "--".as_ref(),
            from.as_os_str(),
            to.as_os_str(),
        ];
        package::run("cp", arguments, Path::new("/")).map(drop)
    };
    fs::create_dir_all(tree.join("usr/lib/modules"))?;
    fs::create_dir_all(tree.join("boot"))?;
    copy(&modules, &there)?;
    // It says which compressions the kernel knows.
    copy(&config, &tree.join("boot"))?;
    let chroot = |command: &[&str]| {
        let arguments = [&[&*within], command].concat();
        package::run("/usr/sbin/chroot", arguments, Path::new("/")).map(drop)
    };
    chroot(&["/sbin/depmod", &version])?;
    chroot(&["/usr/sbin/mkinitramfs", "-o", "/boot/initrd.img", &version])?;
    fs::remove_dir_all(&there)?;
    Ok(tree.join("boot/initrd.img"))
}

fn bootstrap(tree: &Path) -> Result<()> {
    let include = format!("--include={INCLUDE}");
    let tree = tree.to_string_lossy();
    package::run(
        "debootstrap",
        ["--variant=minbase", &include, SUITE, &tree],
        Path::new("/"),
    )
    .map(drop)
    .context("debootstrap is in the package of its name, and needs a Debian mirror")
}

/// Takes away what is not needed, and adds what is ours.
fn prepare(tree: &Path) -> Result<()> {
    for path in PRUNED {
        let path = tree.join(path);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
            fs::create_dir(&path)?;
        }
    }
    put(tree, "etc/hostname", b"guest\n", 0o644)?;
    for (path, contents) in super::programs()? {
        // Here the ramdisk's `/init` is `/sbin/init`.
        let path = if path == "init" { "sbin/init" } else { path };
        put(tree, path, &contents, 0o755)?;
    }
    Ok(())
}

fn put(tree: &Path, path: &str, contents: &[u8], mode: u32) -> Result<()> {
    let path = tree.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Not through a link that the distribution put there.
    if path.symlink_metadata().is_ok() {
        fs::remove_file(&path)?;
    }
    fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn pack(tree: &Path, image: &Path) -> Result<()> {
    let (tree, image) = (tree.to_string_lossy(), image.to_string_lossy());
    let arguments = [
        "-q", "-t", "ext4", "-L", "root", "-U", UUID, "-m", "0", "-d", &tree, &image, IMAGE_SIZE,
    ];
    package::run("mke2fs", arguments, Path::new("/"))
        .map(drop)
        .context("mke2fs is in the package e2fsprogs")
}
