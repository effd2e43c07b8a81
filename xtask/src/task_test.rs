//! `./x test`: all that CI runs, or some groups of it. The last line counts everything.

use crate::shell::{self, cargo};
use crate::task_check::{Outcome, host_packages, select, steps};
use crate::task_host::EmulatorName;
use crate::{pingpong, task_image};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

const BOOT_TESTS: &str = "godwit-boot-tests";
const MODEL: &str = "godwit-model";
const SIM: &str = "godwit-sim";
/// Boots side by side at most: each takes a CPU.
const BOOT_THREADS: &str = "--test-threads=2";

/// Groups in the order CI runs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Group {
    /// Formatting, lints, documentation, tidiness
    Check,
    /// Unit and law tests of the host crates
    Unit,
    /// Exhaustive models
    Model,
    /// Two simulated hosts, seeds of operations and faults
    Sim,
    /// The fuzz targets' corpora, replayed; part of unit
    FuzzReplay,
    /// Real boots in QEMU and Bochs
    Boot,
    /// Real boots on this machine's CPU by nested virtualization; not part of "all"
    Kvm,
    /// Boots that take long: stress, loops, dom0's deaths under fio; not part of "all"
    Soak,
    /// A guest under load moves between two hosts again and again; not part of "all"
    Pingpong,
}

/// All that CI runs everywhere.
const ALL: &[Group] = &[
    Group::Check,
    Group::Unit,
    Group::Model,
    Group::Sim,
    Group::Boot,
];

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Groups [default: all, in this order]
    #[arg(value_enum)]
    groups: Vec<Group>,
    /// Only tests whose name contains this (not for check)
    #[arg(long)]
    only: Option<String>,
    /// With sim: run this seed and no other
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// With sim: run so many seeds, and not the tests
    #[arg(long)]
    seeds: Option<u64>,
    /// With pingpong: how many moves
    #[arg(long, default_value_t = 50)]
    moves: usize,
    /// With --seeds: the first of them [default: 0]
    #[arg(long, requires = "seeds")]
    first_seed: Option<u64>,
}

impl Args {
    /// What the simulator is told, if it is to run by itself.
    fn simulation(&self) -> Result<Option<Vec<String>>> {
        let all = [
            ("--seed", self.seed),
            ("--seeds", self.seeds),
            ("--first", self.first_seed),
        ];
        let given = all.iter().filter_map(|(key, value)| Some((key, (*value)?)));
        let given: Vec<String> = given
            .flat_map(|(key, value)| [key.to_string(), value.to_string()])
            .collect();
        if given.is_empty() {
            return Ok(None);
        }
        if self.groups != [Group::Sim] {
            bail!("--seed and --seeds are for the simulator: ./x test sim --seeds 5000");
        }
        Ok(Some(given))
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let groups = match args.groups.as_slice() {
        [] => ALL,
        some => some,
    };
    let simulation = args.simulation()?;
    let mut outcome = Outcome::default();
    for &group in groups {
        let started = Instant::now();
        let ran = match &simulation {
            Some(arguments) => simulate(arguments)?,
            None => run_group(group, &args)?,
        };
        outcome.add(ran);
        shell::say(&format!(
            "{group:?}: {} passed, {} failed, {:.0} s",
            ran.passed,
            ran.failed,
            started.elapsed().as_secs_f32()
        ));
    }
    outcome.print();
    if outcome.failed > 0 {
        // Without a message: the count above is the last line.
        std::process::exit(1);
    }
    Ok(())
}

fn run_group(group: Group, args: &Args) -> Result<Outcome> {
    let only = args.only.as_deref();
    match group {
        Group::Check => steps(),
        Group::Unit => {
            let mut packages = host_packages()?;
            packages.retain(|package| ![BOOT_TESTS, MODEL, SIM].contains(&package.as_str()));
            let mut command = cargo(["test", "--no-fail-fast"])?;
            count(command.args(select(&packages)).args(only))
        }
        Group::Model => {
            // Optimised: it explores every interleaving.
            count(cargo(["test", "--release", "--no-fail-fast", "--package", MODEL])?.args(only))
        }
        // Optimised: guests write a lot.
        Group::Sim => {
            count(cargo(["test", "--release", "--no-fail-fast", "--package", SIM])?.args(only))
        }
        Group::FuzzReplay => fuzz_replay(only),
        Group::Boot => boot(&[], only, &[]),
        Group::Kvm => {
            EmulatorName::Kvm.usable()?;
            boot(&["--test", "kvm"], only, &[])
        }
        Group::Soak => boot(&[], Some(only.unwrap_or("soak_")), &["--ignored"]),
        Group::Pingpong => pingpong::run(args.moves),
    }
}

/// Runs seeds of the simulator.
fn simulate(arguments: &[String]) -> Result<Outcome> {
    let mut command = cargo(["run", "--release", "--package", SIM, "--"])?;
    count(command.args(arguments))
}

fn boot(select: &[&str], only: Option<&str>, which: &[&str]) -> Result<Outcome> {
    if let Err(error) = task_image::build_checked() {
        println!("building the images FAILED\n{error:#}");
        return Ok(Outcome {
            passed: 0,
            failed: 1,
        });
    }
    let mut command = cargo(["test", "--no-fail-fast", "--package", BOOT_TESTS])?;
    let command = command.args(select).args(only);
    count(command.args(["--", BOOT_THREADS]).args(which))
}

/// The test targets named `corpus` of the crates whose decoders are fuzzed.
fn fuzz_replay(only: Option<&str>) -> Result<Outcome> {
    let mut command = cargo(["test", "--no-fail-fast", "--test", "corpus"])?;
    count(command.args(select(&host_packages()?)).args(only))
}

/// Runs a `cargo test`, passing its output on, and adds up what it reports. A call that fails
/// without reporting a failed test (it did not compile, or crashed) counts as one failure.
fn count(command: &mut Command) -> Result<Outcome> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let stdout = child.stdout.take().context("standard output is piped")?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        outcome.add(parse(&line).unwrap_or_default());
    }
    if !child.wait()?.success() && outcome.failed == 0 {
        outcome.failed = 1;
    }
    Ok(outcome)
}

/// Reads `test result: ok. 3 passed; 0 failed; ...`.
fn parse(line: &str) -> Option<Outcome> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(word)?.trim().parse().ok())
    };
    Some(Outcome {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargo_tests_own_line_is_understood() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 9 filtered out; finished in 0.41s";
        assert_eq!(
            parse(line),
            Some(Outcome {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(parse("test result_of::x ... ok"), None);
        assert_eq!(parse("running 3 tests"), None);
    }

    #[test]
    fn a_crash_without_a_count_is_a_failure() {
        let run = |script: &str| count(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(run("exit 1").failed, 1);
        assert_eq!(run("exit 0"), Outcome::default());
        let both = "echo 'test result: ok. 2 passed; 0 failed; x'; \
                    echo 'test result: FAILED. 1 passed; 1 failed; x'; exit 1";
        assert_eq!(
            run(both),
            Outcome {
                passed: 3,
                failed: 1
            }
        );
    }
}
