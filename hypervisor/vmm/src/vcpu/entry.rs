//! The common tail: what is done before every entry, whatever the exit was; and what comes to a
//! vCPU by itself: its timer, interrupts, NMIs, INIT.
//!
//! What the PIC requests is remembered ([`PicLine`]), so that an exit that did not touch the
//! platform does not take its lock.
//!
//! # Several vCPUs and one platform
//!
//! Whoever touches the platform polls it at once, and sends its messages to whom they address. That
//! leaves the PIC's output, which is a line to LINT0 of the bootstrap vCPU, and the platform's next
//! deadline, which somebody must keep although every vCPU may sleep. Both are the business of the
//! *watcher*, the bootstrap vCPU: it is never without its activity (an INIT reboots the domain), and
//! it wakes for the platform's deadline in HLT with interrupts disabled, too. `Platform::outlook` says
//! when somebody else has made something of this that the watcher does not know; then it is told
//! ([`World::wake_watcher`]). The others look at the deadline as well while they run, so that a timer does
//! not wait for the watcher's turn on a CPU, but they do not wake for it.

use super::{Inbox, Message, Next, RFLAGS_IF, Refused, Vcpu, World, end};
use crate::cpuid::Viewer;
use crate::devices::lapic::{Delivery, Destination, Effect, Ipi, IpiMode, Trigger};
use crate::devices::message;
use crate::hardware::{Control, Event, Gpr, VcpuHardware};

use godwit_abi::ShutdownReason;
use godwit_records::Activity;

/// What is known of the PIC's output.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PicLine {
    /// The platform has been touched since: ask it.
    Unknown,
    /// Nothing is requested, and will not be before the platform's deadline.
    Idle,
    /// An interrupt is requested.
    Asserted,
}

/// Whether the vCPU executes instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Running {
    Yes,
    /// In HLT with interrupts disabled: only an NMI ends it.
    HaltedMasked,
    /// After INIT. Only a start-up IPI ends it.
    WaitForStartup,
    /// The start-up IPI has come, with this page.
    Startup(u8),
}

