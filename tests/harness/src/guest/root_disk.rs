//! A Debian root file system as an ext4 image: systemd, a network by DHCP, and the programs that
//! load a guest (fio, stress-ng, iperf3, ours).
//!
//! Made by `debootstrap` as root, once, and kept as `out/guest/root.ext4`; filled by `mke2fs -d`, so
//! nothing is mounted. It holds no kernel: the guest boots with the usual kernel and ramdisk and
//! `godwit.root=/dev/vda` on its command line. It prints `GUEST ready` on its console when it is up,
//! answers `guest tcp-send` on port 5001, and the console is a shell of root's.

use super::{directory, package};
use crate::paths::Artefact;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Debian's release.
const SUITE: &str = "bookworm";
/// Beyond the minimal base.
const INCLUDE: &str = "systemd-sysv,udev,iproute2,fio,stress-ng,iperf3";
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

/// Files of ours: path, contents.
const FILES: &[(&str, &str)] = &[
    ("etc/hostname", "guest\n"),
    ("etc/fstab", ""),
    // No password: it is a machine for tests, reachable from its host alone.
    (
        "etc/systemd/system/serial-getty@ttyS0.service.d/login.conf",
        "[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %I 115200 vt100\n",
    ),
    (
        "etc/systemd/network/50-dhcp.network",
        "[Match]\nName=en* eth*\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=no\n",
    ),
    (
        "etc/systemd/system/godwit-ready.service",
        "[Unit]\nDescription=Says that the guest is up\nAfter=basic.target godwit-tcp.service\n\n\
         [Service]\nType=oneshot\nStandardOutput=tty\nTTYPath=/dev/console\n\
         ExecStart=/bin/sh -c 'read -r up idle </proc/uptime; echo \"GUEST uptime=$$up\"; \
         echo \"GUEST cpus=$$(nproc)\"; echo \"GUEST ready\"'\n",
    ),
    (
        "etc/systemd/system/godwit-tcp.service",
        "[Unit]\nDescription=Checked TCP streams\n\n[Service]\n\
         ExecStart=/usr/local/bin/guest tcp-serve port=5001\n",
    ),
];
/// Units that start, by the target that wants them.
const WANTED: &[(&str, &str)] = &[
    (
        "multi-user.target",
        "/etc/systemd/system/godwit-ready.service",
    ),
    (
        "multi-user.target",
        "/etc/systemd/system/godwit-tcp.service",
    ),
    (
        "multi-user.target",
        "/lib/systemd/system/systemd-networkd.service",
    ),
];
/// Units that only cost a test guest time.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-networkd-wait-online.service",
];

/// The image: the one that is kept, or a new one.
pub(super) fn image() -> Result<PathBuf> {
    let directory = directory()?;
    fs::create_dir_all(&directory)?;
    let image = directory.join("root.ext4");
    let lock = fs::File::create(directory.join(".root.lock"))?;
    lock.lock()?;
    if image.is_file() {
        return Ok(image);
    }
    ensure!(
        rustix::process::geteuid().is_root(),
        "a Debian root file system is made by debootstrap as root: run this once as root"
    );
    let work = tempfile::tempdir_in(&directory)?;
    let tree = work.path().join("tree");
    bootstrap(&tree)?;
    prepare(&tree)?;
    let unfinished = work.path().join("root.ext4");
    pack(&tree, &unfinished)?;
    fs::rename(&unfinished, &image)?;
    Ok(image)
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
    for (path, contents) in FILES {
        put(tree, path, contents.as_bytes(), 0o644)?;
    }
    let guest = fs::read(Artefact::Guest.built()?)?;
    put(tree, "usr/local/bin/guest", &guest, 0o755)?;
    let units = tree.join("etc/systemd/system");
    for (target, unit) in WANTED {
        let wants = units.join(format!("{target}.wants"));
        fs::create_dir_all(&wants)?;
        link(unit, &wants.join(unit.rsplit('/').next().unwrap_or(unit)))?;
    }
    for unit in MASKED {
        link("/dev/null", &units.join(unit))?;
    }
    // An empty password: whoever has the console has the guest.
    let shadow = tree.join("etc/shadow");
    let text = fs::read_to_string(&shadow)?;
    let text: String = text
        .lines()
        .map(|line| {
            match line
                .strip_prefix("root:")
                .and_then(|rest| rest.split_once(':'))
            {
                Some((_, rest)) => format!("root::{rest}\n"),
                None => format!("{line}\n"),
            }
        })
        .collect();
    fs::write(shadow, text)?;
    Ok(())
}

fn put(tree: &Path, path: &str, contents: &[u8], mode: u32) -> Result<()> {
    let path = tree.join(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

fn link(target: &str, at: &Path) -> Result<()> {
    if at.symlink_metadata().is_ok() {
        fs::remove_file(at)?;
    }
    symlink(target, at).with_context(|| format!("cannot link {}", at.display()))
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
