//! The demo's second act: a Linux guest that writes memory, disk and network, and checks them all, is moved
//! to the other host and back while it runs; then the cable is pulled in the middle of a move.

use super::{heading, show};
use anyhow::{Result, ensure};
use godwit_harness::{Emulator, GuestLoad, MoveSite, Moved, SiteOptions};
use std::time::{Duration, Instant};

/// For what is not under the demo's control, on QEMU.
const LIMIT: Duration = Duration::from_secs(120);
const LOOK_PERIOD: Duration = Duration::from_millis(300);

/// The guest on each machine.
fn size(emulators: [Emulator; 2]) -> (SiteOptions, GuestLoad) {
    let slow = emulators.contains(&Emulator::Bochs);
    let options = SiteOptions {
        emulators,
        encrypted: true,
        stores: false,
        memory_mib: if slow { 96 } else { 192 },
    };
    let kind = if slow { "light" } else { "moderate" };
    (options, GuestLoad { kind, vcpus: 1 })
}

pub(super) fn run(emulators: [Emulator; 2]) -> Result<()> {
    let (options, load) = size(emulators);
    heading("Two hosts that know each other's keys, and storage that both reach");
    let mut site = MoveSite::boot("demo-moves", options)?;
    for host in &mut site.hosts {
        show(host, "xl host-list")?;
    }
    heading("A Linux guest that writes and checks memory, disk and a TCP connection");
    site.create(&options, load)?;
    show(
        site.here(),
        "xl list; xl block-list lin; xl network-list lin",
    )?;
    show_progress(&mut site)?;
    site.shows_moves = true;
    let begun = Instant::now();
    for way in ["there", "and back"] {
        heading(&format!("It is moved {way} while it runs"));
        let at = begun.elapsed();
        let moved = site.migrate("")?;
        report(&moved, at, begun.elapsed());
        show_progress(&mut site)?;
    }
    site.shows_moves = false;
    cable_is_pulled(&mut site)?;
    heading("Moves so far, as predicted and as they were");
    for host in &mut site.hosts {
        show(host, "xl migrate-history")?;
    }
    site.destroy()
}

fn show_progress(site: &mut MoveSite) -> Result<()> {
    let work = site.goes_on()?;
    println!(
        "    on {}: disk written and checked {} times, memory for {:.0} s, every byte right",
        site.here().name(),
        work.disk_rounds + 1,
        work.memory_s
    );
    Ok(())
}

fn report(moved: &Moved, begun: Duration, over: Duration) {
    println!(
        "\n    seconds into the act: begun at {:.1}, seen again on all ways by {:.1}",
        begun.as_secs_f64(),
        over.as_secs_f64()
    );
    println!("    how long it was away:");
    let gaps = [
        ("as xl migrate says", moved.downtime),
        ("by the guest's own clocks", moved.inside),
        ("on its TCP connection, at the other end", moved.outside_tcp),
        ("for pings, every 10 ms", moved.outside_ping),
    ];
    for (what, gap) in gaps {
        println!("    {what:<42}{:>6} ms", gap.as_millis());
    }
}

/// A move that fails: the guest stays, and its connection with it.
fn cable_is_pulled(site: &mut MoveSite) -> Result<()> {
    heading("A third move, slowly, and the cable of the other host is pulled in the middle");
    let (at, other) = (site.at, 1 - site.at);
    let line = site.migrate_line("--bandwidth=1");
    println!("{}# {line}", site.here().name());
    site.here().console().send_line(&line)?;
    let slowness = site.here().emulator().slowness();
    wait("the guest begins to arrive", slowness, || {
        site.is_listed(other)
    })?;
    site.link.unplug(other);
    let said = site.hosts[at].console().expect_prompt(LIMIT * slowness)?;
    let told = said.lines().filter(|line| !line.starts_with("round"));
    told.for_each(|line| println!("{line}"));
    ensure!(said.contains("was not moved"), "it was moved:\n{said}");
    heading("It still runs where it was, and nothing is left on the other host");
    show_progress(site)?;
    show(&mut site.hosts[at], "xl list")?;
    wait("the other host frees it", slowness, || {
        Ok(!site.is_listed(other)?)
    })?;
    show(&mut site.hosts[other], "xl list")?;
    site.link.plug(other);
    Ok(())
}

fn wait(what: &str, slowness: u32, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT * slowness;
    while !is()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}
