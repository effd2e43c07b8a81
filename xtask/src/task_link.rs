//! `./x link`: the link between hosts that another `./x` runs.

use crate::shell;
use anyhow::Result;
use clap::Subcommand;
use std::path::PathBuf;

/// What to do with the link.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Settings and counters
    Status,
    /// Change settings: [to=PORT] rate=100M delay=2ms loss=1% queue=256k (rate=off: any rate)
    Set {
        /// key=value
        #[arg(required = true)]
        words: Vec<String>,
    },
    /// Pull the cable
    Cut,
    /// Plug it in again
    Restore,
    /// Capture every frame to FILE; "off" stops that
    Pcap {
        /// A file for Wireshark or tcpdump
        file: PathBuf,
    },
}

/// Where a running link listens.
pub(crate) fn control_socket() -> Result<PathBuf> {
    Ok(shell::out_dir()?.join("link.sock"))
}

pub(crate) fn run(args: Args) -> Result<()> {
    let line = match args.verb {
        Verb::Status => "status".to_owned(),
        Verb::Set { words } => format!("set {}", words.join(" ")),
        Verb::Cut => "cut".to_owned(),
        Verb::Restore => "restore".to_owned(),
        Verb::Pcap { file } if file.as_os_str() == "off" => "pcap off".to_owned(),
        Verb::Pcap { file } => format!("pcap {}", std::path::absolute(file)?.display()),
    };
    print!("{}", godwit_harness::request(&control_socket()?, &line)?);
    Ok(())
}
