//! Interrupt vectors: the stubs the IDT points at, who uses which vector, and the dispatcher.
//!
//! The hypervisor runs with interrupts off except at two places where it holds no lock: the window
//! after an exit that a host interrupt caused, and the idle loop. So a handler may do real work.

use core::arch::global_asm;
use core::sync::atomic::{AtomicUsize, Ordering};

use x86_64::VirtAddr;

use super::epitaph;
use crate::platform::apic;

/// Vectors there are.
pub(crate) const VECTOR_COUNT: usize = 256;
/// First vector for devices passed to dom0.
pub(crate) const DEVICE_FIRST: u8 = 0x40;
/// Last vector for devices passed to dom0.
pub(crate) const DEVICE_LAST: u8 = 0xdf;
/// The serial line.
pub(crate) const SERIAL: u8 = 0xe0;
/// The local APIC timer.
pub(crate) const TIMER: u8 = 0xf0;
/// "Look again": another CPU has work for this one.
pub(crate) const KICK: u8 = 0xf1;
/// "Stop for ever": another CPU has died.
pub(crate) const HALT: u8 = 0xf2;
/// The interval timer, where it is used (`timer`).
pub(crate) const HEARTBEAT: u8 = 0xf3;
/// The local APIC's spurious vector.
pub(crate) const SPURIOUS: u8 = 0xff;

/// What a stub leaves on the stack.
#[repr(C)]
pub(crate) struct Frame {
    pub(crate) r15: u64,
    pub(crate) r14: u64,
    pub(crate) r13: u64,
    pub(crate) r12: u64,
    pub(crate) r11: u64,
    pub(crate) r10: u64,
    pub(crate) r9: u64,
    pub(crate) r8: u64,
    pub(crate) rdi: u64,
    pub(crate) rsi: u64,
    pub(crate) rbp: u64,
    pub(crate) rbx: u64,
    pub(crate) rdx: u64,
    pub(crate) rcx: u64,
    pub(crate) rax: u64,
    pub(crate) vector: u64,
    pub(crate) error_code: u64,
    pub(crate) rip: u64,
    pub(crate) cs: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
    pub(crate) ss: u64,
}

global_asm!(
    r#"
    .text
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    push 0
    .endif
    push vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
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
    mov rbp, rsp
    and rsp, -16
    call {entry}
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    "#,
    entry = sym interrupt_entry,
);

unsafe extern "C" {
    static interrupt_stubs: u8;
}

/// Address of the stub of a vector: they stand 16 bytes apart.
pub(super) fn stub_address(vector: usize) -> VirtAddr {
    assert!(vector < VECTOR_COUNT);
    VirtAddr::new((&raw const interrupt_stubs) as u64 + vector as u64 * 16)
}

/// What the run loop wants to be called with a device's vector: set once, because the run loop is
/// generic over the vendor and this is not.
static DEVICE_HANDLER: AtomicUsize = AtomicUsize::new(0);

/// Sets the function that is told of device interrupts and of news on the serial line.
pub(crate) fn set_device_handler(handler: fn(u8)) {
    DEVICE_HANDLER.store(handler as usize, Ordering::Release);
}

fn tell(vector: u8) {
    let raw = DEVICE_HANDLER.load(Ordering::Acquire);
    if raw == 0 {
        log::warn!("interrupt {vector:#x} before anything could take it");
        return;
    }
    // SAFETY: the only values ever stored are of this function type.
    let handler = unsafe { core::mem::transmute::<usize, fn(u8)>(raw) };
    handler(vector);
}

/// Every interrupt and exception that comes while the hypervisor itself runs.
extern "C" fn interrupt_entry(frame: &mut Frame) {
    let vector = frame.vector as u8;
    match vector {
        0..=31 => epitaph::exception(frame),
        SPURIOUS => {}
        HALT => super::halt_for_ever(),
        TIMER => {
            super::this().count_interrupt();
            apic::timer_fired();
            apic::end_of_interrupt();
        }
        KICK => {
            super::this().count_interrupt();
            apic::end_of_interrupt();
        }
        HEARTBEAT => {
            super::this().count_interrupt();
            apic::end_of_interrupt();
            crate::timer::heartbeat();
        }
        SERIAL => {
            super::this().count_interrupt();
            apic::end_of_interrupt();
            tell(vector);
        }
        _ => {
            super::this().count_interrupt();
            tell(vector);
            apic::end_of_interrupt();
        }
    }
}

/// Lets pending host interrupts in, for one instruction. The caller holds no lock.
pub(crate) fn open_window() {
    // SAFETY: STI takes effect after the following instruction, so pending interrupts are taken at
    // the NOP's end; every vector has a handler.
    unsafe { core::arch::asm!("sti", "nop", "nop", "cli", options(nostack)) };
}

/// Sleeps until the next interrupt and takes it. The caller holds no lock.
pub(crate) fn wait_for_interrupt() {
    // SAFETY: as in `open_window`; STI's shadow covers HLT, so an interrupt that is pending ends it.
    unsafe { core::arch::asm!("sti", "hlt", "cli", options(nostack)) };
}
