//! A host in virtual time: CPUs that do what the scheduler says, vCPUs that compute and sleep. Kicks and deadlines take no time.

use super::super::*;
use super::std::vec::Vec;
use godwit_abi::{DomainId, VcpuIndex};

/// What a vCPU does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Behaviour {
    /// Computes for ever.
    Spin,
    /// Computes for up to `burst_ns`, sleeps for up to `sleep_ns`, at random.
    Interactive { burst_ns: u64, sleep_ns: u64 },
}

struct Actor {
    key: VcpuKey,
    domain: u16,
    behaviour: Behaviour,
    /// Computing left until it blocks.
    burst_ns: u64,
    wake_at_ns: Option<u64>,
    woken_at_ns: Option<u64>,
}

#[derive(Clone, Copy, Default)]
struct Core {
    run: Option<usize>,
    until_ns: Option<u64>,
}

pub(super) struct Sim {
    pub(super) scheduler: Scheduler,
    pub(super) now_ns: u64,
    cores: Vec<Core>,
    actors: Vec<Actor>,
    seed: u64,
    /// Longest wake-to-run time seen, by domain number.
    pub(super) worst_wake_ns: [u64; 32],
    pub(super) picks: u64,
}

impl Sim {
    pub(super) fn new(cpus: usize, seed: u64) -> Sim {
        let mut sim = Sim {
            scheduler: Scheduler::new(cpus, 0),
            now_ns: 0,
            cores: (0..cpus).map(|_| Core::default()).collect(),
            actors: Vec::new(),
            seed: seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15),
            worst_wake_ns: [0; 32],
            picks: 0,
        };
        (0..cpus).for_each(|cpu| sim.pick(cpu));
        sim
    }

    /// SplitMix64.
    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ z >> 31) % below.max(1)
    }

    /// Domain `number` (0 is the control domain) with these vCPUs, all woken now.
    pub(super) fn domain(
        &mut self,
        number: u16,
        weight: u32,
        cap: u32,
        vcpus: &[Behaviour],
    ) -> Vec<VcpuKey> {
        let id = DomainId::new(number, 0);
        let kind = if number == 0 {
            DomainKind::Control
        } else {
            DomainKind::Guest
        };
        self.scheduler
            .add_domain(id, kind, weight, self.now_ns)
            .unwrap();
        if cap > 0 {
            assert!(
                self.scheduler
                    .set_cap(id, cap, self.now_ns)
                    .unwrap()
                    .is_empty()
            );
        }
        let mut keys = Vec::new();
        for (index, &behaviour) in vcpus.iter().enumerate() {
            let key = self
                .scheduler
                .add(id, VcpuIndex(index as u16), CpuSet::ALL)
                .unwrap();
            let actor = Actor {
                key,
                domain: number,
                behaviour,
                burst_ns: 0,
                wake_at_ns: None,
                woken_at_ns: None,
            };
            self.actors.push(actor);
            self.wake(self.actors.len() - 1);
            keys.push(key);
        }
        keys
    }

    fn wake(&mut self, actor: usize) {
        let burst = match self.actors[actor].behaviour {
            Behaviour::Spin => u64::MAX,
            Behaviour::Interactive { burst_ns, .. } => 1 + self.random(burst_ns),
        };
        let now_ns = self.now_ns;
        let state = &mut self.actors[actor];
        state.wake_at_ns = None;
        state.woken_at_ns = Some(now_ns);
        state.burst_ns = burst;
        let kick = self.scheduler.wake(state.key, now_ns);
        self.kick(kick);
    }

    pub(super) fn kick(&mut self, cpus: impl IntoIterator<Item = CpuIndex>) {
        for cpu in cpus {
            self.pick(cpu.index());
        }
    }

    fn pick(&mut self, cpu: usize) {
        let index = CpuIndex::of(cpu);
        let decision = self.scheduler.pick(index, self.now_ns);
        self.picks += 1;
        let run = decision.run.map(|key| {
            self.actors
                .iter()
                .position(|actor| actor.key == key)
                .unwrap()
        });
        if let Some(actor) = run {
            let elsewhere = self
                .cores
                .iter()
                .enumerate()
                .any(|(other, core)| other != cpu && core.run == run);
            assert!(!elsewhere, "a vCPU runs on two CPUs");
            assert!(decision.until_ns.is_some_and(|until| until > self.now_ns));
            if let Some(woken_ns) = self.actors[actor].woken_at_ns.take() {
                let worst = &mut self.worst_wake_ns[usize::from(self.actors[actor].domain)];
                *worst = (*worst).max(self.now_ns - woken_ns);
            }
        }
        assert_eq!(
            decision.leaving.is_some(),
            self.cores[cpu].run.is_some() && self.cores[cpu].run != run
        );
        self.cores[cpu] = Core {
            run,
            until_ns: decision.until_ns,
        };
        self.kick(decision.kick);
        if decision.leaving.is_some() {
            let kick = self.scheduler.finish_switch(index, self.now_ns);
            self.kick(kick);
        }
    }

    /// Runs until `end_ns`.
    pub(super) fn run_to(&mut self, end_ns: u64) {
        while self.now_ns < end_ns {
            let until = self.cores.iter().filter_map(|core| core.until_ns);
            let wakes = self.actors.iter().filter_map(|actor| actor.wake_at_ns);
            let bursts = self.cores.iter().filter_map(|core| {
                Some(self.now_ns.saturating_add(self.actors[core.run?].burst_ns))
            });
            let next_ns = until
                .chain(wakes)
                .chain(bursts)
                .min()
                .unwrap_or(end_ns)
                .clamp(self.now_ns, end_ns);
            for core in &self.cores {
                if let Some(actor) = core.run {
                    self.actors[actor].burst_ns -= next_ns - self.now_ns;
                }
            }
            self.now_ns = next_ns;
            self.act();
        }
        (0..self.cores.len()).for_each(|cpu| self.scheduler.charge(CpuIndex::of(cpu), self.now_ns));
    }

    fn act(&mut self) {
        for cpu in 0..self.cores.len() {
            let Some(actor) = self.cores[cpu]
                .run
                .filter(|&actor| self.actors[actor].burst_ns == 0)
            else {
                continue;
            };
            if self
                .scheduler
                .block(self.actors[actor].key, self.now_ns)
                .unwrap()
            {
                if let Behaviour::Interactive { sleep_ns, .. } = self.actors[actor].behaviour {
                    self.actors[actor].wake_at_ns = Some(self.now_ns + 1 + self.random(sleep_ns));
                }
                self.pick(cpu);
            }
        }
        for actor in 0..self.actors.len() {
            if self.actors[actor]
                .wake_at_ns
                .is_some_and(|at| at <= self.now_ns)
            {
                self.wake(actor);
            }
        }
        for cpu in 0..self.cores.len() {
            if self.cores[cpu]
                .until_ns
                .is_some_and(|until| until <= self.now_ns)
            {
                self.pick(cpu);
            }
        }
    }

    /// Time the domain has run.
    pub(super) fn ran_ns(&self, number: u16) -> u64 {
        let id = DomainId::new(number, 0);
        self.scheduler
            .dump(self.now_ns)
            .filter(|view| view.domain == id)
            .map(|view| view.ran_ns)
            .sum()
    }

    /// Time all vCPUs ran and all CPUs idled.
    pub(super) fn accounted_ns(&self) -> u64 {
        let ran: u64 = self
            .scheduler
            .dump(self.now_ns)
            .map(|view| view.ran_ns)
            .sum();
        ran + self
            .scheduler
            .dump_cpus(self.now_ns)
            .map(|view| view.idle_ns)
            .sum::<u64>()
    }
}

/// Fails unless `actual` is within `percent` of `expected`.
pub(super) fn assert_close(actual: u64, expected: u64, percent: u64, what: &str) {
    let difference = actual.abs_diff(expected);
    assert!(
        difference * 100 <= expected * percent,
        "{what}: {actual} ns, expected {expected} within {percent} %"
    );
}
