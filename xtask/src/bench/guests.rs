//! The guests group: Debian's kernel and our ramdisk, one vCPU and 256 MiB, where a tick is an
//! instruction, beside KVM's figures for the same guest on the same emulated machines.
//!
//! The guest's time-stamp counter begins when its domain is made, so its value in user space is
//! everything since: dom0's loading, the boot, and every exit in it. Nobody asks the host anything
//! while the guest boots, except how far it is, seldom. The rows of disk and network: see served.rs.

use super::served::{self, OtherEnd};
use super::{Better, Row, exits, fact};
use crate::{shell, task_image};
use anyhow::{Context, Result, ensure};
use godwit_harness::{
    DiskConfig, DiskInterface, Emulator, Flavour, GuestKernel, Host, HostConfig, Image, Link,
    Network, PortKind, Ramdisk, StoreImage, VolumeContents, guest_fact,
};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The guest's name.
const NAME: &str = "b";
/// Its memory.
const MEMORY_MIB: f64 = 256.0;
/// What a domain may cost beyond its memory: this share of it and this much.
const OVERHEAD_SHARE: f64 = 0.02;
const OVERHEAD_MIB: f64 = 2.0;
/// Guest uptime may be this much above that of a boot without hypervisor.
const UPTIME_SHARE: f64 = 1.05;
/// For the whole guest, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Between two looks whether it has ended, on QEMU.
const LOOK_PERIOD: Duration = Duration::from_secs(4);
/// What the guest does by itself: the boot and the exits. Then it is asked for more.
const WORDS: &str = "godwit.ticks godwit.run=guest,exits";
/// Bytes of a TCP stream: Bochs' card takes one frame an emulated millisecond.
const STREAM_BYTES_QEMU: u64 = 8 << 20;
const STREAM_BYTES_BOCHS: u64 = 1 << 20;
/// The guest's disk, in MiB: more than it uses.
const DISK_MIB: u64 = 32;
/// One figure of the program in the guest. Peers: KVM of Linux 6.1 on QEMU (SVM) and Bochs (VT-x),
/// the same loops in the same guest; user-space devices where dom0 or no device answers.
struct Figure {
    /// Its name in the output.
    key: &'static str,
    /// Its row's name.
    name: &'static str,
    /// Whether KVM's figure is what we want to stay under.
    is_goal: bool,
    peers: Option<(f64, f64)>,
}

const fn figure(
    key: &'static str,
    name: &'static str,
    is_goal: bool,
    peers: Option<(f64, f64)>,
) -> Figure {
    Figure {
        key,
        name,
        is_goal,
        peers,
    }
}

const FIGURES: &[Figure] = &[
    figure("cpuid", "guest cpuid", true, Some((3067.0, 982.0))),
    figure(
        "in-unused",
        "guest port, unused, read",
        true,
        Some((4950.0, 4980.0)),
    ),
    figure(
        "out-unused",
        "guest port, unused, write",
        true,
        Some((4950.0, 4980.0)),
    ),
    figure(
        "in-uart",
        "guest port, UART in the hypervisor",
        true,
        Some((5020.0, 5060.0)),
    ),
    figure(
        "in-pic",
        "guest port, PIC in the hypervisor",
        true,
        Some((1428.0, 1252.0)),
    ),
    figure(
        "in-dom0",
        "guest port, device in dom0",
        true,
        Some((4950.0, 4984.0)),
    ),
    figure("timer", "guest timer wake-up latency", false, None),
    figure("syscall", "guest system call", false, Some((391.0, 389.0))),
    figure(
        "context-switch",
        "guest context switch",
        true,
        // Bochs: this program and this kernel (6.1.192) under that kernel's KVM. An older kernel, and another
        // program with the same loop, took 5465.
        Some((6317.0, 5613.0)),
    ),
    figure(
        "first-touch",
        "guest first touch of a page",
        true,
        Some((12266.0, 4324.0)),
    ),
    figure("touch-again", "guest page fault, page known", false, None),
    figure("fork", "guest fork, exit, wait", false, None),
];

/// KVM's boots and the boots without hypervisor.
struct Boot {
    instructions: f64,
    uptime_seconds: f64,
    bare_uptime_seconds: f64,
}

fn peer(emulator: Emulator) -> Boot {
    match emulator {
        Emulator::Qemu | Emulator::Kvm => Boot {
            instructions: 1.775e9,
            uptime_seconds: 1.40,
            bare_uptime_seconds: 1.32,
        },
        Emulator::Bochs => Boot {
            instructions: 1.49e9,
            uptime_seconds: 1.28,
            bare_uptime_seconds: 1.43,
        },
    }
}

/// Measures the whole group.
pub(crate) fn measure(emulators: &[Emulator]) -> Result<Vec<Row>> {
    task_image::build_checked()?;
    let mut rows = Vec::new();
    for &emulator in emulators {
        shell::say(&format!("counting guests on {}", emulator.name()));
        rows.extend(counted(emulator)?);
    }
    Ok(rows)
}

