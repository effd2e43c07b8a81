//! `./x check`: what is wrong without running anything.
//!
//! Host crates and bare-metal crates are linted apart, each for the target it runs on.

use crate::shell::{self, cargo};
use crate::task_build::target;
use crate::{task_docs, tidy};
use anyhow::Result;
use godwit_harness::Artefact;
use std::time::Instant;

/// No options.
#[derive(clap::Args)]
pub(crate) struct Args {}

pub(crate) fn run(_: Args) -> Result<()> {
    let outcome = steps()?;
    outcome.print();
    outcome.into_result()
}

/// How many of some checks or tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: Outcome) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// The closing line, alone on a line.
    pub(crate) fn print(self) {
        println!("{} passed, {} failed", self.passed, self.failed);
    }

    pub(crate) fn into_result(self) -> Result<()> {
        anyhow::ensure!(self.failed == 0, "{} failed", self.failed);
        Ok(())
    }
}

type Step = (&'static str, fn() -> Result<()>);

const STEPS: &[Step] = &[
    ("formatting", formatting),
    ("lints, host crates", lints_host),
    ("lints, bare-metal images", lints_bare_metal),
    ("documentation builds", documentation),
    ("generated documents", task_docs::check),
    ("tidy", tidy::check),
];

/// Runs every check, even after one has failed.
pub(crate) fn steps() -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (name, step) in STEPS {
        let started = Instant::now();
        match step() {
            Ok(()) => {
                println!(
                    "check {name} ... ok ({:.1} s)",
                    started.elapsed().as_secs_f32()
                );
                outcome.passed += 1;
            }
            Err(error) => {
                println!("check {name} ... FAILED\n{error:#}");
                outcome.failed += 1;
            }
        }
    }
    Ok(outcome)
}

/// Packages that run on the build machine.
pub(crate) fn host_packages() -> Result<Vec<String>> {
    let bare_metal = Artefact::BARE_METAL.map(Artefact::package);
    let mut packages = shell::packages()?;
    packages.retain(|package| !bare_metal.contains(&package.as_str()));
    Ok(packages)
}

/// `-p a -p b`.
pub(crate) fn select(packages: &[String]) -> Vec<&str> {
    packages
        .iter()
        .flat_map(|package| ["--package", package])
        .collect()
}

fn formatting() -> Result<()> {
    shell::run(&mut cargo(["fmt", "--all", "--check"])?)
}

fn lints_host() -> Result<()> {
    let mut command = cargo(["clippy", "--quiet", "--all-targets"])?;
    shell::run(
        command
            .args(select(&host_packages()?))
            .args(["--", "-D", "warnings"]),
    )
}

fn lints_bare_metal() -> Result<()> {
    for image in Artefact::BARE_METAL {
        shell::run(&mut cargo([
            "clippy",
            "--quiet",
            "--target",
            target(image),
            "--package",
            image.package(),
            "--",
            "-D",
            "warnings",
        ])?)?;
    }
    Ok(())
}

fn documentation() -> Result<()> {
    let doc = |arguments: &[&str]| -> Result<()> {
        let mut command = cargo(["doc", "--quiet", "--no-deps"])?;
        shell::run(command.args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    };
    doc(&select(&host_packages()?))?;
    for image in Artefact::BARE_METAL {
        doc(&["--target", target(image), "--package", image.package()])?;
    }
    Ok(())
}
