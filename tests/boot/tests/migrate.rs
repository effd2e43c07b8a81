//! A running Linux guest is moved from one host to the other and back, goes on counting, and checks
//! its own memory all along; when the link is cut or a host dies on the way it goes on where it was.

use anyhow::{Result, ensure};
use godwit_boot_tests::guest::{fact, state};
use godwit_boot_tests::linux::{BOOT_TIMEOUT, LinuxGuest};
use godwit_boot_tests::{HOST, OTHER, ping_until_clean};
use godwit_harness::{
    Emulator, Flavour, GuestKernel, Host, HostConfig, Image, Link, Network, PortKind, Ramdisk,
};
use std::time::{Duration, Instant};

/// For a move, on QEMU.
const MOVE_TIMEOUT: Duration = Duration::from_secs(120);
/// For the guest to write another line.
const LINE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a host waits for another that says nothing, and some more.
const SILENCE: Duration = Duration::from_secs(60);
const LOOK_PERIOD: Duration = Duration::from_millis(300);

const GUEST: LinuxGuest<'static> = LinuxGuest {
    name: "lin",
    vcpus: 1,
    memory_mib: 96,
    words: "godwit.run=guest,dirty,mib=4,rate=100,heartbeat=0",
    settings: "",
};

/// Two hosts that trust whoever asks in clear, the first with the guest's kernel.
struct Pair {
    hosts: [Host; 2],
    link: Link,
}

fn boot(label: &str, emulators: [Emulator; 2]) -> Result<Pair> {
    let kernel = GuestKernel::fetch(Flavour::Cloud)?;
    let ramdisk = Ramdisk::new(&kernel)?.write(label)?;
    let link = Link::start(&emulators.map(PortKind::from), 1)?;
    let start = |index: usize, name: &str, address| {
        let label = format!("{label}-{name}");
        let mut image = Image::new(&label, name)?
            .address(&format!("{address}/24"))
            .dom0_options("migrate=plaintext");
        if index == 0 {
            image = image
                .module("linux", kernel.image())
                .module("initrd", &ramdisk);
        }
        let config = HostConfig::new(emulators[index], &image.write()?, &label)
            .memory_mib(512)
            .mac_suffix(index as u8 + 1)
            .network(Network::Link(link.port(index)));
        Host::boot(&config)
    };
    let mut hosts = [start(0, "host-a", HOST)?, start(1, "host-b", OTHER)?];
    for host in &mut hosts {
        host.wait_prompt()?;
    }
    ping_until_clean(&mut hosts[0], OTHER)?;
    Ok(Pair { hosts, link })
}

/// The number of pages that the guest says it has written by now, once it says another one.
fn written(host: &mut Host, since: u64) -> Result<u64> {
    let deadline = Instant::now() + LINE_TIMEOUT * host.emulator().slowness();
    loop {
        let said = host.command("xl console -n lin")?;
        ensure!(!said.contains("BAD"), "the guest found a bad page:\n{said}");
        // The last line may not be whole yet.
        let totals = said.lines().filter(|line| line.starts_with("D t="));
        let bad = |line: &str| line.contains(" bad=") && !line.contains(" bad=0");
        ensure!(!totals.clone().any(bad), "bad pages:\n{said}");
        let total = totals
            .filter_map(|line| line.split_once("total=")?.1.split_once(' ')?.0.parse().ok())
            .next_back()
            .unwrap_or(0);
        if total > since {
            return Ok(total);
        }
        ensure!(
            Instant::now() < deadline,
            "the guest says nothing more:\n{said}"
        );
        std::thread::sleep(LOOK_PERIOD);
    }
}

fn free_mib(host: &mut Host) -> Result<u64> {
    Ok(fact(&host.command("xl info")?, "free_memory")?.parse()?)
}

/// Fails when a domain's memory has not come back; the hypervisor may have kept some for itself.
fn no_less(before_mib: u64, now_mib: u64) -> Result<()> {
    const KEPT_MIB: u64 = 4;
    ensure!(
        now_mib + KEPT_MIB >= before_mib,
        "memory is left over: {before_mib} MiB were free, now {now_mib}"
    );
    Ok(())
}