/// One vCPU: the boot, the exits, its disk and its network. Two: inter-processor interrupts.
fn counted(emulator: Emulator) -> Result<Vec<Row>> {
    let mut site = Site::boot(emulator, false)?;
    let (said, facts) = guest(&mut site.host, 1, WORDS)?;
    let mut rows = boot(emulator, &said, &facts)?;
    for figure in FIGURES {
        rows.extend(exit(emulator, &said, figure)?);
    }
    note(&rows);
    rows.extend(note(&served::disk(&mut site.host, NAME)?));
    let stream_bytes = match emulator {
        Emulator::Qemu | Emulator::Kvm => STREAM_BYTES_QEMU,
        Emulator::Bochs => {
            rows.extend(note(&served::network(
                &mut site.host,
                NAME,
                STREAM_BYTES_BOCHS,
            )?));
            0
        }
    };
    ask(&mut site.host, &format!("xl destroy {NAME}"))?;
    let (said, _) = guest(&mut site.host, 2, "godwit.run=guest,exits,only=ipi")?;
    let ipi = figure(
        "ipi",
        "guest ipi round trip, two vCPUs of one CPU",
        false,
        None,
    );
    rows.extend(exit(emulator, &said, &ipi)?);
    note(&rows);
    drop(site);
    if stream_bytes > 0 {
        // Where idle time is skipped, TCP's timers run out before the other end can answer.
        let mut site = Site::boot(emulator, true)?;
        guest(&mut site.host, 1, "")?;
        rows.extend(served::network(&mut site.host, NAME, stream_bytes)?);
    }
    Ok(rows)
}

/// Shows what has been measured so far: what comes may take long, and fail.
fn note(rows: &[Row]) -> Vec<Row> {
    eprint!("{}", super::table(rows));
    rows.to_vec()
}

/// A host with a store, on a link with a program at the other end. Fields drop in order.
struct Site {
    host: Host,
    _other: OtherEnd,
    _link: Link,
}

impl Site {
    /// Boots it up to the prompt. `waits`: idle time is not skipped.
    fn boot(emulator: Emulator, waits: bool) -> Result<Site> {
        let kernel = GuestKernel::fetch(Flavour::Cloud)?;
        let label = format!("bench-guests-{}", emulator.name());
        let mut image = Image::new(&label, "host-a")?
            .address(served::ADDRESS)
            .module("linux", kernel.image())
            .module("initrd", &Ramdisk::new(&kernel)?.write(&label)?);
        let interface = match emulator {
            Emulator::Qemu | Emulator::Kvm => DiskInterface::VirtioBlk,
            Emulator::Bochs => {
                // Its card takes no frames but its own.
                image = image.dom0_options("bridge=off");
                DiskInterface::Ide
            }
        };
        let link = Link::start(&[emulator.into(), PortKind::Prompt], 1)?;
        let other = OtherEnd::start(link.port(1))?;
        let config = HostConfig::new(emulator, &image.write()?, &label)
            .exact_time(true)
            .waits(waits)
            .memory_mib(1024)
            .network(Network::Link(link.port(0)))
            .disk(DiskConfig::new(disk(&label)?, interface));
        let mut host = Host::boot(&config)?;
        host.wait_prompt()?;
        Ok(Site {
            host,
            _other: other,
            _link: link,
        })
    }
}

/// A disk for the host: a store with one volume for the guest.
fn disk(label: &str) -> Result<PathBuf> {
    let out = shell::out_dir()?;
    let disk = out.join(format!("{label}.img"));
    StoreImage::new(&disk)
        .label("main")
        .volume("bench", VolumeContents::Zeroes(DISK_MIB << 20))
        .write()?;
    Ok(disk)
}

/// A command with the time-out of a guest: the line is slow, and the guest goes on meanwhile.
pub(super) fn ask(host: &mut Host, line: &str) -> Result<String> {
    let timeout = TIMEOUT * host.emulator().slowness();
    host.console().command(line, timeout)
}

