//! Who may send a domain to whom: hosts that do not know each other refuse by name, those that their
//! operators have introduced meet encrypted, and nothing comes in clear unasked.

use anyhow::{Result, ensure};
use godwit_boot_tests::guest::{console_until, state};
use godwit_boot_tests::{HOST, OTHER, boot_two, ping_until_clean};
use godwit_harness::{Emulator, Host};
use std::time::{Duration, Instant};

/// A guest that never ends.
const CREATE: &str = "xl create /dev/null name=m kernel=module:micro memory=8 extra=spin";
/// For one command that talks to the other host.
const TALK_TIMEOUT: Duration = Duration::from_secs(60);

fn moving_says(host: &mut Host, arguments: &str, wanted: &str) -> Result<()> {
    let line = format!("xl migrate {arguments}");
    let said = host.console().command(&line, TALK_TIMEOUT)?;
    ensure!(said.contains(wanted), "{line}, wanted '{wanted}':\n{said}");
    Ok(())
}

#[test]
fn migrate_between_known_hosts_qemu() -> Result<()> {
    let ([mut a, mut b], _link) = boot_two("known-hosts", [Emulator::Qemu; 2])?;
    ping_until_clean(&mut a, OTHER)?;
    let made = a.command(CREATE)?;
    ensure!(made.contains("created domain 'm'"), "{made}");
    console_until(&mut a, "m", "MICRO spin ENDLESS")?;
    moving_says(&mut a, "m host-b", "no host 'host-b'")?;
    let refused = "it takes only encrypted connections";
    moving_says(&mut a, &format!("--plaintext m {OTHER}"), refused)?;
    let (of_a, of_b) = (a.fingerprint()?, b.fingerprint()?);
    ensure!(of_a != of_b, "both hosts have the key {of_a}");
    a.command(&format!("xl host-add host-b {OTHER} {of_a}"))?;
    let own = a.command("xl host-list")?;
    ensure!(!own.contains(&of_a), "a host added itself:\n{own}");
    // Somebody else's fingerprint.
    let wrong: String = of_b.chars().rev().collect();
    a.command(&format!("xl host-add host-b {OTHER} {wrong}"))?;
    moving_says(&mut a, "m host-b", "wrong key: ")?;
    a.command("xl host-remove host-b")?;
    a.command(&format!("xl host-add host-b {OTHER} {of_b}"))?;
    moving_says(&mut a, "m host-b", "it does not know this host")?;
    ensure!(state(&mut a, "m")?.is_some(), "refused, and gone");
    ensure!(state(&mut b, "m")?.is_none(), "refused, and there");
    b.command(&format!("xl host-add host-a {HOST} {of_a}"))?;
    moving_says(&mut a, "--dry-run m host-b", "can move to host-b")?;
    ensure!(state(&mut a, "m")?.is_some(), "planned, and gone");
    ensure!(state(&mut b, "m")?.is_none(), "planned, and there");
    a.command(&CREATE.replace("name=m", "name=m2"))?;
    console_until(&mut a, "m2", "MICRO spin ENDLESS")?;
    a.command("xl migrate-limit 1")?;
    moving_says(
        &mut a,
        "--max-downtime=9000 m m2 host-b",
        "2 of 2 domains were moved",
    )?;
    for name in ["m", "m2"] {
        ensure!(state(&mut a, name)?.is_none(), "moved, and still here");
        ensure!(state(&mut b, name)?.is_some(), "moved, and not there");
    }
    let history = a.command("xl migrate-history --json")?;
    let moved = history.matches("\"outcome\":\"moved\"").count();
    ensure!(
        moved == 2 && history.contains("\"predicted\":{"),
        "{history}"
    );
    evacuate_and_return(&mut b, &mut a)
}

/// Both domains go to the other host and come back.
fn evacuate_and_return(from: &mut Host, to: &mut Host) -> Result<()> {
    let says = |host: &mut Host, line: &str, wanted: &str| {
        let said = host.console().command(line, TALK_TIMEOUT)?;
        ensure!(said.contains(wanted), "{line}, wanted '{wanted}':\n{said}");
        anyhow::Ok(())
    };
    says(from, "xl host-evacuate host-a", "2 of 2 domains")?;
    ensure!(state(to, "m")?.is_some(), "evacuated, and not there");
    says(from, "xl host-return host-a", "m2: it comes")?;
    let end = Instant::now() + TALK_TIMEOUT;
    while state(from, "m")?.is_none() || state(from, "m2")?.is_none() {
        ensure!(Instant::now() < end, "they do not come back");
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}
