//! The boot group: image sizes, and one counted boot on each emulator with what its exits cost.

use super::{Better, Row, exits, fact};
use crate::{shell, task_image};
use anyhow::{Result, ensure};
use godwit_harness::{Artefact, Emulator, Host, HostConfig, Image, Link, Network, PortKind};
use std::process::Command;

/// dom0's static address: the boot that is counted ends with a network that is up.
const ADDRESS: &str = "10.77.0.1/24";
/// Instructions from GRUB's hand-over to the prompt.
const BOOT_GOAL: f64 = 300e6;
/// Xen 4.17 with a Linux dom0: some 200 s of Bochs at about 15 million instructions a second.
const BOOT_PEER_BOCHS: f64 = 3.0e9;
/// What the hypervisor may take of the memory: 1 % and this much.
const MEMORY_GOAL_KIB: f64 = 16.0 * 1024.0;
const MEMORY_GOAL_SHARE: f64 = 0.01;

/// Measures the whole group.
pub(crate) fn measure(emulators: &[Emulator]) -> Result<Vec<Row>> {
    task_image::build_checked()?;
    let mut rows = sizes()?;
    for &emulator in emulators {
        shell::say(&format!("counting on {}", emulator.name()));
        rows.extend(counted(emulator)?);
    }
    Ok(rows)
}

/// Sizes of the stripped images.
fn sizes() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (artefact, name, goal_kib) in [
        (Artefact::Hypervisor, "size hypervisor stripped", 1024.0),
        (Artefact::Dom0, "size dom0 stripped", 3072.0),
    ] {
        let stripped = shell::out_dir()?.join("stripped.elf");
        shell::run(
            Command::new("objcopy")
                .arg("--strip-all")
                .args([artefact.built()?, stripped.clone()]),
        )?;
        let size = std::fs::metadata(&stripped)?.len();
        std::fs::remove_file(stripped)?;
        rows.push(Row {
            name: name.to_owned(),
            emulator: "build",
            value: size as f64 / 1024.0,
            unit: "KiB",
            goal: Some(goal_kib),
            better: Better::Less,
            peer: None,
        });
    }
    Ok(rows)
}

/// Boots one host where a TSC tick is an instruction, and reads off what it says.
fn counted(emulator: Emulator) -> Result<Vec<Row>> {
    let label = format!("bench-{}", emulator.name());
    let image = Image::new(&label, "host-a")?.address(ADDRESS).write()?;
    // Nobody else is on the link: the address is static, and the link is what makes it "up".
    let link = Link::start(&[emulator.into(), PortKind::Prompt], 1)?;
    let config = HostConfig::new(emulator, &image, &label)
        .exact_time(true)
        .network(Network::Link(link.port(0)));
    let mut host = Host::boot(&config)?;
    let boot = host.wait_prompt()?;
    ensure!(
        boot.lines()
            .any(|line| line.starts_with("net: ") && line.ends_with(ADDRESS)),
        "the network was not up at the prompt:\n{boot}"
    );
    let mut rows = facts(&mut host)?;
    rows.extend(exits::measure(&mut host)?);
    Ok(rows)
}

/// What `xl info` says about the boot and the memory.
fn facts(host: &mut Host) -> Result<Vec<Row>> {
    let emulator = host.emulator();
    let info = host.command("xl info")?;
    let memory_kib = fact(&info, "total_memory")? * 1024.0;
    let row = |name: &str, key: &str, unit, goal, peer| -> Result<Row> {
        Ok(Row {
            name: name.to_owned(),
            emulator: emulator.name(),
            value: fact(&info, key)?,
            unit,
            goal: Some(goal),
            better: Better::Less,
            peer,
        })
    };
    Ok(vec![
        row(
            "boot to prompt, network up",
            "boot_ticks",
            "instr",
            BOOT_GOAL,
            (emulator == Emulator::Bochs).then_some(BOOT_PEER_BOCHS),
        )?,
        row(
            "size hypervisor memory",
            "hypervisor_memory_kib",
            "KiB",
            memory_kib * MEMORY_GOAL_SHARE + MEMORY_GOAL_KIB,
            None,
        )?,
    ])
}
