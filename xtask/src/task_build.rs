//! `./x build`: the three bare-metal images, and the program for Linux guests.
//!
//! Each in its own cargo call: one graph with two of them would unify their features.

use crate::shell::{self, BARE_METAL};
use anyhow::{Context, Result};
use godwit_harness::Artefact;
use std::process::Command;
use std::time::Instant;

/// The target of the guest program, for which Debian has no musl target for this rustc: it is glibc, static. And of dom0, which
/// wants vector registers and takes nothing else from it ([decision 17](../../docs/decisions/0017-vectors-in-dom0.md)).
const LINUX: &str = "x86_64-unknown-linux-gnu";
/// No shared library: the ramdisk holds none.
const STATIC: &[&str] = &["-Ctarget-feature=+crt-static"];
/// What the bare-metal target would set by itself (see `.cargo/config.toml`): a position-independent image without a loader, C
/// library or unwinding. dom0 takes no interrupts, so a red zone would do no harm; its exceptions have a stack of their own.
const BARE: &[&str] = &[
    "-Crelocation-model=pie",
    "-Cno-redzone=yes",
    "-Cforce-frame-pointers=yes",
    "-Cforce-unwind-tables=no",
    "-Clinker=rust-lld",
    "-Clinker-flavor=ld.lld",
    "-Clink-arg=-pie",
    "-Clink-arg=--no-dynamic-linker",
    "-Clink-arg=-zmax-page-size=4096",
    "-Clink-arg=--gc-sections",
];

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

/// What an image is compiled for.
pub(crate) fn target(artefact: Artefact) -> &'static str {
    match artefact {
        Artefact::Hypervisor | Artefact::Micro => BARE_METAL,
        Artefact::Dom0 | Artefact::Guest => LINUX,
    }
}

fn build_one(artefact: Artefact) -> Result<()> {
    let started = Instant::now();
    let package = artefact.package();
    shell::say(&format!("building {package}"));
    let target = target(artefact);
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
    let flags = match artefact {
        Artefact::Hypervisor | Artefact::Micro => None,
        Artefact::Dom0 => Some(BARE),
        Artefact::Guest => Some(STATIC),
    };
    if let Some(flags) = flags {
        command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
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
