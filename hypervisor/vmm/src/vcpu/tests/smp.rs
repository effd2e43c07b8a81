//! Two vCPUs and one platform: who gets what the platform sends, who ends it, and who keeps its time.

use super::*;
use crate::devices::TscRate;
use crate::devices::ioapic;
use crate::devices::lapic::{ApicMode, Destination, Lapic, Trigger};
use crate::devices::ports::{Platform, Width};
use crate::exit::PortAccess;
use crate::fake::Entered;
use crate::vcpu::{Inbox, Message, Vcpu};
use godwit_records::Activity;

const RATE: TscRate = TscRate::from_hz(2_000_000_000).unwrap();
const EOI: u32 = 0x80b;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;

/// Two vCPUs; what one posts, the other finds in its inbox. The platform goes to whoever acts.
struct Pair {
    machines: [Machine; 2],
    inboxes: [Inbox; 2],
    holder: usize,
}

impl Pair {
    fn new() -> Self {
        let mut second = machine();
        let lapic = Lapic::after_firmware(1, false, ApicMode::X2Apic, RATE);
        second.vcpu = Vcpu::new(lapic, Access::Any, 0);
        second.vcpu.set_activity(Activity::Running, 2);
        let mut pair = Self {
            machines: [machine(), second],
            inboxes: [const { Inbox::new() }; 2],
            holder: 0,
        };
        for machine in &mut pair.machines {
            machine.hardware.set_rflags(2 | IF);
        }
        pair
    }

    /// The vCPU acts: takes its messages first, and what it sends is posted afterwards.
    fn act<R>(&mut self, index: usize, action: impl FnOnce(&mut Machine) -> R) -> R {
        if self.holder != index {
            let [one, other] = &mut self.machines;
            core::mem::swap(&mut one.world.platform, &mut other.world.platform);
            self.holder = index;
        }
        let machine = &mut self.machines[index];
        let none = machine.vcpu.attend(
            &mut machine.hardware,
            &mut machine.world,
            &self.inboxes[index],
        );
        assert_eq!(none, None);
        let result = action(machine);
        let world = &mut machine.world;
        for (ipi, trigger) in world.ipis.drain(..) {
            let other = 1 - index;
            assert!(
                matches!(ipi.destination, Destination::Physical(id) if id == other as u32),
                "{ipi:?}"
            );
            self.inboxes[other].post_ipi(ipi, trigger);
        }
        if core::mem::take(&mut world.watcher_woken) > 0 {
            assert_ne!(index, 0, "the watcher knows");
            self.inboxes[0].post(Message::PlatformChanged);
        }
        result
    }

    /// Somebody outside touches the platform and tells the watcher.
    fn touch(&mut self, action: impl FnOnce(&mut Platform)) {
        action(&mut self.machines[self.holder].world.platform);
        self.inboxes[0].post(Message::PlatformChanged);
    }

    fn enter(&mut self, index: usize) -> Entered {
        self.act(index, Machine::enter)
    }

    fn out(&mut self, index: usize, port: u16, value: u64) {
        self.act(index, |machine| {
            set(machine, Gpr::Rax, value);
            let access = PortAccess {
                port,
                width: Width::Byte,
                input: false,
                string: false,
                repeat: false,
                length: bytes(2),
            };
            assert_eq!(machine.exit(Exit::Port(access)), Next::Enter);
            assert_eq!(machine.enter(), Entered::Runs);
        });
    }

    /// Initialises the PIC: vectors 30h and 38h, `mask` on the master.
    fn set_up_pic(&mut self, mask: u64) {
        for (port, value) in [
            (0x20, 0x11),
            (0x21, 0x30),
            (0x21, 4),
            (0x21, 1),
            (0xa0, 0x11),
            (0xa1, 0x38),
            (0xa1, 2),
            (0xa1, 1),
            (0x21, mask),
            (0xa1, 0xff),
        ] {
            self.out(0, port, value);
        }
    }

    /// Programs an I/O APIC pin.
    fn route(&mut self, pin: u8, entry: u64) {
        self.touch(|platform| {
            for (half, value) in [(1, (entry >> 32) as u32), (0, entry as u32)] {
                platform
                    .ioapic
                    .mmio_write(0, Width::Byte, (0x10 + 2 * u32::from(pin)) | half);
                platform.ioapic.mmio_write(0x10, Width::Dword, value);
            }
        });
    }

    fn entry(&self, pin: usize) -> u64 {
        let state: ioapic::IoapicState = self.machines[self.holder].world.platform.ioapic.save();
        state.entries[pin]
    }
}

