//! `./x image`: what `build` makes, checked as a boot loader would.

use crate::{elf, task_build};
use anyhow::{Context, Result};
use godwit_harness::Artefact;

/// No options.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    build_checked()
}

/// Builds and checks.
pub(crate) fn build_checked() -> Result<()> {
    task_build::build()?;
    let path = Artefact::Hypervisor.built()?;
    let at = elf::multiboot2_header(&std::fs::read(&path)?)
        .with_context(|| format!("{} would not boot", path.display()))?;
    println!(
        "multiboot2 header at {at:#x} of out/{}",
        Artefact::Hypervisor.file_name()
    );
    Ok(())
}
