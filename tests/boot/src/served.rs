//! A Linux guest with all that dom0 serves: a volume as its disk, a card behind NAT, a balloon; made
//! from `guests/lin.cfg` of a store.
//!
//! On QEMU dom0 is on a user-mode network, so that the build machine connects to the guest through
//! two forwarded ports, and kernel and ramdisk are files of the store. Bochs has neither that
//! network nor a fast disk: a link with a peer and a gateway, and boot modules.

use crate::guest::{fact, state};
use crate::linux::{BOOT_TIMEOUT, LinuxGuest};
use crate::{HOST, PEER};
use anyhow::{Context, Result, bail, ensure};
use godwit_harness::{
    Artefact, DiskConfig, DiskInterface, Doors, Emulator, Flavour, Gateway, GuestKernel, Host,
    HostConfig, Image, Link, NbdServer, Network, Peer, PortKind, Ramdisk, Store, StoreImage,
    VolumeContents, free_port, root,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// The guest's name, and its file's.
pub const NAME: &str = "lin";
/// Makes it.
pub const CREATE: &str = "xl create guests/lin.cfg";
/// Its volume.
pub const DATA: &str = "data";
/// A volume to save it to.
pub const SAVED: &str = "saved";
/// The guest's gateway, which is dom0.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// dom0 on QEMU's user-mode network.
const USER_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// What stands for the build machine's loopback there.
pub const USER_GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The gateway on the link, which programs here connect through.
const STATION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 253);
/// Where NBD servers are found there.
const STATION_NBD_PORT: u16 = 10_809;
/// Where `guest tcp-serve` listens in the guest, and the port of dom0 that leads there.
const GUEST_PORT: u16 = 5001;
const FORWARDED_PORT: u16 = 2222;
/// The guest's memory.
pub const MEMORY_MIB: u64 = 128;
const VOLUME_BYTES: u64 = 8 << 20;
const SAVED_BYTES: u64 = (MEMORY_MIB + 16) << 20;
/// What [`saved_and_restored`] writes on the guest's disk.
pub const SAVED_BLOCKS: u64 = 64;
/// The same.
pub const SAVED_SEED: u64 = 5;
const PING_ROUNDS: u32 = 4;
const SAVED_STREAM_BYTES: u64 = 256 << 10;
/// For a line typed into the guest's shell, on QEMU.
const SHELL_TIMEOUT: Duration = Duration::from_secs(60);

/// A host with a store. Fields drop in order: the host first.
pub struct Served {
    /// The host under test.
    pub host: Host,
    /// Its disk.
    pub store: Store,
    /// Where the forwarded port is on the build machine.
    port: u16,
    /// Where an NBD server is to listen there, and how dom0 reaches it.
    nbd: (u16, SocketAddrV4),
    _network: Option<(Peer, Gateway, Link)>,
}

/// Boots a host whose `guests/lin.cfg` has `words` more on its kernel's command line.
pub fn boot(label: &str, emulator: Emulator, words: &str) -> Result<Served> {
    boot_with(label, emulator, words, |store| store)
}

/// The same with a store changed by `change`.
pub fn boot_with(
    label: &str,
    emulator: Emulator,
    words: &str,
    change: impl FnOnce(StoreImage) -> StoreImage,
) -> Result<Served> {
    let kernel = GuestKernel::fetch(Flavour::Cloud)?;
    let ramdisk = Ramdisk::new(&kernel)?.write(label)?;
    let bochs = emulator == Emulator::Bochs;
    // Every character of the guest's console is an exit, and shown at the real rate of a UART.
    let (place, quiet) = match bochs {
        true => ("module:", "quiet "),
        false => ("kernels/", ""),
    };
    let words = format!("{quiet}{words}");
    let mut store = StoreImage::new(root()?.join(format!("out/guest/{label}.img")))
        .label("main")
        .file("guests/lin.cfg", config(place, &words).as_bytes())
        .volume(DATA, VolumeContents::Zeroes(VOLUME_BYTES))
        .volume(SAVED, VolumeContents::Zeroes(SAVED_BYTES));
    let mut image = Image::new(label, "host-a")?;
    let mut network = None;
    let port;
    let nbd_port = free_port()?;
    let mut nbd = (nbd_port, SocketAddrV4::new(USER_GATEWAY, nbd_port));
    let plug = if bochs {
        let link = Link::start(&[emulator.into(), PortKind::Prompt, PortKind::Prompt], 1)?;
        let peer = Peer::start(link.port(1), PEER)?;
        let doors = Doors {
            inward: Some((STATION_NBD_PORT, nbd_port)),
            outward: Some(SocketAddrV4::new(HOST, FORWARDED_PORT)),
        };
        let gateway = Gateway::start(link.port(2), STATION, doors)?;
        port = gateway.port();
        nbd.1 = SocketAddrV4::new(STATION, STATION_NBD_PORT);
        image = image
            .module("linux", kernel.image())
            .module("initrd", &ramdisk)
            .address(&format!("{HOST}/24"))
            .dom0_options("bridge=off");
        let plug = Network::Link(link.port(0));
        network = Some((peer, gateway, link));
        plug
    } else {
        store = store
            .file("kernels/linux", &std::fs::read(kernel.image())?)
            .file("kernels/initrd", &std::fs::read(&ramdisk)?);
        image = image
            .address(&format!("{USER_HOST}/24"))
            .dom0_options(&format!("gw={USER_GATEWAY}"));
        port = free_port()?;
        Network::UserForward {
            host_tcp: port,
            guest_tcp: FORWARDED_PORT,
        }
    };
    let store = change(store).write()?;
    let interface = if bochs {
        DiskInterface::Ide
    } else {
        DiskInterface::VirtioBlk
    };
    let config = HostConfig::new(emulator, &image.write()?, label)
        .memory_mib(768)
        .network(plug)
        .disk(DiskConfig::new(store.path(), interface));
    let mut host = Host::boot(&config)?;
    host.wait_prompt()?;
    Ok(Served {
        host,
        store,
        port,
        nbd,
        _network: network,
    })
}

