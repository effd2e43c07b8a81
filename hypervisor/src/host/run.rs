//! The run loop: what every CPU does until the machine is switched off.
//!
//! ```text
//! pick -> none:  sleep until an interrupt or the next sleeper's time
//!      -> vCPU:  load; { before_entry; enter; handle } until the scheduler wants another; unload
//! ```
//!
//! # Why no message waits for ever
//!
//! A sender posts to the inbox, then calls `Scheduler::wake` and asks where the vCPU is, under the scheduler's
//! lock, and kicks that CPU (`Host::notify`): sets its `kicked`, then sends it an interrupt. The vCPU is
//!
//! * asleep: `wake` queues it; whoever picks it looks into the inbox before it enters (`run_until`).
//! * on its way to sleep, between its look at the inbox (`wait`) and `Scheduler::block`: `wake` finds it
//!   awake and leaves `wake_pending`, `block` refuses, and it looks again. Both hold the lock, so there is
//!   no third case.
//! * queued, or on its way off a CPU: whoever picks it next looks before it enters.
//! * running: its CPU is kicked. It has interrupts off from its last look until it is in the guest, so the
//!   interrupt stays pending and the entry comes back at once; then it looks (`run_until` looks after each exit,
//!   also after one for a host interrupt). Whether somebody else has meanwhile lowered `kicked`, in `pick`, does not
//!   matter: the inbox is asked itself. `pick` lowers it by a read-modify-write and then takes the scheduler's lock, so
//!   what was posted before the kick it lowers is seen by whatever is decided then.
//!
//! A vCPU that sleeps until a time is in `sleepers` before its CPU picks again; every CPU that enters a guest
//! or idles arms its timer for the earliest sleeper of all, so the CPU that has put it there does. One that
//! is woken otherwise leaves a stale entry, which wakes it once for nothing.

use core::cell::Cell;
use core::sync::atomic::Ordering;

use godwit_abi::EventSource;
use godwit_records::Activity;
use godwit_vmm::hardware::VcpuHardware;
use godwit_vmm::lifecycle::{Event, ShutdownReason};
use godwit_vmm::sched::{Decision, VcpuKey};
use godwit_vmm::vcpu::{Ending, Next};

use super::domain::{Domain, Runnable, VcpuState};
use super::world::{Handing, Surroundings};
use super::{Host, Hosted};
use crate::cpu::{self, vectors};
use crate::platform::clock;
use crate::{console, timer};

impl<B: Hosted> Host<B> {
    /// Never returns.
    pub(crate) fn run(&'static self, mut cpu: B::Cpu) -> ! {
        let mut decision = self.pick();
        loop {
            // Only at the start: `run_vcpu` finishes its own switches.
            match decision.run.and_then(|key| self.runnable(key)) {
                Some(runnable) => decision = self.run_vcpu(&mut cpu, &runnable, decision),
                None => {
                    self.idle(&decision);
                    decision = self.pick();
                }
            }
            self.serve_debug_key();
        }
    }

    pub(super) fn runnable(&self, key: VcpuKey) -> Option<Runnable<B>> {
        self.vcpus
            .read()
            .get(usize::from(key.slot()))?
            .clone()
            .filter(|runnable| runnable.vcpu.key == key)
    }

    /// Asks the scheduler, after waking who has slept long enough.
    fn pick(&self) -> Decision {
        cpu::this().kicked.swap(false, Ordering::AcqRel);
        self.wake_sleepers();
        let decision = self.scheduler.lock().pick(self.here(), clock::now_ns());
        self.kick(decision.kick);
        decision
    }

    fn idle(&self, decision: &Decision) {
        let until = decision.until_ns.map_or(u64::MAX, clock::tsc_at_ns);
        timer::arm(until.min(self.next_sleeper()));
        cpu::this().domain.store(u32::MAX, Ordering::Relaxed);
        if !cpu::this().kicked.load(Ordering::Acquire) {
            vectors::wait_for_interrupt();
        } else {
            vectors::open_window();
        }
    }

