//! `xl list`, `xl vcpu-list` and `xl sched-credit2`.

use crate::config::cpus;
use crate::names::id_of;
use crate::table::{Align, Table, pair, seconds};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use godwit_abi::{DomainInfo, DomainState, ShutdownReason, VcpuInfo, VcpuRunState, text};

/// Pages of 4 KiB as MiB.
fn mib(pages: u64) -> u64 {
    pages >> 8
}

/// The six letters of `xl list`: running, blocked, paused, shut down, crashed, dying.
pub(super) fn state_letters(info: &DomainInfo) -> String {
    let state = DomainState::from_number(info.state);
    let is = |wanted| state == Some(wanted);
    let paused = info.pauses > 0 && !is(DomainState::Dying);
    let runs = is(DomainState::Running) && info.pauses == 0;
    let letters = [
        ('r', runs && info.running > 0),
        ('b', runs && info.running == 0 && info.blocked > 0),
        (
            'p',
            paused || is(DomainState::Paused) || is(DomainState::Building),
        ),
        ('s', is(DomainState::Shutdown)),
        ('c', is(DomainState::Crashed)),
        ('d', is(DomainState::Dying)),
    ];
    let letters = letters
        .iter()
        .map(|(letter, on)| if *on { *letter } else { '-' });
    letters.collect()
}

/// What `xl list` prints.
pub fn list(domains: &[DomainInfo]) -> String {
    let mut out = String::from(
        "Name                                        ID   Mem VCPUs\tState\tTime(s)\n",
    );
    for info in domains {
        let _ = writeln!(
            out,
            "{:<40} {:>5} {:>5} {:>5}     {}  {:>8}",
            text(&info.name),
            format!("{}", id_of(info)),
            mib(info.memory_pages),
            info.vcpus,
            state_letters(info),
            seconds(info.cpu_ns),
        );
    }
    out
}

/// What `xl list -l` prints: every fact about each domain.
pub fn list_long(domains: &[DomainInfo]) -> String {
    let mut out = String::new();
    for (index, info) in domains.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let mut say = |key: &str, value: String| pair(&mut out, key, &value);
        let state = DomainState::from_number(info.state);
        say("name", text(&info.name).into());
        say("domid", format!("{}", id_of(info)));
        say("uuid", uuid_text(&info.uuid));
        say("state", words(info.state, state.map(DomainState::text)));
        say("pauses", format!("{}", info.pauses));
        if matches!(state, Some(DomainState::Shutdown | DomainState::Crashed)) {
            let reason = ShutdownReason::from_number(info.reason);
            say(
                "reason",
                words(info.reason, reason.map(ShutdownReason::text)),
            );
            say("detail", format!("{:#x}", info.crash_detail));
        }
        say("memory", format!("{}", mib(info.memory_pages)));
        say("maxmem", format!("{}", mib(info.memory_pages_max)));
        say("nested_table_pages", format!("{}", info.table_pages));
        say(
            "overhead_kib",
            format!("{}", info.overhead_bytes.div_ceil(1024)),
        );
        say("vcpus", format!("{}", info.vcpus));
        say("vcpus_running", format!("{}", info.running));
        say("vcpus_blocked", format!("{}", info.blocked));
        say("cpu_weight", format!("{}", info.weight));
        say("cap", format!("{}", info.cap_percent));
        say("cpu_time", seconds(info.cpu_ns));
        say("cpu_time_ns", format!("{}", info.cpu_ns));
        say("exits", format!("{}", info.exits));
        say("refused", format!("{}", info.refused));
        say("console_bytes", format!("{}", info.console_end));
    }
    out
}

/// A number's name, or the number when it is of another version.
fn words(number: u32, name: Option<&'static str>) -> String {
    name.map_or_else(|| format!("unknown ({number})"), String::from)
}