fn config(place: &str, words: &str) -> String {
    format!(
        "name = \"{NAME}\"\nkernel = \"{place}linux\"\nramdisk = \"{place}initrd\"\n\
         memory = {MEMORY_MIB}\nballoon = 1\ndisk = ['main/{DATA},raw,xvda,rw']\n\
         vif = ['type=nat,forward=tcp:{FORWARDED_PORT}:{GUEST_PORT}']\n\
         on_poweroff = 'preserve'\non_crash = 'preserve'\n\
         extra = \"console=ttyS0 panic=-1 godwit.net=dhcp \
         godwit.run=guest,tcp-serve,port={GUEST_PORT}& {words}\"\n"
    )
}

impl Served {
    /// The guest, for what [`LinuxGuest`] can tell of it.
    pub fn guest(&self) -> LinuxGuest<'static> {
        LinuxGuest {
            name: NAME,
            vcpus: 1,
            memory_mib: MEMORY_MIB as u32,
            words: "",
            settings: "",
        }
    }

    /// Starts an NBD server that dom0 reaches: `file`, made of `bytes` zeroes.
    pub fn nbd_server(&self, file: PathBuf, bytes: u64) -> Result<NbdServer> {
        let (port, seen_as) = self.nbd;
        NbdServer::start(file, bytes, port, seen_as)
    }

    /// Makes the guest, with settings over its file, and waits for its shell. Its console.
    pub fn create(&mut self, settings: &str) -> Result<String> {
        self.says(
            &format!("{CREATE} {settings}"),
            &format!("created domain '{NAME}'"),
        )?;
        let guest = self.guest();
        // Its server comes up beside its shell.
        for wanted in ["GUEST end shell", "TCP serves port"] {
            guest.console_until(&mut self.host, wanted, BOOT_TIMEOUT)?;
        }
        self.host.command(&format!("xl console -n {NAME}"))
    }

    /// Fails unless the command's output holds `wanted`. The output.
    pub fn says(&mut self, line: &str, wanted: &str) -> Result<String> {
        let said = self.host.command(line)?;
        ensure!(said.contains(wanted), "{line}: no {wanted:?} in:\n{said}");
        Ok(said)
    }

    /// Fails unless a command that moves a guest's memory, or waits for a guest, says `wanted`.
    pub fn says_in_time(&mut self, line: &str, wanted: &str) -> Result<String> {
        let timeout = BOOT_TIMEOUT * self.host.emulator().slowness();
        let said = self.host.console().command(line, timeout)?;
        ensure!(said.contains(wanted), "{line}: no {wanted:?} in:\n{said}");
        Ok(said)
    }

    /// The host's free memory in MiB, as `xl info` says.
    pub fn free_mib(&mut self) -> Result<u64> {
        let info = self.host.command("xl info")?;
        fact(&info, "free_memory")?.parse().context("no number")
    }

    /// Fails when the guest is listed.
    pub fn is_gone(&mut self) -> Result<()> {
        let state = state(&mut self.host, NAME)?;
        ensure!(state.is_none(), "{NAME} is there in state {state:?}");
        Ok(())
    }

    /// Types a line into the guest's shell. What the guest printed until it was done.
    pub fn shell(&mut self, line: &str) -> Result<String> {
        self.host.guest_shell(NAME, line, SHELL_TIMEOUT)
    }

    /// Fails unless a line typed into the guest's shell succeeds. What it printed.
    pub fn shell_succeeds(&mut self, line: &str) -> Result<String> {
        let said = self.shell(line)?;
        ensure!(said.contains("status=0"), "in the guest, {line}:\n{said}");
        Ok(said)
    }

    /// The guest loses no ping to `address` in one of `PING_ROUNDS`: in Bochs idle time runs many
    /// times faster than outside, and a station outside may answer too late.
    pub fn guest_pings(&mut self, address: Ipv4Addr) -> Result<()> {
        let mut said = String::new();
        for _ in 0..PING_ROUNDS {
            said = self.shell(&format!("ping -c 3 {address}"))?;
            if said.contains(" 0% packet loss") {
                return Ok(());
            }
        }
        bail!("{said}")
    }

    /// Sends the guest a checked stream through the forwarded port, and takes one from it.
    pub fn exchange(&self, bytes: u64) -> Result<()> {
        let port = self.port;
        for direction in ["send", "receive"] {
            guest_program(&[
                "tcp-send",
                &format!("address=127.0.0.1:{port}"),
                &format!("bytes={bytes}"),
                &format!("direction={direction}"),
            ])?;
        }
        Ok(())
    }

    /// Waits until a domain's row of `xl list` is as wanted.
    pub fn wait_row(&mut self, wanted: impl Fn(&[&str]) -> bool) -> Result<()> {
        let deadline = Instant::now() + SHELL_TIMEOUT * self.host.emulator().slowness();
        loop {
            let list = self.host.command("xl list")?;
            let row = list.lines().map(|row| row.split_whitespace().collect());
            let row = row
                .into_iter()
                .find(|row: &Vec<&str>| row.first() == Some(&NAME));
            if row.is_some_and(|row| wanted(&row)) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "never as wanted:\n{list}");
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends the host and gives the store for a look at what is on it.
    pub fn into_store(self) -> Store {
        drop(self.host);
        self.store
    }
}

