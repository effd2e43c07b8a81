//! Godwit's tasks: `./x <task>`. One `task_*.rs` a command; what several share stands beside them.

#![forbid(unsafe_code)]

mod bench;
mod bridge;
mod demo;
mod elf;
mod pingpong;
mod shell;
mod task_bench;
mod task_build;
mod task_check;
mod task_completion;
mod task_docs;
mod task_fuzz;
mod task_host;
mod task_hosts;
mod task_image;
mod task_iso;
mod task_link;
mod task_store;
mod task_test;
mod task_tidy;
mod tidy;

use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;

/// Builds, boots, tests and measures Godwit.
#[derive(Parser)]
#[command(name = "x", bin_name = "./x")]
enum Task {
    /// Build the three bare-metal images into out/
    Build(task_build::Args),
    /// Build and check that a multiboot2 loader can load the result
    Image(task_image::Args),
    /// Make the hybrid ISO (BIOS and UEFI) for real machines and emulators
    Iso(task_iso::Args),
    /// Boot one host with its console in this terminal
    Host(task_host::Args),
    /// Boot two hosts joined by a link, with their consoles in this terminal
    Hosts(task_hosts::Args),
    /// Show what Godwit does, on two emulated hosts
    Demo(demo::Args),
    /// Look at or change the link of running hosts
    Link(task_link::Args),
    /// Make a disk image that is a store, for `host --disk`
    Store(task_store::Args),
    /// Run the tests: all that CI runs, or some groups
    Test(task_test::Args),
    /// Formatting, lints, documentation and tidiness
    Check(task_check::Args),
    /// House rules that no compiler checks
    Tidy(task_tidy::Args),
    /// Generate the generated documentation
    Docs(task_docs::Args),
    /// Fuzz the decoders
    Fuzz(task_fuzz::Args),
    /// Measure, beside the goals and the peers' figures
    Bench(task_bench::Args),
    /// Print a shell completion script
    Completion(task_completion::Args),
}

fn main() -> ExitCode {
    match run(Task::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Build(args) => task_build::run(args),
        Task::Image(args) => task_image::run(args),
        Task::Iso(args) => task_iso::run(args),
        Task::Host(args) => task_host::run(args),
        Task::Hosts(args) => task_hosts::run(args),
        Task::Demo(args) => demo::run(args),
        Task::Link(args) => task_link::run(args),
        Task::Store(args) => task_store::run(args),
        Task::Test(args) => task_test::run(args),
        Task::Check(args) => task_check::run(args),
        Task::Tidy(args) => task_tidy::run(args),
        Task::Docs(args) => task_docs::run(args),
        Task::Fuzz(args) => task_fuzz::run(args),
        Task::Bench(args) => task_bench::run(args),
        Task::Completion(args) => task_completion::run(args),
    }
}