/// Moves the guest and watches it count on; returns what the command said.
fn migrate(from: &mut Host, to: &mut Host, options: &str, address: &str) -> Result<String> {
    let before = written(from, 0)?;
    // Long, because what a stop takes on a busy machine is not what is looked at here.
    let line = format!("xl migrate --max-downtime=9000 {options} lin plaintext:{address}");
    let slowness = from.emulator().slowness().max(to.emulator().slowness());
    let timeout = MOVE_TIMEOUT * slowness;
    let said = from.console().command(&line, timeout)?;
    ensure!(said.contains("moved domain 'lin'"), "{line}:\n{said}");
    ensure!(state(from, "lin")?.is_none(), "it is still listed");
    let after = written(to, before)?;
    written(to, after)?;
    Ok(said)
}

/// Moves a guest to its own host: one of its name is there before and after, and the host has as much memory.
fn to_itself(host: &mut Host, name: &str) -> Result<()> {
    let before = free_mib(host)?;
    let line = format!("xl migrate --max-downtime=9000 --verify {name} localhost");
    let timeout = MOVE_TIMEOUT * host.emulator().slowness();
    let said = host.console().command(&line, timeout)?;
    let moved = format!("moved domain '{name}' to localhost");
    ensure!(said.contains(&moved), "{line}:\n{said}");
    let list = host.command("xl list")?;
    let named = list.lines().filter(|line| line.starts_with(name)).count();
    ensure!(named == 1 && !list.contains("--incoming"), "{list}");
    no_less(before, free_mib(host)?)
}

/// There and back, the second time with the options `back`; nothing of it stays on either host.
fn there_and_back(pair: &mut Pair, guest: &LinuxGuest<'_>, back: &str) -> Result<()> {
    let [a, b] = &mut pair.hosts;
    let free = [free_mib(a)?, free_mib(b)?];
    guest.create(a)?;
    guest.console_until(a, "D t=", BOOT_TIMEOUT)?;
    let before = written(a, 0)?;
    to_itself(a, guest.name)?;
    written(a, before)?;
    migrate(a, b, "", &OTHER.to_string())?;
    migrate(b, a, back, &HOST.to_string())?;
    let status = a.command("xl migrate-status")?;
    ensure!(status.contains("moved"), "{status}");
    guest.clear(a)?;
    let now = [free_mib(a)?, free_mib(b)?];
    for (free, now) in free.into_iter().zip(now) {
        no_less(free, now)?;
    }
    Ok(())
}

#[test]
fn migrate_qemu() -> Result<()> {
    let mut pair = boot("migrate-qemu", [Emulator::Qemu; 2])?;
    // Once with all memory compared while it stands still.
    there_and_back(&mut pair, &GUEST, "--verify")
}

/// From SVM to VT-x and back, the same running Linux. Without the portable CPU it is refused by name.
#[test]
fn migrate_mixed_vendors() -> Result<()> {
    let portable = LinuxGuest {
        memory_mib: 88,
        settings: "cpu_policy=portable",
        ..GUEST
    };
    let mut pair = boot("migrate-mixed", [Emulator::Qemu, Emulator::Bochs])?;
    let [a, _] = &mut pair.hosts;
    let line = godwit_boot_tests::guest::create_line("t", "hello");
    a.command(
        &line
            .replace("xl create", "xl create -p")
            .replace(" memory", " cpu_policy=host memory"),
    )?;
    let said = a.command(&format!("xl migrate t plaintext:{OTHER}"))?;
    ensure!(
        said.contains("the domain's CPU: this host lacks "),
        "{said}"
    );
    godwit_boot_tests::guest::clear(a, "t")?;
    there_and_back(&mut pair, &portable, "")
}

