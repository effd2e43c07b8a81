//! The run loop over the fake: a vCPU, its surroundings, and a CPU that takes events as the
//! architecture says (SDM 3A 6.8, 6.7.1; SDM 3C 26.2 for the windows).

use godwit_abi::Access;
use godwit_records::{EventKind, PendingEvent, Segment, VcpuState};

use super::{FakeVcpu, FakeWorld};
use crate::devices::TscRate;
use crate::devices::lapic::{ApicMode, Lapic};
use crate::exit::Exit;
use crate::hardware::VcpuHardware;
use crate::vcpu::{Next, Vcpu};

const RFLAGS_IF: u64 = 1 << 9;
/// Exits and deliveries of one `settle` at most: more is an entry that never gets to the guest.
const STEPS_MAX: u32 = 600;

/// What an entry came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// The guest's handler for this event runs.
    Delivered(PendingEvent),
    /// It left at once.
    Left(Exit),
    /// It goes on where it was.
    Runs,
}

/// One vCPU with everything around it.
pub struct Machine {
    /// What decides.
    pub vcpu: Vcpu,
    /// What it decides over.
    pub hardware: FakeVcpu,
    /// The rest.
    pub world: FakeWorld,
    /// The guest has exited since the last entry: the next thing is an entry.
    exited: bool,
}

impl Machine {
    /// A bootstrap processor as loaders leave it, in flat 64-bit code at CPL 0 without paging tables of
    /// its own yet, x2APIC on.
    pub fn new(access: Access, keeps_tpr: bool) -> Self {
        let rate = TscRate::from_hz(2_000_000_000).expect("a rate within the limits");
        let lapic = Lapic::after_firmware(0, true, ApicMode::X2Apic, rate);
        let mut hardware = FakeVcpu::new(keeps_tpr);
        hardware.load(&VcpuState {
            cs: Segment::new(8, 0, u32::MAX, 0xa09b),
            ss: Segment::new(16, 0, u32::MAX, 0xc093),
            ds: Segment::new(16, 0, u32::MAX, 0xc093),
            es: Segment::new(16, 0, u32::MAX, 0xc093),
            rip: 0x1000,
            cr0: 0x11,
            ..VcpuState::reset()
        });
        Self {
            vcpu: Vcpu::new(lapic, access, 0),
            hardware,
            world: FakeWorld::new(rate),
            exited: true,
        }
    }

    /// Puts the guest into 64-bit mode with `cr3` as its tables.
    pub fn set_long_mode(&mut self, cr3: u64) {
        let state = self.hardware.save();
        self.hardware.load(&VcpuState {
            cr0: 0x8001_0031,
            cr3,
            cr4: 0x20,
            efer: 0xd00,
            ..state
        });
    }

    /// The guest exits.
    pub fn exit(&mut self, exit: Exit) -> Next {
        self.exited = true;
        self.vcpu.handle(&mut self.hardware, &mut self.world, exit)
    }

    /// Prepares an entry and makes it.
    pub fn enter(&mut self) -> Entered {
        self.vcpu.before_entry(&mut self.hardware, &mut self.world);
        self.exited = false;
        self.run()
    }

    /// What the CPU does before the guest's next instruction.
    fn run(&mut self) -> Entered {
        let hardware = &mut self.hardware;
        if let Some(event) = hardware.take_event() {
            if matches!(event.kind, EventKind::External | EventKind::Nmi) {
                // Through an interrupt gate.
                hardware.set_rflags(hardware.rflags() & !RFLAGS_IF);
            }
            return Entered::Delivered(event);
        }
        if hardware.nmi_window() && hardware.nmi_allowed() {
            return Entered::Left(Exit::NmiWindow);
        }
        if hardware.interrupt_window() && hardware.interrupt_allowed() {
            return Entered::Left(Exit::InterruptWindow);
        }
        Entered::Runs
    }

    /// Gets to the guest's next instruction, with an entry only where there was an exit. Tells `taken`
    /// what is delivered before.
    pub fn settle(&mut self, mut taken: impl FnMut(&mut Self, PendingEvent)) {
        for _ in 0..STEPS_MAX {
            match if self.exited {
                self.enter()
            } else {
                self.run()
            } {
                Entered::Runs => return,
                Entered::Delivered(event) => taken(self, event),
                Entered::Left(exit) => assert_eq!(self.exit(exit), Next::Enter, "{exit:?}"),
            }
        }
        panic!("the guest does not get to run");
    }

    /// Lets the guest run for some ticks of the host's TSC, with an exit at each deadline, as the run
    /// loop would ask for.
    pub fn run_for(&mut self, ticks: u64, mut taken: impl FnMut(&mut Self, PendingEvent)) {
        let end = self.world.host_tsc.get() + ticks;
        self.settle(&mut taken);
        loop {
            let deadline = self.vcpu.timer_deadline();
            if deadline > end {
                break;
            }
            assert!(
                deadline >= self.world.host_tsc.get(),
                "a deadline that has passed stays"
            );
            self.world.host_tsc.set(deadline);
            assert_eq!(self.exit(Exit::Deadline), Next::Interrupted);
            self.settle(&mut taken);
        }
        self.world.host_tsc.set(end);
    }

    /// Waits as after HLT, until `end` at most. `true`: there is something to wake for.
    pub fn wait_until(&mut self, end: u64) -> bool {
        loop {
            if self.vcpu.has_work(&mut self.world) {
                return true;
            }
            let deadline = self.vcpu.sleep_deadline();
            if deadline > end {
                self.world.host_tsc.set(end);
                return false;
            }
            assert!(
                deadline > self.world.host_tsc.get(),
                "a deadline that has passed wakes nobody"
            );
            self.world.host_tsc.set(deadline);
        }
    }
}
