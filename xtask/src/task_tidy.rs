//! `./x tidy`: house rules that no compiler checks (see [`crate::tidy`]).

use crate::{task_docs, tidy};
use anyhow::Result;

/// What to do about them.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Write the table of unsafe counts anew, after having looked at what changed in it
    #[arg(long)]
    bless: bool,
}

pub(crate) fn run(args: Args) -> Result<()> {
    if args.bless {
        task_docs::write(tidy::UNSAFE_TABLE)?;
    }
    tidy::check()?;
    task_docs::check()?;
    println!("tidy");
    Ok(())
}
