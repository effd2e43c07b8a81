//! Interrupts, timers, HLT and priorities in any order, against an oracle that knows the rules of the
//! manual and nothing of the implementation: every accepted interrupt is delivered exactly once, in
//! order of priority, as soon as the guest can take it, never with IF 0 or in a shadow.

use super::*;
use crate::devices::lapic::Trigger;
use crate::exit::ControlAccess;
use alloc::collections::BTreeSet;
use alloc::vec;
use alloc::vec::Vec;
use godwit_records::Shadow;
use proptest::prelude::*;

/// TSC ticks of one count: divided by two of a 1 GHz bus, at a 2 GHz TSC.
const COUNT_TICKS: u64 = 4;

#[derive(Clone, Copy, Debug)]
enum Op {
    Sti,
    Cli,
    MovSs,
    Nop,
    Hlt,
    IretOfNmi,
    Eoi,
    Tpr(u8),
    Cr8(u8),
    SelfIpi(u8),
    OneShot(u8, u32),
    Periodic(u8, u32),
    Deadline(u8, i32),
    Disarm,
    MoveTsc(i32),
    /// From outside.
    Accept(u8),
    Nmi,
    HostInterrupt,
    Run(u64),
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Few classes, so that they meet.
    let vector = || prop::sample::select(vec![0x31u8, 0x32, 0x3f, 0x40, 0x41, 0x55, 0xe0, 0xff]);
    let class = || prop::sample::select(vec![0u8, 2, 3, 4, 14, 15]);
    let op = prop_oneof![
        6 => Just(Op::Sti),
        2 => Just(Op::Cli),
        1 => Just(Op::MovSs),
        2 => Just(Op::Nop),
        3 => Just(Op::Hlt),
        2 => Just(Op::IretOfNmi),
        5 => Just(Op::Eoi),
        1 => class().prop_map(Op::Tpr),
        2 => class().prop_map(Op::Cr8),
        2 => vector().prop_map(Op::SelfIpi),
        2 => (vector(), 1..200u32).prop_map(|(vector, count)| Op::OneShot(vector, count)),
        2 => (vector(), 5..200u32).prop_map(|(vector, count)| Op::Periodic(vector, count)),
        2 => (vector(), -50..500i32).prop_map(|(vector, delta)| Op::Deadline(vector, delta)),
        1 => Just(Op::Disarm),
        1 => (-100_000..100_000i32).prop_map(Op::MoveTsc),
        4 => vector().prop_map(Op::Accept),
        1 => Just(Op::Nmi),
        1 => Just(Op::HostInterrupt),
        5 => (0..1000u64).prop_map(Op::Run),
    ];
    prop::collection::vec(op, 1..80)
}

/// When the timer fires, in host ticks; a deadline in the guest's.
#[derive(Clone, Copy, Debug)]
enum Timer {
    Off,
    At { due: u64, period: Option<u64> },
    GuestTsc(u64),
}

#[derive(Debug)]
struct Oracle {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    class: u8,
    enabled: bool,
    shadow: bool,
    nmi: bool,
    in_nmi: bool,
    timer: Timer,
    timer_vector: u8,
    tsc_offset: u64,
    halted: bool,
    deliveries: u64,
}

impl Oracle {
    fn guest(&self, host: u64) -> u64 {
        host.wrapping_add(self.tsc_offset)
    }

    fn catch_up(&mut self, now: u64) {
        match &mut self.timer {
            Timer::At { due, period } if *due <= now => {
                self.requested.insert(self.timer_vector);
                match *period {
                    Some(period) => *due += (now - *due) / period * period + period,
                    None => self.timer = Timer::Off,
                }
            }
            Timer::GuestTsc(due) if *due <= now.wrapping_add(self.tsc_offset) => {
                self.requested.insert(self.timer_vector);
                self.timer = Timer::Off;
            }
            Timer::Off | Timer::At { .. } | Timer::GuestTsc(_) => {}
        }
    }

    /// The vector that its priority would let through.
    fn ready(&self) -> Option<u8> {
        let vector = *self.requested.last()?;
        let served = self.in_service.last().map_or(0, |vector| vector >> 4);
        (vector >> 4 > self.class.max(served)).then_some(vector)
    }

