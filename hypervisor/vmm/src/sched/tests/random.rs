//! Random programs of every operation, with the scheduler's invariants checked after each.

use super::super::entity::Place;
use super::super::*;
use super::std::vec;
use super::std::vec::Vec;
use godwit_abi::{DomainId, VcpuIndex};
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
enum Op {
    Wake(usize),
    Block(usize),
    Yield(usize),
    Pause(usize),
    Unpause(usize),
    Pick(usize),
    FinishSwitch(usize),
    HandOff(usize, usize),
    Affinity(usize, u64),
    Weight(u16, u32),
    Cap(u16, u32),
    Remove(usize),
    Add(u16, u64),
    DeliverKicks,
}

const CPUS: usize = 3;

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<usize>().prop_map(Op::Wake),
        4 => (0..CPUS).prop_map(Op::Block),
        1 => (0..CPUS).prop_map(Op::Yield),
        1 => any::<usize>().prop_map(Op::Pause),
        2 => any::<usize>().prop_map(Op::Unpause),
        6 => (0..CPUS).prop_map(Op::Pick),
        4 => (0..CPUS).prop_map(Op::FinishSwitch),
        6 => (0..CPUS, any::<usize>()).prop_map(|(cpu, v)| Op::HandOff(cpu, v)),
        1 => (any::<usize>(), 1u64..8).prop_map(|(v, mask)| Op::Affinity(v, mask)),
        1 => (0u16..4, 1u32..=65_535).prop_map(|(d, w)| Op::Weight(d, w)),
        1 => (0u16..4, prop_oneof![Just(0u32), 1u32..150]).prop_map(|(d, c)| Op::Cap(d, c)),
        1 => any::<usize>().prop_map(Op::Remove),
        2 => (0u16..4, 1u64..8).prop_map(|(d, mask)| Op::Add(d, mask)),
        4 => Just(Op::DeliverKicks),
    ]
}

struct Machine {
    scheduler: Scheduler,
    keys: Vec<VcpuKey>,
    kicks: CpuSet,
    owes_switch: [bool; CPUS],
    next_vcpu: u16,
    removed_ns: u64,
}

impl Machine {
    fn send(&mut self, kick: impl IntoIterator<Item = CpuIndex>) {
        kick.into_iter().for_each(|cpu| self.kicks.insert(cpu));
    }

    fn pick(&mut self, cpu: usize, now_ns: u64) {
        if self.owes_switch[cpu] {
            self.finish(cpu, now_ns);
        }
        self.kicks.remove(CpuIndex::of(cpu));
        let decision = self.scheduler.pick(CpuIndex::of(cpu), now_ns);
        assert!(decision.run.is_none() || decision.until_ns.is_some());
        assert!(decision.until_ns.is_none_or(
            |until| until > now_ns && (decision.run.is_none() || until <= now_ns + SLICE_NS)
        ));
        self.owes_switch[cpu] = decision.leaving.is_some();
        self.send(decision.kick);
    }

    fn finish(&mut self, cpu: usize, now_ns: u64) {
        let kick = self.scheduler.finish_switch(CpuIndex::of(cpu), now_ns);
        self.owes_switch[cpu] = false;
        self.send(kick);
    }

    fn current(&self, cpu: usize) -> Option<VcpuKey> {
        self.scheduler.cpus[cpu]
            .current
            .map(|slot| self.scheduler.vcpu(slot).key)
    }

    fn apply(&mut self, op: Op, now_ns: u64) {
        let key =
            |index: usize| (!self.keys.is_empty()).then(|| self.keys[index % self.keys.len()]);
        match op {
            Op::Wake(v) => {
                let kick = key(v).and_then(|key| self.scheduler.wake(key, now_ns));
                self.send(kick);
            }
            Op::Block(cpu) => {
                if let Some(key) = self.current(cpu) {
                    let _counted = self.scheduler.block(key, now_ns).unwrap();
                    self.pick(cpu, now_ns);
                }
            }
            Op::Yield(cpu) => {
                if let Some(key) = self.current(cpu) {
                    self.scheduler.yield_now(key).unwrap();
                    self.pick(cpu, now_ns);
                }
            }
            Op::Pause(v) => {
                let kick = key(v).and_then(|key| self.scheduler.pause(key).unwrap());
                self.send(kick);
            }
            Op::Unpause(v) => {
                let kick =
                    key(v).and_then(|key| self.scheduler.unpause(key, now_ns).unwrap_or(None));
                self.send(kick);
            }
            Op::Pick(cpu) => self.pick(cpu, now_ns),
            Op::FinishSwitch(cpu) => self.finish(cpu, now_ns),
            Op::HandOff(cpu, v) => key(v)
                .into_iter()
                .for_each(|to| self.hand_off(cpu, to, now_ns)),
            Op::Affinity(v, mask) => {
                let kick = key(v).and_then(|key| {
                    self.scheduler
                        .set_affinity(key, CpuSet(mask), now_ns)
                        .unwrap()
                });
                self.send(kick);
            }
            Op::Weight(d, weight) => self
                .scheduler
                .set_weight(DomainId::new(d, 0), weight)
                .unwrap(),
            Op::Cap(d, cap) => {
                let kicks = self.scheduler.set_cap(DomainId::new(d, 0), cap, now_ns);
                assert_eq!(kicks.is_err(), d == 0 && cap > 0);
                self.send(kicks.unwrap_or(CpuSet::EMPTY));
            }
            Op::Remove(v) => key(v).into_iter().for_each(|key| self.remove(key, now_ns)),
            Op::Add(d, mask) => {
                self.next_vcpu += 1;
                let key = self
                    .scheduler
                    .add(DomainId::new(d, 0), VcpuIndex(self.next_vcpu), CpuSet(mask))
                    .unwrap();
                self.keys.push(key);
            }
            Op::DeliverKicks => {
                for _round in 0..8 {
                    core::mem::take(&mut self.kicks).for_each(|cpu| self.pick(cpu.index(), now_ns));
                    (0..CPUS).for_each(|cpu| self.finish(cpu, now_ns));
                }
            }
        }
    }