fn external(vector: u8) -> Entered {
    Entered::Delivered(PendingEvent {
        kind: EventKind::External,
        vector,
        error_code: None,
        instruction_length: 0,
    })
}

#[test]
fn a_level_polled_by_one_and_ended_by_the_other_comes_again() {
    let mut pair = Pair::new();
    pair.route(16, 1 << 56 | LEVEL | 0x51);
    pair.touch(|platform| platform.ioapic.set_line(16, true));
    assert_eq!(pair.enter(0), Entered::Runs, "not for this one");
    assert_ne!(pair.entry(16) & REMOTE_IRR, 0);
    assert_eq!(pair.enter(1), external(0x51));
    // Its device still wants something at the end of the handler.
    pair.act(1, |machine| {
        assert_eq!(wrmsr(machine, EOI, 0), None);
        machine.hardware.set_rflags(2 | IF);
    });
    assert_eq!(pair.enter(1), external(0x51), "the line is still raised");
    pair.touch(|platform| platform.ioapic.set_line(16, false));
    pair.act(1, |machine| assert_eq!(wrmsr(machine, EOI, 0), None));
    assert_eq!(pair.entry(16) & REMOTE_IRR, 0, "the end has reached it");
    pair.act(1, |machine| machine.hardware.set_rflags(2 | IF));
    assert_eq!(pair.enter(1), Entered::Runs);
    assert_eq!(pair.enter(0), Entered::Runs);
}

#[test]
fn the_trigger_travels_with_the_message() {
    let mut pair = Pair::new();
    pair.route(16, 1 << 56 | LEVEL | 0x51);
    pair.touch(|platform| platform.ioapic.set_line(16, true));
    pair.enter(0);
    let mut found = alloc::vec::Vec::new();
    pair.inboxes[1].collect(|message| found.push(message));
    assert_eq!(found, [Message::Interrupt(0x51, Trigger::Level)]);
}

#[test]
fn the_watcher_learns_of_a_request_of_the_pic_that_another_saw() {
    let mut pair = Pair::new();
    pair.set_up_pic(0xff);
    pair.touch(|platform| {
        let serial = crate::devices::pic::Irq::new(4).expect("a line");
        platform.set_irq(serial, true);
    });
    assert_eq!(pair.enter(0), Entered::Runs, "masked");
    // The other unmasks it.
    pair.out(1, 0x21, 0xef);
    assert_eq!(pair.enter(0), external(0x34));
}

#[test]
fn the_watcher_keeps_the_time_of_a_timer_that_another_has_set() {
    let mut pair = Pair::new();
    pair.set_up_pic(0xfe);
    let halts = |machine: &mut Machine| {
        assert_eq!(machine.enter(), Entered::Runs);
        assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
        assert!(!machine.vcpu.has_work(&mut machine.world));
    };
    pair.act(0, halts);
    assert_eq!(pair.machines[0].vcpu.sleep_deadline(), u64::MAX);
    // Channel 0, mode 2, 1000 counts.
    for (port, value) in [(0x43, 0x34), (0x40, 0xe8), (0x40, 3)] {
        pair.out(1, port, value);
    }
    pair.act(1, halts);
    assert_eq!(
        pair.machines[1].vcpu.sleep_deadline(),
        u64::MAX,
        "one wakes for the platform, not all"
    );
    assert!(!pair.inboxes[0].is_empty(), "the watcher is told");
    let woken = pair.act(0, |machine| machine.wait_until(10_000_000));
    assert!(woken, "the timer has interrupted");
    assert_eq!(pair.enter(0), external(0x30));
}

#[test]
fn a_watcher_halted_for_good_still_serves_the_others() {
    let mut pair = Pair::new();
    pair.set_up_pic(0xff);
    // The timer's pin interrupts the other one.
    pair.route(2, 1 << 56 | 0x61);
    for (port, value) in [(0x43, 0x34), (0x40, 0xe8), (0x40, 3)] {
        pair.out(1, port, value);
    }
    pair.act(0, |machine| {
        machine.hardware.set_rflags(2);
        assert_eq!(machine.enter(), Entered::Runs);
        assert_eq!(machine.exit(Exit::Hlt(bytes(1))), Next::Wait);
        assert!(!machine.wait_until(5_000_000), "interrupts are off");
    });
    pair.machines[1].world.host_tsc.set(5_000_000);
    assert!(!pair.inboxes[1].is_empty());
    assert_eq!(pair.enter(1), external(0x61));
}
