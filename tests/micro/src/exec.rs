//! Runs a piece of code with every register chosen, and reports every register and any exception afterwards.
//!
//! This is how the tests look at an exit from outside: whatever a hypervisor does to emulate one instruction,
//! nothing but that instruction's results may change. A fault ends the piece early; `trap` notes it and
//! resumes in `exec_registers`, so a faulting instruction is a result, not a crash.

use crate::trap::{self, Caught};
use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The general registers (RSP apart) and RFLAGS, in the order the assembly below uses.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Registers {
    pub(crate) rax: u64,
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rbp: u64,
    pub(crate) r8: u64,
    pub(crate) r9: u64,
    pub(crate) r10: u64,
    pub(crate) r11: u64,
    pub(crate) r12: u64,
    pub(crate) r13: u64,
    pub(crate) r14: u64,
    pub(crate) r15: u64,
    pub(crate) rflags: u64,
}

/// Carry, parity, auxiliary, zero, sign and overflow.
pub(crate) const STATUS_FLAGS: u64 = 0x8d5;

impl Registers {
    /// A different, recognisable value in each register; some status flags set.
    pub(crate) const fn pattern() -> Self {
        Self {
            rax: 0xa5a5_0001_dead_0001,
            rbx: 0xa5a5_0002_dead_0002,
            rcx: 0xa5a5_0003_dead_0003,
            rdx: 0xa5a5_0004_dead_0004,
            rsi: 0xa5a5_0005_dead_0005,
            rdi: 0xa5a5_0006_dead_0006,
            rbp: 0xa5a5_0007_dead_0007,
            r8: 0xa5a5_0008_dead_0008,
            r9: 0xa5a5_0009_dead_0009,
            r10: 0xa5a5_000a_dead_000a,
            r11: 0xa5a5_000b_dead_000b,
            r12: 0xa5a5_000c_dead_000c,
            r13: 0xa5a5_000d_dead_000d,
            r14: 0xa5a5_000e_dead_000e,
            r15: 0xa5a5_000f_dead_000f,
            rflags: 0x2 | 0x8d5,
        }
    }
}

/// A piece of code: ends with RET at CPL 0, with `int 0x80` at CPL 3.
pub(crate) type Code = unsafe extern "C" fn();

/// Defines a piece of code for [`run`].
#[macro_export]
macro_rules! code {
    ($name:ident, $($line:expr),+) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!($($line,)+ "ret")
        }
    };
}

/// Defines a piece of code for [`run_user`].
#[macro_export]
macro_rules! user_code {
    ($name:ident, $($line:expr),+) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!($($line,)+ "int 0x80")
        }
    };
}

static REGISTERS_POINTER: AtomicU64 = AtomicU64::new(0);
static CODE_POINTER: AtomicU64 = AtomicU64::new(0);

/// Stack of the pieces that run at CPL 3.
#[repr(C, align(16))]
struct UserStack([AtomicU64; 128]);
static USER_STACK: UserStack = UserStack([const { AtomicU64::new(0) }; 128]);