    /// Runs a vCPU, and runs it again as long as the scheduler chooses it. Returns the decision
    /// that chose another.
    fn run_vcpu(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        mut decision: Decision,
    ) -> Decision {
        let this = cpu::this();
        this.domain.store(slot.domain.id.raw(), Ordering::Relaxed);
        this.vcpu.store(slot.index.0.into(), Ordering::Relaxed);
        let mut guard = slot.state.lock();
        let state = &mut *guard;
        B::load(cpu, &mut state.hardware);
        if let Some(pending) = state.pending_state.take() {
            state.hardware.load(&pending);
            state.xstate.set_saved_xcr0(pending.xcr0);
            // The low half of the task priority stands in the local APIC alone.
            if state.core.lapic.cr8() != pending.cr8 {
                state.core.lapic.set_cr8(pending.cr8);
            }
            state.core.set_activity(pending.activity, pending.rflags);
            state.core.forget_access(&self.world_of(slot));
            state.halted = pending.activity != Activity::Running;
        }
        state.hardware.set_tsc_offset(state.core.tsc_offset);
        state.xstate.load();
        let decision = loop {
            let slice_end = decision.until_ns.map_or(u64::MAX, clock::tsc_at_ns);
            let next = self.run_until(cpu, slot, state, slice_end);
            if !matches!(next, Next::Interrupted) {
                // An interrupt that is pending ends the next entry at once, but in Bochs it does so only if the guest has
                // RFLAGS.IF set. dom0 has not: it and a guest that keep each other busy would shut interrupts out.
                vectors::open_window();
            }
            decision = match self.after(cpu, slot, state, next) {
                Some(handed_off) => handed_off,
                None => self.pick(),
            };
            if decision.run != Some(slot.key) {
                break decision;
            }
            self.serve_debug_key();
        };
        state.xstate.save();
        let mut world = self.world_of(slot);
        state.core.drain_log(&mut state.hardware, &mut world);
        B::unload(cpu, &mut state.hardware);
        drop(guard);
        if let Some(target) = self
            .scheduler
            .lock()
            .finish_switch(self.here(), clock::now_ns())
        {
            self.kick_one(target);
        }
        decision
    }

    /// What surrounds a vCPU.
    pub(super) fn world_of<'a>(&'static self, slot: &'a Runnable<B>) -> Surroundings<'a, B> {
        Surroundings {
            host: self,
            domain: &slot.domain,
            vcpu: slot,
            wait_deadline: u64::MAX,
            handing: Handing::default(),
            missed: Cell::new(false),
        }
    }

    /// Runs the guest until somebody else may have to, and keeps what `after` has to know.
    fn run_until(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        slice_end: u64,
    ) -> Next {
        let mut world = self.world_of(slot);
        world.handing.defers = true;
        let next = self.run_in(cpu, slot, state, &mut world, slice_end);
        if next == Next::Wait {
            state.wait_deadline = world.wait_deadline;
        }
        state.hand_to = world.handing.take();
        next
    }

    /// The inner loop: enters the guest until something other than `Enter` comes of an exit or the
    /// time slice is over.
    fn run_in(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        world: &mut Surroundings<'_, B>,
        slice_end: u64,
    ) -> Next {
        let this = cpu::this();
        let mut ended = match self.before_first_entry(slot, state, world) {
            Ok(ended) => ended,
            Err(next) => return next,
        };
        loop {
            let next = match ended.take() {
                Some(next) => next,
                None => {
                    state.core.before_entry(&mut state.hardware, world);
                    let deadline = slice_end
                        .min(state.core.timer_deadline())
                        .min(self.next_sleeper());
                    let exit = B::enter(cpu, &mut state.hardware, deadline);
                    cpu::PerCpu::bump(&this.exits);
                    slot.count_exit();
                    state.core.handle(&mut state.hardware, world, exit)
                }
            };
            match next {
                Next::Enter => {
                    if !slot.inbox.is_empty() || this.kicked.load(Ordering::Relaxed) {
                        return Next::Interrupted;
                    }
                }
                Next::Interrupted => {
                    vectors::open_window();
                    if this.kicked.load(Ordering::Relaxed)
                        || !slot.inbox.is_empty()
                        || clock::tsc() >= slice_end
                        || self.sleeper_is_due()
                    {
                        return next;
                    }
                }
                Next::Wait | Next::Yield | Next::End(_) => return next,
            }
        }
    }

