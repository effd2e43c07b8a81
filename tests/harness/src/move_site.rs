//! Two hosts, storage that both reach, and a Linux guest under load that is moved between them: memory
//! and disk are checked in the guest, a TCP connection by who holds it, and how long the guest is
//! away is seen from inside and from the other end of the link.
//!
//! ```text
//! port 0 host-a   port 1 host-b   port 2 gateway: NBD server, the TCP connection   port 3 pings
//! ```
//!
//! The guest's card is on the bridge of whichever host it is on: its address is one of the link.

use crate::{
    DiskConfig, DiskInterface, Doors, Emulator, Flavour, Gateway, GuestKernel, Host, HostConfig,
    Image, Link, NbdServer, Network, Peer, PortKind, Ramdisk, StoreImage, Watch, free_port, root,
};
use anyhow::{Context, Result, ensure};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The guest.
const NAME: &str = "lin";
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// The hardware address of its card.
const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 0x00, 0x00, 0x10];
/// Names and addresses of the hosts.
const HOSTS: [(&str, Ipv4Addr); 2] = [
    ("host-a", Ipv4Addr::new(10, 77, 0, 1)),
    ("host-b", Ipv4Addr::new(10, 77, 0, 2)),
];
const STATION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 253);
const PINGER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 252);
const NBD_PORT: u16 = 10_809;
const TCP_PORT: u16 = 5001;
const DISK_BYTES: u64 = 8 << 20;
/// Blocks of 4 KiB that are written and checked in a round.
const DISK_BLOCKS: u32 = 64;
/// A host's memory beyond that of its guest, MiB.
const HOST_MIB: u32 = 416;
/// For the guest to come up, and to get on with its loads; on QEMU.
const GUEST_TIMEOUT: Duration = Duration::from_secs(180);
/// For a move.
const MOVE_TIMEOUT: Duration = Duration::from_secs(300);
/// Ctrl-A three times switches the keyboard between dom0 and the hypervisor.
const SWITCH: &[u8] = b"\x01\x01\x01";
const LOOK_PERIOD: Duration = Duration::from_millis(400);

/// What is booted.
#[derive(Clone, Copy, Debug)]
pub struct SiteOptions {
    /// The machine of each host.
    pub emulators: [Emulator; 2],
    /// Whether they know each other's keys; else everything goes in clear.
    pub encrypted: bool,
    /// Whether each has a store, so that its journal survives it.
    pub stores: bool,
    /// The guest's memory.
    pub memory_mib: u32,
}

/// What the guest does besides its disk and its connection.
#[derive(Clone, Copy, Debug)]
pub struct GuestLoad {
    /// The `kind=` of `guest load`.
    pub kind: &'static str,
    /// Its virtual CPUs; the hosts have one each.
    pub vcpus: u32,
}

/// What a move was like.
#[derive(Clone, Debug)]
pub struct Moved {
    /// What the command printed.
    pub said: String,
    /// As the command says.
    pub downtime: Duration,
    /// The longest gap that the guest's own clocks showed.
    pub inside: Duration,
    /// The longest time without an answer on the TCP connection, and to pings.
    pub outside_tcp: Duration,
    /// The same.
    pub outside_ping: Duration,
}

/// How far the guest's loads are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Rounds of the disk that were written and checked.
    pub disk_rounds: u64,
    /// Seconds of the memory's load.
    pub memory_s: f64,
}

/// The site. Fields drop in order: the hosts before what they talk with.
pub struct MoveSite {
    /// host-a and host-b.
    pub hosts: Vec<Host>,
    configs: [HostConfig; 2],
    watches: Option<[Watch; 2]>,
    _gateway: Gateway,
    tcp_port: u16,
    disk: NbdServer,
    /// What joins them.
    pub link: Arc<Link>,
    encrypted: bool,
    /// Which host has the guest.
    pub at: usize,
    /// Whether what moves print is shown while they run.
    pub shows_moves: bool,
}

