//! What cannot work is refused: the console names what is missing, and the machine stands still
//! instead of resetting.

use anyhow::{Result, ensure};
use godwit_harness::{Artefact, Emulator, Host, HostConfig, Image};
use std::time::Duration;

/// How long the machine is watched for a reset after its last words. QEMU runs with `-no-reboot`:
/// a triple fault ends it.
const STANDSTILL: Duration = Duration::from_secs(2);

/// Boots `image` and expects a refusal whose line holds every one of `words`.
fn refused(
    label: &str,
    image: Image,
    change: impl FnOnce(HostConfig) -> HostConfig,
    words: &[&str],
) -> Result<()> {
    let config = HostConfig::new(Emulator::Qemu, &image, label);
    let mut host = Host::boot(&change(config))?;
    host.expect("(godwit) FATAL: ")?;
    let line = host.expect("\n")?;
    for word in words {
        ensure!(line.contains(word), "{word:?} is not named in: {line}");
    }
    std::thread::sleep(STANDSTILL);
    ensure!(host.is_running()?, "the machine reset itself after: {line}");
    Ok(())
}

fn image(label: &str) -> Result<Image> {
    Image::new(label, "host-a")
}

#[test]
fn refusals_no_virtualization() -> Result<()> {
    let label = "refusal-no-svm";
    let image = image(label)?.write()?;
    refused(
        label,
        image,
        |config| config.cpu_model("max,-svm"),
        &["SVM", "VT-x"],
    )
}

#[test]
fn refusals_no_nested_paging() -> Result<()> {
    let label = "refusal-no-npt";
    let image = image(label)?.write()?;
    refused(
        label,
        image,
        |config| config.cpu_model("max,-npt"),
        &["NPT"],
    )
}

#[test]
fn refusals_no_dom0_module() -> Result<()> {
    let label = "refusal-no-dom0";
    let image = image(label)?.dom0_file(None).write()?;
    refused(label, image, |config| config, &["dom0", "module"])
}

#[test]
fn refusals_dom0_is_no_elf() -> Result<()> {
    let label = "refusal-dom0-garbage";
    let grub_cfg_is_no_elf = godwit_harness::root()?.join("Cargo.toml");
    let image = image(label)?.dom0_file(Some(&grub_cfg_is_no_elf)).write()?;
    refused(label, image, |config| config, &["dom0", "ELF"])
}

#[test]
fn refusals_dom0_is_another_program() -> Result<()> {
    let label = "refusal-dom0-foreign";
    let image = image(label)?
        .dom0_file(Some(&Artefact::Micro.built()?))
        .write()?;
    refused(label, image, |config| config, &["dom0", "ABI"])
}

#[test]
fn refusals_too_little_memory() -> Result<()> {
    let label = "refusal-memory";
    let image = image(label)?.write()?;
    refused(label, image, |config| config.memory_mib(24), &["memory"])
}
