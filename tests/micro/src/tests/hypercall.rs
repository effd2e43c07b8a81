//! `hypercall`: whatever number and arguments a guest tries, it gets a status and nothing else happens.

use crate::command_line::Arguments;
use crate::cpu::{self, Host, Random, Vendor};
use crate::exec::{self, Code, Registers};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, code, fail, say, skip, user_code};
use core::arch::asm;

code!(vmcall, "vmcall");
code!(vmmcall, "vmmcall");
user_code!(user_vmcall, "vmcall");
user_code!(user_vmmcall, "vmmcall");

/// The call that does nothing and succeeds.
const NOP: u64 = 0;
/// Numbers tried one by one.
const NUMBERS: u64 = 4096;
/// Random calls.
const RANDOM_CALLS_DEFAULT: u64 = 2000;
const INVALID_OPCODE: u64 = 6;
const GENERAL_PROTECTION: u64 = 13;

/// The instruction of this CPU's vendor and the other's, at CPL 0 and at CPL 3.
struct Instructions {
    right: Code,
    wrong: Code,
    user_right: Code,
    user_wrong: Code,
}

fn instructions() -> Option<Instructions> {
    match cpu::vendor() {
        Vendor::Intel => Some(Instructions {
            right: vmcall,
            wrong: vmmcall,
            user_right: user_vmcall,
            user_wrong: user_vmmcall,
        }),
        Vendor::Amd => Some(Instructions {
            right: vmmcall,
            wrong: vmcall,
            user_right: user_vmmcall,
            user_wrong: user_vmcall,
        }),
        Vendor::Other => None,
    }
}

/// The do-nothing call by this vendor's instruction, as fast as it goes; gives its status.
#[inline(always)]
pub(crate) fn nop(vendor: Vendor) -> u64 {
    let status;
    // SAFETY: the call writes RAX and RDX and touches no memory; where there is no hypervisor the #UD is reported.
    unsafe {
        match vendor {
            Vendor::Intel => {
                asm!("vmcall", inout("rax") NOP => status, out("rdx") _, options(nomem, nostack))
            }
            Vendor::Amd | Vendor::Other => {
                asm!("vmmcall", inout("rax") NOP => status, out("rdx") _, options(nomem, nostack))
            }
        }
    }
    status
}

pub(crate) fn run(_: &StartInfo, arguments: &Arguments) -> Verdict {
    let Some(instructions) = instructions() else {
        skip!("neither Intel's nor AMD's CPU: no instruction to call with");
    };
    if cpu::host() != Host::Godwit {
        wrong_instruction("at CPL 0", exec::run, instructions.wrong)?;
        wrong_instruction("at CPL 3", exec::run_user, instructions.user_wrong)?;
        skip!("not under Godwit: no hypercalls; the other vendor's instruction gives #UD");
    }
    for number in 0..=NUMBERS {
        call(
            instructions.right,
            Registers {
                rax: number,
                ..Registers::pattern()
            },
        )?;
    }
    let seed = arguments.seed.unwrap_or(1);
    let calls = arguments.iters.unwrap_or(RANDOM_CALLS_DEFAULT);
    let mut random = Random::new(seed);
    for _ in 0..calls {
        call(instructions.right, random_registers(&mut random))?;
    }
    say!("{NUMBERS} numbers in order, {calls} random calls (seed {seed})");
    wrong_instruction("at CPL 0", exec::run, instructions.wrong)?;
    wrong_instruction("at CPL 3", exec::run_user, instructions.user_wrong)?;
    from_user(instructions.user_right)
}

/// Numbers near the valid ones or anywhere; arguments that look like addresses, sizes or noise.
fn random_registers(random: &mut Random) -> Registers {
    let mut value = || {
        let noise = random.next();
        match noise & 7 {
            0 => 0,
            1 => u64::MAX,
            2 => noise >> 56,
            3 => noise >> 32 & !0xfff,
            4 => noise >> 16 | 0xffff << 48,
            5 => 1 << (noise >> 58),
            _ => noise,
        }
    };
    let (rax, rdi, rsi, rdx, r10, r8) = (value(), value(), value(), value(), value(), value());
    Registers {
        rax,
        rdi,
        rsi,
        rdx,
        r10,
        r8,
        ..Registers::pattern()
    }
}

/// One call: status 0 for the nop only; RAX and RDX are the results, all else is kept.
fn call(instruction: Code, before: Registers) -> Verdict {
    let mut after = before;
    if let Some(caught) = exec::run(&mut after, instruction) {
        fail!("call {:#x} gave exception {}", before.rax, caught.vector);
    }
    check!(
        (after.rax == 0) == (before.rax == NOP),
        "call {:#x} gave status {:#x}",
        before.rax,
        after.rax
    );
    let kept = Registers {
        rax: after.rax,
        rdx: after.rdx,
        ..before
    };
    check!(
        after == kept,
        "call {:#x} changed a register: {after:x?}",
        before.rax
    );
    Ok(())
}

/// The other vendor's instruction is no instruction here.
fn wrong_instruction(
    place: &str,
    run: fn(&mut Registers, Code) -> Option<crate::trap::Caught>,
    code: Code,
) -> Verdict {
    let before = Registers {
        rax: NOP,
        ..Registers::pattern()
    };
    let mut after = before;
    match run(&mut after, code) {
        Some(caught) if caught.vector == INVALID_OPCODE => {}
        Some(caught) => fail!(
            "the other vendor's instruction {place} gave exception {}, not #UD",
            caught.vector
        ),
        None => fail!(
            "the other vendor's instruction {place} was taken, RAX {:#x}",
            after.rax
        ),
    }
    check!(
        Registers { rflags: 0, ..after }
            == Registers {
                rflags: 0,
                ..before
            },
        "#UD {place} changed a register: {after:x?}"
    );
    Ok(())
}

/// A guest's user programs have no hypercalls.
fn from_user(code: Code) -> Verdict {
    let before = Registers {
        rax: NOP,
        ..Registers::pattern()
    };
    let mut after = before;
    match exec::run_user(&mut after, code) {
        Some(caught) if caught.vector == INVALID_OPCODE || caught.vector == GENERAL_PROTECTION => {
            say!("from CPL 3: exception {}", caught.vector);
            check!(
                after.rax == before.rax && after.rdx == before.rdx,
                "the refused call changed RAX or RDX: {after:x?}"
            );
            Ok(())
        }
        Some(caught) if caught.vector == u64::from(crate::trap::VECTOR_USER_RETURN) => {
            fail!("CPL 3 may call: RAX {:#x}", after.rax)
        }
        other => fail!("from CPL 3: {other:x?}"),
    }
}
