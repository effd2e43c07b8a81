//! Linux guests from the operator's side: Debian's kernel and our ramdisk as boot modules.

use crate::guest::{clear, state};
use crate::{HOST, PEER};
use anyhow::{Result, bail, ensure};
use godwit_harness::{
    Emulator, Flavour, GuestKernel, Host, HostConfig, Image, Link, Network, Peer, PortKind, Ramdisk,
};
use std::time::{Duration, Instant};

/// From `xl create` to a shell in the guest, on QEMU.
pub const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at a guest's console.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// A host with a Linux kernel and a ramdisk for guests.
pub struct LinuxBench {
    /// The host under test.
    pub host: Host,
    /// A station on its link.
    pub peer: Peer,
    /// What joins them.
    pub link: Link,
}

/// Boots `host-a` with the modules `linux` and `initrd`, changed by `change`, up to the prompt.
pub fn boot(
    label: &str,
    emulator: Emulator,
    flavour: Flavour,
    change: impl FnOnce(HostConfig) -> HostConfig,
) -> Result<LinuxBench> {
    let kernel = GuestKernel::fetch(flavour)?;
    let ramdisk = Ramdisk::new(&kernel)?.write(label)?;
    let image = Image::new(label, "host-a")?
        .address(&format!("{HOST}/24"))
        .module("linux", kernel.image())
        .module("initrd", &ramdisk)
        .write()?;
    let link = Link::start(&[emulator.into(), PortKind::Prompt], 1)?;
    let peer = Peer::start(link.port(1), PEER)?;
    let config = HostConfig::new(emulator, &image, label)
        .memory_mib(1024)
        .network(Network::Link(link.port(0)));
    let mut host = Host::boot(&change(config))?;
    host.wait_prompt()?;
    Ok(LinuxBench { host, peer, link })
}

/// A guest to be made.
pub struct LinuxGuest<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its virtual CPUs.
    pub vcpus: u32,
    /// Its memory.
    pub memory_mib: u32,
    /// More for its kernel's command line: `godwit.run=...`.
    pub words: &'a str,
    /// More settings of the domain, without blanks: `disk='["main/root,raw,vda,w"]'`.
    pub settings: &'a str,
}

impl LinuxGuest<'_> {
    /// The command that makes it and keeps it after its end, unless `settings` say otherwise.
    pub fn create_line(&self) -> String {
        let keep: String = ["on_poweroff", "on_reboot", "on_crash"]
            .iter()
            .filter(|key| !self.settings.contains(**key))
            .map(|key| format!(" {key}=preserve"))
            .collect();
        format!(
            "xl create /dev/null name={} kernel=module:linux ramdisk=module:initrd memory={} \
             vcpus={}{keep} {} extra=\"console=ttyS0 panic=-1 {}\"",
            self.name, self.memory_mib, self.vcpus, self.settings, self.words
        )
    }

    /// Makes and starts it.
    pub fn create(&self, host: &mut Host) -> Result<()> {
        let line = self.create_line();
        let said = host.command(&line)?;
        ensure!(
            said.contains(&format!("created domain '{}'", self.name)),
            "{line}:\n{said}"
        );
        Ok(())
    }

    /// Its console, once it holds `wanted`; fails at once when the guest cannot say it any more.
    pub fn console_until(&self, host: &mut Host, wanted: &str, within: Duration) -> Result<String> {
        let deadline = Instant::now() + within * host.emulator().slowness();
        loop {
            // The state first: what a guest says last it says before it ends.
            let state = state(host, self.name)?;
            let said = host.command(&format!("xl console -n {}", self.name))?;
            if said.contains(wanted) {
                return Ok(said);
            }
            let why = if state
                .as_deref()
                .is_none_or(|state| state.contains(['s', 'c']))
            {
                format!("ended (state {state:?})")
            } else if said.contains("Kernel panic") || said.contains(" BAD ") {
                "failed".to_owned()
            } else if Instant::now() > deadline {
                format!("is silent after {within:?}")
            } else {
                std::thread::sleep(LOOK_PERIOD * host.emulator().slowness());
                continue;
            };
            let views = host.command("xl vcpu-list; xl list -l; xl debug-keys q; xl dmesg")?;
            bail!(
                "waited for {wanted:?}, but {} {why}:\n{said}\n{views}",
                self.name
            );
        }
    }

    /// Waits until `xl list` shows it with `letter` among its states (`s`: has shut down).
    pub fn wait_state(&self, host: &mut Host, letter: char, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within * host.emulator().slowness();
        loop {
            let now = state(host, self.name)?;
            if now.as_deref().is_some_and(|state| state.contains(letter)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} never got to state {letter:?}, it is in {now:?}",
                self.name
            );
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    /// Takes it away.
    pub fn clear(&self, host: &mut Host) -> Result<()> {
        clear(host, self.name)
    }
}