    fn interrupt(&self) -> Option<u8> {
        if self.enabled && !self.shadow {
            self.ready()
        } else {
            None
        }
    }

    fn nmi_due(&self) -> bool {
        self.nmi && !self.in_nmi && !self.shadow
    }

    fn delivered(&mut self, now: u64, event: PendingEvent) {
        self.catch_up(now);
        self.deliveries += 1;
        match event.kind {
            EventKind::Nmi => {
                assert!(self.nmi_due(), "NMI: {self:?}");
                self.nmi = false;
                self.in_nmi = true;
            }
            EventKind::External => {
                assert_eq!(Some(event.vector), self.interrupt(), "{self:?}");
                self.requested.remove(&event.vector);
                self.in_service.insert(event.vector);
            }
            other => panic!("{other:?}"),
        }
        self.enabled = false;
        self.halted = false;
    }
}

struct Run {
    machine: Machine,
    oracle: Oracle,
}

impl Run {
    fn new(keeps_tpr: bool) -> Self {
        Self {
            machine: Machine::new(Access::Any, keeps_tpr),
            oracle: Oracle {
                requested: BTreeSet::new(),
                in_service: BTreeSet::new(),
                class: 0,
                enabled: false,
                shadow: false,
                nmi: false,
                in_nmi: false,
                timer: Timer::Off,
                timer_vector: 0,
                tsc_offset: 0,
                halted: false,
                deliveries: 0,
            },
        }
    }

    fn now(&self) -> u64 {
        self.machine.world.host_tsc.get()
    }

    fn settle(&mut self) {
        let Self { machine, oracle } = self;
        machine.settle(|machine, event| oracle.delivered(machine.world.host_tsc.get(), event));
    }

    /// If something has come for a vCPU that waits, it runs again, and takes it first of all.
    fn wake(&mut self, end: u64) {
        if !self.machine.wait_until(end) {
            return;
        }
        let before = self.oracle.deliveries;
        self.settle();
        assert!(
            self.oracle.deliveries > before,
            "woken for nothing: {:?}",
            self.oracle
        );
    }

    /// A host interrupt gets the guest out.
    fn kick(&mut self) {
        if !self.oracle.halted {
            assert_eq!(self.machine.exit(Exit::HostInterrupt), Next::Interrupted);
        }
    }

    /// An instruction without an exit.
    fn instruction(&mut self) {
        self.machine.hardware.set_shadow(Shadow::None);
        self.oracle.shadow = false;
    }

    fn msr(&mut self, index: u32, value: u64) {
        assert_eq!(wrmsr(&mut self.machine, index, value), None);
        self.oracle.shadow = false;
    }

    fn arm(&mut self, mode: u64, vector: u8) {
        self.msr(0x838, 0);
        self.msr(0x832, mode << 17 | u64::from(vector));
        self.oracle.timer = Timer::Off;
        self.oracle.timer_vector = vector;
    }

    fn set_interrupts(&mut self, enabled: bool) {
        let flags = self.machine.hardware.rflags();
        self.machine
            .hardware
            .set_rflags(flags & !IF | if enabled { IF } else { 0 });
        self.oracle.enabled = enabled;
    }

