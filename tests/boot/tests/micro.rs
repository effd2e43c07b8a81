//! Micro-VMs: each behaviour of the virtual machine as a tiny guest that judges itself, on both
//! vendors; and guests that misbehave beside a dom0 that must go on.
//!
//! The guests of one vendor run one after the other on one host: a boot costs more than a guest.

use anyhow::{Context, Result, ensure};
use godwit_boot_tests::guest::{
    GUEST_TIMEOUT, clear, console_until, create, create_line, fact, passes, state,
};
use godwit_boot_tests::{PEER, boot, ping_until_clean};
use godwit_harness::{Emulator, Host};
use std::time::{Duration, Instant};

/// How long a load runs before dom0 is asked whether it still lives.
const LOAD_TIME: Duration = Duration::from_secs(2);

/// How much of its own time dom0 may use up from one command to the next under a load. On one CPU of Bochs it was five
/// seconds when interrupts were shut out, and is a few tenths.
const ANSWER_S: f64 = 2.0;

/// Guests that end with a verdict.
const JUDGES: &[&str] = &[
    "hello",
    "cpuid",
    "msr",
    "port",
    "string-port",
    "device",
    "msi",
    "fault",
    "exceptions",
    "paging",
    "hlt",
    "priority",
    "hypercall",
    "fpu",
    "real",
];
/// Guests that announce the machine's end as the right ending.
const ENDERS: &[(&str, &str)] = &[
    ("triple", "EXPECT-CRASH"),
    ("reset", "EXPECT-REBOOT"),
    ("fault-beyond", "EXPECT-CRASH"),
];
/// Guests without end.
const LOADS: &[&str] = &[
    "spin",
    "cpuid-flood",
    "hypercall-flood iters=4000000000",
    "flood-console",
    "device-flood",
];

fn judge(host: &mut Host, test: &str) -> Result<()> {
    let name = format!("m-{test}");
    create(host, &name, test)?;
    passes(host, &name, test)?;
    clear(host, &name)
}

/// A guest that ends its machine: afterwards it does not run, and the host does.
fn ender(host: &mut Host, test: &str, announced: &str) -> Result<()> {
    let name = format!("m-{test}");
    create(host, &name, test)?;
    console_until(host, &name, announced)?;
    let deadline = Instant::now() + GUEST_TIMEOUT * host.emulator().slowness();
    while let Some(now) = state(host, &name)? {
        if now.contains(['s', 'c']) {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{test} is still in state {now:?}"
        );
    }
    clear(host, &name)
}

/// Seconds that dom0 has run.
fn control_time_s(host: &mut Host) -> Result<f64> {
    let list = host.command("xl list")?;
    let row = list.lines().find(|line| line.starts_with("Domain-0 "));
    let time = row.and_then(|row| row.split_whitespace().last());
    Ok(time.context("xl list without Domain-0")?.parse()?)
}

/// A guest that never ends: dom0 answers, pings, sees it run, and can destroy it.
fn load(host: &mut Host, test: &str) -> Result<()> {
    let name = format!("m-{}", test.split(' ').next().unwrap_or(test));
    create(host, &name, test)?;
    std::thread::sleep(LOAD_TIME * host.emulator().slowness());
    let now = state(host, &name)?.with_context(|| format!("{test} ended by itself"))?;
    ensure!(!now.contains(['s', 'c', 'd']), "{test} does not run: {now}");
    let before_s = control_time_s(host)?;
    let used_s = control_time_s(host)? - before_s;
    ensure!(used_s < ANSWER_S, "dom0 ran {used_s} s to print a list");
    ping_until_clean(host, PEER)?;
    clear(host, &name)
}

/// Runs every subject, then reports all failures at once.
fn each<T: Copy>(
    host: &mut Host,
    subjects: &[T],
    name: impl Fn(T) -> &'static str,
    run: impl Fn(&mut Host, T) -> Result<()>,
) -> Result<()> {
    let mut failures = Vec::new();
    for &subject in subjects {
        match run(host, subject) {
            Ok(()) => println!(
                "micro {} on {} ... ok",
                name(subject),
                host.emulator().name()
            ),
            Err(error) => failures.push(format!("{}: {error:#}", name(subject))),
        }
        ensure!(host.is_running()?, "the host died under {}", name(subject));
    }
    ensure!(
        failures.is_empty(),
        "{} failed:\n{}",
        failures.len(),
        failures.join("\n---\n")
    );
    Ok(())
}

fn judges(label: &str, emulator: Emulator) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    each(&mut bench.host, JUDGES, |test| test, judge)
}

fn enders(label: &str, emulator: Emulator) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    each(
        &mut bench.host,
        ENDERS,
        |(test, _)| test,
        |host, (test, announced)| ender(host, test, announced),
    )
}

fn loads(label: &str, emulator: Emulator, cpus: u32) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config.cpus(cpus))?;
    each(&mut bench.host, LOADS, |test| test, load)
}

/// Two guests with different register contents take turns on one CPU: neither ever sees the
/// other's. Every third round halts, so each guest is switched away from that often at least.
fn neighbours(label: &str, emulator: Emulator, rounds: u32) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    let host = &mut bench.host;
    for seed in [1, 2] {
        let line = create_line(
            &format!("f{seed}"),
            &format!("fpu seed={seed} iters={rounds}"),
        );
        host.command(&line.replacen("create", "create -p", 1))?;
    }
    host.command("xl unpause f1; xl unpause f2")?;
    for name in ["f1", "f2"] {
        ensure!(
            !host
                .command(&format!("xl console -n {name}"))?
                .contains("MICRO fpu "),
            "{name} ended before both had begun: {rounds} rounds are too few"
        );
    }
    for name in ["f1", "f2"] {
        passes(host, name, "fpu")?;
        let exits: u32 = fact(&host.command(&format!("xl list -l {name}"))?, "exits")?.parse()?;
        ensure!(exits > rounds, "{name} left the CPU only {exits} times");
        clear(host, name)?;
    }
    Ok(())
}

#[test]
fn micro_neighbours_qemu() -> Result<()> {
    neighbours("micro-neighbours-qemu", Emulator::Qemu, 9000)
}

#[test]
fn micro_neighbours_bochs() -> Result<()> {
    neighbours("micro-neighbours-bochs", Emulator::Bochs, 6000)
}

#[test]
fn micro_judges_qemu() -> Result<()> {
    judges("micro-judges-qemu", Emulator::Qemu)
}

#[test]
fn micro_judges_bochs() -> Result<()> {
    judges("micro-judges-bochs", Emulator::Bochs)
}

#[test]
fn micro_enders_qemu() -> Result<()> {
    enders("micro-enders-qemu", Emulator::Qemu)
}

#[test]
fn micro_enders_bochs() -> Result<()> {
    enders("micro-enders-bochs", Emulator::Bochs)
}

#[test]
fn micro_loads_qemu() -> Result<()> {
    loads("micro-loads-qemu", Emulator::Qemu, 1)
}

#[test]
fn micro_loads_qemu_two_cpus() -> Result<()> {
    loads("micro-loads-qemu-two-cpus", Emulator::Qemu, 2)
}

#[test]
fn micro_loads_bochs() -> Result<()> {
    loads("micro-loads-bochs", Emulator::Bochs, 1)
}
