//! Bochs' configuration file for a [`HostConfig`].
//!
//! Bochs has no instruction-exact accelerator choice and no user-mode network here; what it
//! cannot do is refused by name rather than left out.

use crate::config::{
    BOCHS_IPS_EXACT, BOCHS_IPS_FAST, Emulator, Firmware, HostConfig, Network, Nic,
};
use crate::disk;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
const SEABIOS: &str = "/usr/share/seabios/bios.bin";
const VGA_BIOS: &str = "/usr/share/bochs/VGABIOS-lgpl-latest";

/// What Bochs is started with.
pub(crate) struct Files {
    /// The configuration.
    pub(crate) config: PathBuf,
    /// Commands for Bochs' built-in debugger, which Debian's build always has: "continue".
    pub(crate) debugger: PathBuf,
}

/// Writes both files into `work`. `serial_port`: where the caller listens for COM1; `log`: Bochs'
/// own messages, which name failed VM-entry checks precisely.
pub(crate) fn write_files(
    config: &HostConfig,
    serial_port: u16,
    log: &Path,
    work: &Path,
) -> Result<Files> {
    let files = Files {
        config: work.join("bochsrc"),
        debugger: work.join("debugger"),
    };
    std::fs::write(&files.config, text(config, serial_port, log)?)?;
    std::fs::write(&files.debugger, "c\n")?;
    Ok(files)
}

fn text(config: &HostConfig, serial_port: u16, log: &Path) -> Result<String> {
    debug_assert_eq!(config.emulator, Emulator::Bochs);
    let bios = match config.firmware {
        Firmware::Bios => BIOS,
        Firmware::SeaBios => SEABIOS,
        Firmware::Uefi => anyhow::bail!("Bochs has no UEFI firmware: use qemu for UEFI"),
    };
    ensure!(
        !config.gdb,
        "this Bochs has no gdb stub: use qemu, or Bochs' own debugger"
    );
    ensure!(
        config.trace.is_none(),
        "Bochs writes no interrupt trace: read its log instead"
    );
    let ips = if config.exact_time {
        BOCHS_IPS_EXACT
    } else {
        BOCHS_IPS_FAST
    };
    let model = config.cpu_model.as_deref().unwrap_or("corei7_skylake_x");
    let mut lines = vec![
        format!("memory: guest={0}, host={0}", config.memory_mib),
        format!("romimage: file={bios}"),
        format!("vgaromimage: file={VGA_BIOS}"),
        format!(
            "cpu: model={model}, count={}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1",
            config.cpus
        ),
        "clock: sync=none".to_owned(),
        "display_library: term".to_owned(),
        format!("com1: enabled=1, mode=socket-client, dev=localhost:{serial_port}"),
        "speaker: enabled=0".to_owned(),
        "pci: enabled=1, chipset=i440fx, slot1=e1000".to_owned(),
        "panic: action=report".to_owned(),
        "error: action=report".to_owned(),
        "info: action=report".to_owned(),
        "debug: action=ignore".to_owned(),
        format!("log: {}", log.display()),
    ];
    lines.extend(disk::bochs_lines(config)?);
    match config.network {
        Network::None => lines.retain(|line| !line.starts_with("pci:")),
        Network::User | Network::UserForward { .. } => {
            anyhow::bail!("Bochs has no user-mode network here: give the host a link instead")
        }
        Network::Link(port) => lines.push(nic(config, port.host_udp)?),
    }
    lines.extend(config.extra.iter().cloned());
    Ok(lines.join("\n") + "\n")
}

/// `ethmod=socket` binds the given port and sends to the next one.
fn nic(config: &HostConfig, host_udp: u16) -> Result<String> {
    ensure!(
        config.nic != Some(Nic::Virtio),
        "Bochs has no virtio NIC: use e1000"
    );
    Ok(format!(
        "e1000: enabled=1, mac={}, ethmod=socket, ethdev={host_udp}",
        config.mac()
    ))
}