/// Saves the guest to its volume and restores it from there, again and again: each time its memory
/// has the digest it had, and its processes, disk and network go on. Leaves [`SAVED_BLOCKS`] blocks
/// of [`SAVED_SEED`] on its disk.
pub fn saved_and_restored(site: &mut Served, rounds: u32) -> Result<()> {
    let disk = format!("guest disk path=/dev/vda blocks={SAVED_BLOCKS} seed={SAVED_SEED}");
    site.shell_succeeds(&disk)?;
    site.shell_succeeds("kept=4711; echo $$ >/tmp/shell")?;
    for round in 1..=rounds {
        let saved = site.says_in_time(&format!("xl save {NAME} main/{SAVED}"), "memory digest")?;
        site.is_gone()?;
        let restored = format!("restored domain '{NAME}'");
        let restored = site.says_in_time(&format!("xl restore main/{SAVED}"), &restored)?;
        let digest = |said: &str| {
            let said = said.split("memory digest ").nth(1)?;
            Some(said.split_whitespace().next()?.to_owned())
        };
        ensure!(
            digest(&saved).is_some() && digest(&saved) == digest(&restored),
            "round {round}: other memory:\n{saved}\n{restored}"
        );
        // The same shell, and what it knew.
        let said = site.shell_succeeds("test $(cat /tmp/shell) = $$ && echo kept=$kept")?;
        ensure!(said.contains("kept=4711"), "round {round}: {said}");
        site.shell_succeeds(&format!("{disk} mode=check"))?;
        site.shell_succeeds("guest disk path=/dev/vda blocks=16 first=128")?;
        site.guest_pings(GATEWAY)?;
        site.exchange(SAVED_STREAM_BYTES)?;
    }
    Ok(())
}

/// Fails unless the first `blocks` blocks of 4 KiB hold what `guest disk` wrote with `seed`.
pub fn check_blocks(contents: &[u8], blocks: u64, seed: u64) -> Result<()> {
    // On a disk: direct transfers are not for every file system in memory.
    let file = tempfile::NamedTempFile::new_in(root()?.join("out/guest"))?;
    std::fs::write(file.path(), contents)?;
    guest_program(&[
        "disk",
        &format!("path={}", file.path().display()),
        &format!("blocks={blocks}"),
        &format!("seed={seed}"),
        "mode=check",
    ])
}

/// Runs the guests' program on the build machine; it is static.
fn guest_program(arguments: &[&str]) -> Result<()> {
    let output = Command::new(Artefact::Guest.built()?)
        .args(arguments)
        .output()?;
    ensure!(
        output.status.success(),
        "guest {arguments:?} failed:\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}
