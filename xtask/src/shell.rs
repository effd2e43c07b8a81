//! Running cargo and other programs: what runs is said, what fails is named.

use anyhow::{Context, Result, ensure};
use godwit_harness::root;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;

/// The target of the three bare-metal images.
pub(crate) const BARE_METAL: &str = "x86_64-unknown-none";

/// A cargo call at the repository root, by the toolchain that built us.
pub(crate) fn cargo<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Result<Command> {
    // A toolchain of its own, so not the one a `cargo run` above us may have exported.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root()?);
    Ok(command)
}

/// Says what happens next, on standard error.
pub(crate) fn say(what: &str) {
    eprintln!("x: {what}");
}

/// Runs a command with its output on ours.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = words(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {line}"))?;
    ensure!(status.success(), "{line} failed ({status})");
    Ok(())
}

/// Runs a command and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let line = words(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    ensure!(
        output.status.success(),
        "{line} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let set = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    Ok(root()?.join(set.unwrap_or_else(|| "target".into())))
}

/// `out/`, created when it is not there.
pub(crate) fn out_dir() -> Result<PathBuf> {
    let out = root()?.join("out");
    std::fs::create_dir_all(&out)?;
    Ok(out)
}

/// Names of the workspace's packages, from cargo itself, so that a new crate is covered unasked.
pub(crate) fn packages() -> Result<Vec<String>> {
    let metadata = cargo(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .and_then(|mut command| output(&mut command))
        .or_else(|_| output(&mut cargo(["metadata", "--no-deps", "--format-version=1"])?))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    Ok(packages
        .iter()
        .filter_map(|p| p["name"].as_str())
        .map(str::to_owned)
        .collect())
}

fn words(command: &Command) -> String {
    let program = PathBuf::from(command.get_program());
    let name = program.file_name().unwrap_or(program.as_os_str());
    let mut line = name.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
