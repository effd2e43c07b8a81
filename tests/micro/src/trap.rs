//! Exceptions and interrupts: IDT, TSS, the common handler, and what the tests read of it.
//!
//! An exception while `exec` runs a piece of code is noted in `CAUGHT` and ends the piece; any other
//! exception is a bug of test or machine and is reported in full. Interrupts are counted and logged in order.
//! All handlers run with interrupts off; the program has one CPU.

use crate::entry::{KERNEL_CODE, KERNEL_DATA, TASK_STATE};
use crate::{apic, cpu, say};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// Where to go on after an exception, 0 while `exec` is not running; and with which stack pointer.
pub(crate) static RESUME_RIP: AtomicU64 = AtomicU64::new(0);
pub(crate) static RESUME_RSP: AtomicU64 = AtomicU64::new(0);

/// Vectors with a special gate.
pub(crate) const VECTOR_USER_RETURN: u8 = 0x80;
pub(crate) const VECTOR_ON_IST: u8 = 0x82;
pub(crate) const VECTOR_NOT_PRESENT: u8 = 0x83;

/// An exception as a test sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Caught {
    pub(crate) vector: u64,
    pub(crate) error: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) cr2: u64,
    /// Address of the handler's frame: tells which stack it ran on.
    pub(crate) frame: u64,
}

/// Single-CPU cell: written by the handler, read by the code it interrupted or stopped.
struct HandlerCell<T>(UnsafeCell<T>);
// SAFETY: there is one CPU; accesses are whole reads and writes by value, made either in a handler (interrupts
// off) or in the main flow between pieces of code that can fault, never both at once.
unsafe impl<T> Sync for HandlerCell<T> {}

static CAUGHT: HandlerCell<Option<Caught>> = HandlerCell(UnsafeCell::new(None));

/// Whether interrupts are acknowledged by the handler, or left in service for the test.
pub(crate) static AUTO_EOI: AtomicBool = AtomicBool::new(true);
/// Whether #DB is logged and continued (single stepping) instead of caught.
pub(crate) static STEPPING: AtomicBool = AtomicBool::new(false);

/// Most log entries kept between two resets.
const LOG_MAX: usize = 64;
static LOG: [AtomicU64; LOG_MAX] = [const { AtomicU64::new(0) }; LOG_MAX];
static LOG_LEN: AtomicUsize = AtomicUsize::new(0);

/// Empties the log of interrupts and steps.
pub(crate) fn clear_log() {
    LOG_LEN.store(0, Ordering::SeqCst);
}

/// How many interrupts (or single steps) came since the log was cleared.
pub(crate) fn log_len() -> usize {
    LOG_LEN.load(Ordering::SeqCst)
}

/// The `index`th logged vector (interrupts) or RIP (single steps).
pub(crate) fn logged(index: usize) -> Option<u64> {
    (index < log_len()).then(|| LOG.get(index).map(|entry| entry.load(Ordering::SeqCst)))?
}

/// The log's length, for assembly that watches it.
pub(crate) static INTERRUPTS_SEEN: &AtomicUsize = &LOG_LEN;

fn log(value: u64) {
    let index = LOG_LEN.fetch_add(1, Ordering::SeqCst);
    if let Some(entry) = LOG.get(index) {
        entry.store(value, Ordering::SeqCst);
    }
}

/// Empties the note of the last exception.
pub(crate) fn forget_caught() {
    // SAFETY: see HandlerCell.
    unsafe { *CAUGHT.0.get() = None }
}

/// The last exception, if one ended the piece of code.
pub(crate) fn take_caught() -> Option<Caught> {
    // SAFETY: see HandlerCell.
    unsafe { (*CAUGHT.0.get()).take() }
}

/// The stack at the common handler: pushed registers, then what the stub and the CPU pushed.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    stub_return: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

/// Bytes from one stub to the next.
const STUB_BYTES: u64 = 16;

global_asm!(
    r#"
    .macro stubs_without_error count
    .rept \count
    .p2align 4
    push 0
    call trap_common
    .endr
    .endm
    .macro stubs_with_error count
    .rept \count
    .p2align 4
    call trap_common
    .endr
    .endm

    .section .text.trap, "ax"
    .p2align 4
    .globl trap_stubs
trap_stubs:                             # the vector is found from the return address of the call
    stubs_without_error 8
    stubs_with_error 1                  # 8 #DF
    stubs_without_error 1
    stubs_with_error 5                  # 10 #TS, 11 #NP, 12 #SS, 13 #GP, 14 #PF
    stubs_without_error 2
    stubs_with_error 1                  # 17 #AC
    stubs_without_error 3
    stubs_with_error 1                  # 21 #CP
    stubs_without_error 7
    stubs_with_error 2                  # 29 #VC, 30 #SX
    stubs_without_error 225

    .p2align 4
trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call {taken}
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16
    iretq
"#,
    taken = sym trap_taken,
);

unsafe extern "C" {
    fn trap_stubs();
    static mut gdt_task_state: [u64; 2];
}

