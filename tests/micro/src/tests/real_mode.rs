//! `real`: from long mode to real mode and back, with exits on the way (unrestricted guest, NPT in real mode).

use crate::command_line::Arguments;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, say, trap};
use core::arch::global_asm;

/// Where the 16-bit code runs and where it leaves its results.
const CODE_ADDRESS: u64 = 0x7000;
const RESULT_ADDRESS: u64 = 0x7c00;
/// Vector called through the real-mode table, which is at address 0.
const SOFTWARE_VECTOR: u64 = 0x42;

// Each step down undoes one of entry.rs's steps up: paging, LME, 32-bit segments, protection.
global_asm!(
    r#"
    .section .text.real, "ax"
    .code64
    .globl real_excursion
real_excursion:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rip + real_saved_stack], rsp
    push 0x18
    lea rax, [rip + 2f]
    push rax
    retfq
    .code32
2:  mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, cr0
    and eax, 0x7fffffff                 # PG off
    mov cr0, eax
    mov ecx, 0xc0000080
    rdmsr
    and eax, ~0x100                     # LME off
    wrmsr
    lidt [real_table_pointer]
    mov eax, 0x48
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    .byte 0xea                          # far jump to 16-bit protected mode at 0x7000
    .long 0x7000
    .short 0x40

    .globl real_back
real_back:
    mov eax, 0x10
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov fs, eax
    mov gs, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xea                          # far jump to 64-bit code
    .long real_back64
    .short 0x08
    .code64
real_back64:
    mov rsp, [rip + real_saved_stack]
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

    .code16
    .globl real_code
real_code:
    mov eax, cr0
    and al, 0xfe                        # PE off
    mov cr0, eax
    .byte 0xea                          # far jump to real mode
    .short 0x7000 + real_flat - real_code
    .short 0
real_flat:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov sp, 0x7000
    mov edi, 0x7c00
    mov eax, cr0
    mov [di], eax                       # 0: CR0
    in al, 0x21
    mov [di + 4], al                    # 4: PIC mask
    in al, 0xe9
    mov [di + 5], al                    # 5: debug port
    mov dx, 0xb00
    in ax, dx
    mov [di + 6], ax                    # 6: unused port
    xor eax, eax
    cpuid
    mov [di + 8], eax                   # 8: CPUID leaf 0 EAX and EBX
    mov [di + 12], ebx
    mov ax, 0x1234
    int 0x42                            # handler below adds 1 to AX
    mov [di + 16], ax                   # 16: what the handler made of 0x1234
    mov ax, 0x1000
    mov ds, ax
    mov al, [0x0000]                    # a byte of 0x10000, by segment
    xor dx, dx
    mov ds, dx
    mov [di + 18], al                   # 18: it
    mov al, 'R'
    out 0xe9, al
    mov al, '\n'
    out 0xe9, al
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .byte 0x66, 0xea                    # far jump to 32-bit code
    .long real_back
    .short 0x18
real_handler:
    inc ax
    iret
    .globl real_code_end
real_code_end:
    .code64

    .section .data.real, "aw"
real_table_pointer:
    .short 0x3ff
    .long 0
    .p2align 3
real_saved_stack:
    .quad 0
"#
);

unsafe extern "C" {
    fn real_excursion();
    static real_code: u8;
    static real_code_end: u8;
    fn real_handler();
}

pub(crate) fn run(info: &StartInfo, _: &Arguments) -> Verdict {
    let low_ram = info
        .ram()
        .iter()
        .any(|region| region.start == 0 && region.end > 0x2_0000);
    check!(low_ram, "no RAM from 0 to 0x20000 in the memory map");
    let (start, end) = (&raw const real_code as u64, &raw const real_code_end as u64);
    let handler = CODE_ADDRESS + (real_handler as *const () as u64 - start);
    crate::cpu::out8(0x21, 0xa6);
    // SAFETY: low RAM is the guest's, mapped to itself and holds no Rust object; the loader's information was
    // copied out of it. The excursion keeps the callee-saved registers and comes back to long mode with the same
    // page tables; segment registers come back as entry.rs left them, FS and GS apart, which nothing uses.
    unsafe {
        core::ptr::copy_nonoverlapping(
            start as *const u8,
            CODE_ADDRESS as *mut u8,
            (end - start) as usize,
        );
        ((SOFTWARE_VECTOR * 4) as *mut u32).write_volatile(handler as u32);
        (0x1_0000 as *mut u8).write_volatile(0x5c);
        core::ptr::write_bytes(RESULT_ADDRESS as *mut u8, 0, 32);
        real_excursion();
    }
    trap::load_idt();
    // SAFETY: as above; reads what the 16-bit code has written.
    let result = unsafe { (RESULT_ADDRESS as *const [u8; 32]).read_volatile() };
    crate::cpu::out8(0x21, 0xff);
    let word = |at: usize| {
        u32::from_le_bytes([result[at], result[at + 1], result[at + 2], result[at + 3]])
    };
    say!(
        "real mode: cr0 {:#x} cpuid {:#x} {:#x} ports {:x?}",
        word(0),
        word(8),
        word(12),
        &result[4..8]
    );
    check!(
        word(0) & 0x8000_0001 == 0,
        "CR0 was {:#x} in real mode",
        word(0)
    );
    check!(result[4] == 0xa6, "IN 0x21 gave {:#x}, not 0xa6", result[4]);
    check!(result[5] == 0xe9, "IN 0xe9 gave {:#x}", result[5]);
    check!(
        result[6..8] == [0xff, 0xff],
        "IN from an unused port gave {:x?}",
        &result[6..8]
    );
    let leaf = crate::cpu::cpuid(0, 0);
    check!(
        (word(8), word(12)) == (leaf.eax, leaf.ebx),
        "CPUID differs in real mode: {:#x} {:#x}",
        word(8),
        word(12)
    );
    check!(
        word(16) & 0xffff == 0x1235,
        "INT in real mode gave {:#x}",
        word(16) & 0xffff
    );
    check!(
        result[18] == 0x5c,
        "the byte at 0x1000:0 was {:#x}",
        result[18]
    );
    Ok(())
}
