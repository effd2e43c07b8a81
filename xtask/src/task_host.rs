//! `./x host`: one host, its serial console in the terminal.

use crate::{bridge, shell, task_image};
use anyhow::{Result, bail, ensure};
use clap::ValueEnum;
use godwit_harness::{
    DiskConfig, DiskInterface, Emulator, Firmware, Host, HostConfig, Image, Link, Network, Nic,
    Peer, PortKind,
};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// The station a Bochs host finds on its link, for want of a user-mode network there.
const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
const BOCHS_ADDRESS: &str = "10.77.0.1/24";

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum EmulatorName {
    /// AMD SVM, on any machine
    Qemu,
    /// Intel VT-x, on any machine, slow
    Bochs,
    /// Nested virtualization on this machine's own CPU
    Kvm,
}

impl EmulatorName {
    /// The emulators of two hosts from what was given for `--emulator`: one for both, or one each.
    pub(crate) fn pair(names: &[EmulatorName]) -> Result<[Emulator; 2]> {
        let first = names[0].usable()?;
        let second = names.get(1).map_or(Ok(first), |name| name.usable())?;
        Ok([first, second])
    }

    /// The emulator, if this machine can run it.
    pub(crate) fn usable(self) -> Result<Emulator> {
        match self {
            EmulatorName::Qemu => Ok(Emulator::Qemu),
            EmulatorName::Bochs => Ok(Emulator::Bochs),
            EmulatorName::Kvm => check_nesting().map(|()| Emulator::Kvm),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum FirmwareName {
    Bios,
    Uefi,
}

#[derive(Clone, Copy, ValueEnum)]
enum NicName {
    Virtio,
    E1000,
}

/// The host to boot.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which machine plays the host
    #[arg(long, value_enum, default_value = "qemu")]
    emulator: EmulatorName,
    /// Logical CPUs
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Memory in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    #[arg(long, value_enum, default_value = "bios")]
    firmware: FirmwareName,
    /// Host name; the prompt is "NAME# "
    #[arg(long, default_value = "host-a")]
    name: String,
    /// dom0's address: A.B.C.D/len, or dhcp [default: dhcp; on Bochs 10.77.0.1/24]
    #[arg(long)]
    ip: Option<String>,
    /// NIC model [default: virtio; on Bochs e1000]
    #[arg(long, value_enum)]
    nic: Option<NicName>,
    /// Words for the hypervisor, e.g. "loglvl=debug"
    #[arg(long, default_value = "")]
    hypervisor_options: String,
    /// Wait for gdb on port 1234 before the first instruction (QEMU)
    #[arg(long)]
    gdb: bool,
    /// Write the emulator's interrupt and reset trace to this file (QEMU)
    #[arg(long)]
    trace_file: Option<PathBuf>,
    /// A raw disk image, INTERFACE:FILE, again for each disk; interfaces: virtio-blk, nvme, ahci, ide
    #[arg(long, value_parser = disk)]
    disk: Vec<DiskConfig>,
}

fn disk(text: &str) -> Result<DiskConfig> {
    let interfaces = [
        DiskInterface::VirtioBlk,
        DiskInterface::Nvme,
        DiskInterface::Ahci,
        DiskInterface::Ide,
    ];
    let (name, file) = text.split_once(':').unwrap_or((text, ""));
    let interface = interfaces.into_iter().find(|one| one.name() == name);
    match interface {
        Some(interface) if !file.is_empty() => {
            Ok(DiskConfig::new(std::path::absolute(file)?, interface))
        }
        Some(_) | None => bail!("{text:?} is not INTERFACE:FILE, such as nvme:out/store.img"),
    }
}

pub(crate) fn run(args: Args) -> Result<()> {
    let emulator = args.emulator.usable()?;
    task_image::build_checked()?;
    let bochs = emulator == Emulator::Bochs;
    let address = args
        .ip
        .unwrap_or(if bochs { BOCHS_ADDRESS } else { "dhcp" }.to_owned());
    let image = Image::new("host", &args.name)?
        .address(&address)
        .hypervisor_options(&args.hypervisor_options)
        .write()?;
    let mut config = HostConfig::new(emulator, &image, &format!("host-{}", args.name))
        .cpus(args.cpus)
        .memory_mib(args.memory)
        .firmware(match args.firmware {
            FirmwareName::Bios => Firmware::Bios,
            FirmwareName::Uefi => Firmware::Uefi,
        })
        .network(Network::User)
        .gdb(args.gdb);
    if let Some(nic) = args.nic {
        config = config.nic(match nic {
            NicName::Virtio => Nic::Virtio,
            NicName::E1000 => Nic::E1000,
        });
    }
    if let Some(file) = args.trace_file {
        config = config.trace(std::path::absolute(file)?);
    }
    for disk in args.disk {
        config = config.disk(disk);
    }
    let mut _peer = None;
    if bochs {
        let link = Link::start(&[PortKind::Polled, PortKind::Prompt], 1)?;
        config = config.network(Network::Link(link.port(0)));
        shell::say(&format!("a station at {PEER} answers pings"));
        _peer = Some((Peer::start(link.port(1), PEER)?, link));
    }
    if args.gdb {
        shell::say("waiting for gdb: gdb out/godwit.elf -ex 'target remote :1234'");
    }
    shell::say(&format!("booting {} on {}", args.name, emulator.name()));
    bridge::run(&mut [Host::boot(&config)?])
}

/// Whether KVM here lets a guest use VT-x or SVM itself: the CPU must have it, the module must
/// allow it, and we must be allowed to use the device.
fn check_nesting() -> Result<()> {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    let module = match (has("vmx"), has("svm")) {
        (true, _) => "kvm_intel",
        (_, true) => "kvm_amd",
        (false, false) => bail!(
            "this machine's CPU shows neither VT-x nor SVM, so KVM cannot nest: use --emulator \
             qemu (SVM) or bochs (VT-x)"
        ),
    };
    let parameter = format!("/sys/module/{module}/parameters/nested");
    let nested = std::fs::read_to_string(&parameter).unwrap_or_default();
    ensure!(
        matches!(nested.trim(), "Y" | "1"),
        "KVM does not nest here ({parameter} is {:?}): load {module} with nested=1",
        nested.trim()
    );
    ensure!(
        std::fs::File::options()
            .read(true)
            .write(true)
            .open(Path::new("/dev/kvm"))
            .is_ok(),
        "/dev/kvm cannot be opened: join the group kvm"
    );
    Ok(())
}
