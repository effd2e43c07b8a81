//! `./x completion`: for the command `x`, however it is called.

use anyhow::Result;
use clap::{CommandFactory, ValueEnum};
use clap_complete::generate;

#[derive(Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Which shell.
#[derive(clap::Args)]
pub(crate) struct Args {
    shell: Shell,
}

pub(crate) fn run(args: Args) -> Result<()> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // The bin name with its "./" would make names no shell accepts.
    let mut command = crate::Task::command().bin_name("x");
    generate(shell, &mut command, "x", &mut std::io::stdout());
    Ok(())
}
