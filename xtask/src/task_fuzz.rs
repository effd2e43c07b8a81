//! `./x fuzz`: the fuzz targets of `tests/fuzz`, by cargo-fuzz. `./x test` replays their corpora.

use crate::shell;
use anyhow::{Context, Result, bail, ensure};
use godwit_harness::root;
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
    // Nothing fuzzed has unsafe code: no sanitizer, and so no nightly compiler.
    let cargo_fuzz = Command::new("cargo-fuzz").arg("--version").output();
    if !cargo_fuzz.is_ok_and(|output| output.status.success()) {
        bail!("fuzzing needs cargo-fuzz: cargo install cargo-fuzz");
    }
    for target in chosen {
        shell::say(&format!("fuzzing {target} for {} s", args.seconds));
        let limit = format!("-max_total_time={}", args.seconds);
        let mut command = shell::cargo([
            "fuzz",
            "run",
            "--fuzz-dir",
            "tests/fuzz",
            "--sanitizer",
            "none",
        ])?;
        shell::run(command.args([&target, "--", &limit]))?;
    }
    Ok(())
}

fn targets() -> Result<Vec<String>> {
    let dir = root()?.join("tests/fuzz/fuzz_targets");
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