    /// The guest executes an instruction.
    fn execute(&mut self, op: Op) {
        let now = self.now();
        match op {
            Op::Sti => {
                let was = self.oracle.enabled;
                self.instruction();
                self.set_interrupts(true);
                if !was {
                    self.machine.hardware.set_shadow(Shadow::Sti);
                    self.oracle.shadow = true;
                }
            }
            Op::Cli => {
                self.instruction();
                self.set_interrupts(false);
            }
            Op::MovSs => {
                self.machine.hardware.set_shadow(Shadow::MovSs);
                self.oracle.shadow = true;
            }
            Op::Nop => self.instruction(),
            // In an NMI handler a second NMI would end the wait of this model too early.
            Op::Hlt if self.oracle.in_nmi => self.instruction(),
            Op::Hlt => {
                assert_eq!(self.machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
                self.oracle.shadow = false;
                self.oracle.halted = true;
            }
            Op::IretOfNmi => {
                self.instruction();
                self.machine.hardware.iret();
                self.oracle.in_nmi = false;
            }
            Op::Eoi => {
                self.msr(0x80b, 0);
                self.oracle.in_service.pop_last();
            }
            Op::Tpr(class) => {
                self.msr(0x808, u64::from(class) << 4 | 1);
                self.oracle.class = class;
            }
            Op::Cr8(class) => {
                if self.machine.hardware.write_virtual_tpr(class) {
                    self.instruction();
                } else {
                    set(&mut self.machine, Gpr::Rdi, class.into());
                    let access = ControlAccess::WriteCr8(Gpr::Rdi as u8);
                    assert_eq!(
                        self.machine.exit(Exit::Control(access, bytes(4))),
                        Next::Enter
                    );
                    self.oracle.shadow = false;
                }
                self.oracle.class = class;
            }
            Op::SelfIpi(vector) => {
                self.msr(if vector & 1 == 0 { 0x83f } else { 0x830 }, vector.into());
                self.oracle.requested.insert(vector);
            }
            Op::OneShot(vector, count) | Op::Periodic(vector, count) => {
                let periodic = matches!(op, Op::Periodic(..));
                self.arm(periodic.into(), vector);
                self.msr(0x838, count.into());
                let ticks = u64::from(count) * COUNT_TICKS;
                self.oracle.timer = Timer::At {
                    due: now + ticks,
                    period: periodic.then_some(ticks),
                };
            }
            Op::Deadline(vector, delta) => {
                self.arm(2, vector);
                let due = self
                    .oracle
                    .guest(now)
                    .saturating_add_signed(delta.into())
                    .max(1);
                self.msr(0x6e0, due);
                self.oracle.timer = Timer::GuestTsc(due);
            }
            Op::Disarm => self.arm(0, self.oracle.timer_vector.max(0x31)),
            Op::MoveTsc(by) => {
                let new = self.oracle.guest(now).saturating_add_signed(by.into());
                self.msr(0x10, new);
                self.oracle.tsc_offset = new.wrapping_sub(now);
                if let Timer::At { due, .. } = &mut self.oracle.timer {
                    // What is left counts on in whole counts.
                    *due = now + (*due - now).div_ceil(COUNT_TICKS) * COUNT_TICKS;
                }
            }
            Op::Accept(_) | Op::Nmi | Op::HostInterrupt | Op::Run(_) => {
                unreachable!("not an instruction")
            }
        }
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Accept(vector) => {
                let _ = self.machine.vcpu.lapic.accept(vector, Trigger::Edge);
                self.oracle.requested.insert(vector);
                self.kick();
            }
            Op::Nmi => {
                self.machine.vcpu.raise_nmi();
                self.oracle.nmi = true;
                self.kick();
            }
            Op::HostInterrupt => self.kick(),
            Op::Run(ticks) => {
                let end = self.now() + ticks;
                if self.oracle.halted {
                    self.wake(end);
                } else {
                    // Time passes in instructions.
                    self.instruction();
                }
                if !self.oracle.halted {
                    let left = end - self.now();
                    let Self { machine, oracle } = self;
                    machine.run_for(left, |machine, event| {
                        oracle.delivered(machine.world.host_tsc.get(), event)
                    });
                }
            }
            _ if self.oracle.halted => return,
            instruction => self.execute(instruction),
        }
        let now = self.now();
        self.oracle.catch_up(now);
        if self.oracle.halted {
            self.wake(now);
        } else {
            self.settle();
        }
    }

    fn check(&self) {
        let (oracle, hardware) = (&self.oracle, &self.machine.hardware);
        assert_eq!(oracle.interrupt(), None, "an interrupt is lost: {oracle:?}");
        assert!(!oracle.nmi_due(), "an NMI is lost: {oracle:?}");
        assert!(hardware.event().is_none());
        if !oracle.halted {
            // Where CR8 is raised without an exit, a window stays open until there is one.
            let superfluous = hardware.virtual_tpr().is_some() && hardware.interrupt_window();
            assert!(
                hardware.interrupt_window() == oracle.ready().is_some() || superfluous,
                "{oracle:?}"
            );
            assert!(hardware.nmi_window() || !oracle.nmi, "{oracle:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn every_interrupt_comes_once_in_order_and_in_time(ops in ops(), keeps_tpr: bool) {
        let mut run = Run::new(keeps_tpr);
        run.settle();
        for op in ops {
            run.step(op);
            run.check();
        }
    }
}