impl Vcpu {
    /// Lets the timer expire, injects the most urgent interrupt the guest can take, or asks for an
    /// exit when it can. Cheap when nothing is pending.
    #[inline]
    pub fn before_entry<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) {
        if self.running != Running::Yes {
            self.resume(hw);
        }
        self.stalled = false;
        self.starved = false;
        self.catch_up(world);
        if self.nmi_pending {
            self.deliver_nmi(hw);
        }
        if self.interrupt_requested() {
            self.deliver_interrupt(hw, world);
        } else if self.window_open {
            self.window_open = false;
            hw.set_interrupt_window(false);
        }
        // An open window exits early enough for what the priority holds back, too.
        let held = if self.window_open {
            None
        } else {
            self.lapic.held_by_priority()
        };
        hw.set_virtual_tpr(self.lapic.cr8() as u8, held.is_some());
    }

    /// Whether a waiting vCPU has something to wake for.
    pub fn has_work<W: World>(&mut self, world: &mut W) -> bool {
        let is_current = self.pic != PicLine::Unknown && world.host_tsc() < self.timer_deadline();
        if is_current && self.awaits_answer() && !self.stalled && !self.starved {
            return world.exchange().is_answered();
        }
        self.catch_up(world);
        if self.stalled {
            return self.has_paid(world);
        }
        if self.starved {
            return world.has_come();
        }
        if self.awaits_answer() {
            return world.exchange().is_answered();
        }
        match self.running {
            Running::Yes => self.nmi_pending || self.interrupt_requested(),
            Running::HaltedMasked => self.nmi_pending,
            Running::WaitForStartup => false,
            Running::Startup(_) => true,
        }
    }

    /// The host TSC at which the vCPU's own timer, or the platform's, wants it while it runs: all
    /// ones for never. As of the last `before_entry` or `has_work`.
    #[inline]
    pub fn timer_deadline(&self) -> u64 {
        self.apic_due_host_tsc.min(self.platform_due_host_tsc)
    }

    /// The host TSC at which it has to be woken at the latest when it waits: for its own timer where that
    /// could end the wait, and for the platform's where it is the watcher.
    pub fn sleep_deadline(&self) -> u64 {
        let own = match self.running {
            Running::Yes if self.stalled => self.paid_until,
            Running::Yes if !self.awaits_answer() && !self.starved => self.apic_due_host_tsc,
            // Whatever its timer makes pending, it would not wake.
            Running::Yes
            | Running::HaltedMasked
            | Running::WaitForStartup
            | Running::Startup(_) => u64::MAX,
        };
        if self.lapic.is_bootstrap() {
            own.min(self.platform_due_host_tsc)
        } else {
            own
        }
    }

    /// An NMI for the guest; a second one before it is taken is the same NMI (SDM 3A, 6.7.1).
    pub fn raise_nmi(&mut self) {
        self.nmi_pending = true;
    }

    /// The platform was touched by somebody else (the power button, another vCPU): look at it
    /// before the next entry.
    pub fn platform_changed(&mut self) {
        self.pic = PicLine::Unknown;
        self.platform_deadline = u64::MAX;
    }

    /// Takes what others have posted. `Some`: an INIT was among it.
    #[cold]
    pub fn attend<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        inbox: &Inbox,
    ) -> Option<Next> {
        inbox.collect(|message| self.take(hw, world, message));
        self.init_pending.then(|| self.take_init(hw, world))
    }

    /// What the vCPU was made, or saved, doing, with these flags. A start-up IPI that has come stays.
    pub fn set_activity(&mut self, activity: Activity, rflags: u64) {
        self.stalled = false;
        self.starved = false;
        self.running = match (activity, self.running) {
            (Activity::WaitForSipi, Running::Startup(page)) => Running::Startup(page),
            (Activity::WaitForSipi, _) => Running::WaitForStartup,
            (Activity::Halted, _) if rflags & RFLAGS_IF == 0 => Running::HaltedMasked,
            (Activity::Running | Activity::Halted | Activity::Shutdown, _) => Running::Yes,
        };
    }

    /// An IPI for this vCPU: `Lapic::is_addressed` has been asked.
    pub fn receive<W: World>(&mut self, world: &mut W, ipi: Ipi) {
        let delivery = self.lapic.receive(ipi);
        self.deliver(world, delivery);
    }

    fn take<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W, message: Message) {
        match message {
            Message::Interrupt(vector, trigger) => {
                let delivery = self.lapic.accept(vector, trigger);
                self.deliver(world, delivery);
            }
            Message::Nmi => self.deliver(world, Delivery::Nmi),
            Message::Smi => self.deliver(world, Delivery::Smi),
            Message::Init => self.init_pending = true,
            Message::Startup(page) => {
                // Behind an INIT that is carried out with it: the order in which they were sent.
                if self.init_pending {
                    self.startup_after_init = Some(page);
                } else {
                    self.deliver(world, Delivery::Startup { page });
                }
            }
            Message::PlatformChanged => self.platform_changed(),
            Message::FlushTranslations => {
                self.drain_log(hw, world);
                hw.flush_translations();
            }
        }
    }

    fn deliver<W: World>(&mut self, world: &mut W, delivery: Delivery) {
        match delivery {
            Delivery::Dropped | Delivery::Accepted { .. } => {}
            Delivery::Nmi => self.raise_nmi(),
            // Guests have no SMM.
            Delivery::Smi => world.refused(Refused::Smi),
            Delivery::Init => self.init_pending = true,
            Delivery::Startup { page } => self.note_startup(page),
            Delivery::ExtInt => unreachable!("no message is an external interrupt"),
        }
    }

    /// Carries out what a write to the local APIC asks for beyond the APIC.
    pub(super) fn apply<W: World>(&mut self, world: &mut W, effect: Effect) {
        match effect {
            Effect::Ipi(ipi) => {
                let id = self.lapic.id();
                let own = self.lapic.is_addressed(ipi.destination, id);
                // Lowest priority means one of those addressed: the sender is as good as any.
                let taken = own
                    && (ipi.mode == IpiMode::LowestPriority
                        || ipi.destination == Destination::Physical(id));
                if !taken {
                    world.send_ipi(ipi, Trigger::Edge);
                }
                if own {
                    self.receive(world, ipi);
                }
            }
            // What is pending and when the timer is due is looked up before the next entry.
            Effect::None | Effect::PendingChanged | Effect::TimerChanged => {}
            Effect::EndOfLevel(vector) => {
                world.platform(|platform| platform.end_of_interrupt(vector));
                self.platform_changed();
            }
            Effect::ModeChanged => world.apic_moved(self.lapic.address()),
        }
    }

    /// Carries out an INIT that has come. The bootstrap processor would go on at the reset vector (SDM
    /// 3A, 9.4.1), where this platform has no firmware: its domain reboots. Others wait for their
    /// start-up IPI.
    pub(super) fn take_init<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
    ) -> Next {
        self.init_pending = false;
        if self.lapic.is_bootstrap() {
            return end(ShutdownReason::Reboot, 0);
        }
        self.forget_access(world);
        self.stalled = false;
        self.starved = false;
        let mut state = hw.save().after_init();
        let viewer = Viewer {
            apic_id: self.lapic.id(),
            cr4: hw.control(Control::Cr4),
            xcr0: world.xcr0(),
        };
        state.gprs[Gpr::Rdx as usize] = world.policy().answer(1, 0, &viewer).eax.into();
        hw.load(&state);
        self.lapic.init();
        self.nmi_pending = false;
        self.running = match self.startup_after_init.take() {
            Some(page) => Running::Startup(page),
            None => Running::WaitForStartup,
        };
        world.apic_moved(self.lapic.address());
        Next::Wait
    }

    /// Whoever enters has seen that there is work.
    #[cold]
    fn resume<H: VcpuHardware>(&mut self, hw: &mut H) {
        match core::mem::replace(&mut self.running, Running::Yes) {
            Running::Yes | Running::HaltedMasked => {}
            Running::WaitForStartup => panic!("a vCPU that waits for its start-up IPI is entered"),
            Running::Startup(page) => {
                let mut state = hw.save();
                state.start_at(page);
                hw.load(&state);
            }
        }
    }

    /// Lets what depends on the time happen, and notes when that will be needed again.
    #[inline]
    fn catch_up<W: World>(&mut self, world: &mut W) {
        if self.pic == PicLine::Unknown {
            self.poll_platform(world);
        }
        self.apic_due_host_tsc = u64::MAX;
        self.platform_due_host_tsc = u64::MAX;
        if self.lapic.next_deadline().is_none() && self.platform_deadline == u64::MAX {
            return;
        }
        let host_tsc = world.host_tsc();
        let (now, platform_now) = (self.guest_tsc(host_tsc), self.platform_tsc(host_tsc));
        self.lapic.expire(now);
        if platform_now >= self.platform_deadline {
            self.poll_platform(world);
        }
        // Differences, because a deadline may be "never" in guest time and the offset negative.
        let host = |deadline: u64, now: u64| match deadline {
            u64::MAX => u64::MAX,
            deadline => host_tsc.saturating_add(deadline.saturating_sub(now)),
        };
        self.apic_due_host_tsc = host(self.lapic.next_deadline().unwrap_or(u64::MAX), now);
        self.platform_due_host_tsc = host(self.platform_deadline, platform_now);
    }

    /// Lets the platform's timers run, takes its messages, and remembers what the PIC requests.
    #[cold]
    fn poll_platform<W: World>(&mut self, world: &mut W) {
        let now = self.platform_tsc(world.host_tsc());
        let watches = self.lapic.is_bootstrap();
        let outlook = loop {
            let (messages, outlook) = world.platform(|platform| {
                let messages = platform.poll(now);
                (messages, platform.outlook(now, watches))
            });
            let complete = !messages.is_full();
            for message in messages {
                self.route(world, message);
            }
            if complete {
                break outlook;
            }
        };
        self.pic = if outlook.pic_requests {
            PicLine::Asserted
        } else {
            PicLine::Idle
        };
        self.platform_deadline = outlook.deadline_tsc;
        if outlook.watcher_is_behind {
            world.wake_watcher();
        }
    }

    /// Delivers a message of the platform: to this vCPU, and to others that it addresses. Whoever ends a
    /// level-triggered one tells the I/O APIC, wherever the platform was polled.
    fn route<W: World>(&mut self, world: &mut W, message: message::Message) {
        let own = self.lapic.is_addressed(message.destination, u32::MAX);
        if own {
            let delivery = message.deliver(&mut self.lapic);
            self.deliver(world, delivery);
        }
        let alone = message.mode == message::MessageMode::LowestPriority
            || message.destination == Destination::Physical(self.lapic.id());
        if let (false, Some(ipi)) = (own && alone, message.as_ipi()) {
            world.send_ipi(ipi, message.trigger);
        }
    }

    #[inline]
    fn pic_requests(&self) -> bool {
        self.pic == PicLine::Asserted && self.lapic.passes_pic()
    }

    #[inline]
    pub(super) fn interrupt_requested(&self) -> bool {
        self.lapic.pending().is_some() || self.pic_requests()
    }

    fn deliver_nmi<H: VcpuHardware>(&mut self, hw: &mut H) {
        if hw.nmi_allowed() && !hw.event_pending() {
            self.nmi_pending = false;
            hw.inject(Event::Nmi);
        } else {
            hw.set_nmi_window(true);
        }
    }

    fn deliver_interrupt<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W) {
        if hw.interrupt_allowed()
            && !hw.event_pending()
            && let Some(vector) = self.acknowledge(world)
        {
            hw.inject(Event::External(vector));
        }
        // Another may be behind it.
        let wanted = self.interrupt_requested();
        if wanted != self.window_open {
            self.window_open = wanted;
            hw.set_interrupt_window(wanted);
        }
    }

    /// The vector to deliver. The PIC comes first: its interrupts know no task priority.
    fn acknowledge<W: World>(&mut self, world: &mut W) -> Option<u8> {
        let external = if self.pic_requests() {
            self.acknowledge_pic(world)
        } else {
            None
        };
        external.or_else(|| self.lapic.pending().map(|_| self.lapic.acknowledge()))
    }

    /// `None`: the request has gone away meanwhile.
    #[cold]
    fn acknowledge_pic<W: World>(&mut self, world: &mut W) -> Option<u8> {
        let (vector, more) = world.platform(|platform| {
            let vector = platform.pic.pending().then(|| platform.pic.acknowledge());
            (vector, platform.pic.pending())
        });
        self.pic = if more {
            PicLine::Asserted
        } else {
            PicLine::Idle
        };
        vector
    }
}