impl MoveSite {
    /// Boots both hosts up to their prompts and lets them know each other.
    pub fn boot(label: &str, options: SiteOptions) -> Result<MoveSite> {
        let kernel = GuestKernel::fetch(Flavour::Cloud)?;
        let ramdisk = Ramdisk::new(&kernel)?.write(label)?;
        let [a, b] = options.emulators.map(PortKind::from);
        let link = Link::start(&[a, b, PortKind::Prompt, PortKind::Prompt], 1)?;
        let nbd_port = free_port()?;
        let seen_as = SocketAddrV4::new(STATION, NBD_PORT);
        let file = root()?.join(format!("out/guest/{label}.nbd"));
        let disk = NbdServer::start(file, DISK_BYTES, nbd_port, seen_as)?;
        let doors = Doors {
            inward: Some((NBD_PORT, nbd_port)),
            outward: Some(SocketAddrV4::new(GUEST, TCP_PORT)),
        };
        let gateway = Gateway::start(link.port(2), STATION, doors)?;
        let config = |index: usize| {
            let label = format!("{label}-{}", HOSTS[index].0);
            let modules = [("linux", kernel.image()), ("initrd", ramdisk.as_path())];
            host_config(&label, index, &options, &link, modules)
        };
        let configs = [config(0)?, config(1)?];
        let mut site = MoveSite {
            hosts: vec![Host::boot(&configs[0])?, Host::boot(&configs[1])?],
            configs,
            watches: None,
            tcp_port: gateway.port(),
            _gateway: gateway,
            disk,
            link: Arc::new(link),
            encrypted: options.encrypted,
            at: 0,
            shows_moves: false,
        };
        site.hosts
            .iter_mut()
            .try_for_each(|host| host.wait_prompt().map(drop))?;
        site.introduce()?;
        Ok(site)
    }

    /// They answer each other, and, encrypted, know each other's fingerprints.
    fn introduce(&mut self) -> Result<()> {
        for (index, (name, address)) in HOSTS.into_iter().enumerate() {
            let other = &mut self.hosts[1 - index];
            let line = format!("ping -c 3 {address}");
            other.command_until(&line, " 0% packet loss", GUEST_TIMEOUT)?;
            if self.encrypted {
                let print = self.hosts[index].fingerprint()?;
                self.hosts[1 - index].command(&format!("xl host-add {name} {address} {print}"))?;
            }
        }
        Ok(())
    }

    /// Makes the guest on host-a and waits until its loads are under way and it is reached from outside.
    pub fn create(&mut self, options: &SiteOptions, load: GuestLoad) -> Result<()> {
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        let disk = format!(
            "r=0;while,guest,disk,path=/dev/vda,blocks={DISK_BLOCKS},round=$r>/tmp/out;do,\
             echo,ROUND,$r,verified;r=$((r+1));sleep,0.3;done;cat,/tmp/out"
        );
        let line = format!(
            "xl create /dev/null name={NAME} kernel=module:linux ramdisk=module:initrd memory={} \
             vcpus={} 'vif=[\"mac={mac},type=bridge\"]' 'disk=[\"{},raw,xvda,rw\"]' {} \
             extra=\"console=ttyS0 quiet panic=-1 godwit.net={GUEST}/24 \
             godwit.run=guest,tcp-serve,port={TCP_PORT}& godwit.run=guest,load,kind={}& \
             godwit.run={disk}\"",
            options.memory_mib,
            load.vcpus,
            self.disk.target(),
            "on_poweroff=preserve on_reboot=preserve on_crash=preserve",
            load.kind,
        );
        let said = self.hosts[0].command(&line)?;
        ensure!(said.contains("created domain"), "{line}:\n{said}");
        self.at = 0;
        self.goes_on()?;
        let tcp = Watch::tcp(self.tcp_port)?;
        tcp.wait_answer(GUEST_TIMEOUT)?;
        let pings = Watch::ping(Peer::start(self.link.port(3), PINGER)?, GUEST);
        pings.wait_answer(GUEST_TIMEOUT)?;
        self.watches = Some([tcp, pings]);
        Ok(())
    }

    /// Takes it away.
    pub fn destroy(&mut self) -> Result<()> {
        self.watches = None;
        let said = self.hosts[self.at].command(&format!("xl destroy {NAME}"))?;
        ensure!(!said.contains("no domain"), "{said}");
        Ok(())
    }

    /// The host that has the guest.
    pub fn here(&mut self) -> &mut Host {
        &mut self.hosts[self.at]
    }

    /// The other one.
    pub fn there(&mut self) -> &mut Host {
        &mut self.hosts[1 - self.at]
    }

    /// The command that moves the guest to the other host.
    pub fn migrate_line(&self, options: &str) -> String {
        let (name, address) = HOSTS[1 - self.at];
        match self.encrypted {
            true => format!("xl migrate {options} {NAME} {name}"),
            false => format!("xl migrate {options} {NAME} plaintext:{address}"),
        }
    }

