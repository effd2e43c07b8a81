//! `paging`: the guest's own page faults (error code, CR2) and its accessed and dirty bits, under nested paging.

use crate::command_line::Arguments;
use crate::cpu;
use crate::exec::{self, Code, Registers};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::window::{self, ACCESSED, DIRTY, NO_EXECUTE, PRESENT, USER, WRITABLE};
use crate::{check, code, fail, say, user_code};

code!(load, "mov rax, [rbx]");
code!(store, "mov [rbx], rax");
code!(fetch, "call rbx");
user_code!(user_load, "mov rax, [rbx]");
user_code!(user_store, "mov [rbx], rax");

const PAGE_FAULT: u64 = 14;
/// A physical address bit no CPU in use implements.
const RESERVED_ADDRESS_BIT: u64 = 1 << 51;
/// Machine code of RET, repeated.
const RET_BYTES: u64 = 0xc3c3_c3c3_c3c3_c3c3;

struct Case {
    name: &'static str,
    run: fn(&mut Registers, Code) -> Option<crate::trap::Caught>,
    code: Code,
    bits: u64,
    error: u64,
}

/// What any CPU must give; a fetch is told from a read where there are no-execute pages.
fn cases(fetch_bit: u64) -> [Case; 8] {
    [
        Case {
            name: "read, not present",
            run: exec::run,
            code: load,
            bits: 0,
            error: 0,
        },
        Case {
            name: "write, not present",
            run: exec::run,
            code: store,
            bits: 0,
            error: 2,
        },
        Case {
            name: "fetch, not present",
            run: exec::run,
            code: fetch,
            bits: 0,
            error: fetch_bit,
        },
        Case {
            name: "write, read only",
            run: exec::run,
            code: store,
            bits: PRESENT,
            error: 3,
        },
        Case {
            name: "user read, not present",
            run: exec::run_user,
            code: user_load,
            bits: 0,
            error: 4,
        },
        Case {
            name: "user read, supervisor page",
            run: exec::run_user,
            code: user_load,
            bits: PRESENT | WRITABLE,
            error: 5,
        },
        Case {
            name: "user write, supervisor page",
            run: exec::run_user,
            code: user_store,
            bits: PRESENT | WRITABLE,
            error: 7,
        },
        Case {
            name: "user write, read only",
            run: exec::run_user,
            code: user_store,
            bits: PRESENT | USER,
            error: 7,
        },
    ]
}

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    let no_execute = cpu::cpuid(0x8000_0001, 0).edx & 1 << 20 != 0;
    let fetch_bit = if no_execute { 0x10 } else { 0 };
    let user_write = PRESENT | WRITABLE | USER;
    faults(&cases(fetch_bit))?;
    if no_execute {
        faults(&[Case {
            name: "fetch, no execute",
            run: exec::run,
            code: fetch,
            bits: user_write | NO_EXECUTE,
            error: 0x11,
        }])?;
    }
    // TCG leaves the present bit out of this error code.
    if cpu::cpuid(0x8000_0008, 0).eax & 0xff < 52 && cpu::is_cpu_exact() {
        faults(&[Case {
            name: "read, reserved bit",
            run: exec::run,
            code: load,
            bits: PRESENT | RESERVED_ADDRESS_BIT,
            error: 9,
        }])?;
    }
    accessed_and_dirty()?;
    remapping()
}

fn faults(cases: &[Case]) -> Verdict {
    for case in cases {
        window::map(1, case.bits);
        let address = window::address(1) + 0x128;
        let mut registers = Registers {
            rbx: address,
            ..Registers::pattern()
        };
        let Some(caught) = (case.run)(&mut registers, case.code) else {
            fail!("{}: no fault", case.name);
        };
        check!(
            (caught.vector, caught.error, caught.cr2) == (PAGE_FAULT, case.error, address),
            "{}: vector {} error {:#x} cr2 {:#x}, expected error {:#x} at {address:#x}",
            case.name,
            caught.vector,
            caught.error,
            caught.cr2,
            case.error
        );
        say!("{}: error {:#x}", case.name, caught.error);
    }
    Ok(())
}

/// The CPU sets the bits in the guest's tables as it walks them.
fn accessed_and_dirty() -> Verdict {
    window::map(2, PRESENT | WRITABLE | USER);
    let mut registers = Registers {
        rbx: window::address(2),
        rax: RET_BYTES,
        ..Registers::pattern()
    };
    check!(
        window::entry(2) & (ACCESSED | DIRTY) == 0,
        "bits set before the first access"
    );
    if exec::run(&mut registers, load).is_some() {
        fail!("reading a mapped page faulted");
    }
    let after_read = window::entry(2) & (ACCESSED | DIRTY);
    check!(
        after_read == ACCESSED,
        "after a read the entry has {after_read:#x}"
    );
    registers.rax = RET_BYTES;
    if exec::run(&mut registers, store).is_some() {
        fail!("writing a mapped page faulted");
    }
    let after_write = window::entry(2) & (ACCESSED | DIRTY);
    check!(
        after_write == ACCESSED | DIRTY,
        "after a write the entry has {after_write:#x}"
    );
    check!(
        window::word(2) == RET_BYTES,
        "the write is not seen through the other mapping"
    );
    if let Some(caught) = exec::run(&mut registers, fetch) {
        fail!(
            "running code from the page gave exception {}",
            caught.vector
        );
    }
    Ok(())
}

/// Changing a mapping and reloading CR3 takes effect at once: no stale translation is left.
fn remapping() -> Verdict {
    /// Rounds; every one changes the mapping.
    const ROUNDS: u64 = 200;
    for round in 0..ROUNDS {
        window::map(3, PRESENT | WRITABLE);
        let mut registers = Registers {
            rbx: window::address(3),
            rax: round,
            ..Registers::pattern()
        };
        if exec::run(&mut registers, store).is_some() || window::word(3) != round {
            fail!("round {round}: the page does not take writes");
        }
        window::map(3, 0);
        let Some(caught) = exec::run(&mut registers, load) else {
            fail!("round {round}: a removed page is still there");
        };
        check!(
            caught.vector == PAGE_FAULT && caught.error == 0,
            "round {round}: vector {} error {:#x}",
            caught.vector,
            caught.error
        );
    }
    say!("{ROUNDS} remappings");
    Ok(())
}