#[test]
fn migrate_cut_qemu() -> Result<()> {
    let Pair {
        hosts: [mut a, mut b],
        link,
    } = boot("migrate-cut-qemu", [Emulator::Qemu; 2])?;
    let free = free_mib(&mut b)?;
    GUEST.create(&mut a)?;
    GUEST.console_until(&mut a, "D t=", BOOT_TIMEOUT)?;
    let before = written(&mut a, 0)?;
    // Slow enough to be cut on the way.
    let line = format!("xl migrate --bandwidth=1 lin plaintext:{OTHER}");
    a.console().send_line(&line)?;
    let deadline = Instant::now() + MOVE_TIMEOUT;
    while state(&mut b, "lin")?.is_none() {
        ensure!(Instant::now() < deadline, "nothing arrives");
    }
    let refused = b.command("xl destroy lin")?;
    ensure!(refused.contains("is being moved here"), "{refused}");
    link.cut();
    let said = a.console().expect_prompt(SILENCE * 2)?;
    ensure!(said.contains("domain 'lin' was not moved"), "{said}");
    let after = written(&mut a, before)?;
    written(&mut a, after)?;
    let deadline = Instant::now() + SILENCE * 2;
    while state(&mut b, "lin")?.is_some() {
        ensure!(Instant::now() < deadline, "it is never given up there");
        std::thread::sleep(LOOK_PERIOD);
    }
    no_less(free, free_mib(&mut b)?)?;
    // When they find each other again it moves all the same.
    link.restore();
    ping_until_clean(&mut a, OTHER)?;
    migrate(&mut a, &mut b, "", &OTHER.to_string())?;
    Ok(())
}

/// Waits until `xl migrate-status` says something.
fn status_until(host: &mut Host, wanted: &str, limit: Duration) -> Result<()> {
    let deadline = Instant::now() + limit * host.emulator().slowness();
    loop {
        let said = host.command("xl migrate-status")?;
        if said.contains(wanted) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "never '{wanted}':\n{said}");
        std::thread::sleep(LOOK_PERIOD);
    }
}

/// A guest that writes faster than the link carries goes before its memory; the link is cut while that is fetched.
#[test]
fn migrate_postcopy_cut_qemu() -> Result<()> {
    const RESTLESS: LinuxGuest<'static> = LinuxGuest {
        words: "godwit.run=guest,dirty,mib=8,rate=400,heartbeat=0",
        ..GUEST
    };
    let Pair {
        hosts: [mut a, mut b],
        link,
    } = boot("migrate-postcopy-qemu", [Emulator::Qemu; 2])?;
    RESTLESS.create(&mut a)?;
    RESTLESS.console_until(&mut a, "D t=", BOOT_TIMEOUT)?;
    let before = written(&mut a, 0)?;
    let options = "--bandwidth=1 --max-downtime=1 --deadline=1 --on-miss=postcopy";
    let line = format!("xl migrate {options} lin plaintext:{OTHER}");
    a.console().send_line(&line)?;
    status_until(&mut b, "fetch", MOVE_TIMEOUT)?;
    link.cut();
    status_until(&mut b, "link lost", SILENCE)?;
    let refused = b.command("xl migrate-cancel lin")?;
    ensure!(refused.contains("part of its memory"), "{refused}");
    link.restore();
    let said = a.console().expect_prompt(SILENCE * 3)?;
    ensure!(said.contains("moved domain 'lin'"), "{said}");
    ensure!(said.contains("digests are equal"), "{said}");
    let after = written(&mut b, before)?;
    written(&mut b, after)?;
    ensure!(state(&mut a, "lin")?.is_none(), "it is still listed");
    Ok(())
}

/// A guest that has not begun yet is moved paused, to its own host first, and begins on the other host.
fn begins_there(label: &str, emulators: [Emulator; 2]) -> Result<()> {
    let Pair {
        hosts: [mut a, mut b],
        link: _link,
    } = boot(label, emulators)?;
    let line = godwit_boot_tests::guest::create_line("t", "hello");
    a.command(&line.replace("xl create", "xl create -p"))?;
    let line = format!("xl migrate --max-downtime=9000 --verify t plaintext:{OTHER}");
    let timeout = MOVE_TIMEOUT * a.emulator().slowness();
    let said = a.console().command(&line, timeout)?;
    ensure!(said.contains("moved domain 't'"), "{line}:\n{said}");
    ensure!(state(&mut a, "t")?.is_none(), "it is still listed");
    let waits = state(&mut b, "t")?;
    ensure!(
        waits.as_ref().is_some_and(|state| !state.contains('s')),
        "it has begun by itself: {waits:?}"
    );
    b.command("xl unpause t")?;
    godwit_boot_tests::guest::passes(&mut b, "t", "hello")
}

#[test]
fn migrate_paused_bochs() -> Result<()> {
    begins_there("migrate-paused-bochs", [Emulator::Bochs; 2])
}
