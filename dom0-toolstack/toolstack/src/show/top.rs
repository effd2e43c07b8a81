//! `xl top`: two snapshots of the host into a screen.

use super::list::state_letters;
use crate::host::Hypervisor;
use crate::names::{all, id_of};
use crate::table::{Align, Table, duration, tenth};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{CpuInfo, DomainInfo, HostInfo, Status, text};

/// The host at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The host.
    pub host: HostInfo,
    /// Its CPUs.
    pub cpus: Vec<CpuInfo>,
    /// Its domains.
    pub domains: Vec<DomainInfo>,
    /// When, in nanoseconds since boot.
    pub now_ns: u64,
}

impl Snapshot {
    /// Takes a snapshot.
    pub fn take(hypervisor: &impl Hypervisor) -> Result<Self, Status> {
        let cpus: Vec<CpuInfo> = hypervisor.cpus().collect::<Result<_, _>>()?;
        Ok(Self {
            host: hypervisor.host_info()?,
            domains: all(hypervisor)?,
            now_ns: cpus.first().map_or(0, |cpu| cpu.now_ns),
            cpus,
        })
    }
}

/// The live view.
#[derive(Clone, Default, Debug)]
pub struct TopState {
    last: Option<Snapshot>,
}

/// Clears what is left of a row.
const END_OF_ROW: &str = "\x1b[K";

impl TopState {
    /// A view that has seen nothing yet; its first screen shows averages since boot.
    pub fn new() -> Self {
        Self::default()
    }

    /// The screen for a new snapshot, as lines: rates are since the one before. Domains are
    /// ordered by CPU use.
    pub fn update(&mut self, now: Snapshot) -> String {
        let last = self.last.take();
        let since_ns = last.as_ref().map_or(0, |last| last.now_ns);
        let elapsed_ns = now.now_ns.saturating_sub(since_ns).max(1);
        let mut out = header(&now, last.as_ref(), elapsed_ns);
        let mut rows: Vec<(u64, u64, &DomainInfo)> = Vec::new();
        for info in &now.domains {
            let before = last.as_ref().and_then(|last| {
                let mut domains = last.domains.iter();
                domains.find(|before| before.domain == info.domain)
            });
            let (cpu_ns, exits) = before.map_or((0, 0), |before| (before.cpu_ns, before.exits));
            let used = permille(info.cpu_ns.saturating_sub(cpu_ns), elapsed_ns);
            let rate = per_second(info.exits.saturating_sub(exits), elapsed_ns);
            rows.push((used, rate, info));
        }
        rows.sort_by_key(|(used, _, info)| (core::cmp::Reverse(*used), info.domain));
        let mut table = Table::new(&[
            ("NAME", Align::Left, 24),
            ("ID", Align::Right, 5),
            ("STATE", Align::Left, 6),
            ("CPU(sec)", Align::Right, 9),
            ("CPU(%)", Align::Right, 7),
            ("MEM(M)", Align::Right, 7),
            ("VCPUS", Align::Right, 5),
            ("EXITS/S", Align::Right, 9),
        ]);
        for (used, rate, info) in rows {
            table.row(alloc::vec![
                text(&info.name).into(),
                format!("{}", id_of(info)),
                state_letters(info),
                format!("{}", info.cpu_ns / 1_000_000_000),
                tenth(used),
                format!("{}", info.memory_pages >> 8),
                format!("{}", info.vcpus),
                format!("{rate}"),
            ]);
        }
        out.push_str(&table.render());
        self.last = Some(now);
        out
    }

    /// Lines as a whole screen of `rows` rows and `columns` columns: what does not fit is left
    /// out. The terminal is not cleared first, so that nothing flickers.
    pub fn screen(lines: &str, rows: usize, columns: usize) -> String {
        let mut out = String::from("\x1b[H");
        for line in lines.lines().take(rows.saturating_sub(1)) {
            out.extend(line.chars().take(columns.saturating_sub(1)));
            out.push_str(END_OF_ROW);
            out.push_str("\r\n");
        }
        out.push_str("\x1b[J");
        out
    }
}