    /// Moves the guest to the other host; all its loads go on there.
    pub fn migrate(&mut self, options: &str) -> Result<Moved> {
        let before = self.goes_on()?;
        for watch in self.watches()? {
            watch.wait_answer(GUEST_TIMEOUT)?;
            watch.longest_gap()?;
        }
        let (line, shown) = (self.migrate_line(options), self.shows_moves);
        let host = self.here();
        let timeout = MOVE_TIMEOUT * host.emulator().slowness();
        if shown {
            // What was shown before is not wanted once more.
            let open = Arc::new(AtomicBool::new(false));
            let shown = Shown(Arc::clone(&open));
            host.console().mirror(Some(Box::new(shown)));
            open.store(true, Ordering::Relaxed);
        }
        let said = host.console().command(&line, timeout);
        host.console().mirror(None);
        let said = said?;
        ensure!(said.contains("moved domain"), "{line}:\n{said}");
        ensure!(!self.is_listed(self.at)?, "moved, and still listed");
        self.at = 1 - self.at;
        self.moved(said, before)
    }

    /// Looks at the guest after a move.
    fn moved(&mut self, said: String, before: Work) -> Result<Moved> {
        let mut outside = [Duration::ZERO; 2];
        for (watch, gap) in self.watches()?.iter().zip(&mut outside) {
            watch.wait_answer(GUEST_TIMEOUT)?;
            *gap = watch.longest_gap()?;
        }
        // Twice: what comes first may have been put together before the stop.
        self.goes_on()?;
        let after = self.goes_on()?;
        ensure!(
            after.disk_rounds > before.disk_rounds,
            "the disk's load stands still: {before:?}, {after:?}"
        );
        let console = self.console(self.at)?;
        let inside_us = lines(&console)
            .filter(|line| line.0 >= before.memory_s)
            .map(|line| line.1)
            .max()
            .context("the guest says nothing of its clocks")?;
        let line = said.lines().find(|line| line.starts_with("moved domain"));
        let downtime = line
            .and_then(|line| {
                line.split_once("downtime ")?
                    .1
                    .split(' ')
                    .next()?
                    .parse()
                    .ok()
            })
            .with_context(|| format!("no downtime in:\n{said}"))?;
        Ok(Moved {
            downtime: Duration::from_millis(downtime),
            inside: Duration::from_micros(inside_us),
            outside_tcp: outside[0],
            outside_ping: outside[1],
            said,
        })
    }

    fn watches(&self) -> Result<&[Watch; 2]> {
        self.watches.as_ref().context("there is no guest")
    }

    /// Waits until every load has got on from where it is now; where that is. Fails when one found
    /// something wrong.
    pub fn goes_on(&mut self) -> Result<Work> {
        let deadline = Instant::now() + GUEST_TIMEOUT * self.here().emulator().slowness();
        let mut first = None;
        loop {
            let said = self.console(self.at)?;
            let now = work(&said);
            let since = *first.get_or_insert(now);
            if now.disk_rounds > since.disk_rounds && now.memory_s > since.memory_s {
                if let Some(watches) = &self.watches {
                    for watch in watches {
                        watch.wait_answer(GUEST_TIMEOUT)?;
                    }
                }
                return Ok(now);
            }
            ensure!(Instant::now() < deadline, "{now:?} and no further:\n{said}");
            std::thread::sleep(LOOK_PERIOD);
        }
    }

    fn console(&mut self, index: usize) -> Result<String> {
        let said = self.hosts[index].command(&format!("xl console -n {NAME}"))?;
        let failed = [" BAD", "GUEST FAILED", "Kernel panic", "I/O error"];
        let found = failed.iter().find(|word| said.contains(**word));
        ensure!(found.is_none(), "{found:?} in the guest:\n{said}");
        Ok(said)
    }

    /// Whether a host lists the guest.
    pub fn is_listed(&mut self, index: usize) -> Result<bool> {
        let list = self.hosts[index].command("xl list")?;
        let mut names = list.lines().filter_map(|line| line.split(' ').next());
        Ok(names.any(|name| name == NAME))
    }

    /// Waits until `xl migrate-status` of a host says something.
    pub fn status_until(&mut self, index: usize, wanted: &str) -> Result<String> {
        self.hosts[index].command_until("xl migrate-status", wanted, MOVE_TIMEOUT)
    }

    /// Ends a host's emulator at once (SIGKILL) and boots the same disk anew.
    pub fn cut_power(&mut self, index: usize) -> Result<()> {
        drop(self.hosts.remove(index));
        self.link.forget(index);
        self.configs[index].label += "-again";
        self.hosts.insert(index, Host::boot(&self.configs[index])?);
        self.hosts[index].wait_prompt().map(drop)
    }

