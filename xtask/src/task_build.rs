//! `./x build`: the three bare-metal images, and the program for Linux guests.
//!
//! Each in its own cargo call: one graph with two of them would unify their features.

use crate::shell::{self, BARE_METAL};
use anyhow::{Context, Result};
use godwit_harness::Artefact;
use std::process::Command;
use std::time::Instant;

/// The target of the guest program. Debian has no musl target for this rustc, so it is glibc, static.
const LINUX: &str = "x86_64-unknown-linux-gnu";
/// No shared library: the ramdisk holds none.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// No options.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    build()
}

/// Builds all images into `out/`.
pub(crate) fn build() -> Result<()> {
    shell::out_dir()?;
    for artefact in Artefact::ALL {
        build_one(artefact)?;
    }
    Ok(())
}

fn build_one(artefact: Artefact) -> Result<()> {
    let started = Instant::now();
    let package = artefact.package();
    shell::say(&format!("building {package}"));
    let target = match artefact {
        Artefact::Hypervisor | Artefact::Dom0 | Artefact::Micro => BARE_METAL,
        Artefact::Guest => LINUX,
    };
    let mut command = shell::cargo([
        "build",
        "--quiet",
        "--profile",
        "image",
        "--target",
        target,
        "--package",
        package,
    ])?;
    if artefact == Artefact::Guest {
        command.env("CARGO_ENCODED_RUSTFLAGS", STATIC);
    }
    shell::run(&mut command)?;
    let built = shell::target_dir()?
        .join(target)
        .join("image")
        .join(package);
    let out = artefact.path()?;
    let what_goes = match artefact {
        // Its epitaphs name functions: the symbol table stays.
        Artefact::Hypervisor => "--strip-debug",
        Artefact::Dom0 | Artefact::Micro | Artefact::Guest => "--strip-all",
    };
    shell::run(Command::new("objcopy").arg(what_goes).args([&built, &out]))
        .context("objcopy is in the package binutils")?;
    let size_kib = std::fs::metadata(&out)?.len().div_ceil(1024);
    let seconds = started.elapsed().as_secs_f32();
    println!(
        "out/{:<12}{size_kib:>7} KiB  ({seconds:.1} s)",
        artefact.file_name()
    );
    Ok(())
}
