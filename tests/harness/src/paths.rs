//! Where things are: the repository root, build artefacts, logs.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// The repository root: the nearest directory above the current one that holds the launcher `x`
/// and the workspace's `Cargo.toml`. Found at run time, so a moved checkout keeps working.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().context("the current directory is gone")?;
    here.ancestors()
        .find(|dir| dir.join("x").is_file() && dir.join("Cargo.toml").is_file())
        .map(PathBuf::from)
        .with_context(|| {
            format!(
                "{} is not inside the Godwit repository: change into it",
                here.display()
            )
        })
}

/// A program that `./x build` leaves in `out/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Artefact {
    /// The hypervisor, with its symbol table.
    Hypervisor,
    /// The dom0 image, stripped.
    Dom0,
    /// The micro-VM guest image, stripped.
    Micro,
    /// The program in Linux guests' ramdisks, static and stripped.
    Guest,
}

impl Artefact {
    /// All of them, in build order.
    pub const ALL: [Artefact; 4] = [
        Artefact::Hypervisor,
        Artefact::Dom0,
        Artefact::Micro,
        Artefact::Guest,
    ];
    /// Those without an operating system under them.
    pub const BARE_METAL: [Artefact; 3] = [Artefact::Hypervisor, Artefact::Dom0, Artefact::Micro];

    /// File name in `out/` and in `/boot` of the image.
    pub fn file_name(self) -> &'static str {
        match self {
            Artefact::Hypervisor => "godwit.elf",
            Artefact::Dom0 => "dom0.elf",
            Artefact::Micro => "micro.elf",
            Artefact::Guest => "guest.elf",
        }
    }

    /// The cargo package (and binary) it is built from.
    pub fn package(self) -> &'static str {
        match self {
            Artefact::Hypervisor => "godwit-hypervisor",
            Artefact::Dom0 => "godwit-dom0",
            Artefact::Micro => "godwit-micro",
            Artefact::Guest => "godwit-guest",
        }
    }

    /// Its path in `out/`, whether or not it exists.
    pub fn path(self) -> Result<PathBuf> {
        Ok(root()?.join("out").join(self.file_name()))
    }

    /// Its path in `out/`; an error that says what to run when it has not been built.
    pub fn built(self) -> Result<PathBuf> {
        let path = self.path()?;
        if !path.is_file() {
            bail!("{} does not exist: run ./x build", path.display());
        }
        Ok(path)
    }
}
