//! A guest and the control domain that answers it, on one CPU: the short way is taken, and paid for like the long one.

use super::super::*;
use godwit_abi::{DomainId, VcpuIndex};

const CPU: CpuIndex = CpuIndex(0);
const SECOND: u64 = 1_000_000_000;
const GUEST: DomainId = DomainId::new(1, 0);

struct Host {
    scheduler: Scheduler,
    control: VcpuKey,
    guest: VcpuKey,
    now_ns: u64,
    handed_off: u64,
    current: Option<VcpuKey>,
}

impl Host {
    /// The guest runs, the control domain sleeps.
    fn new() -> Host {
        let mut scheduler = Scheduler::new(1, 0);
        let mut add = |id, kind| {
            scheduler.add_domain(id, kind, WEIGHT_DEFAULT, 0).unwrap();
            scheduler.add(id, VcpuIndex(0), CpuSet::ALL).unwrap()
        };
        let control = add(DomainId::CONTROL, DomainKind::Control);
        let guest = add(GUEST, DomainKind::Guest);
        assert_eq!(scheduler.wake(guest, 0), Some(CPU));
        let mut host = Host {
            scheduler,
            control,
            guest,
            now_ns: 0,
            handed_off: 0,
            current: None,
        };
        host.pick();
        host
    }

    fn pick(&mut self) {
        let decision = self.scheduler.pick(CPU, self.now_ns);
        self.switch(decision);
    }

    fn switch(&mut self, decision: Decision) {
        assert!(decision.kick.is_empty());
        self.current = decision.run;
        let kick = self.scheduler.finish_switch(CPU, self.now_ns);
        assert_eq!(kick, None);
    }

    /// The current vCPU runs, then waits for another that it wakes.
    fn run_then(&mut self, ran_ns: u64, to: VcpuKey) {
        let from = self.current.unwrap();
        self.now_ns += ran_ns;
        if let Some(decision) = self.scheduler.hand_off(CPU, to, self.now_ns) {
            self.handed_off += 1;
            return self.switch(decision);
        }
        let _kick = self.scheduler.wake(to, self.now_ns);
        assert_eq!(self.scheduler.block(from, self.now_ns), Ok(true));
        self.pick();
    }

    /// The guest asks each 30 µs, the control domain answers in 20 µs; who else runs, runs its slice.
    fn ping_pong(&mut self, end_ns: u64) {
        while self.now_ns < end_ns {
            match self.current {
                Some(key) if key == self.guest => self.run_then(30_000, self.control),
                Some(key) if key == self.control => self.run_then(20_000, self.guest),
                _ => {
                    self.now_ns += SLICE_NS;
                    self.pick();
                }
            }
        }
        self.scheduler.charge(CPU, self.now_ns);
    }

    fn percent_of(&self, key: VcpuKey) -> u64 {
        let view = self.scheduler.vcpu_view(key, self.now_ns).unwrap();
        (view.ran_ns * 100 + self.now_ns / 2) / self.now_ns
    }
}

#[test]
fn both_pay_for_what_they_run() {
    let mut host = Host::new();
    host.ping_pong(SECOND);
    assert_eq!(host.percent_of(host.guest), 60);
    assert_eq!(host.percent_of(host.control), 40);
    // All but one in a hundred milliseconds, which sees to the lag.
    assert!(
        host.handed_off > SECOND / 25_000 - 50,
        "{}",
        host.handed_off
    );
}

#[test]
fn a_third_that_computes_gets_its_share() {
    let mut host = Host::new();
    let other = DomainId::new(2, 0);
    let scheduler = &mut host.scheduler;
    scheduler
        .add_domain(other, DomainKind::Guest, WEIGHT_DEFAULT, 0)
        .unwrap();
    let spinner = scheduler.add(other, VcpuIndex(0), CpuSet::ALL).unwrap();
    let _kick = scheduler.wake(spinner, 0);
    host.ping_pong(SECOND);
    let (guest, third) = (host.percent_of(host.guest), host.percent_of(spinner));
    assert!(guest.abs_diff(third) <= 5, "{guest} % and {third} %");
    assert!(host.handed_off > 0);
}

#[test]
fn a_cap_holds() {
    let mut host = Host::new();
    assert!(host.scheduler.set_cap(GUEST, 20, 0).is_ok());
    host.pick();
    host.ping_pong(SECOND);
    assert_eq!(host.percent_of(host.guest), 20);
}

#[test]
fn only_who_sleeps_is_handed_the_cpu() {
    let mut host = Host::new();
    assert_eq!(host.scheduler.hand_off(CPU, host.guest, 10), None, "itself");
    assert_eq!(host.scheduler.pause(host.control), Ok(None));
    assert_eq!(
        host.scheduler.hand_off(CPU, host.control, 20),
        None,
        "paused"
    );
    assert_eq!(host.scheduler.unpause(host.control, 20), Ok(None));
    let _kick = host.scheduler.wake(host.guest, 30);
    let handed = host.scheduler.hand_off(CPU, host.control, 40);
    assert_eq!(handed, None, "the answer has come already");
}