/// Makes a guest and waits for its shell. Returns its console and what the host says about it.
fn guest(host: &mut Host, vcpus: u32, words: &str) -> Result<(String, String)> {
    let line = format!(
        "xl create /dev/null name={NAME} kernel=module:linux ramdisk=module:initrd \
         memory={MEMORY_MIB} vcpus={vcpus} cpu_policy=host on_poweroff=preserve on_reboot=preserve \
         on_crash=preserve disk='[\"main/bench,raw,vda,w\"]' vif='[\"type=nat\"]' \
         extra=\"console=ttyS0 panic=-1 {words}\""
    );
    let created = ask(host, &line)?;
    ensure!(created.contains("created domain"), "{line}:\n{created}");
    let slowness = host.emulator().slowness();
    let deadline = Instant::now() + TIMEOUT * slowness;
    loop {
        std::thread::sleep(LOOK_PERIOD * slowness);
        let list = ask(host, "xl list")?;
        let row = list.lines().find(|line| line.starts_with(NAME));
        let state = row.and_then(|row| row.split_whitespace().nth(4));
        let state = state.with_context(|| format!("no {NAME} in:\n{list}"))?;
        // One that waits may be at its shell. Showing a whole console would disturb one that measures.
        let over = state.contains(['s', 'c']) || Instant::now() > deadline;
        if !over && !state.contains('b') {
            continue;
        }
        let said = ask(host, &format!("xl console -n {NAME}"))?;
        if said.contains("GUEST end shell") && !said.contains(" BAD ") {
            return Ok((said, ask(host, &format!("xl list -l {NAME}"))?));
        }
        ensure!(!over, "the guest failed, state {state}:\n{said}");
    }
}

fn boot(emulator: Emulator, said: &str, facts: &str) -> Result<Vec<Row>> {
    let kvm = peer(emulator);
    let row = |name: &str, value, unit, goal, peer| Row {
        name: name.to_owned(),
        emulator: emulator.name(),
        value,
        unit,
        goal,
        better: Better::Less,
        peer,
    };
    let uptime_goal = kvm.bare_uptime_seconds * UPTIME_SHARE;
    let overhead_goal = MEMORY_MIB * OVERHEAD_SHARE + OVERHEAD_MIB;
    Ok(vec![
        row(
            "guest boot, xl create to user space",
            guest_fact(said, "ticks")?,
            "instr",
            Some(kvm.instructions),
            Some(kvm.instructions),
        ),
        row(
            "guest boot, its uptime in user space",
            guest_fact(said, "uptime")? * 1000.0,
            "ms",
            Some(uptime_goal * 1000.0),
            Some(kvm.uptime_seconds * 1000.0),
        ),
        row(
            "guest boot and bench, exits",
            fact(facts, "exits")?,
            "",
            None,
            None,
        ),
        row(
            "guest memory overhead",
            fact(facts, "overhead_kib")?,
            "KiB",
            Some(overhead_goal * 1024.0),
            None,
        ),
    ])
}

/// The figure's row; none where the guest says that it cannot measure it.
fn exit(emulator: Emulator, said: &str, figure: &Figure) -> Result<Option<Row>> {
    let skipped = format!("EB {} skipped: ", figure.key);
    if let Some(why) = said.lines().find_map(|line| line.strip_prefix(&skipped)) {
        shell::say(&format!(
            "not measured on {}: {}: {why}",
            emulator.name(),
            figure.name
        ));
        return Ok(None);
    }
    let peer = figure.peers.map(|(qemu, bochs)| match emulator {
        Emulator::Qemu | Emulator::Kvm => qemu,
        Emulator::Bochs => bochs,
    });
    Ok(Some(Row {
        name: figure.name.to_owned(),
        emulator: emulator.name(),
        value: exits::ticks(said, figure.key)?,
        unit: "ticks",
        goal: peer.filter(|_| figure.is_goal),
        better: Better::Less,
        peer,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said() -> String {
        let mut text =
            "GUEST uptime=1.25\nGUEST ticks=1500000000\nEB empty iters=9 ticks=9\n".to_owned();
        for figure in FIGURES {
            text += &match figure.key {
                "in-dom0" => "EB in-dom0 skipped: no device\n".to_owned(),
                key => format!("EB {key} iters=10 ticks=10000\n"),
            };
        }
        text
    }

    #[test]
    fn rows_carry_the_peer_and_the_goal_of_their_emulator() {
        let facts = "exits : 7\noverhead_kib : 900\n";
        let rows = boot(Emulator::Bochs, &said(), facts).unwrap();
        assert_eq!(rows[0].peer, Some(1.49e9));
        assert_eq!(rows[1].value, 1250.0);
        assert_eq!(rows[3].goal, Some(7290.88));
        let cpuid = exit(Emulator::Qemu, &said(), &FIGURES[0]).unwrap().unwrap();
        assert_eq!((cpuid.value, cpuid.goal), (1000.0, Some(3067.0)));
        let call = FIGURES
            .iter()
            .find(|figure| figure.key == "syscall")
            .unwrap();
        assert_eq!(
            exit(Emulator::Qemu, &said(), call).unwrap().unwrap().goal,
            None
        );
    }

    #[test]
    fn what_cannot_be_measured_is_left_out_and_what_is_missing_is_an_error() {
        let dom0 = FIGURES
            .iter()
            .find(|figure| figure.key == "in-dom0")
            .unwrap();
        assert!(exit(Emulator::Qemu, &said(), dom0).unwrap().is_none());
        assert!(exit(Emulator::Qemu, "", dom0).is_err());
        assert!(guest_fact("GUEST cpus=4", "cp").is_err());
    }
}
