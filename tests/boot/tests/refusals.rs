//! What cannot work is refused: the console names what is missing, and the machine stands still
//! instead of resetting.

use anyhow::{Context, Result, ensure};
use godwit_abi::ABI_VERSION;
use godwit_abi::note::{NOTE_ABI_VERSION, NOTE_NAME};
use godwit_harness::{Artefact, Emulator, Firmware, Host, HostConfig, Image};
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
    refused_on(Emulator::Qemu, label, image, change, words)
}

fn refused_on(
    emulator: Emulator,
    label: &str,
    image: Image,
    change: impl FnOnce(HostConfig) -> HostConfig,
    words: &[&str],
) -> Result<()> {
    let config = HostConfig::new(emulator, &image, label);
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

/// IA32_FEATURE_CONTROL, and its bit that locks it: here with VT-x off.
const FEATURE_CONTROL: u32 = 0x3a;
const FEATURE_CONTROL_LOCK: u64 = 1;

/// QEMU cannot show the same of SVM: it has no VM_CR.
#[test]
fn refusals_locked_by_firmware_bochs() -> Result<()> {
    let label = "refusal-locked";
    let image = image(label)?
        .register(FEATURE_CONTROL, FEATURE_CONTROL_LOCK)
        .write()?;
    refused_on(
        Emulator::Bochs,
        label,
        image,
        |config| config.firmware(Firmware::SeaBios),
        &["VT-x is disabled and locked by firmware", "firmware setup"],
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
    refused(label, image, |config| config, &["dom0", "ELF"])
}

#[test]
fn refusals_dom0_of_another_version() -> Result<()> {
    let label = "refusal-dom0-version";
    let mut dom0 = std::fs::read(Artefact::Dom0.built()?)?;
    let mut note = NOTE_ABI_VERSION.to_le_bytes().to_vec();
    note.extend(NOTE_NAME);
    let at = find(&dom0, &note).context("dom0.elf carries its ABI version")? + note.len();
    let other = ABI_VERSION + 1;
    dom0[at..at + 4].copy_from_slice(&other.to_le_bytes());
    let file = godwit_harness::root()?.join("out/images/dom0-of-another-version.elf");
    std::fs::create_dir_all(file.parent().context("it is in a directory")?)?;
    std::fs::write(&file, dom0)?;
    let image = image(label)?.dom0_file(Some(&file)).write()?;
    let named = format!("ABI version {other}");
    refused(label, image, |config| config, &["dom0", &named])
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[test]
fn refusals_too_little_memory() -> Result<()> {
    let label = "refusal-memory";
    let image = image(label)?.write()?;
    refused(label, image, |config| config.memory_mib(24), &["memory"])
}
