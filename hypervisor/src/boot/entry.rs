//! From the boot loader to Rust: the multiboot2 header, and the switch from 32-bit protected mode
//! to long mode at the top of the address space.
//!
//! Multiboot2 specification 3.1.1 (header) and 3.3 (machine state: i386 protected mode, paging
//! off, EAX magic, EBX information). GRUB enters the same way on BIOS and on UEFI machines when
//! the header has no EFI tags. The first tables map the first 4 GiB three times: identity (for
//! the instructions around the switch), at `DIRECT_BASE`, and its first GiB at `IMAGE_BASE`.
//! `memory::tables` replaces all three before anything else runs.

use core::arch::global_asm;

global_asm!(
    r#"
    .set VIRT, 0xffffffff80000000

    .section .multiboot2, "a"
    .balign 8
multiboot2_header:
    .long 0xe85250d6
    .long 0
    .long multiboot2_end - multiboot2_header
    .long -(0xe85250d6 + (multiboot2_end - multiboot2_header))
    // Module alignment: modules start on page borders, so that they can be given away as pages.
    .balign 8
    .short 6, 0
    .long 8
    // End.
    .balign 8
    .short 0, 0
    .long 8
multiboot2_end:

    .section .boot.text, "ax"
    .code32
    .globl _boot
_boot:
    cli
    cld
    mov edi, eax
    mov esi, ebx
    rdtsc
    mov [boot_tsc_low], eax
    mov [boot_tsc_high], edx
    lea esp, [boot_stack_32]

    // Long mode and NX, or a message: there is no way to run without.
    mov eax, 0x80000000
    cpuid
    cmp eax, 0x80000001
    jb no_long_mode
    mov eax, 0x80000001
    cpuid
    bt edx, 29
    jnc no_long_mode
    bt edx, 20
    jnc no_long_mode

    // Four page directories of 2 MiB pages: the first 4 GiB.
    lea eax, [boot_pd]
    mov ecx, 0x83
    xor edx, edx
1:  mov [eax + edx * 8], ecx
    mov dword ptr [eax + edx * 8 + 4], 0
    add ecx, 0x200000
    inc edx
    cmp edx, 2048
    jb 1b

    lea eax, [boot_pd + 3]
    xor edx, edx
2:  mov [boot_pdpt + edx * 8], eax
    add eax, 0x1000
    inc edx
    cmp edx, 4
    jb 2b
    lea eax, [boot_pd + 3]
    mov [boot_pdpt_high + 510 * 8], eax
    lea eax, [boot_pdpt + 3]
    mov [boot_pml4], eax
    mov [boot_pml4 + 256 * 8], eax
    lea eax, [boot_pdpt_high + 3]
    mov [boot_pml4 + 511 * 8], eax

    lea eax, [boot_pml4]
    mov cr3, eax
    mov eax, 0x20                  // CR4.PAE
    mov cr4, eax
    mov ecx, 0xc0000080            // EFER.LME and NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010033            // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [boot_gdt_pointer]
    .byte 0xea                     // jmp 8:boot_64
    .long boot_64
    .short 8

no_long_mode:
    lea esi, [no_long_mode_text]
3:  mov dx, 0x3fd
4:  in al, dx
    test al, 0x20
    jz 4b
    lodsb
    test al, al
    jz 5f
    mov dx, 0x3f8
    out dx, al
    jmp 3b
5:  hlt
    jmp 5b

    .code64
boot_64:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    movabs rsp, offset boot_stack_top
    xor ebp, ebp
    mov edi, edi                   // magic
    mov esi, esi                   // physical address of the boot information
    mov eax, [boot_tsc_low]
    mov edx, [boot_tsc_high]
    shl rdx, 32
    or rdx, rax                    // TSC at entry
    movabs rax, offset start
    call rax
    ud2

    .section .boot.data, "aw"
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff
    .quad 0x00cf93000000ffff
boot_gdt_pointer:
    .short boot_gdt_pointer - boot_gdt - 1
    .long boot_gdt
boot_tsc_low: .long 0
boot_tsc_high: .long 0
no_long_mode_text: .asciz "(godwit) FATAL: this CPU has no long mode with NX: Godwit needs a 64-bit x86 CPU\r\n"

    .section .boot.bss, "aw", @nobits
    .balign 4096
boot_pml4: .skip 4096
boot_pdpt: .skip 4096
boot_pdpt_high: .skip 4096
boot_pd: .skip 4096 * 4
    .skip 256
boot_stack_32:

    .section .bss
    .balign 4096
    .globl boot_stack_guard
boot_stack_guard:                   // memory::tables does not map this page
    .skip 4096
    .skip 65536
boot_stack_top:
    .text
    "#
);
