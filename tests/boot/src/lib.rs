//! Real boots of the real image in real emulators; the tests are in `tests/`, one file a subject.
//!
//! They need `out/*.elf`, so start them with `./x test boot`, which builds first; or
//! `cargo test -p godwit-boot-tests -- --test-threads=2` after `./x build`.

#![forbid(unsafe_code)]

pub mod guest;
pub mod linux;
pub mod multiboot;
pub mod served;

use anyhow::{Result, ensure};
use godwit_harness::{Emulator, Host, HostConfig, Image, Link, Network, Peer, PortKind};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Address of the host under test.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of a second host.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Address of the station that is known to work.
pub const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);

/// How long two stations may take to find each other after both are up.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(30);

/// A host on a link with a station that is known to work. Fields drop in order: the host first.
pub struct Bench {
    /// The host under test.
    pub host: Host,
    /// The station.
    pub peer: Peer,
    /// What joins them.
    pub link: Link,
}

/// Boots `host-a` with a peer on its link, changed by `change`, up to the prompt.
pub fn boot(
    label: &str,
    emulator: Emulator,
    change: impl FnOnce(HostConfig) -> HostConfig,
) -> Result<Bench> {
    boot_both(label, emulator, |image| image, change)
}

/// The same with an image changed by `change`.
pub fn boot_image(
    label: &str,
    emulator: Emulator,
    change: impl FnOnce(Image) -> Image,
) -> Result<Bench> {
    boot_both(label, emulator, change, |config| config)
}

fn boot_both(
    label: &str,
    emulator: Emulator,
    image: impl FnOnce(Image) -> Image,
    change: impl FnOnce(HostConfig) -> HostConfig,
) -> Result<Bench> {
    let plain = Image::new(label, "host-a")?.address(&format!("{HOST}/24"));
    let image = image(plain).write()?;
    let link = Link::start(&[emulator.into(), PortKind::Prompt], 1)?;
    let peer = Peer::start(link.port(1), PEER)?;
    let config = HostConfig::new(emulator, &image, label).network(Network::Link(link.port(0)));
    let mut host = Host::boot(&change(config))?;
    host.wait_prompt()?;
    Ok(Bench { host, peer, link })
}

/// Boots `host-a` and `host-b` on one link, up to both prompts.
pub fn boot_two(label: &str, emulators: [Emulator; 2]) -> Result<([Host; 2], Link)> {
    let link = Link::start(&emulators.map(PortKind::from), 1)?;
    let start = |index: usize, name: &str, address: Ipv4Addr| {
        let label = format!("{label}-{name}");
        let image = Image::new(&label, name)?
            .address(&format!("{address}/24"))
            .write()?;
        let config = HostConfig::new(emulators[index], &image, &label)
            .mac_suffix(index as u8 + 1)
            .network(Network::Link(link.port(index)));
        Host::boot(&config)
    };
    let mut hosts = [start(0, "host-a", HOST)?, start(1, "host-b", OTHER)?];
    for host in &mut hosts {
        host.wait_prompt()?;
    }
    Ok((hosts, link))
}

/// Makes `host` ping `address` until a round of three loses nothing.
pub fn ping_until_clean(host: &mut Host, address: Ipv4Addr) -> Result<()> {
    let line = format!("ping -c 3 {address}");
    host.command_until(&line, " 0% packet loss", NETWORK_TIMEOUT)
        .map(drop)
}

/// Fails unless `host` loses every ping to `address`.
pub fn ping_loses_all(host: &mut Host, address: Ipv4Addr) -> Result<()> {
    let output = host.command(&format!("ping -c 3 {address}"))?;
    ensure!(
        output.contains("100% packet loss"),
        "expected no answer from {address}:\n{output}"
    );
    Ok(())
}

/// Fails unless `output` holds every one of `words`.
pub fn ensure_all(output: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(output.contains(word), "{word:?} is missing in:\n{output}");
    }
    Ok(())
}
