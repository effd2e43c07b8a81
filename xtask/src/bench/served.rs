//! What dom0 serves to a guest: its disk and its network card, driven from the guest's shell.
//!
//! What something costs is the time that dom0 and the guest ran (`cpu_time_ns`, the hypervisor's
//! exits included), where a nanosecond is an instruction; waiting for the emulator's disk or for the
//! other end is not in it. Each figure is the difference of a long and a short run of the same
//! command, so that what the command costs by itself is not in it either.

use super::guests::ask;
use super::{Better, Row};
use crate::shell;
use anyhow::{Context, Result, ensure};
use godwit_harness::{Artefact, Doors, Gateway, Host, LinkPort};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// dom0's address on the link.
pub(super) const ADDRESS: &str = "10.77.0.1/24";
/// The station at the other end, and the port where the program there is reached.
const STATION: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 254);
const STATION_PORT: u16 = 5001;
/// For one command in the guest, on QEMU.
const TIMEOUT: Duration = Duration::from_secs(200);
/// Instructions a second where they are counted.
const TICKS_A_SECOND: f64 = 1e9;
/// Blocks of 4 KiB of the guest's disk that are used: 16 MiB.
const BLOCKS: u32 = 4096;
const RANDOM_READS: [u32; 2] = [64, 1024];
const SEQUENTIAL_READS: [u32; 2] = [2, 16];
const MIB: u32 = 1 << 20;

/// One command in the guest.
struct Ran {
    said: String,
    /// Instructions of dom0 and the guest.
    cost: f64,
}

impl Ran {
    /// The numbers of its last line that begins with `start`: units, bytes and ticks.
    fn number(&self, start: &str, key: &str) -> Result<f64> {
        self.said
            .lines()
            .rfind(|line| line.starts_with(start))
            .and_then(|line| line.split(' ').find_map(|word| word.strip_prefix(key)))
            .and_then(|number| number.parse().ok())
            .with_context(|| format!("no {key} on a line {start:?} of:\n{}", self.said))
    }
}

fn run(host: &mut Host, guest: &str, line: &str) -> Result<Ran> {
    let before = cpu_time(&ask(host, "xl list -l")?)?;
    let said = host.guest_shell(guest, line, TIMEOUT)?;
    let after = cpu_time(&ask(host, "xl list -l")?)?;
    ensure!(said.contains("status=0"), "in the guest, {line}:\n{said}");
    Ok(Ran {
        said,
        cost: after - before,
    })
}

/// The time that all domains of `xl list -l` together ran, in nanoseconds.
fn cpu_time(list: &str) -> Result<f64> {
    let times: Vec<f64> = list
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| key.trim() == "cpu_time_ns")
        .map(|(_, value)| value.trim().parse())
        .collect::<Result<_, _>>()
        .context("a time that is no number")?;
    ensure!(times.len() == 2, "dom0 and one guest, not:\n{list}");
    Ok(times.iter().sum())
}

/// Differences of a long and a short run: what a unit cost, and units a second of the guest's clock.
struct Difference {
    cost: f64,
    rate: f64,
}

fn difference(runs: &[Ran; 2], line: &str, unit: &str) -> Result<Difference> {
    let [short, long] = runs;
    let units = long.number(line, unit)? - short.number(line, unit)?;
    let ticks = long.number(line, "ticks=")? - short.number(line, "ticks=")?;
    ensure!(units > 0.0 && ticks > 0.0, "the long run was no longer");
    Ok(Difference {
        cost: (long.cost - short.cost) / units,
        rate: units / ticks * TICKS_A_SECOND,
    })
}