    /// Where no CPU idles, which the long way would have kicked, both ways come to the same.
    fn hand_off(&mut self, cpu: usize, to: VcpuKey, now_ns: u64) {
        let index = CpuIndex::of(cpu);
        let mut long = self.scheduler.clone();
        let Some(decision) = self.scheduler.hand_off(index, to, now_ns) else {
            long.charge(index, now_ns);
            assert_eq!(long, self.scheduler, "only accounts change");
            return;
        };
        assert_eq!(decision.run, Some(to));
        assert!(decision.until_ns.is_some_and(|until| until > now_ns));
        self.owes_switch[cpu] = true;
        let (from, idle) = (decision.leaving.unwrap(), !long.idle.is_empty());
        // Another of its own domain is awake only from now on.
        long.charge(index, now_ns);
        let kick = long.wake(to, now_ns);
        assert_eq!(long.block(from, now_ns), Ok(true));
        if !idle && kick.is_none_or(|kick| kick == index) {
            assert_eq!(long.pick(index, now_ns), decision);
            assert_eq!(long, self.scheduler);
        }
    }

    fn remove(&mut self, key: VcpuKey, now_ns: u64) {
        let ran_ns = self.scheduler.vcpu_view(key, now_ns).unwrap().ran_ns;
        let off = self.scheduler.is_off_cpu(key).unwrap();
        assert_eq!(self.scheduler.remove(key).is_ok(), off);
        if off {
            self.removed_ns += ran_ns;
            self.keys.retain(|&other| other != key);
            assert_eq!(self.scheduler.wake(key, now_ns), None);
            assert_eq!(self.scheduler.remove(key), Err(SchedError::UnknownVcpu));
        }
    }

    fn check(&self, now_ns: u64) {
        let s = &self.scheduler;
        for (cpu, state) in s.cpus.iter().enumerate() {
            let index = CpuIndex::of(cpu);
            assert_eq!(s.waiting.contains(index), !state.queue.is_empty());
            assert!(
                state
                    .queue
                    .windows(2)
                    .all(|pair| s.vcpu(pair[0]).vtime <= s.vcpu(pair[1]).vtime),
                "queue {cpu} is not sorted"
            );
            assert!(
                state
                    .queue
                    .iter()
                    .all(|&slot| s.vcpu(slot).place == Place::Queued(index)
                        && s.vcpu(slot).affinity.contains(index))
            );
            assert!(
                state
                    .current
                    .is_none_or(|slot| s.vcpu(slot).place == Place::Running(index))
            );
            assert!(
                state
                    .leaving
                    .is_none_or(|slot| s.vcpu(slot).place == Place::Leaving(index))
            );
        }
        for slot in (0..s.vcpus.len() as u16).filter(|&slot| s.vcpus[usize::from(slot)].is_some()) {
            let vcpu = s.vcpu(slot);
            let holders = s.cpus.iter().map(|cpu| {
                usize::from(cpu.current == Some(slot))
                    + usize::from(cpu.leaving == Some(slot))
                    + cpu.queue.iter().filter(|&&q| q == slot).count()
            });
            let held =
                holders.sum::<usize>() + s.control_queue.iter().filter(|&&q| q == slot).count();
            assert_eq!(held, usize::from(vcpu.place != Place::Off), "{vcpu:?}");
            let can_run = vcpu.is_active() && !s.domain(vcpu.domain).throttled;
            match vcpu.place {
                Place::Off => assert!(!can_run, "off though it could run: {vcpu:?}"),
                Place::Queued(_) => assert!(can_run, "queued though it cannot run: {vcpu:?}"),
                Place::Running(_) | Place::Leaving(_) => {}
            }
        }
        self.check_domains();
        self.check_no_idling(now_ns);
    }

