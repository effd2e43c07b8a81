//! Two hosts that know each other, and the moves between them.

use super::cases::{Case, Outcome};
use super::report;
use anyhow::{Result, bail, ensure};
use godwit_harness::{
    Emulator, Flavour, GuestKernel, Host, HostConfig, Image, Link, Network, PortKind, Ramdisk,
};
use std::time::{Duration, Instant};

const NAME: &str = "m";
const ADDRESSES: [&str; 2] = ["10.77.0.1", "10.77.0.2"];
/// A host's memory beyond that of its guest, in MiB.
const HOST_MIB: u32 = 1024;
/// For a guest to come up, on QEMU.
const BOOT_TIMEOUT: Duration = Duration::from_secs(240);
/// For a move, on QEMU.
const MOVE_TIMEOUT: Duration = Duration::from_secs(900);
/// Lines of the load before it is moved, so that its memory is warm, and after.
const LINES: usize = 4;
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// Two hosts. Fields drop in order.
pub(super) struct Site {
    hosts: [Host; 2],
    link: Link,
}

impl Site {
    pub(super) fn boot(emulator: Emulator, memory_mib: u32) -> Result<Site> {
        let kernel = GuestKernel::fetch(Flavour::Cloud)?;
        let ramdisk = Ramdisk::new(&kernel)?.write("bench-migrate")?;
        let link = Link::start(&[PortKind::from(emulator); 2], 1)?;
        let start = |index: usize, name: &str| {
            let label = format!("bench-migrate-{}-{name}", emulator.name());
            let mut image = Image::new(&label, name)?.address(&format!("{}/24", ADDRESSES[index]));
            if index == 0 {
                image = image
                    .module("linux", kernel.image())
                    .module("initrd", &ramdisk);
            }
            let config = HostConfig::new(emulator, &image.write()?, &label)
                .memory_mib(memory_mib + HOST_MIB)
                .mac_suffix(index as u8 + 1)
                .network(Network::Link(link.port(index)));
            Host::boot(&config)
        };
        let mut site = Site {
            hosts: [start(0, "host-a")?, start(1, "host-b")?],
            link,
        };
        for host in &mut site.hosts {
            host.wait_prompt()?;
        }
        site.introduce()?;
        Ok(site)
    }

    /// Tells each host the other's fingerprint.
    fn introduce(&mut self) -> Result<()> {
        let [a, b] = &mut self.hosts;
        let (of_a, of_b) = (a.fingerprint()?, b.fingerprint()?);
        a.command(&format!("xl host-add host-b {} {of_b}", ADDRESSES[1]))?;
        b.command(&format!("xl host-add host-a {} {of_a}", ADDRESSES[0]))?;
        let line = format!("ping -c 3 {}", ADDRESSES[1]);
        a.command_until(&line, " 0% packet loss", BOOT_TIMEOUT)?;
        Ok(())
    }

    /// Makes the guest of a case, moves it, and takes it away.
    pub(super) fn run(&mut self, case: &Case) -> Result<Outcome> {
        self.link.configure(|settings| settings.rate_bps = None);
        let [a, b] = &mut self.hosts;
        create(a, case)?;
        load_lines(a, LINES)?;
        self.link
            .configure(|settings| settings.rate_bps = Some(case.rate_bps));
        let line = format!("xl migrate --on-miss={} {NAME} host-b", case.on_miss);
        let begun = Instant::now();
        let timeout = MOVE_TIMEOUT * a.emulator().slowness();
        let said = a.console().command(&line, timeout)?;
        let seconds = begun.elapsed().as_secs_f64();
        eprint!("{said}");
        let outcome = if said.contains("moved domain ") {
            let console = load_lines(b, LINES)?;
            b.command(&format!("xl destroy {NAME}"))?;
            Outcome::Moved(report::read(&said, &console)?)
        } else {
            ensure!(said.contains("was not moved"), "{line}:\n{said}");
            load_lines(a, LINES)?;
            a.command(&format!("xl destroy {NAME}"))?;
            Outcome::Refused { seconds }
        };
        // Where the guest gets little of the machine, abort may find nothing to call off.
        if case.moves && matches!(outcome, Outcome::Refused { .. }) {
            bail!("it was to move:\n{said}");
        }
        Ok(outcome)
    }
}

fn create(host: &mut Host, case: &Case) -> Result<()> {
    let line = format!(
        "xl create /dev/null name={NAME} kernel=module:linux ramdisk=module:initrd memory={} \
         on_poweroff=preserve on_reboot=preserve on_crash=preserve \
         extra=\"console=ttyS0 panic=-1 godwit.run=guest,load,kind={}\"",
        case.memory_mib, case.load
    );
    let timeout = BOOT_TIMEOUT * host.emulator().slowness();
    let said = host.console().command(&line, timeout)?;
    ensure!(said.contains("created domain"), "{line}:\n{said}");
    Ok(())
}

/// The guest's console once its load has said something often enough since it is there.
fn load_lines(host: &mut Host, lines: usize) -> Result<String> {
    let deadline = Instant::now() + BOOT_TIMEOUT * host.emulator().slowness();
    let mut first = None;
    loop {
        let said = host.command(&format!("xl console -n {NAME}"))?;
        ensure!(!said.contains(" BAD "), "the load failed:\n{said}");
        let now = report::lines(&said);
        let since = *first.get_or_insert(now);
        if now >= since + lines {
            return Ok(said);
        }
        ensure!(Instant::now() < deadline, "the load is silent:\n{said}");
        std::thread::sleep(LOOK_PERIOD * host.emulator().slowness());
    }
}
