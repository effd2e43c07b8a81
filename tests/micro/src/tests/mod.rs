//! The tests, one file a subject; [`TESTS`] is the whole list.

use crate::command_line::Arguments;
use crate::report::Verdict;
use crate::start_info::StartInfo;

mod bench;
mod cpuid;
mod device;
mod dirty;
mod exceptions;
mod fpu;
mod hello;
mod hlt;
mod hostile;
mod hypercall;
mod load;
mod memory;
mod msi;
mod msr;
mod paging;
mod port;
mod power;
mod priority;
mod real_mode;
mod string_port;
mod write_round;

/// A test by its name on the command line.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&StartInfo, &Arguments) -> Verdict,
}

/// Every test.
pub(crate) static TESTS: &[Test] = &[
    Test {
        name: "hello",
        run: hello::run,
    },
    Test {
        name: "cpuid",
        run: cpuid::run,
    },
    Test {
        name: "msr",
        run: msr::run,
    },
    Test {
        name: "msi",
        run: msi::run,
    },
    Test {
        name: "port",
        run: port::run,
    },
    Test {
        name: "device",
        run: device::run,
    },
    Test {
        name: "device-flood",
        run: device::flood,
    },
    Test {
        name: "dirty",
        run: dirty::run,
    },
    Test {
        name: "write-round",
        run: write_round::run,
    },
    Test {
        name: "hostile",
        run: hostile::run,
    },
    Test {
        name: "string-port",
        run: string_port::run,
    },
    Test {
        name: "fault",
        run: memory::first_touch,
    },
    Test {
        name: "fault-beyond",
        run: memory::beyond_ram,
    },
    Test {
        name: "exceptions",
        run: exceptions::run,
    },
    Test {
        name: "paging",
        run: paging::run,
    },
    Test {
        name: "hlt",
        run: hlt::run,
    },
    Test {
        name: "priority",
        run: priority::run,
    },
    Test {
        name: "triple",
        run: power::triple_fault,
    },
    Test {
        name: "reset",
        run: power::reset,
    },
    Test {
        name: "hypercall",
        run: hypercall::run,
    },
    Test {
        name: "hypercall-flood",
        run: load::hypercall_flood,
    },
    Test {
        name: "spin",
        run: load::spin,
    },
    Test {
        name: "cpuid-flood",
        run: load::cpuid_flood,
    },
    Test {
        name: "flood-console",
        run: load::flood_console,
    },
    Test {
        name: "fpu",
        run: fpu::run,
    },
    Test {
        name: "real",
        run: real_mode::run,
    },
    Test {
        name: "bench",
        run: bench::run,
    },
];