fn header(now: &Snapshot, last: Option<&Snapshot>, elapsed_ns: u64) -> String {
    let mut idle_ns = 0u64;
    let mut exits = 0u64;
    for (index, cpu) in now.cpus.iter().enumerate() {
        let before = last.and_then(|last| last.cpus.get(index));
        let (idle, exit) = before.map_or((0, 0), |before| (before.idle_ns, before.exits));
        idle_ns = idle_ns.saturating_add(cpu.idle_ns.saturating_sub(idle));
        exits = exits.saturating_add(cpu.exits.saturating_sub(exit));
    }
    let online = now.cpus.iter().filter(|cpu| cpu.online != 0).count();
    let idle = permille(idle_ns, elapsed_ns.saturating_mul(online.max(1) as u64));
    let host = &now.host;
    format!(
        "godwit {}  up {}  {} domains\nCPUs: {online} @ {} MHz, idle {}%, {} exits/s   Mem: {}M total, {}M free\n\n",
        text(&host.version),
        duration(now.now_ns / 1_000_000_000),
        now.domains.len(),
        host.tsc_hz / 1_000_000,
        tenth(idle.min(1000)),
        per_second(exits, elapsed_ns),
        host.memory_bytes >> 20,
        host.free_bytes >> 20,
    )
}

/// Part of whole in tenths of a percent.
fn permille(part: u64, whole: u64) -> u64 {
    ratio(part, 1000, whole)
}

fn per_second(count: u64, elapsed_ns: u64) -> u64 {
    ratio(count, 1_000_000_000, elapsed_ns)
}

fn ratio(value: u64, factor: u64, divisor: u64) -> u64 {
    let value = u128::from(value) * u128::from(factor) / u128::from(divisor.max(1));
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;

    #[test]
    fn rates_are_between_two_snapshots() {
        let host = FakeHypervisor::new();
        let busy = host.add_domain("busy", 128);
        let mut top = TopState::new();
        let advance = |to_ns: u64, idle_ns: u64, cpu_ns: u64, exits: u64| {
            for cpu in &mut host.state.borrow_mut().cpus {
                (cpu.now_ns, cpu.idle_ns, cpu.exits) = (to_ns, idle_ns, exits / 2);
            }
            host.with(busy, |domain| {
                (domain.info.cpu_ns, domain.info.exits) = (cpu_ns, exits);
            })
            .unwrap();
        };
        advance(10_000_000_000, 10_000_000_000, 0, 100);
        let first = top.update(Snapshot::take(&host).unwrap());
        assert!(first.contains("idle 100.0%"), "{first}");
        advance(12_000_000_000, 11_500_000_000, 1_500_000_000, 1100);
        let second = top.update(Snapshot::take(&host).unwrap());
        assert!(
            second.contains("2 @ 1000 MHz, idle 75.0%, 500 exits/s"),
            "{second}"
        );
        let rows: Vec<&str> = second.lines().skip(4).collect();
        let want =
            "busy                         1 ------         1    75.0     128     1       500";
        assert_eq!(rows[0], want);
        assert!(rows[1].starts_with("Domain-0 "), "{second}");
    }

    #[test]
    fn a_clock_that_stands_still_divides_nothing_by_zero() {
        let host = FakeHypervisor::new();
        let mut top = TopState::new();
        for _ in 0..2 {
            let screen = top.update(Snapshot::take(&host).unwrap());
            assert!(screen.contains("Domain-0"));
        }
    }

    #[test]
    fn the_screen_is_cut_to_the_terminal() {
        let screen = TopState::screen("12345\nb\nc\n", 3, 5);
        assert_eq!(screen, "\x1b[H1234\x1b[K\r\nb\x1b[K\r\n\x1b[J");
    }
}