/// Loads the registers, runs the code (at CPL 3 if `user_rsp` is not 0), stores the registers.
#[unsafe(naked)]
unsafe extern "C" fn exec_registers(registers: *mut Registers, code: Code, user_rsp: u64) {
    naked_asm!(
        "push rbx; push rbp; push r12; push r13; push r14; push r15",
        "mov [rip + {registers}], rdi",
        "mov [rip + {code}], rsi",
        "mov [rip + {resume_rsp}], rsp",
        "lea rax, [rip + 4f]",
        "mov [rip + {resume_rip}], rax",
        "test rdx, rdx",
        "jz 2f",
        // CPL 3: a frame for IRETQ.
        "push {user_data}",
        "push rdx",
        "push qword ptr [rdi + 15 * 8]",
        "push {user_code}",
        "push rsi",
        "jmp 3f",
        "2: push qword ptr [rdi + 15 * 8]",
        "popfq",
        "3: mov rax, [rdi]",
        "mov rbx, [rdi + 1 * 8]",
        "mov rcx, [rdi + 2 * 8]",
        "mov rsi, [rdi + 4 * 8]",
        "mov rbp, [rdi + 6 * 8]",
        "mov r8, [rdi + 7 * 8]",
        "mov r9, [rdi + 8 * 8]",
        "mov r10, [rdi + 9 * 8]",
        "mov r11, [rdi + 10 * 8]",
        "mov r12, [rdi + 11 * 8]",
        "mov r13, [rdi + 12 * 8]",
        "mov r14, [rdi + 13 * 8]",
        "mov r15, [rdi + 14 * 8]",
        // RSP tells the two ways apart without touching the flags just loaded.
        "mov rdx, [rdi + 3 * 8]",
        "mov rdi, [rdi + 5 * 8]",
        "jmp [rip + {launch}]",
        // launch points to one of these two.
        ".globl exec_launch_user",
        "exec_launch_user: iretq",
        ".globl exec_launch_kernel",
        "exec_launch_kernel: call [rip + {code}]",
        // Both a RET and trap.rs come here, with RSP = RESUME_RSP.
        "4: push rdi",
        "mov rdi, [rip + {registers}]",
        "mov [rdi], rax",
        "mov [rdi + 1 * 8], rbx",
        "mov [rdi + 2 * 8], rcx",
        "mov [rdi + 3 * 8], rdx",
        "mov [rdi + 4 * 8], rsi",
        "mov [rdi + 6 * 8], rbp",
        "mov [rdi + 7 * 8], r8",
        "mov [rdi + 8 * 8], r9",
        "mov [rdi + 9 * 8], r10",
        "mov [rdi + 10 * 8], r11",
        "mov [rdi + 11 * 8], r12",
        "mov [rdi + 12 * 8], r13",
        "mov [rdi + 13 * 8], r14",
        "mov [rdi + 14 * 8], r15",
        "pop rax",
        "mov [rdi + 5 * 8], rax",
        "pushfq",
        "pop rax",
        "mov [rdi + 15 * 8], rax",
        "mov qword ptr [rip + {resume_rip}], 0",
        "push 2",
        "popfq",
        "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
        "ret",
        registers = sym REGISTERS_POINTER,
        code = sym CODE_POINTER,
        launch = sym LAUNCH,
        resume_rip = sym trap::RESUME_RIP,
        resume_rsp = sym trap::RESUME_RSP,
        user_data = const crate::entry::USER_DATA,
        user_code = const crate::entry::USER_CODE,
    )
}

/// Where `exec_registers` goes once the registers are loaded.
static LAUNCH: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    fn exec_launch_user();
    fn exec_launch_kernel();
}

fn execute(registers: &mut Registers, code: Code, user_rsp: u64) -> Option<Caught> {
    let launch = if user_rsp == 0 {
        exec_launch_kernel as *const ()
    } else {
        exec_launch_user as *const ()
    };
    LAUNCH.store(launch as u64, Ordering::SeqCst);
    trap::forget_caught();
    // SAFETY: `exec_registers` keeps the callee-saved registers and the stack pointer, also after a fault
    // (trap.rs resumes at its tail). What the code itself does is the business of the test that defines it.
    unsafe { exec_registers(registers, code, user_rsp) }
    trap::take_caught()
}

/// Runs a piece of code at CPL 0; gives the exception that ended it, if one did.
pub(crate) fn run(registers: &mut Registers, code: Code) -> Option<Caught> {
    execute(registers, code, 0)
}

/// Runs a piece of code at CPL 3; gives what ended it (vector 0x80 if it came to its end).
pub(crate) fn run_user(registers: &mut Registers, code: Code) -> Option<Caught> {
    let top = (&raw const USER_STACK) as u64 + size_of::<UserStack>() as u64;
    execute(registers, code, top)
}

code!(rdmsr_code, "rdmsr");
code!(wrmsr_code, "wrmsr");

/// RDMSR that may fault.
pub(crate) fn read_msr(msr: u32) -> Result<u64, Caught> {
    let mut registers = Registers {
        rcx: u64::from(msr),
        rflags: 2,
        ..Registers::pattern()
    };
    match run(&mut registers, rdmsr_code) {
        Some(caught) => Err(caught),
        None => Ok(registers.rdx << 32 | registers.rax & 0xffff_ffff),
    }
}

/// WRMSR that may fault. The caller puts back what it must not lose.
pub(crate) fn write_msr(msr: u32, value: u64) -> Result<(), Caught> {
    let (rax, rdx) = (value & 0xffff_ffff, value >> 32);
    let mut registers = Registers {
        rcx: u64::from(msr),
        rax,
        rdx,
        rflags: 2,
        ..Registers::pattern()
    };
    match run(&mut registers, wrmsr_code) {
        Some(caught) => Err(caught),
        None => Ok(()),
    }
}
