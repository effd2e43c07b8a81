//! Hosts whose dom0 dies, and a destination that loses its power, while a guest moves between them, with the
//! journal on their disks: afterwards the guest runs on one of them, and both know on which.
//!
//! Everything goes in clear, so that the link is cut exactly at a message of the handover.

use anyhow::{Result, ensure};
use godwit_harness::{Emulator, GuestLoad, MoveSite, SiteOptions};
use std::time::{Duration, Instant};

const OPTIONS: SiteOptions = SiteOptions {
    emulators: [Emulator::Qemu; 2],
    encrypted: false,
    stores: true,
    memory_mib: 96,
};
const LOAD: GuestLoad = GuestLoad {
    kind: "light",
    vcpus: 1,
};
const A: usize = 0;
const B: usize = 1;
/// Slow enough for something to happen on the way.
const SLOWLY: &str = "--bandwidth=1 --max-downtime=9000";
const QUICKLY: &str = "--max-downtime=9000";
const TIMEOUT: Duration = Duration::from_secs(180);
const LOOK_PERIOD: Duration = Duration::from_millis(300);

/// Kinds of frames, and what is asked or told in them: docs/migration.md.
const COMMIT: [u8; 2] = [0x01, 2];

/// Whether a packet holds such a message of 17 octets behind a frame's header.
fn holds(packet: &[u8], [kind, what]: [u8; 2]) -> bool {
    packet
        .windows(33)
        .any(|at| at[..2] == [kind, 0x01] && at[4..8] == [17, 0, 0, 0] && at[32] == what)
}

fn begin(site: &mut MoveSite, options: &str) -> Result<()> {
    let line = site.migrate_line(options);
    site.here().console().send_line(&line)
}

fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    while !is()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}

/// Begins a move and waits until the domain is made on the other host.
fn under_way(site: &mut MoveSite) -> Result<()> {
    begin(site, SLOWLY)?;
    until("something arrives", || site.is_listed(B))
}

/// It is on one host and works there, and the other one does not list it.
fn runs_only_at(site: &mut MoveSite, index: usize) -> Result<()> {
    until(
        "the other host frees it",
        || Ok(!site.is_listed(1 - index)?),
    )?;
    site.at = index;
    site.goes_on().map(drop)
}

/// dom0 of either host dies while memory is copied: the guest stays where it is.
fn dom0_dies(site: &mut MoveSite) -> Result<()> {
    under_way(site)?;
    site.crash_dom0(A)?;
    runs_only_at(site, A)?;
    under_way(site)?;
    site.crash_dom0(B)?;
    let said = site.hosts[A].console().expect_prompt(TIMEOUT)?;
    ensure!(said.contains("was not moved"), "{said}");
    let status = site.hosts[A].command("xl migrate-status")?;
    ensure!(
        status.contains("lin") && !status.contains("moved"),
        "{status}"
    );
    runs_only_at(site, A)
}

/// The source has given the guest up, the destination never hears of it and loses its power, and dom0 of
/// the source dies too: by the destination's journal it never ran there.
fn destination_without_power(site: &mut MoveSite) -> Result<()> {
    site.link.unplug_at(B, |packet| holds(packet, COMMIT));
    begin(site, QUICKLY)?;
    until("it is given up", || Ok(site.link.is_unplugged(B)))?;
    site.crash_dom0(A)?;
    site.status_until(A, "hand over")?;
    let refused = site.hosts[A].command("xl unpause lin")?;
    ensure!(refused.contains("is being moved to"), "{refused}");
    site.cut_power(B)?;
    site.link.plug(B);
    until("it goes on at the source", || {
        let list = site.hosts[A].command("xl migrate-status")?;
        Ok(!list.contains("hand over"))
    })?;
    runs_only_at(site, A)
}

#[test]
#[ignore = "long: ./x test soak"]
fn soak_migrate_faults_qemu() -> Result<()> {
    let mut site = MoveSite::boot("migrate-faults", OPTIONS)?;
    site.create(&OPTIONS, LOAD)?;
    dom0_dies(&mut site)?;
    destination_without_power(&mut site)?;
    site.destroy()
}
