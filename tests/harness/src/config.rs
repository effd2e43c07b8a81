//! What a host to be booted looks like, independent of the emulator that plays it.

use crate::disk::DiskConfig;
use crate::image::Image;
use crate::link::LinkPort;
use std::path::PathBuf;

/// Which machine plays the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    /// QEMU with TCG: AMD SVM, any machine.
    Qemu,
    /// Bochs: Intel VT-x, any machine, slow.
    Bochs,
    /// QEMU with KVM: real silicon through nested virtualization.
    Kvm,
}

impl Emulator {
    /// The name used on command lines and in file names.
    pub fn name(self) -> &'static str {
        match self {
            Emulator::Qemu => "qemu",
            Emulator::Bochs => "bochs",
            Emulator::Kvm => "kvm",
        }
    }

    /// How many times longer than QEMU TCG a step may take before a test calls it hung.
    pub fn slowness(self) -> u32 {
        match self {
            Emulator::Qemu | Emulator::Kvm => 1,
            Emulator::Bochs => 6,
        }
    }
}

/// The firmware that starts GRUB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS in QEMU, Bochs' own BIOS in Bochs.
    Bios,
    /// OVMF; QEMU only.
    Uefi,
    /// SeaBIOS in Bochs: unlike Bochs' own it leaves it to others whether VT-x is locked.
    SeaBios,
}

/// The NIC model dom0 finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nic {
    /// virtio-net-pci; QEMU only.
    Virtio,
    /// Intel 82540EM, the one model both emulators have.
    E1000,
}

/// What the NIC is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// No NIC at all.
    None,
    /// QEMU's user-mode network: DHCP and a way out; QEMU only.
    User,
    /// The same, and connections to `host_tcp` on loopback reach port `guest_tcp` of the host.
    UserForward {
        /// TCP port on this machine's loopback.
        host_tcp: u16,
        /// TCP port of the emulated host.
        guest_tcp: u16,
    },
    /// A port of a [`crate::Link`].
    Link(LinkPort),
}

/// Instructions in an emulated second when Bochs runs interactively or under test. TSC, PIT,
/// LAPIC timer, UART and the NIC's one-frame-a-millisecond poll all follow it, so a small value
/// shortens firmware delays and serial output.
pub(crate) const BOCHS_IPS_FAST: u64 = 50_000_000;
/// With this many, one TSC tick is one instruction and one nanosecond: for counting.
pub(crate) const BOCHS_IPS_EXACT: u64 = 1_000_000_000;

/// Everything needed to boot one host.
///
/// `name` must be the host name in the image's dom0 options: the prompt is `<name># `.
#[derive(Clone, Debug)]
pub struct HostConfig {
    pub(crate) emulator: Emulator,
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) iso: PathBuf,
    pub(crate) cpus: u32,
    pub(crate) memory_mib: u32,
    pub(crate) firmware: Firmware,
    pub(crate) nic: Option<Nic>,
    pub(crate) network: Network,
    pub(crate) mac_suffix: u8,
    pub(crate) exact_time: bool,
    pub(crate) waits: bool,
    pub(crate) gdb: bool,
    pub(crate) cpu_model: Option<String>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) disks: Vec<DiskConfig>,
    pub(crate) extra: Vec<String>,
}

impl HostConfig {
    /// One CPU, 512 MiB, BIOS, no network: `image` booted by `emulator`.
    ///
    /// `label` names the log files of this boot (`out/logs/<label>.*`) and should be unique
    /// among boots that run at the same time.
    pub fn new(emulator: Emulator, image: &Image, label: &str) -> Self {
        HostConfig {
            emulator,
            name: image.host_name().to_owned(),
            label: label.to_owned(),
            iso: image.iso().to_owned(),
            cpus: 1,
            memory_mib: 512,
            firmware: Firmware::Bios,
            nic: None,
            network: Network::None,
            mac_suffix: 1,
            exact_time: false,
            waits: false,
            gdb: false,
            cpu_model: None,
            trace: None,
            disks: Vec::new(),
            extra: Vec::new(),
        }
    }

    /// Number of logical CPUs.
    pub fn cpus(mut self, cpus: u32) -> Self {
        self.cpus = cpus;
        self
    }

    /// Memory in MiB.
    pub fn memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = memory_mib;
        self
    }

    /// Firmware to boot with.
    pub fn firmware(mut self, firmware: Firmware) -> Self {
        self.firmware = firmware;
        self
    }

    /// NIC model; default virtio in QEMU, e1000 in Bochs.
    pub fn nic(mut self, nic: Nic) -> Self {
        self.nic = Some(nic);
        self
    }

    /// What the NIC is plugged into.
    pub fn network(mut self, network: Network) -> Self {
        self.network = network;
        self
    }

    /// Last octet of the MAC address, `52:54:00:67:77:xx`; must differ between hosts of a link.
    pub fn mac_suffix(mut self, suffix: u8) -> Self {
        self.mac_suffix = suffix;
        self
    }

    /// Makes one TSC tick one instruction and one nanosecond, for counting: `-icount shift=0` in
    /// QEMU (one CPU only), `ips=1000000000` in Bochs.
    pub fn exact_time(mut self, exact: bool) -> Self {
        self.exact_time = exact;
        self
    }

    /// With exact time in QEMU, lets idle time pass as it does outside instead of skipping it: for a
    /// host that talks with a program outside, whose answers would come after every time-out. Bochs
    /// skips none at that speed.
    pub fn waits(mut self, waits: bool) -> Self {
        self.waits = waits;
        self
    }

    /// Opens a gdb stub on TCP port 1234 and waits for gdb before the first instruction; QEMU only.
    pub fn gdb(mut self, gdb: bool) -> Self {
        self.gdb = gdb;
        self
    }

    /// Emulator's CPU model instead of the default (`max`, or `corei7_skylake_x` in Bochs).
    pub fn cpu_model(mut self, model: &str) -> Self {
        self.cpu_model = Some(model.to_owned());
        self
    }

    /// Writes the emulator's interrupt and reset trace to this file; QEMU only.
    pub fn trace(mut self, file: PathBuf) -> Self {
        self.trace = Some(file);
        self
    }

    /// One more disk, in the order in which the host finds them.
    pub fn disk(mut self, disk: DiskConfig) -> Self {
        self.disks.push(disk);
        self
    }

    /// One more argument (QEMU) or configuration line (Bochs), appended as is.
    pub fn extra(mut self, argument: &str) -> Self {
        self.extra.push(argument.to_owned());
        self
    }

    pub(crate) fn mac(&self) -> String {
        format!("52:54:00:67:77:{:02x}", self.mac_suffix)
    }
}
