//! `./x fuzz`: the fuzz targets of `tests/fuzz`, by cargo-fuzz and a nightly toolchain.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use godwit_harness::root;
use std::path::PathBuf;
use std::process::Command;

/// What to fuzz, and for how long.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// One target; without it, every target in turn
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let targets = targets()?;
    let chosen = match args.target {
        Some(target) => {
            ensure!(
                targets.contains(&target),
                "no fuzz target {target:?}, there are: {targets:?}"
            );
            vec![target]
        }
        None => targets,
    };
    let installed = |words: &[&str]| {
        Command::new(words[0])
            .args(&words[1..])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if !installed(&["rustup", "run", "nightly", "rustc", "-V"]) {
        bail!("fuzzing needs a nightly compiler: rustup toolchain install nightly");
    }
    if !installed(&["cargo-fuzz", "--version"]) {
        bail!("fuzzing needs cargo-fuzz: cargo install cargo-fuzz");
    }
    for target in chosen {
        shell::say(&format!("fuzzing {target} for {} s", args.seconds));
        let limit = format!("-max_total_time={}", args.seconds);
        shell::run(
            Command::new("rustup")
                .args([
                    "run",
                    "nightly",
                    "cargo",
                    "fuzz",
                    "run",
                    "--fuzz-dir",
                    "tests/fuzz",
                ])
                .args([&target, "--", &limit])
                .current_dir(root()?),
        )?;
    }
    Ok(())
}

/// Where the fuzz crate is, whether or not it exists.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(root()?.join("tests/fuzz"))
}

fn targets() -> Result<Vec<String>> {
    let dir = dir()?.join("fuzz_targets");
    let entries = std::fs::read_dir(&dir)
        .with_context(|| format!("not implemented: fuzz ({} has no targets)", dir.display()))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .collect();
    names.sort();
    ensure!(
        !names.is_empty(),
        "not implemented: fuzz ({} has no targets)",
        dir.display()
    );
    Ok(names)
}
