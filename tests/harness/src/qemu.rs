//! QEMU's command line for a [`HostConfig`].

use crate::config::{Emulator, Firmware, HostConfig, Network, Nic};
use crate::disk;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};

/// Debian's OVMF. Code and variables are apart: the variables are copied per boot, because the
/// firmware writes to them.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE.fd";
const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS.fd";

/// Arguments after `qemu-system-x86_64`. `serial_port` is a TCP port on loopback where the caller
/// already listens for COM1; `work` is a directory that lives as long as the host.
pub(crate) fn arguments(config: &HostConfig, serial_port: u16, work: &Path) -> Result<Vec<String>> {
    let mut a = Arguments::default();
    a.pair("-machine", "q35");
    machine(&mut a, config)?;
    a.pair("-m", &config.memory_mib.to_string());
    a.pair("-smp", &config.cpus.to_string());
    a.pair("-display", "none")
        .pair("-vga", "std")
        .pair("-monitor", "none");
    a.one("-no-reboot")
        .one("-no-user-config")
        .one("-nodefaults");
    let chardev = format!("socket,id=com1,host=127.0.0.1,port={serial_port},server=off");
    a.pair("-chardev", &chardev).pair("-serial", "chardev:com1");
    a.pair("-cdrom", &config.iso.to_string_lossy())
        .pair("-boot", "d");
    if config.firmware == Firmware::Uefi {
        let vars = variables(work)?;
        a.pair(
            "-drive",
            &format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
        );
        a.pair(
            "-drive",
            &format!("if=pflash,format=raw,unit=1,file={}", vars.display()),
        );
    }
    for (option, value) in disk::qemu_pairs(config)? {
        a.pair(option, &value);
    }
    network(&mut a, config);
    if config.gdb {
        a.pair("-gdb", "tcp:127.0.0.1:1234").one("-S");
    }
    if let Some(file) = &config.trace {
        a.pair("-d", "int,cpu_reset,guest_errors,unimp")
            .pair("-D", &file.to_string_lossy());
    }
    for argument in &config.extra {
        a.one(argument);
    }
    Ok(a.0)
}

fn machine(a: &mut Arguments, config: &HostConfig) -> Result<()> {
    let kvm = config.emulator == Emulator::Kvm;
    let default_cpu = if kvm { "host" } else { "max" };
    a.pair("-accel", if kvm { "kvm" } else { "tcg" });
    a.pair("-cpu", config.cpu_model.as_deref().unwrap_or(default_cpu));
    if config.exact_time {
        ensure!(!kvm, "KVM cannot count instructions: use --emulator qemu");
        ensure!(
            config.cpus == 1,
            "exact time needs one CPU, not {}",
            config.cpus
        );
        let sleep = if config.waits { "on" } else { "off" };
        a.pair("-icount", &format!("shift=0,sleep={sleep}"));
    }
    Ok(())
}

fn network(a: &mut Arguments, config: &HostConfig) {
    let backend = match config.network {
        Network::None => return,
        Network::User => "user,id=n0".to_owned(),
        Network::UserForward {
            host_tcp,
            guest_tcp,
        } => format!("user,id=n0,hostfwd=tcp:127.0.0.1:{host_tcp}-:{guest_tcp}"),
        Network::Link(port) => format!(
            "socket,id=n0,udp=127.0.0.1:{},localaddr=127.0.0.1:{}",
            port.link_udp, port.host_udp
        ),
    };
    let model = match config.nic.unwrap_or(Nic::Virtio) {
        Nic::Virtio => "virtio-net-pci",
        Nic::E1000 => "e1000",
    };
    a.pair("-netdev", &backend);
    // romfile=: no option ROM, so that the firmware does not try to boot from the network.
    a.pair(
        "-device",
        &format!("{model},netdev=n0,mac={},romfile=", config.mac()),
    );
}

fn variables(work: &Path) -> Result<PathBuf> {
    ensure!(
        Path::new(OVMF_CODE).is_file() && Path::new(OVMF_VARS).is_file(),
        "{OVMF_CODE} does not exist: install the package ovmf"
    );
    let copy = work.join("ovmf-variables.fd");
    std::fs::copy(OVMF_VARS, &copy)?;
    Ok(copy)
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn one(&mut self, argument: &str) -> &mut Self {
        self.0.push(argument.to_owned());
        self
    }

    fn pair(&mut self, option: &str, value: &str) -> &mut Self {
        self.one(option).one(value)
    }
}