    /// What comes before an entry. `Err`: it is not entered now. `Ok(Some(..))`: what has become of the instruction at which it
    /// has waited: dom0 has answered it, and it ends before the guest takes anything else; or this is dom0, and what it
    /// waits for in a hypercall may have come.
    fn before_first_entry(
        &'static self,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        world: &mut Surroundings<'_, B>,
    ) -> Result<Option<Next>, Next> {
        if !slot.inbox.is_empty()
            && let Some(next) = state.core.attend(&mut state.hardware, world, &slot.inbox)
        {
            return Err(next);
        }
        if self.fault_control.load(Ordering::Relaxed)
            && slot.domain.is_control()
            && self.fault_control.swap(false, Ordering::AcqRel)
        {
            return Err(Next::End(Ending {
                reason: godwit_abi::ShutdownReason::Fault,
                detail: 0,
            }));
        }
        if state.halted {
            // Woken, but perhaps for nothing: HLT ends only with an interrupt.
            if !state.core.has_work(world) {
                return Err(Next::Wait);
            }
            state.halted = false;
        }
        Ok(match state.core.awaits_answer() {
            true => Some(state.core.resume_access(&mut state.hardware, world)),
            false => state.core.retry_call(&mut state.hardware, world),
        })
    }

    /// Carries out what came of the last exit, before the scheduler is asked. `Some`: it need not be asked.
    fn after(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        next: Next,
    ) -> Option<Decision> {
        slot.last_rip.store(state.hardware.rip(), Ordering::Relaxed);
        let to = state.hand_to.take();
        match next {
            Next::Enter | Next::Interrupted => {}
            Next::Wait if slot.domain.is_control() && self.run_errand(cpu, &mut state.hardware) => {
            }
            Next::Wait => {
                // dom0 waits in a hypercall, which it repeats; guests wait in HLT, which they do not.
                state.halted = !slot.domain.is_control();
                return self.wait(slot, state, to);
            }
            Next::Yield => {
                let _ = self.scheduler.lock().yield_now(slot.key);
            }
            Next::End(ending) => self.end(cpu, slot, state, ending),
        }
        if let Some(to) = to {
            self.wake(to);
        }
        None
    }

    /// Puts the vCPU to sleep, unless something has come for it meanwhile. `to`, whom it has woken, runs in its place if
    /// that is possible at once: `Some`.
    fn wait(
        &'static self,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        to: Option<VcpuKey>,
    ) -> Option<Decision> {
        let mut world = self.world_of(slot);
        let stays = !slot.inbox.is_empty() || state.core.has_work(&mut world);
        let deadline = state.core.sleep_deadline().min(state.wait_deadline);
        let now = clock::tsc();
        if stays || deadline <= now {
            if let Some(to) = to {
                self.wake(to);
            }
            return None;
        }
        state.wait_deadline = u64::MAX;
        if let Some(to) = to {
            // Whoever has kicked this CPU, or is due, is looked after by `pick`.
            let urgent = cpu::this().kicked.load(Ordering::Relaxed) || self.next_sleeper() <= now;
            let handed_off = match urgent {
                true => None,
                false => self
                    .scheduler
                    .lock()
                    .hand_off(self.here(), to, clock::now_ns()),
            };
            if handed_off.is_some() {
                self.sleep_until(slot.key, deadline);
                return handed_off;
            }
            self.wake(to);
        }
        let blocked = self.scheduler.lock().block(slot.key, clock::now_ns());
        if blocked == Ok(true) {
            self.sleep_until(slot.key, deadline);
        }
        None
    }

