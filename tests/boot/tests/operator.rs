//! What an operator types: views, debug keys, mistakes, and limits, on both vendors.

use anyhow::{Result, ensure};
use godwit_boot_tests::guest::{clear, create, create_line, fact, passes, state};
use godwit_boot_tests::{boot, ensure_all};
use godwit_harness::{Emulator, Host};
use std::time::Duration;

/// For something to appear on the console, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Ctrl-A three times switches the keyboard between dom0 and the hypervisor.
const SWITCH: &[u8] = b"\x01\x01\x01";
const CTRL_C: &[u8] = b"\x03";
/// How often a domain is made and destroyed to see a leak.
const ROUNDS: u32 = 20;

/// Lines that are mistakes, and words that the answer must have.
const MISTAKES: &[(&str, &[&str])] = &[
    ("frobnicate", &["unknown command 'frobnicate'", "help"]),
    ("xl lst", &["did you mean 'list'"]),
    ("xl destroy", &["xl destroy", "DOMAIN"]),
    ("xl destroy nobody", &["nobody"]),
    ("xl console -n 99", &["99"]),
    ("echo \"open", &["quote", "not closed"]),
    ("ping 1.2.3", &["1.2.3"]),
    ("xl debug-keys Z", &["no debug key 'Z'"]),
    ("xl rename a b", &["no domain 'a'"]),
    ("xl vcpu-set a 2", &["not implemented"]),
    ("xl create /dev/null", &["name"]),
    (
        "xl create /dev/null name=a memory=x kernel=module:micro",
        &["memory"],
    ),
    (
        "xl create /dev/null name=a memory=8 kernel=module:none",
        &["none", "micro"],
    ),
    (
        "xl create /dev/null name=a memory=8 kernel=module:micro colour=red",
        &["colour"],
    ),
];

fn operator(label: &str, emulator: Emulator) -> Result<()> {
    let mut bench = boot(label, emulator, |config| config)?;
    let host = &mut bench.host;
    views(host)?;
    top(host)?;
    debug_keys(host)?;
    mistakes(host)?;
    too_big(host)?;
    no_leak(host)
}

fn views(host: &mut Host) -> Result<()> {
    let vcpus = host.command("xl vcpu-list")?;
    ensure_all(&vcpus, &["VCPU", "Affinity", "Domain-0"])?;
    ensure!(
        vcpus.lines().count() == 2,
        "one vCPU and a heading:\n{vcpus}"
    );
    ensure_all(&host.command("xl dmesg")?, &["Godwit", "CPU(s)"])?;
    ensure_all(&host.command("help")?, &["xl create", "poweroff", "ping"])?;
    ensure_all(&host.command("modules")?, &["micro"])?;
    ensure_all(&host.command("ip")?, &["10.77.0.1/24"])
}

/// The live view updates by itself and ends at a key.
fn top(host: &mut Host) -> Result<()> {
    let timeout = TIMEOUT * host.emulator().slowness();
    for end in [b"q", CTRL_C] {
        let console = host.console();
        console.send_line("xl top -d 1")?;
        for _update in 0..2 {
            console.expect("Domain-0", timeout)?;
        }
        console.send(end)?;
        console.expect_prompt(timeout)?;
    }
    let batch = host.command("xl top -b -i 2 -d 1")?;
    ensure!(
        batch.matches("Domain-0").count() == 2,
        "two updates:\n{batch}"
    );
    Ok(())
}

/// The hypervisor takes the keyboard, answers its keys, and gives the keyboard back.
fn debug_keys(host: &mut Host) -> Result<()> {
    let timeout = TIMEOUT * host.emulator().slowness();
    let console = host.console();
    console.send(SWITCH)?;
    console.expect("input goes to the hypervisor", timeout)?;
    for (key, answer) in [
        (b"h", "run queues"),
        (b"q", "domain 0 'Domain-0'"),
        (b"r", "CPU 0"),
        (b"m", "memory"),
    ] {
        console.send(key)?;
        console.expect(answer, timeout)?;
    }
    console.send(SWITCH)?;
    console.expect("input goes to dom0", timeout)?;
    console.send(CTRL_C)?;
    console.expect_prompt(timeout)?;
    ensure_all(
        &host.command("xl debug-keys q; xl dmesg")?,
        &["domain 0 'Domain-0'"],
    )
}

/// Nothing wrong is done, and what was wrong is named.
fn mistakes(host: &mut Host) -> Result<()> {
    let mut failures = Vec::new();
    for (line, words) in MISTAKES {
        let answer = host.command(line)?;
        if let Err(error) = ensure_all(&answer, words) {
            failures.push(format!("after {line:?}: {error}"));
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("\n"));
    create(host, "twin", "spin")?;
    let again = host.command(&create_line("twin", "hello"))?;
    ensure_all(&again, &["there is a domain 'twin' already"])?;
    host.command("xl vcpu-pin twin all 0; xl sched-credit2 -d twin -w 512 -c 50")?;
    let shares = host.command("xl sched-credit2 -d twin")?;
    ensure_all(&shares, &["twin", "512", "50"])?;
    clear(host, "twin")?;
    let list = host.command("xl list")?;
    ensure!(
        list.lines().count() == 2,
        "a mistake made a domain:\n{list}"
    );
    Ok(())
}

fn free_memory(host: &mut Host) -> Result<u64> {
    let info = host.command("xl info")?;
    Ok(fact(&info, "free_memory_kib")?.parse()?)
}

/// A domain larger than the free memory is refused, and what it had taken is free again.
fn too_big(host: &mut Host) -> Result<()> {
    let before = free_memory(host)?;
    let line = create_line("big", "hello").replace("memory=8", "memory=100000");
    let answer = host.command(&line)?;
    ensure_all(&answer, &["memory"])?;
    ensure!(
        !answer.contains("created"),
        "100000 MiB were given:\n{answer}"
    );
    ensure!(state(host, "big")?.is_none(), "it is listed");
    let after = free_memory(host)?;
    ensure!(after == before, "{before} KiB were free, now {after}");
    Ok(())
}

/// Guests come and go, by their own end, by a crash and by force; all they had comes back.
fn no_leak(host: &mut Host) -> Result<()> {
    let round = |host: &mut Host, number: u32| -> Result<()> {
        match number % 3 {
            0 => {
                create(host, "leak", "hello")?;
                passes(host, "leak", "hello")?;
            }
            1 => create(host, "leak", "triple")?,
            _ => create(host, "leak", "spin")?,
        }
        clear(host, "leak")
    };
    // Tables that grow once and stay are no leak.
    for number in 0..3 {
        round(host, number)?;
    }
    let before = free_memory(host)?;
    for number in 0..ROUNDS {
        round(host, number)?;
    }
    let after = free_memory(host)?;
    ensure!(
        after == before,
        "{before} KiB were free, after {ROUNDS} domains {after}"
    );
    Ok(())
}

#[test]
fn operator_qemu() -> Result<()> {
    operator("operator-qemu", Emulator::Qemu)
}

#[test]
fn operator_bochs() -> Result<()> {
    operator("operator-bochs", Emulator::Bochs)
}
