//! Every interleaving of small worlds: two CPUs, a vCPU or two, and a device that raises events at any moment.
//!
//! Each world is explored to its end from every state, states being compared whole. Checked: no event is lost (when nothing moves any
//! more, no vCPU sleeps or waits with an event unseen), a vCPU's registers are on one CPU at a time, and a kick is never needed and missing.

use super::super::*;
use super::std::collections::HashSet;
use super::std::vec;
use super::std::vec::Vec;
use godwit_abi::{DomainId, VcpuIndex};

/// Where a CPU's run loop stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Loop {
    /// Halted.
    Halted,
    /// Must pick.
    Pick,
    /// Has picked; registers of the vCPU that left are not saved yet.
    Switching { to: Option<usize> },
    /// In the guest.
    Guest(usize),
    /// The guest halted: look for events.
    Look(usize),
    /// Saw none: block.
    Block(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    scheduler: Scheduler,
    keys: Vec<VcpuKey>,
    cpus: Vec<Loop>,
    /// Kicks under way.
    kicks: CpuSet,
    /// Events raised and not seen, by vCPU; wakes still to be called after raising.
    unseen: Vec<bool>,
    to_wake: Vec<bool>,
    events_left: Vec<u8>,
    /// The CPU that holds each vCPU's registers.
    loaded: Vec<Option<usize>>,
    now_ns: u64,
}

impl World {
    fn new(cpus: usize, affinities: &[u64], events: u8) -> World {
        let mut scheduler = Scheduler::new(cpus, 0);
        let id = DomainId::new(1, 0);
        scheduler
            .add_domain(id, DomainKind::Guest, WEIGHT_DEFAULT, 0)
            .unwrap();
        let add = |(index, &mask): (usize, &u64)| {
            scheduler
                .add(id, VcpuIndex(index as u16), CpuSet(mask))
                .unwrap()
        };
        let keys: Vec<_> = affinities.iter().enumerate().map(add).collect();
        let count = keys.len();
        World {
            scheduler,
            keys,
            cpus: vec![Loop::Pick; cpus],
            kicks: CpuSet::EMPTY,
            unseen: vec![false; count],
            to_wake: vec![false; count],
            events_left: vec![events; count],
            loaded: vec![None; count],
            now_ns: 0,
        }
    }

    fn send(&mut self, kick: impl IntoIterator<Item = CpuIndex>) {
        kick.into_iter().for_each(|cpu| self.kicks.insert(cpu));
    }

    /// Every state one step away.
    fn steps(&self) -> Vec<World> {
        let mut next = Vec::new();
        for vcpu in 0..self.keys.len() {
            if self.events_left[vcpu] > 0 && !self.to_wake[vcpu] {
                let mut world = self.clone();
                world.events_left[vcpu] -= 1;
                world.unseen[vcpu] = true;
                world.to_wake[vcpu] = true;
                next.push(world);
            }
            if self.to_wake[vcpu] {
                let mut world = self.clone();
                world.to_wake[vcpu] = false;
                let kick = world.scheduler.wake(world.keys[vcpu], world.now_ns);
                world.send(kick);
                next.push(world);
            }
        }
        for cpu in 0..self.cpus.len() {
            if self.kicks.contains(CpuIndex::of(cpu))
                && matches!(self.cpus[cpu], Loop::Halted | Loop::Guest(_))
            {
                let mut world = self.clone();
                world.kicks.remove(CpuIndex::of(cpu));
                world.cpus[cpu] = Loop::Pick;
                next.push(world);
            }
            if self.cpus[cpu] != Loop::Halted {
                next.push(self.run(cpu));
            }
        }
        next
    }

    /// One step of a CPU's run loop.
    fn run(&self, cpu: usize) -> World {
        let mut world = self.clone();
        let index = CpuIndex::of(cpu);
        world.cpus[cpu] = match self.cpus[cpu] {
            Loop::Halted => unreachable!("a halted CPU takes no step"),
            Loop::Pick => {
                let decision = world.scheduler.pick(index, world.now_ns);
                world.send(decision.kick);
                let to = decision
                    .run
                    .map(|key| world.keys.iter().position(|&k| k == key).unwrap());
                if decision.leaving.is_some() {
                    Loop::Switching { to }
                } else {
                    world.enter(cpu, to)
                }
            }
            Loop::Switching { to } => {
                world
                    .loaded
                    .iter_mut()
                    .filter(|on| **on == Some(cpu))
                    .for_each(|on| *on = None);
                let kick = world.scheduler.finish_switch(index, world.now_ns);
                world.send(kick);
                world.enter(cpu, to)
            }
            Loop::Guest(vcpu) => {
                // It handles what it has seen on entry and halts.
                world.unseen[vcpu] = false;
                Loop::Look(vcpu)
            }
            Loop::Look(vcpu) if world.unseen[vcpu] => Loop::Guest(vcpu),
            Loop::Look(vcpu) => Loop::Block(vcpu),
            Loop::Block(vcpu) => {
                if world
                    .scheduler
                    .block(world.keys[vcpu], world.now_ns)
                    .unwrap()
                {
                    Loop::Pick
                } else {
                    Loop::Look(vcpu)
                }
            }
        };
        world
    }

    fn enter(&mut self, cpu: usize, vcpu: Option<usize>) -> Loop {
        let Some(vcpu) = vcpu else {
            return Loop::Halted;
        };
        assert!(
            self.loaded[vcpu].is_none_or(|on| on == cpu),
            "vCPU {vcpu} is on two CPUs"
        );
        self.loaded[vcpu] = Some(cpu);
        Loop::Guest(vcpu)
    }

    /// Nothing moves any more.
    fn check_end(&self) {
        assert!(
            self.unseen.iter().all(|unseen| !unseen),
            "an event was lost: {self:?}"
        );
        for view in self.scheduler.dump(self.now_ns) {
            assert_eq!(
                view.state,
                VcpuState::Blocked,
                "a vCPU that nobody will run: {self:?}"
            );
        }
    }
}

/// Explores everything; returns how many states there were.
fn explore(start: World) -> usize {
    let (mut seen, mut open, mut ends) = (HashSet::new(), vec![start], 0);
    while let Some(world) = open.pop() {
        if !seen.insert(world.clone()) {
            continue;
        }
        let next = world.steps();
        if next.is_empty() {
            ends += 1;
            world.check_end();
        }
        open.extend(next);
    }
    assert!(ends > 0, "the world never comes to rest");
    seen.len()
}

#[test]
fn one_vcpu_on_two_cpus_loses_no_event() {
    let states = explore(World::new(2, &[0b11], 3));
    assert!(states > 200, "{states}");
}

#[test]
fn two_vcpus_on_one_cpu_lose_no_event() {
    let states = explore(World::new(1, &[1, 1], 2));
    assert!(states > 200, "{states}");
}

#[test]
fn two_vcpus_on_two_cpus_lose_no_event() {
    let states = explore(World::new(2, &[0b11, 0b11], 2));
    assert!(states > 5000, "{states}");
}

#[test]
fn pinned_and_free_vcpus_lose_no_event() {
    let states = explore(World::new(2, &[0b01, 0b11], 2));
    assert!(states > 5000, "{states}");
}
