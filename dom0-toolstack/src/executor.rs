//! The executor's loop: poll the tasks that are awake, then sleep in the hypervisor until an event
//! port is pending, a timer is due, or a guest's access to a device waits. An access is answered there
//! and then, and the answer goes with the next call: a guest stands still for as long as it takes.
//!
//! Invariant: nothing interrupts dom0. It runs with interrupts off on one vCPU, the hypervisor
//! injects nothing into it, and exception handlers do not return. So a critical section has nothing
//! to keep out, and events are seen only in [`run`].

use crate::{clock, hypercall};
use core::cell::Cell;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use core::task::Poll;
use embassy_executor::{Spawner, raw};
use embassy_sync::waitqueue::AtomicWaker;
use godwit_abi::{
    Answered, DeviceRequest, DomainId, Port, SERVED_PORTS_MAX, SERVED_REQUEST, Served, Status,
    VcpuIndex,
};
use hypercall::HYPERCALLS;
use zerocopy::FromZeros;

/// The most event ports in use at a time.
const PORTS_MAX: usize = 64;
/// Rounds of polling without a look at the event ports: tasks that wake each other all the time
/// must not keep events out.
const BUSY_ROUNDS_MAX: u32 = 16;
/// `Slot::port` of a free slot.
const NO_PORT: u32 = u32::MAX;

struct NoInterrupts;
critical_section::set_impl!(NoInterrupts);

// SAFETY: by the invariant in the module head nothing can run between acquire and release but their
// caller, so mutual exclusion holds without doing anything.
unsafe impl critical_section::Impl for NoInterrupts {
    unsafe fn acquire() -> critical_section::RawRestoreState {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        false
    }

