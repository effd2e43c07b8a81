//! Loads for tests of other domains: floods of exits and of output, and a guest that never exits at all.

use crate::command_line::Arguments;
use crate::cpu::{self, Host};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::tests::hypercall;
use crate::{check, say, skip};

/// Hypercalls of a flood unless `iters=` says otherwise.
const HYPERCALLS_DEFAULT: u64 = 100_000;

pub(crate) fn hypercall_flood(_: &StartInfo, arguments: &Arguments) -> Verdict {
    if cpu::host() != Host::Godwit {
        skip!("not under Godwit: no hypercalls");
    }
    let iters = arguments.iters.unwrap_or(HYPERCALLS_DEFAULT);
    let vendor = cpu::vendor();
    let start = cpu::tsc();
    for round in 0..iters {
        let status = hypercall::nop(vendor);
        check!(status == 0, "call {round} gave status {status:#x}");
    }
    say!("{iters} hypercalls in {} ticks", cpu::tsc() - start);
    Ok(())
}

/// Endless, without an exit, interrupts off: only the hypervisor's own timer can take the CPU away.
pub(crate) fn spin(_: &StartInfo, _: &Arguments) -> Verdict {
    say!("MICRO spin ENDLESS");
    loop {
        core::hint::spin_loop();
    }
}

/// Exits as fast as they go: endless, or `iters=` of them.
pub(crate) fn cpuid_flood(_: &StartInfo, arguments: &Arguments) -> Verdict {
    say!(
        "MICRO cpuid-flood {}",
        if arguments.iters.is_some() {
            "LIMITED"
        } else {
            "ENDLESS"
        }
    );
    let expected = cpu::cpuid(0, 0);
    let mut rounds = 0;
    while arguments.iters != Some(rounds) {
        check!(
            cpu::cpuid(0, 0) == expected,
            "leaf 0 changed in round {rounds}"
        );
        rounds += 1;
    }
    Ok(())
}

/// Prints numbered lines: endless, or `iters=` of them.
pub(crate) fn flood_console(_: &StartInfo, arguments: &Arguments) -> Verdict {
    let mut line = 0u64;
    while arguments.iters != Some(line) {
        say!("flood line {line:010} the quick brown fox jumps over the lazy dog 0123456789");
        line += 1;
    }
    Ok(())
}
