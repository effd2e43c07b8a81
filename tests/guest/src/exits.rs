//! What operations cost: one line `EB NAME iters=N ticks=T` each, or `EB NAME skipped: WHY`.
//!
//! Tight loops without memory traffic of their own; `empty` is the loop itself, to be subtracted.
//! Each is run several times and the median counts: now and then the host does something else.
//! Arguments: `scale=F` multiplies every count, `only=a,b` (or `only=a+b`) selects.

use crate::arguments::Arguments;
use crate::clock::ticks;
use crate::{port, wake};
use std::hint::black_box;
use std::os::fd::AsRawFd;

/// Nothing answers here.
const UNUSED_PORT: u16 = 0x0b00;
/// Line status and scratch register of the first UART.
const UART_LINE_STATUS: u16 = 0x3fd;
const UART_SCRATCH: u16 = 0x3ff;
/// Mask of the first PIC.
const PIC_MASK: u16 = 0x21;
/// Memory of the page tests.
const AREA_BYTES: usize = 32 << 20;
const PAGE_BYTES: usize = 4096;

/// Parts of a measurement.
const BATCHES: u64 = 5;

/// How often something was done, and the ticks it took.
pub(crate) struct Cost {
    pub(crate) iterations: u64,
    pub(crate) ticks: u64,
}

type Measure = fn(u64) -> Result<Cost, String>;

/// Name, what measures it, and how often.
const OPERATIONS: &[(&str, Measure, u64)] = &[
    ("empty", empty, 1_000_000),
    ("cpuid", cpuid, 20_000),
    ("out-unused", out_unused, 5_000),
    ("in-unused", in_unused, 5_000),
    ("in-uart", in_uart, 5_000),
    ("out-uart", out_uart, 5_000),
    ("in-pic", in_pic, 5_000),
    ("in-dom0", in_dom0, 2_000),
    ("syscall", syscall, 100_000),
    ("context-switch", context_switch, 5_000),
    ("fork", fork, 100),
    ("first-touch", first_touch, 1),
    ("touch-again", touch_again, 1),
    ("protect", protect, 2_000),
    ("ipi", wake::ipi_round_trip, 2_000),
    ("timer", wake::timer_latency, 200),
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let scale: f64 = arguments.number("scale", 1.0)?;
    let only = arguments.text("only");
    let wanted = |name: &str| only.is_none_or(|list| list.split([',', '+']).any(|w| w == name));
    for (name, measure, count) in OPERATIONS.iter().filter(|(name, ..)| wanted(name)) {
        let count = ((*count as f64 * scale) as u64).max(1);
        match median(*measure, count) {
            Ok(cost) => println!("EB {name} iters={} ticks={}", cost.iterations, cost.ticks),
            Err(why) => println!("EB {name} skipped: {why}"),
        }
    }
    println!("EB done");
    Ok(())
}

/// Runs a measurement of `count` in [`BATCHES`] parts, or whole when there are fewer; the one in the
/// middle.
fn median(measure: Measure, count: u64) -> Result<Cost, String> {
    if count < BATCHES {
        return measure(count);
    }
    let part = count / BATCHES;
    let mut costs = (0..BATCHES)
        .map(|_| measure(part))
        .collect::<Result<Vec<Cost>, _>>()?;
    costs.sort_by_key(|cost| cost.ticks / cost.iterations.max(1));
    Ok(costs.swap_remove(costs.len() / 2))
}

/// Runs `operation` `count` times.
fn looped(count: u64, mut operation: impl FnMut(u64)) -> Result<Cost, String> {
    let start = ticks();
    for index in 0..count {
        operation(index);
    }
    let ticks = ticks() - start;
    Ok(Cost {
        iterations: count,
        ticks,
    })
}

fn empty(count: u64) -> Result<Cost, String> {
    looped(count, |index| {
        black_box(index);
    })
}

fn cpuid(count: u64) -> Result<Cost, String> {
    looped(count, |_| {
        black_box(std::arch::x86_64::__cpuid_count(0, 0));
    })
}

/// The same with ports, when the kernel allows them.
fn ports(count: u64, operation: impl FnMut(u64)) -> Result<Cost, String> {
    if !port::allowed() {
        return Err("no right to use I/O ports".to_owned());
    }
    looped(count, operation)
}

fn reads(count: u64, from: u16) -> Result<Cost, String> {
    ports(count, |_| {
        black_box(port::read(from));
    })
}

fn out_unused(count: u64) -> Result<Cost, String> {
    ports(count, |_| port::write(UNUSED_PORT, 0))
}

fn in_unused(count: u64) -> Result<Cost, String> {
    reads(count, UNUSED_PORT)
}

fn in_uart(count: u64) -> Result<Cost, String> {
    reads(count, UART_LINE_STATUS)
}

fn out_uart(count: u64) -> Result<Cost, String> {
    ports(count, |index| port::write(UART_SCRATCH, index as u8))
}

fn in_pic(count: u64) -> Result<Cost, String> {
    reads(count, PIC_MASK)
}