    /// Kills dom0 of a host, whatever its shell is at; the next one has its prompt when this returns.
    pub fn crash_dom0(&mut self, index: usize) -> Result<()> {
        let timeout = GUEST_TIMEOUT * self.hosts[index].emulator().slowness();
        let console = self.hosts[index].console();
        console.send(SWITCH)?;
        console.expect("input goes to the hypervisor", timeout)?;
        console.send(b"D")?;
        console.expect("built anew", timeout)?;
        console.send(SWITCH)?;
        console.expect_prompt(timeout)?;
        // The first prompt may have come before the keyboard was dom0's again.
        console.send_line("echo here")?;
        console.expect("\nhere\n", timeout)?;
        console.expect_prompt(timeout).map(drop)
    }

    /// Whether a frame is an announcement of the guest's card: RARP, or ARP for its own address.
    pub fn is_announcement(frame: &[u8]) -> bool {
        const TYPES: [[u8; 2]; 2] = [[0x08, 0x06], [0x80, 0x35]];
        let is_about = |at: usize| frame.get(at..at + 6) == Some(&MAC[..]);
        let same_address = frame.get(28..32) == frame.get(38..42);
        let kind = frame.get(12..14);
        frame.starts_with(&[0xff; 6])
            && is_about(6)
            && is_about(22)
            && same_address
            && TYPES.iter().any(|one| kind == Some(&one[..]))
    }
}

/// Standard output, once it is open.
struct Shown(Arc<AtomicBool>);

impl std::io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.load(Ordering::Relaxed) {
            true => std::io::stdout().write(bytes),
            false => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stdout().flush()
    }
}

fn host_config(
    label: &str,
    index: usize,
    options: &SiteOptions,
    link: &Link,
    modules: [(&str, &std::path::Path); 2],
) -> Result<HostConfig> {
    let (name, address) = HOSTS[index];
    let mut image = Image::new(label, name)?.address(&format!("{address}/24"));
    if !options.encrypted {
        image = image.dom0_options("migrate=plaintext");
    }
    if index == 0 {
        for (name, file) in modules {
            image = image.module(name, file);
        }
    }
    let emulator = options.emulators[index];
    let mut config = HostConfig::new(emulator, &image.write()?, label)
        .memory_mib(options.memory_mib + HOST_MIB)
        .mac_suffix(index as u8 + 1)
        .network(Network::Link(link.port(index)));
    if options.stores {
        let path = root()?.join(format!("out/guest/{label}.img"));
        let store = StoreImage::new(path).label("main").write()?;
        let interface = match emulator {
            Emulator::Bochs => DiskInterface::Ide,
            Emulator::Qemu | Emulator::Kvm => DiskInterface::VirtioBlk,
        };
        config = config.disk(DiskConfig::new(store.path(), interface));
    }
    Ok(config)
}

/// Time and longest gap of each whole line of `guest load`, in seconds and microseconds.
fn lines(console: &str) -> impl Iterator<Item = (f64, u64)> {
    console.lines().filter_map(|line| {
        let line = line.trim_end().strip_suffix(" .")?;
        let words = line.strip_prefix("LOAD ")?.split(' ');
        let value = |key: &str| words.clone().find_map(|word| word.strip_prefix(key));
        let gap = |key: &str| value(key)?.parse::<u64>().ok();
        let time = value("t=")?.parse().ok()?;
        Some((time, gap("gap_us=")?.max(gap("boot_gap_us=")?)))
    })
}

fn work(console: &str) -> Work {
    let rounds = console.lines().filter_map(|line| {
        let number = line.trim().strip_prefix("ROUND ")?;
        number.strip_suffix(" verified")?.parse().ok()
    });
    Work {
        disk_rounds: rounds.max().unwrap_or(0),
        memory_s: lines(console).last().map_or(0.0, |line| line.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_words_are_understood() {
        let console = "GUEST ready\nROUND 0 verified\r\nLOAD t=1.5 total=3 gap_us=900 boot_gap_us=1200 gap_ticks=7 .\r\n\
                       ROUND 12 verified\nROUND 13 veri\nLOAD t=2.5 total=5 gap_us=77";
        let wanted = Work {
            disk_rounds: 12,
            memory_s: 1.5,
        };
        assert_eq!(work(console), wanted);
        assert_eq!(lines(console).collect::<Vec<_>>(), [(1.5, 1200)]);
    }

    #[test]
    fn announcements_are_told_from_other_frames() {
        let mut frame = vec![0xff; 6];
        frame.extend(MAC);
        frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
        frame.extend(MAC);
        frame.extend([10, 77, 0, 10, 0, 0, 0, 0, 0, 0, 10, 77, 0, 10]);
        assert!(MoveSite::is_announcement(&frame));
        // It asks for somebody else.
        frame[41] = 11;
        assert!(!MoveSite::is_announcement(&frame));
        frame[41] = 10;
        frame[11] ^= 1;
        assert!(!MoveSite::is_announcement(&frame));
    }
}