/// An identity in its usual form.
pub fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut out = String::new();
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// What `xl vcpu-list` prints: each domain with its vCPUs in order.
pub fn vcpu_list(domains: &[(DomainInfo, Vec<VcpuInfo>)]) -> String {
    let mut table = Table::new(&[
        ("Name", Align::Left, 32),
        ("ID", Align::Right, 5),
        ("VCPU", Align::Right, 5),
        ("CPU", Align::Right, 5),
        ("State", Align::Right, 5),
        ("Time(s)", Align::Right, 9),
        ("Affinity (Hard / Soft)", Align::Left, 0),
    ]);
    for (info, vcpus) in domains {
        for (index, vcpu) in vcpus.iter().enumerate() {
            let state = VcpuRunState::from_number(vcpu.state);
            let cpu = match vcpu.cpu {
                u32::MAX => "-".into(),
                cpu => format!("{cpu}"),
            };
            table.row(alloc::vec![
                text(&info.name).into(),
                format!("{}", id_of(info)),
                format!("{index}"),
                cpu,
                words(vcpu.state, state.map(VcpuRunState::text)),
                seconds(vcpu.cpu_ns),
                format!("{} / all", cpus::show(vcpu.affinity)),
            ]);
        }
    }
    table.render()
}

/// What `xl sched-credit2` prints.
pub fn sched_credit2(domains: &[DomainInfo]) -> String {
    let mut table = Table::new(&[
        ("Name", Align::Left, 32),
        ("ID", Align::Right, 5),
        ("Weight", Align::Right, 6),
        ("Cap", Align::Right, 4),
    ]);
    for info in domains {
        table.row(alloc::vec![
            text(&info.name).into(),
            format!("{}", id_of(info)),
            format!("{}", info.weight),
            format!("{}", info.cap_percent),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Hypervisor;
    use crate::host::fake::FakeHypervisor;
    use godwit_abi::{DomainId, VcpuIndex};

    #[test]
    fn columns_are_those_of_xl() {
        let host = FakeHypervisor::new();
        let id = host.add_domain("web", 128);
        host.with(id, |domain| {
            domain.info.blocked = 1;
            domain.info.cpu_ns = 12_345_000_000;
        })
        .unwrap();
        let all = crate::names::all(&host).unwrap();
        let want = "\
Name                                        ID   Mem VCPUs\tState\tTime(s)
Domain-0                                     0    64     1     r-----       0.0
web                                          1   128     1     -b----      12.3
";
        assert_eq!(list(&all), want);
        let vcpus = std::vec![host.vcpu_info(id, VcpuIndex(0)).unwrap()];
        let want = "\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
web                                  1     0     0   -b-      12.3 0-1 / all
";
        assert_eq!(vcpu_list(&[(all[1], vcpus)]), want);
        assert!(sched_credit2(&all).ends_with("    1    256    0\n"));
    }

    #[test]
    fn states_have_their_letters() {
        let host = FakeHypervisor::new();
        let mut info = host.domain_info(DomainId::CONTROL).unwrap();
        let mut letters = |state: u32, pauses, running| {
            (info.state, info.pauses, info.running) = (state, pauses, running);
            state_letters(&info)
        };
        assert_eq!(letters(DomainState::Building as u32, 1, 0), "--p---");
        assert_eq!(letters(DomainState::Running as u32, 0, 0), "------");
        assert_eq!(letters(DomainState::Running as u32, 0, 2), "r-----");
        assert_eq!(letters(DomainState::Paused as u32, 2, 0), "--p---");
        assert_eq!(letters(DomainState::Shutdown as u32, 0, 0), "---s--");
        assert_eq!(letters(DomainState::Crashed as u32, 1, 0), "--p-c-");
        assert_eq!(letters(DomainState::Dying as u32, 1, 0), "-----d");
        assert_eq!(letters(99, 0, 0), "------");
    }

    #[test]
    fn long_lists_name_the_reason_of_an_end() {
        let host = FakeHypervisor::new();
        let mut info = host.domain_info(DomainId::CONTROL).unwrap();
        assert!(!list_long(&[info]).contains("reason"));
        info.state = DomainState::Crashed as u32;
        info.reason = ShutdownReason::TripleFault as u32;
        info.uuid = [0xab; 16];
        let long = list_long(&[info]);
        assert!(
            long.contains("reason                 : triple fault\n"),
            "{long}"
        );
        assert!(long.contains("uuid                   : abababab-abab-abab-abab-abababababab\n"));
    }
}