/// A port of a device that dom0 plays.
fn in_dom0(count: u64) -> Result<Cost, String> {
    let first = port::of_virtio_device().ok_or("no virtio device has I/O ports")?;
    reads(count, first)
}

fn syscall(count: u64) -> Result<Cost, String> {
    looped(count, |_| {
        black_box(std::os::unix::process::parent_id());
    })
}

/// Two processes on one CPU and two pipes; a round is two switches.
fn context_switch(rounds: u64) -> Result<Cost, String> {
    let failed = |error: std::io::Error| error.to_string();
    let (from_us, to_child) = std::io::pipe().map_err(failed)?;
    let (from_child, to_us) = std::io::pipe().map_err(failed)?;
    // Even a pin to the only CPU takes the scheduler another way.
    if wake::cpus() > 1 {
        wake::pin(0)?;
    }
    // SAFETY: this process has one thread, so the child may do anything; it only reads, writes and
    // ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop((to_child, from_child));
        while take(&from_us) && give(&to_us) {}
        std::process::exit(0);
    }
    drop((from_us, to_us));
    if child < 0 {
        return Err("cannot fork".to_owned());
    }
    let mut good = true;
    let cost = looped(rounds, |_| {
        good = good && give(&to_child) && take(&from_child)
    });
    drop(to_child);
    reap(child);
    wake::unpin();
    if !good {
        return Err("a pipe broke".to_owned());
    }
    cost.map(|cost| Cost {
        iterations: cost.iterations * 2,
        ..cost
    })
}

/// Reads a byte. The bare call: what is measured is the kernel.
fn take(from: &impl AsRawFd) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte is written at most, into a byte of ours.
    unsafe { libc::read(from.as_raw_fd(), (&raw mut byte).cast(), 1) == 1 }
}

/// Writes a byte.
fn give(to: &impl AsRawFd) -> bool {
    // SAFETY: one byte of ours is read.
    unsafe { libc::write(to.as_raw_fd(), [0u8].as_ptr().cast(), 1) == 1 }
}

fn fork(count: u64) -> Result<Cost, String> {
    let mut failed = false;
    let cost = looped(count, |_| {
        // SAFETY: as in `context_switch`; the child ends at once.
        match unsafe { libc::fork() } {
            // SAFETY: `_exit` never returns and runs nothing of the parent's.
            0 => unsafe { libc::_exit(0) },
            child if child > 0 => reap(child),
            _ => failed = true,
        }
    });
    if failed {
        Err("cannot fork".to_owned())
    } else {
        cost
    }
}

fn reap(child: libc::pid_t) {
    // SAFETY: no status is asked for, so nothing is written.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
}

/// Memory of this process, given back when dropped.
struct Area(*mut u8);

impl Area {
    fn map() -> Result<Area, String> {
        // SAFETY: a fresh private mapping at a place the kernel chooses aliases nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                AREA_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err("no memory".to_owned());
        }
        // SAFETY: advice about our own mapping; it changes no contents.
        unsafe { libc::madvise(start, AREA_BYTES, libc::MADV_NOHUGEPAGE) };
        Ok(Area(start.cast()))
    }

    /// Writes one word in every page.
    fn touch(&self) -> Result<Cost, String> {
        let pages = AREA_BYTES / PAGE_BYTES;
        looped(pages as u64, |page| {
            // SAFETY: `page` is below the number of pages, so the word lies in the mapping, which
            // nothing else refers to; pages are aligned.
            unsafe {
                let word = self.0.add(page as usize * PAGE_BYTES).cast::<u64>();
                word.write_volatile(page);
            }
        })
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` got, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.cast(), AREA_BYTES) };
    }
}

/// Page faults of the guest, and nested ones for pages the guest never used.
fn first_touch(_: u64) -> Result<Cost, String> {
    Area::map()?.touch()
}

/// Page faults of the guest alone: the pages were just used and freed.
fn touch_again(count: u64) -> Result<Cost, String> {
    let mut total = first_touch(count)?;
    total.iterations = 0;
    total.ticks = 0;
    for _ in 0..count {
        let cost = Area::map()?.touch()?;
        total.iterations += cost.iterations;
        total.ticks += cost.ticks;
    }
    Ok(total)
}

/// Takes and gives a page's write permission: page-table changes and TLB invalidations.
fn protect(count: u64) -> Result<Cost, String> {
    let area = Area::map()?;
    area.touch()?;
    looped(count, |index| {
        let page = index as usize % (AREA_BYTES / PAGE_BYTES);
        // SAFETY: the page lies in the mapping, which nothing else refers to, and is written only
        // while it may be.
        unsafe {
            let start = area.0.add(page * PAGE_BYTES);
            libc::mprotect(start.cast(), PAGE_BYTES, libc::PROT_READ);
            libc::mprotect(start.cast(), PAGE_BYTES, libc::PROT_READ | libc::PROT_WRITE);
            start.write_volatile(1);
        }
    })
}
