//! `./x build`: the three bare-metal images.
//!
//! Each in its own cargo call: one graph with two of them would unify their features.

use crate::shell::{self, BARE_METAL};
use anyhow::{Context, Result};
use godwit_harness::Artefact;
use std::process::Command;
use std::time::Instant;

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
    shell::run(&mut shell::cargo([
        "build",
        "--quiet",
        "--profile",
        "image",
        "--target",
        BARE_METAL,
        "--package",
        package,
    ])?)?;
    let built = shell::target_dir()?
        .join(BARE_METAL)
        .join("image")
        .join(package);
    let out = artefact.path()?;
    let what_goes = match artefact {
        // Its epitaphs name functions: the symbol table stays.
        Artefact::Hypervisor => "--strip-debug",
        Artefact::Dom0 | Artefact::Micro => "--strip-all",
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
