//! Debian packages, downloaded and unpacked without installing them.

use super::directory;
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Marks a tree that is whole.
const COMPLETE: &str = ".complete";

/// The tree of `package`, from `out/guest/packages/` or fetched now.
pub(super) fn unpacked(package: &str) -> Result<PathBuf> {
    unpacked_as(package, || Ok(package.to_owned()))
}

/// The same for a package whose name `resolve` finds out, kept under `name`: apt is asked only when
/// nothing is kept.
pub(super) fn unpacked_as(name: &str, resolve: impl FnOnce() -> Result<String>) -> Result<PathBuf> {
    let packages = directory()?.join("packages");
    fs::create_dir_all(&packages)?;
    let tree = packages.join(name);
    // Tests run side by side, in several processes.
    let lock = File::create(packages.join(".lock"))?;
    lock.lock()?;
    if tree.join(COMPLETE).is_file() {
        return Ok(tree);
    }
    let package = resolve()?;
    let work = tempfile::tempdir_in(&packages)?;
    let archive = download(&package, work.path())?;
    let fresh = work.path().join("tree");
    run(
        "dpkg",
        [OsStr::new("-x"), archive.as_os_str(), fresh.as_os_str()],
        work.path(),
    )?;
    fs::write(fresh.join(COMPLETE), format!("{package}\n"))?;
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    fs::rename(&fresh, &tree)?;
    Ok(tree)
}

/// The package that `package` depends on whose name begins with `prefix`.
pub(super) fn dependency(package: &str, prefix: &str) -> Result<String> {
    let depends = || {
        run(
            "apt-cache",
            ["depends", "--important", package],
            Path::new("/"),
        )
    };
    let said = match depends() {
        Ok(said) if !said.trim().is_empty() => said,
        Ok(_) | Err(_) => {
            update(package)?;
            depends()?
        }
    };
    said.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .with_context(|| format!("{package} depends on nothing named {prefix}...:\n{said}"))
}

/// Downloads into `directory`, asking for fresh package lists when the old ones do not do.
fn download(package: &str, directory: &Path) -> Result<PathBuf> {
    let attempt = || run("apt-get", ["download", "-q", package], directory);
    if attempt().is_err() {
        update(package)?;
        attempt().with_context(|| {
            format!(
                "the guests need Debian's package {package}: check that apt-get reaches a Debian \
                 mirror (apt-get download {package})"
            )
        })?;
    }
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("deb")) {
            return Ok(path);
        }
    }
    bail!("apt-get download {package} left no .deb file")
}

fn update(package: &str) -> Result<()> {
    run("apt-get", ["update", "-q"], Path::new("/"))
        .map(drop)
        .with_context(|| {
            format!(
                "apt-get does not know {package}, and its lists could not be updated: run \
                 `apt-get update` as root"
            )
        })
}

/// Runs a program and returns what it printed.
pub(super) fn run<A: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = A>,
    directory: &Path,
) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}: the guests are made on Debian"))?;
    ensure!(
        output.status.success(),
        "{program} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
