//! How long it takes until somebody runs: another CPU after an IPI, a sleeper after its time.

use crate::clock::{monotonic, ticks};
use crate::exits::Cost;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How long a sleeper sleeps.
const NAP: Duration = Duration::from_millis(1);

/// CPUs that this process may use.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> Result<(), String> {
    set_affinity(|set| {
        // SAFETY: `set` is a whole cpu_set_t, and CPU_SET checks `cpu` against its size.
        unsafe { libc::CPU_SET(cpu, set) };
    })
    .map_err(|()| format!("there is no CPU {cpu}"))
}

/// Lets the calling thread run everywhere again.
pub(crate) fn unpin() {
    // Every CPU that exists is a subset of all, so this does not fail.
    let _ = set_affinity(|set| {
        for cpu in 0..libc::CPU_SETSIZE as usize {
            // SAFETY: as in `pin`.
            unsafe { libc::CPU_SET(cpu, set) };
        }
    });
}

fn set_affinity(choose: impl FnOnce(&mut libc::cpu_set_t)) -> Result<(), ()> {
    // SAFETY: a cpu_set_t is an array of integers: all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    choose(&mut set);
    // SAFETY: the kernel reads a whole cpu_set_t at the address of one; 0 is the calling thread.
    let failed =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if failed == 0 { Ok(()) } else { Err(()) }
}

/// A word that two threads hand to each other, asleep in the kernel while it is the other's turn.
struct Turn(AtomicU32);

impl Turn {
    fn give(&self, to: u32) {
        self.0.store(to, Ordering::Release);
        // SAFETY: the word outlives the call; FUTEX_WAKE does not even read it.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            );
        }
    }

    fn wait_for(&self, mine: u32) {
        loop {
            let now = self.0.load(Ordering::Acquire);
            if now == mine {
                return;
            }
            // SAFETY: the word outlives the call; without a time-out the fourth argument is null.
            unsafe {
                libc::syscall(
                    libc::SYS_futex,
                    self.0.as_ptr(),
                    libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                    now,
                    std::ptr::null::<libc::timespec>(),
                );
            }
        }
    }
}

/// Two threads on two CPUs wake each other: each wake-up is an IPI to a CPU that idles. One
/// iteration is there and back.
pub(crate) fn ipi_round_trip(rounds: u64) -> Result<Cost, String> {
    let turn = Turn(AtomicU32::new(0));
    let cost = std::thread::scope(|scope| {
        pin(1)?;
        // It inherits the CPU it begins on.
        let other = scope.spawn(|| {
            for _ in 0..rounds {
                turn.wait_for(1);
                turn.give(0);
            }
        });
        pin(0)?;
        let start = ticks();
        for _ in 0..rounds {
            turn.give(1);
            turn.wait_for(0);
        }
        let ticks = ticks() - start;
        other
            .join()
            .map_err(|_| "the other thread failed".to_owned())?;
        Ok(Cost {
            iterations: rounds,
            ticks,
        })
    });
    unpin();
    cost
}

/// How late sleepers wake, all in all: the kernel's timer and idle paths, and the exits in them.
pub(crate) fn timer_latency(count: u64) -> Result<Cost, String> {
    // SAFETY: it changes only how early this thread's timers may be merged with others.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let (ticks_before, before) = (ticks(), monotonic());
    let mut late = Duration::ZERO;
    for _ in 0..count {
        let due = monotonic() + NAP;
        sleep_until(due)?;
        late += monotonic().saturating_sub(due);
    }
    let ticks_a_second = (ticks() - ticks_before) as f64 / (monotonic() - before).as_secs_f64();
    Ok(Cost {
        iterations: count,
        ticks: (late.as_secs_f64() * ticks_a_second) as u64,
    })
}

fn sleep_until(due: Duration) -> Result<(), String> {
    let time = libc::timespec {
        tv_sec: due.as_secs() as libc::time_t,
        tv_nsec: due.subsec_nanos().into(),
    };
    // SAFETY: the kernel reads one timespec; with an absolute time nothing is written back.
    let error = unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &raw const time,
            std::ptr::null_mut(),
        )
    };
    match error {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error).to_string()),
    }
}
