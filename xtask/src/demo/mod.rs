//! `./x demo`: what Godwit does, on two emulated hosts, without touching the keyboard.

mod guests;
mod moves;

use crate::task_host::EmulatorName;
use crate::task_hosts::{HOSTS, Pair};
use crate::{shell, task_image};
use anyhow::Result;
use godwit_harness::{Emulator, Host};
use std::time::Duration;

/// Where to show it.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which machine plays each host; give it twice for one of each
    #[arg(long, value_enum, default_values = ["qemu"])]
    emulator: Vec<EmulatorName>,
    /// Only this act [default: both]
    #[arg(long, value_enum)]
    act: Option<Act>,
}

/// Each boots its own two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Act {
    /// One host and its guests: disks, networks, a dom0 that dies, save and restore
    Guests,
    /// A guest that moves between two hosts while it runs
    Moves,
}

/// How long the spinning guest spins before we look at what it used.
const SPIN: Duration = Duration::from_secs(3);

pub(crate) fn run(args: Args) -> Result<()> {
    let emulators = EmulatorName::pair(&args.emulator)?;
    task_image::build_checked()?;
    if args.act != Some(Act::Moves) {
        guests_act(emulators)?;
    }
    if args.act != Some(Act::Guests) {
        moves::run(emulators)?;
    }
    Ok(())
}

fn guests_act(emulators: [Emulator; 2]) -> Result<()> {
    let (mut pair, store) = guests::boot(emulators)?;
    for host in &mut pair.hosts {
        host.wait_prompt()?;
        shell::say(&format!("{} is up", host.name()));
    }
    introduce(&mut pair)?;
    micro_guests(&mut pair.hosts[0])?;
    cable(&mut pair)?;
    guests::run(&mut pair, store)?;
    heading("What the link carried");
    print!("{}", pair.link.table());
    Ok(())
}

fn introduce(pair: &mut Pair) -> Result<()> {
    heading("Each host: who it is");
    for host in &mut pair.hosts {
        show(host, "xl info")?;
    }
    heading("They ping each other");
    ping_other(&mut pair.hosts[0], 1)?;
    ping_other(&mut pair.hosts[1], 0)
}

fn micro_guests(host: &mut Host) -> Result<()> {
    heading("A guest that says hello, and one that spins for ever");
    // It has said all and switched off before anybody looks.
    let preserved = format!("{} on_poweroff=preserve", create("hello", "hello"));
    show(host, &preserved)?;
    show(host, "xl console -n hello")?;
    show(host, "xl destroy hello")?;
    show(host, &create("spinner", "spin"))?;
    std::thread::sleep(SPIN * host.emulator().slowness());
    heading("The host still answers, and shows where the time went");
    show(host, "xl list")?;
    show(host, "xl destroy spinner")
}

fn cable(pair: &mut Pair) -> Result<()> {
    heading("The cable is pulled");
    pair.link.cut();
    ping_other(&mut pair.hosts[0], 1)?;
    heading("... and plugged in again");
    pair.link.restore();
    ping_other(&mut pair.hosts[0], 1)
}

/// The command that starts the micro-VM guest with a command line.
fn create(name: &str, extra: &str) -> String {
    format!("xl create /dev/null name={name} kernel=module:micro memory=8 extra={extra}")
}

fn ping_other(host: &mut Host, other: usize) -> Result<()> {
    show(host, &format!("ping -c 3 {}", HOSTS[other].1))
}

fn heading(text: &str) {
    println!("\n== {text}");
}

fn show(host: &mut Host, line: &str) -> Result<()> {
    let output = host.command(line)?;
    println!("{}# {line}\n{output}", host.name());
    Ok(())
}