extern "C" fn trap_taken(frame: &mut Frame) {
    let vector = (frame.stub_return - 1 - trap_stubs as *const () as u64) / STUB_BYTES;
    let software = vector == u64::from(VECTOR_USER_RETURN) || vector == u64::from(VECTOR_ON_IST);
    if vector >= 32 && !software {
        log(vector);
        if AUTO_EOI.load(Ordering::SeqCst) {
            apic::end_of_interrupt();
        }
        return;
    }
    if vector == 1 && STEPPING.load(Ordering::SeqCst) {
        log(frame.rip);
        return;
    }
    let caught = Caught {
        vector,
        error: frame.error,
        rip: frame.rip,
        cs: frame.cs,
        cr2: cpu::cr2(),
        frame: core::ptr::from_ref(frame) as u64,
    };
    let resume = RESUME_RIP.swap(0, Ordering::SeqCst);
    if resume == 0 {
        report(frame, &caught);
    }
    // SAFETY: see HandlerCell.
    unsafe { *CAUGHT.0.get() = Some(caught) }
    frame.rip = resume;
    frame.rsp = RESUME_RSP.load(Ordering::SeqCst);
    frame.cs = u64::from(KERNEL_CODE);
    frame.ss = u64::from(KERNEL_DATA);
    frame.rflags &= crate::exec::STATUS_FLAGS | 2;
}

/// An exception nobody expected: everything there is to know, then the end.
fn report(frame: &Frame, caught: &Caught) -> ! {
    say!(
        "exception {} error {:#x} at {:#x}:{:#x}",
        caught.vector,
        caught.error,
        frame.cs,
        frame.rip
    );
    say!(
        "rflags {:#x} stack {:#x}:{:#x} cr2 {:#x}",
        frame.rflags,
        frame.ss,
        frame.rsp,
        caught.cr2
    );
    say!(
        "cr0 {:#x} cr3 {:#x} cr4 {:#x}",
        cpu::cr0(),
        cpu::cr3(),
        cpu::cr4()
    );
    const NAMES: [&str; 15] = [
        "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx",
        "rbx", "rax",
    ];
    for (name, value) in NAMES.iter().zip(frame.registers) {
        say!("{name} {value:#018x}");
    }
    panic!("unexpected exception {} at {:#x}", caught.vector, frame.rip)
}

/// A 64-bit TSS (SDM 3A 8.7): only the stacks matter here.
#[repr(C, packed(4))]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    io_map_base: u16,
}
const _: () = assert!(size_of::<TaskState>() == 104);

/// A stack for handlers.
#[repr(C, align(16))]
pub(crate) struct HandlerStack([AtomicU8; 8192]);

impl HandlerStack {
    const fn new() -> Self {
        Self([const { AtomicU8::new(0) }; 8192])
    }

    fn top(&self) -> u64 {
        core::ptr::from_ref(self) as u64 + size_of::<Self>() as u64
    }

    /// Whether an address lies on this stack.
    pub(crate) fn contains(&self, address: u64) -> bool {
        (core::ptr::from_ref(self) as u64..self.top()).contains(&address)
    }
}

/// Stacks: from CPL 3, for the double fault (IST 1), for vector 0x82 (IST 2).
pub(crate) static RING0_STACK: HandlerStack = HandlerStack::new();
pub(crate) static DOUBLE_FAULT_STACK: HandlerStack = HandlerStack::new();
pub(crate) static IST_STACK: HandlerStack = HandlerStack::new();

static TSS: HandlerCell<TaskState> = HandlerCell(UnsafeCell::new(TaskState {
    reserved0: 0,
    rsp: [0; 3],
    reserved1: 0,
    ist: [0; 7],
    reserved2: 0,
    reserved3: 0,
    // No I/O bitmap: CPL 3 may use no port.
    io_map_base: size_of::<TaskState>() as u16,
}));

/// 256 gates of two words.
static IDT: HandlerCell<[[u64; 2]; 256]> = HandlerCell(UnsafeCell::new([[0; 2]; 256]));

/// An interrupt gate (SDM 3A 6.14.1).
fn gate(vector: u8) -> [u64; 2] {
    let target = trap_stubs as *const () as u64 + u64::from(vector) * STUB_BYTES;
    let ist = match vector {
        8 => 1,
        VECTOR_ON_IST => 2,
        _ => 0,
    };
    let dpl = if vector == 3 || vector == VECTOR_USER_RETURN {
        3
    } else {
        0
    };
    let present = u64::from(vector != VECTOR_NOT_PRESENT);
    let low = target & 0xffff
        | u64::from(KERNEL_CODE) << 16
        | ist << 32
        | (0xe | dpl << 5 | present << 7) << 40
        | (target >> 16 & 0xffff) << 48;
    [low, target >> 32]
}

/// LIDT and LGDT operand.
#[repr(C, packed(2))]
struct TablePointer {
    limit: u16,
    base: u64,
}

/// Loads IDT and TSS.
pub(crate) fn install() {
    let tss_base = TSS.0.get() as u64;
    // SAFETY: runs once, before any other access, with interrupts off. The gates point to the stubs above and
    // the TSS to stacks of their own; IDT, TSS and GDT are statics, so they stay where the CPU is told.
    unsafe {
        (*TSS.0.get()).rsp = [RING0_STACK.top(), 0, 0];
        (*TSS.0.get()).ist = [DOUBLE_FAULT_STACK.top(), IST_STACK.top(), 0, 0, 0, 0, 0];
        let limit = size_of::<TaskState>() as u64 - 1;
        let low = limit | (tss_base & 0xff_ffff) << 16 | 0x89 << 40 | (tss_base >> 24 & 0xff) << 56;
        gdt_task_state = [low, tss_base >> 32];
        for vector in 0..=255u8 {
            (*IDT.0.get())[usize::from(vector)] = gate(vector);
        }
        load_idt();
        asm!("ltr {:x}", in(reg) TASK_STATE, options(nostack, preserves_flags));
    }
}

/// Loads our IDT (again, after an excursion to real mode).
pub(crate) fn load_idt() {
    let pointer = TablePointer {
        limit: 256 * 16 - 1,
        base: IDT.0.get() as u64,
    };
    // SAFETY: the IDT is a static that `install` filled.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags)) }
}