    fn check_domains(&self) {
        let s = &self.scheduler;
        for (slot, domain) in s.domains.iter().enumerate() {
            let Some(domain) = domain else { continue };
            let of_it = || {
                s.vcpus
                    .iter()
                    .flatten()
                    .filter(|vcpu| usize::from(vcpu.domain) == slot)
            };
            assert_eq!(domain.vcpus as usize, of_it().count());
            assert_eq!(
                domain.active as usize,
                of_it().filter(|vcpu| vcpu.is_active()).count()
            );
        }
        assert_eq!(
            s.throttled as usize,
            s.domains
                .iter()
                .flatten()
                .filter(|domain| domain.throttled)
                .count()
        );
        assert_eq!(s.kicked, self.kicks, "every kick is on its way");
    }

    /// With no kick on its way and no switch under way, no CPU idles past a vCPU it could run; and time is conserved.
    fn check_no_idling(&self, now_ns: u64) {
        let s = &self.scheduler;
        let ran_ns: u64 = s.dump(now_ns).map(|view| view.ran_ns).sum();
        let idle_ns: u64 = s.dump_cpus(now_ns).map(|view| view.idle_ns).sum();
        assert_eq!(ran_ns + self.removed_ns + idle_ns, now_ns * CPUS as u64);
        if self.kicks.is_empty() && self.owes_switch == [false; CPUS] {
            for vcpu in s
                .vcpus
                .iter()
                .flatten()
                .filter(|vcpu| matches!(vcpu.place, Place::Queued(_)))
            {
                assert!(
                    s.idle
                        .and(vcpu.affinity)
                        .and(CpuSet::first(CPUS))
                        .is_empty(),
                    "a CPU idles past {vcpu:?}"
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn invariants_hold(ops in prop::collection::vec((op(), 0u64..4_000_000), 1..250)) {
        let mut machine = Machine {
            scheduler: Scheduler::new(CPUS, 0),
            keys: Vec::new(),
            kicks: CpuSet::EMPTY,
            owes_switch: [false; CPUS],
            next_vcpu: 0,
            removed_ns: 0,
        };
        for number in 0..4 {
            let kind = if number == 0 { DomainKind::Control } else { DomainKind::Guest };
            machine.scheduler.add_domain(DomainId::new(number, 0), kind, WEIGHT_DEFAULT, 0).unwrap();
        }
        let mut now_ns = 0;
        for (op, pause_ns) in ops {
            now_ns += pause_ns;
            machine.apply(op, now_ns);
            machine.check(now_ns);
        }
    }
}

#[test]
fn wrong_calls_are_refused_by_name() {
    let mut s = Scheduler::new(2, 0);
    let (control, guest) = (DomainId::CONTROL, DomainId::new(1, 0));
    s.add_domain(control, DomainKind::Control, 256, 0).unwrap();
    s.add_domain(guest, DomainKind::Guest, 256, 0).unwrap();
    assert_eq!(
        s.add_domain(guest, DomainKind::Guest, 256, 0),
        Err(SchedError::DomainExists)
    );
    assert_eq!(s.set_weight(guest, 0), Err(SchedError::WeightOutOfRange));
    assert_eq!(
        s.set_weight(guest, 65_536),
        Err(SchedError::WeightOutOfRange)
    );
    assert_eq!(
        s.set_cap(guest, CAP_PERCENT_MAX + 1, 0),
        Err(SchedError::CapOutOfRange)
    );
    assert_eq!(
        s.set_cap(control, 50, 0),
        Err(SchedError::ControlDomainUncapped)
    );
    assert_eq!(
        s.add(guest, VcpuIndex(0), CpuSet(0b100)),
        Err(SchedError::EmptyAffinity)
    );
    assert_eq!(
        s.add(DomainId::new(9, 0), VcpuIndex(0), CpuSet::ALL),
        Err(SchedError::UnknownDomain)
    );
    let key = s.add(guest, VcpuIndex(0), CpuSet::ALL).unwrap();
    assert_eq!(s.remove_domain(guest), Err(SchedError::DomainHasVcpus));
    assert_eq!(s.unpause(key, 0), Err(SchedError::PauseCount));
    let cpu = s.wake(key, 0).unwrap();
    assert_eq!(s.pick(cpu, 0).run, Some(key));
    assert_eq!(s.remove(key), Err(SchedError::OnCpu(cpu)));
    for index in 1..MAX_VCPUS {
        s.add(guest, VcpuIndex(index as u16), CpuSet::ALL).unwrap();
    }
    assert_eq!(
        s.add(guest, VcpuIndex(0), CpuSet::ALL),
        Err(SchedError::TooManyVcpus)
    );
}