    unsafe fn release(_: critical_section::RawRestoreState) {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

/// Whether a task has been woken since the last poll.
static AWAKE: AtomicBool = AtomicBool::new(false);

/// Called by the executor when a task is woken.
#[unsafe(export_name = "__pender")]
fn pender(_: *mut ()) {
    AWAKE.store(true, Ordering::Relaxed);
}

/// Runs tasks for ever; `init` spawns the first.
pub(crate) fn run(init: impl FnOnce(Spawner)) -> ! {
    let executor = alloc::boxed::Box::leak(alloc::boxed::Box::new(raw::Executor::new(
        core::ptr::null_mut(),
    )));
    init(executor.spawner());
    let mut busy_rounds = 0;
    loop {
        AWAKE.store(false, Ordering::Relaxed);
        // SAFETY: this is the only place that polls, so `poll` does not call itself.
        unsafe { executor.poll() };
        let deadline_tsc = clock::wake_expired();
        if !AWAKE.load(Ordering::Relaxed) {
            sleep(deadline_tsc);
            // What came due while we slept.
            clock::wake_expired();
            busy_rounds = 0;
        } else {
            busy_rounds += 1;
            if busy_rounds == BUSY_ROUNDS_MAX {
                busy_rounds = 0;
                sleep(0);
            }
        }
    }
}

/// How often the event ports were looked at.
static LOOKS: AtomicU32 = AtomicU32::new(0);

/// Waits until the event ports were looked at once more: an event from before has woken its task
/// then, and that task has run. For who looks whether something was missed.
pub(crate) async fn after_events() {
    let before = LOOKS.load(Ordering::Relaxed);
    // Bounded by BUSY_ROUNDS_MAX, and by the first round in which nobody else is awake.
    while LOOKS.load(Ordering::Relaxed) == before {
        embassy_futures::yield_now().await;
    }
    embassy_futures::yield_now().await;
}

/// Who answers guests' accesses to their devices.
pub(crate) trait Serve {
    /// Makes the access. Returns the value of a read.
    fn answer(&self, request: &DeviceRequest) -> u64;
}

/// [`Serve`], once there is one.
struct Server(Cell<Option<&'static dyn Serve>>);

// SAFETY: dom0 has one vCPU and nothing interrupts it (module head): there is no other thread.
unsafe impl Sync for Server {}

static SERVER: Server = Server(Cell::new(None));

/// From now on `server` answers. Nobody is answered before.
pub(crate) fn serve(server: &'static dyn Serve) {
    SERVER.0.set(Some(server));
}

/// Waits for events until the TSC reaches `deadline_tsc` (0: only looks) and wakes their tasks.
fn sleep(deadline_tsc: u64) {
    match SERVER.0.get() {
        Some(server) => sleep_serving(deadline_tsc, server),
        None => {
            let mut ports = [0u32; SERVED_PORTS_MAX];
            let count = HYPERCALLS
                .wait(deadline_tsc, ports.as_mut_ptr() as u64, ports.len() as u64)
                .unwrap_or_else(|status| panic!("wait: {status}"));
            wake(&ports, count as usize);
        }
    }
    LOOKS.fetch_add(1, Ordering::Relaxed);
}

/// As `sleep`. Answers accesses until something else is to be done.
fn sleep_serving(deadline_tsc: u64, server: &dyn Serve) {
    let mut served = Served::new_zeroed();
    let (mut answered, mut value) = (Answered(None), 0);
    loop {
        let address = (&raw mut served) as u64;
        let brought = HYPERCALLS
            .device_serve(deadline_tsc, address, answered, value)
            .unwrap_or_else(|status| panic!("wait and serve devices: {status}"));
        let ports = brought as u32 as usize;
        wake(&served.ports, ports);
        if brought & SERVED_REQUEST == 0 {
            return;
        }
        let request = &served.request;
        let (domain, vcpu) = (DomainId::from_raw(request.domain), VcpuIndex(request.vcpu));
        value = server.answer(request);
        if ports > 0 || AWAKE.load(Ordering::Relaxed) || clock::tsc() >= deadline_tsc {
            return match HYPERCALLS.device_request_complete(domain, vcpu, value) {
                // The domain was destroyed or reset meanwhile.
                Ok(()) | Err(Status::NoDomain | Status::NotFound) => {}
                Err(status) => log::warn!("answer vCPU {} of domain {domain}: {status}", vcpu.0),
            };
        }
        answered = Answered(Some((domain, vcpu)));
    }
}

/// Wakes the tasks of the first `count` ports.
fn wake(ports: &[u32; SERVED_PORTS_MAX], count: usize) {
    for port in &ports[..count.min(SERVED_PORTS_MAX)] {
        let slot = SLOTS
            .iter()
            .find(|slot| slot.port.load(Ordering::Relaxed) == *port);
        // A port closed with its event still under way has no slot, and nobody to tell.
        if let Some(slot) = slot {
            slot.pending.store(true, Ordering::Relaxed);
            slot.waker.wake();
        }
    }
}

struct Slot {
    port: AtomicU32,
    pending: AtomicBool,
    waker: AtomicWaker,
}

static SLOTS: [Slot; PORTS_MAX] = [const {
    Slot {
        port: AtomicU32::new(NO_PORT),
        pending: AtomicBool::new(false),
        waker: AtomicWaker::new(),
    }
}; PORTS_MAX];

/// An event port and the task that waits for it.
pub(crate) struct EventPort {
    port: Port,
    slot: &'static Slot,
}

impl EventPort {
    /// Takes charge of a port just made. Full: more than [`PORTS_MAX`] are open.
    pub(crate) fn new(port: Port) -> Result<Self, Status> {
        let free = |slot: &&Slot| slot.port.load(Ordering::Relaxed) == NO_PORT;
        let Some(slot) = SLOTS.iter().find(free) else {
            // Nobody would hear it: better none at all.
            HYPERCALLS.port_close(port)?;
            return Err(Status::Full);
        };
        slot.pending.store(false, Ordering::Relaxed);
        slot.port.store(port.0, Ordering::Relaxed);
        Ok(Self { port, slot })
    }

    /// The port.
    pub(crate) fn port(&self) -> Port {
        self.port
    }

    /// Waits for the next event; events that come before are counted as one.
    pub(crate) async fn wait(&self) {
        poll_fn(|context| {
            if self.slot.pending.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            self.slot.waker.register(context.waker());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for EventPort {
    fn drop(&mut self) {
        self.slot.port.store(NO_PORT, Ordering::Relaxed);
        if let Err(status) = HYPERCALLS.port_close(self.port) {
            log::warn!("close event port {}: {status}", self.port.0);
        }
    }
}