    /// The guest has ended, by itself or by a fault.
    fn end(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        ending: Ending,
    ) {
        use godwit_abi::ShutdownReason as Reason;
        let domain = &slot.domain;
        let event = event_of(ending);
        if event == Event::Crash {
            log::warn!(
                "domain {} ({}) vCPU {}: {}, detail {:#x}, RIP {:#x}",
                domain.id,
                domain.shape.name.lock(),
                slot.index.0,
                ending.reason.text(),
                ending.detail,
                state.hardware.rip()
            );
            if matches!(ending.reason, Reason::EntryFailed | Reason::UnknownExit)
                || domain.is_control()
            {
                super::debug::dump_vcpu(&state.hardware);
            }
        }
        if domain.is_control() {
            self.control_ended(cpu, slot, state, ending);
            return;
        }
        self.note_end(domain, ending);
    }

    /// A guest's life ends.
    pub(super) fn note_end(&self, domain: &Domain<B>, ending: Ending) {
        *domain.ending.lock() = Some(ending);
        self.step_life(domain, event_of(ending));
        self.raise(EventSource::DomainState);
    }

    /// dom0 switches the machine off, or has failed: then it begins again.
    fn control_ended(
        &'static self,
        cpu: &mut B::Cpu,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        ending: Ending,
    ) {
        use godwit_abi::ShutdownReason as Reason;
        match ending.reason {
            Reason::PowerOff => self.stop_machine(cpu, crate::platform::power::off),
            Reason::Reboot => {
                self.stop_machine(cpu, |power| crate::platform::power::restart(power))
            }
            Reason::None
            | Reason::TripleFault
            | Reason::BadMemory
            | Reason::EntryFailed
            | Reason::UnknownExit
            | Reason::BadInstruction
            | Reason::Fault => return self.restart_control(slot, state, ending),
        }
        panic!(
            "the machine does not stop for dom0: {} ({:#x})",
            ending.reason.text(),
            ending.detail
        );
    }

    /// Moves a domain's life on and tells the scheduler whether it may run. `false`: the event is
    /// not possible in its state.
    pub(super) fn step_life(&self, domain: &Domain<B>, event: Event) -> bool {
        let mut life = domain.life.lock();
        let Ok(next) = life.step(event) else {
            return false;
        };
        let (before, after) = (life.may_run(), next.may_run());
        *life = next;
        if before != after {
            for vcpu in domain.vcpus() {
                self.hold(vcpu.key, !after);
            }
        }
        true
    }

    /// Holds a vCPU back, or lets it go.
    pub(super) fn hold(&self, key: VcpuKey, held: bool) {
        let mut scheduler = self.scheduler.lock();
        let kick = match held {
            true => scheduler.pause(key),
            false => scheduler.unpause(key, clock::now_ns()),
        };
        drop(scheduler);
        match kick {
            Ok(Some(target)) => self.kick_one(target),
            Ok(None) => {}
            Err(error) => panic!("the scheduler has lost a vCPU: {error:?}"),
        }
    }

    fn serve_debug_key(&self) {
        if let Some(key) = console::take_debug_key() {
            self.debug_key(key);
        }
    }
}

/// What an ending is in a domain's life.
fn event_of(ending: Ending) -> Event {
    use godwit_abi::ShutdownReason as Reason;
    match ending.reason {
        Reason::PowerOff => Event::ShutDown(ShutdownReason::PowerOff),
        Reason::Reboot => Event::ShutDown(ShutdownReason::Reboot),
        Reason::None
        | Reason::TripleFault
        | Reason::BadMemory
        | Reason::EntryFailed
        | Reason::UnknownExit
        | Reason::BadInstruction
        | Reason::Fault => Event::Crash,
    }
}