/// Random and sequential reads, checked, of a disk that the guest writes first.
pub(super) fn disk(host: &mut Host, guest: &str) -> Result<Vec<Row>> {
    let emulator = host.emulator().name();
    let mut ran = |arguments: &str| {
        run(
            host,
            guest,
            &format!("guest disk path=/dev/vda {arguments}"),
        )
    };
    ran(&format!("mode=write blocks={BLOCKS}"))?;
    let mut reads = |count| ran(&format!("mode=random blocks={BLOCKS} count={count}"));
    let random = [reads(RANDOM_READS[0])?, reads(RANDOM_READS[1])?];
    let random = difference(&random, "DISK random", "blocks=")?;
    let [few, many] = SEQUENTIAL_READS;
    ran(&format!("mode=write bytes={MIB} blocks={many}"))?;
    let mut reads = |count| ran(&format!("mode=check bytes={MIB} blocks={count}"));
    let sequential = [reads(few)?, reads(many)?];
    let sequential = difference(&sequential, "DISK check", "blocks=")?;
    let row = |name: &str, value, unit, better| Row {
        name: name.to_owned(),
        emulator,
        value,
        unit,
        goal: None,
        better,
        peer: None,
    };
    let one = "virtio-blk 4 KiB random read, one at a time";
    let whole = "virtio-blk 1 MiB sequential read";
    let mib_to_mb = f64::from(MIB) / 1e6;
    Ok(vec![
        row(one, random.cost, "instr/IO", Better::Less),
        row(one, random.rate, "IOPS", Better::More),
        row(one, random.rate * 4096.0 / 1e6, "MB/s", Better::More),
        row(whole, sequential.cost, "instr/IO", Better::Less),
        row(whole, sequential.rate, "IOPS", Better::More),
        row(whole, sequential.rate * mib_to_mb, "MB/s", Better::More),
    ])
}

/// The other end of the link: a station, and our program behind it.
pub(super) struct OtherEnd {
    program: Child,
    _station: Gateway,
}

impl OtherEnd {
    pub(super) fn start(port: LinkPort) -> Result<OtherEnd> {
        // Given back at once: nobody else asks for ports here.
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let program = Command::new(Artefact::Guest.built()?)
            .args(["tcp-serve", &format!("port={}", free.port())])
            .stdout(Stdio::null())
            .spawn()?;
        let doors = Doors {
            inward: Some((STATION_PORT, free.port())),
            outward: None,
        };
        let station = Gateway::start(port, STATION, doors)?;
        Ok(OtherEnd {
            program,
            _station: station,
        })
    }
}

impl Drop for OtherEnd {
    fn drop(&mut self) {
        // Either it is gone already or this works.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// Checked TCP streams between the guest and the program on the other end of the link, of `bytes` and
/// of a quarter of them.
pub(super) fn network(host: &mut Host, guest: &str, bytes: u64) -> Result<Vec<Row>> {
    let emulator = host.emulator().name();
    let up = "ip link set eth0 up && udhcpc -q -n -t 10 -i eth0 -s /bin/dhcp.sh";
    run(host, guest, up).context("the guest's network does not come up")?;
    let mut rows = Vec::new();
    for (direction, line, name) in [
        ("send", "TCP acknowledged", "virtio-net TCP, guest sends"),
        ("receive", "TCP received", "virtio-net TCP, guest receives"),
    ] {
        shell::say(&format!("{name}, {bytes} bytes"));
        let mut measured = |bytes: u64| {
            let line = format!(
                "guest tcp-send address={STATION}:{STATION_PORT} bytes={bytes} direction={direction}"
            );
            run(host, guest, &line)
        };
        let runs = [measured(bytes / 4)?, measured(bytes)?];
        let a_byte = difference(&runs, line, "bytes=")?;
        for (value, unit, better) in [
            (a_byte.cost * 1024.0, "instr/KiB", Better::Less),
            (a_byte.rate / 1e6, "MB/s", Better::More),
        ] {
            rows.push(Row {
                name: name.to_owned(),
                emulator,
                value,
                unit,
                goal: None,
                better,
                peer: None,
            });
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(said: &str, cost: f64) -> Ran {
        Ran {
            said: said.to_owned(),
            cost,
        }
    }

    #[test]
    fn what_both_runs_cost_is_not_counted() {
        let runs = [
            ran(
                "x\nDISK random blocks=10 bytes=40960 ticks=3000\nstatus=0 ",
                9000.0,
            ),
            ran(
                "DISK check blocks=1 bytes=1 ticks=1\nDISK random blocks=30 bytes=1 ticks=5000\n",
                29_000.0,
            ),
        ];
        let each = difference(&runs, "DISK random", "blocks=").unwrap();
        assert_eq!((each.cost, each.rate), (1000.0, 1e7));
        assert!(difference(&runs, "DISK write", "blocks=").is_err());
        let [short, long] = runs;
        assert!(difference(&[long, short], "DISK random", "blocks=").is_err());
    }

    #[test]
    fn times_are_of_dom0_and_one_guest() {
        let one = "name : x\ncpu_time : 0.1\ncpu_time_ns : 100\n";
        assert_eq!(cpu_time(&format!("{one}\n{one}")).unwrap(), 200.0);
        assert!(cpu_time(one).is_err());
    }
}
