//! Time: the TSC, as embassy's time driver. Ticks of one microsecond since the boot loader entered
//! the hypervisor.
//!
//! There is no timer interrupt: the executor asks for the next deadline and passes it to `wait`.

use core::cell::RefCell;
use core::task::Waker;
use critical_section::Mutex;
use embassy_time_driver::Driver;
use embassy_time_queue_utils::Queue;
use godwit_toolstack::net::clock::TscRate;

struct TscClock {
    queue: Mutex<RefCell<Queue>>,
}

embassy_time_driver::time_driver_impl!(static CLOCK: TscClock = TscClock {
    queue: Mutex::new(RefCell::new(Queue::new())),
});

/// Rate and zero point; set once at the start.
static RATE: spin::Once<(TscRate, u64)> = spin::Once::new();

/// Sets rate and zero point.
pub(crate) fn start(tsc_hz: u64, boot_tsc: u64) {
    let rate = TscRate::new(tsc_hz);
    let rate = rate.unwrap_or_else(|| panic!("the hypervisor says the TSC has {tsc_hz} Hz"));
    RATE.call_once(|| (rate, boot_tsc));
}

/// The time stamp counter.
#[inline]
pub(crate) fn tsc() -> u64 {
    // SAFETY: RDTSC is there on every x86-64 CPU and has no effect on memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The TSC when `microseconds` from now have gone by.
pub(crate) fn tsc_after(microseconds: u64) -> u64 {
    match RATE.get() {
        Some((rate, _)) => tsc().saturating_add(rate.ticks(microseconds)),
        None => tsc(),
    }
}

/// Wakes what is due and returns the TSC of the next deadline, all ones for none.
pub(crate) fn wake_expired() -> u64 {
    let next = critical_section::with(|cs| {
        let mut queue = CLOCK.queue.borrow_ref_mut(cs);
        queue.next_expiration(CLOCK.now())
    });
    match RATE.get() {
        Some((rate, boot_tsc)) if next != u64::MAX => boot_tsc.saturating_add(rate.ticks(next)),
        Some(_) | None => u64::MAX,
    }
}

impl Driver for TscClock {
    fn now(&self) -> u64 {
        match RATE.get() {
            Some((rate, boot_tsc)) => rate.microseconds(tsc().saturating_sub(*boot_tsc)),
            None => 0,
        }
    }

    fn schedule_wake(&self, at: u64, waker: &Waker) {
        critical_section::with(|cs| {
            // No alarm to set: the executor asks for the next deadline before it sleeps.
            self.queue.borrow_ref_mut(cs).schedule_wake(at, waker);
        });
    }
}
