//! Start, end and panic of the program.

use crate::report::Ending;
use crate::start_info::StartInfo;
use crate::{command_line, cpu, say, tests, trap};
use core::sync::atomic::{AtomicUsize, Ordering};

/// ACPI PM1a control block and its sleep-enable bit with sleep type 0 (soft off).
pub(crate) const PM1A_CONTROL: u16 = 0x604;
const SLEEP_ENABLE: u16 = 0x2000;
/// How long the power may take to go off, in time-stamp ticks.
const POWER_OFF_TSC: u64 = 1 << 30;

unsafe extern "C" {
    #[link_name = "image_end"]
    static IMAGE_END: u8;
}

/// First address after the image.
pub(crate) fn image_end() -> u64 {
    &raw const IMAGE_END as u64
}

/// The running test's index in [`tests::TESTS`], for the panic handler; its length before one is chosen.
static RUNNING: AtomicUsize = AtomicUsize::new(tests::TESTS.len());

/// Rust's entry: `eax` and `ebx` are the loader's.
pub(crate) extern "C" fn start(eax: u32, ebx: u32) -> ! {
    trap::install();
    cpu::enable_features();
    let Some(info) = StartInfo::read(eax, ebx) else {
        panic!("neither a PVH start info at EBX {ebx:#x} nor multiboot2's EAX ({eax:#x})");
    };
    let (name, arguments) = command_line::parse(info.command_line());
    let Some(index) = tests::TESTS.iter().position(|test| test.name == name) else {
        for test in tests::TESTS {
            say!("known test: {}", test.name);
        }
        finish(name, "FAIL", "the command line's first word names no test")
    };
    RUNNING.store(index, Ordering::SeqCst);
    let arguments = match arguments {
        Ok(arguments) => arguments,
        Err(word) => {
            say!("argument {word:?} is not iters=NUMBER or seed=NUMBER");
            finish(name, "FAIL", "unknown argument")
        }
    };
    match (tests::TESTS[index].run)(&info, &arguments) {
        Ok(()) => finish(name, "PASS", ""),
        Err(Ending::Fail(reason)) => finish(name, "FAIL", reason),
        Err(Ending::Skip(reason)) => finish(name, "SKIP", reason),
    }
}

/// The last line, then power off.
fn finish(name: &str, verdict: &str, reason: impl core::fmt::Display) -> ! {
    match verdict {
        "PASS" => say!("MICRO {name} PASS"),
        _ => say!("MICRO {name} {verdict} {reason}"),
    }
    cpu::out16(PM1A_CONTROL, SLEEP_ENABLE);
    // Power goes off in its own time on some machines.
    let written_tsc = cpu::tsc();
    while cpu::tsc() - written_tsc < POWER_OFF_TSC {
        core::hint::spin_loop();
    }
    say!("still running after writing {SLEEP_ENABLE:#x} to port {PM1A_CONTROL:#x}: halting");
    cpu::stop()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let name = tests::TESTS
        .get(RUNNING.load(Ordering::SeqCst))
        .map_or("none", |test| test.name);
    match info.location() {
        Some(place) => finish(
            name,
            "FAIL",
            format_args!(
                "panic at {}:{}: {}",
                place.file(),
                place.line(),
                info.message()
            ),
        ),
        None => finish(name, "FAIL", format_args!("panic: {}", info.message())),
    }
}
