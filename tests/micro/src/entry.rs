//! From the 32-bit PVH entry to Rust in long mode.
//!
//! State at entry (Xen's HVM direct boot ABI): protected mode, paging off, flat segments, interrupts off,
//! EBX = physical address of `hvm_start_info`. GRUB's multiboot2 state is the same apart from EBX and EAX, so
//! one path serves both; EAX and EBX are handed on and `start_info` finds out which it was. Multiboot2 is for
//! running the tests on an emulated machine that has no PVH loader (Bochs).
//!
//! Page tables: 0 to 4 GiB mapped to itself with 2 MiB pages, open to CPL 3 (the tests go there); the last
//! GiB uncached, for the local APIC. Everything lies inside the image, below 3 MiB.

use core::arch::global_asm;

/// Selectors of the GDT below.
pub(crate) const KERNEL_CODE: u16 = 0x08;
pub(crate) const KERNEL_DATA: u16 = 0x10;
pub(crate) const USER_DATA: u16 = 0x20 | 3;
pub(crate) const USER_CODE: u16 = 0x28 | 3;
pub(crate) const TASK_STATE: u16 = 0x30;

global_asm!(
    r#"
    .section .note.Xen, "a", @note
    .p2align 2
    .long 4, 8, 18                      # name size, descriptor size, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad entry32

    .section .multiboot, "a"
    .p2align 3
multiboot_header:
    .long 0xe85250d6, 0, 24         # magic, i386 protected mode, length
    .long 0x100000000 - (0xe85250d6 + 0 + 24)  # checksum
    .short 0, 0                         # end tag
    .long 8

    .section .text.entry, "ax"
    .code32
    .globl entry32
entry32:
    cld
    cli
    mov ebp, eax                        # keep the loader's EAX; EBX stays as it is
    lea esp, [boot_stack_top]

    # Four page directories of 2 MiB pages: present, writable, user, large.
    lea edi, [page_directories]
    mov eax, 0x87
    xor ecx, ecx
2:  mov [edi + ecx * 8], eax
    mov dword ptr [edi + ecx * 8 + 4], 0
    cmp ecx, 3 * 512 - 1
    jb 3f
    or eax, 0x18                        # from 3 GiB up: cache off, write through
3:  add eax, 0x200000
    inc ecx
    cmp ecx, 4 * 512
    jb 2b

    lea edi, [pdpt]
    lea eax, [page_directories + 7]
    xor ecx, ecx
4:  mov [edi + ecx * 8], eax
    add eax, 0x1000
    inc ecx
    cmp ecx, 4
    jb 4b
    lea eax, [pdpt + 7]
    mov dword ptr [pml4], eax

    # PAE, and SSE as the CPU offers it (FXSR: CPUID.1:EDX[24]); XSAVE is enabled in Rust.
    mov esi, ebx                        # CPUID overwrites EBX
    mov eax, 1
    cpuid
    mov ebx, esi
    mov eax, 0x20
    test edx, 0x01000000
    jz 5f
    or eax, 0x600                       # OSFXSR, OSXMMEXCPT
5:  mov cr4, eax
    lea eax, [pml4]
    mov cr3, eax
    mov ecx, 0xc0000080                 # EFER.LME
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, 0x80010033                 # PG, WP, NE, ET, MP, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    push 0x08
    lea eax, [entry64]
    push eax
    retf

    .code64
    .globl entry64
entry64:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor eax, eax
    mov fs, ax
    mov gs, ax
    fninit
    mov edi, ebp
    mov esi, ebx
    lea rsp, [rip + boot_stack_top]
    xor ebp, ebp
    call {start}
    ud2

    .section .data.gdt, "aw"
    .p2align 4
    .globl gdt
gdt:
    .quad 0
    .quad 0x00af9b000000ffff            # 0x08 64-bit code
    .quad 0x00cf93000000ffff            # 0x10 data
    .quad 0x00cf9b000000ffff            # 0x18 32-bit code
    .quad 0x00cff3000000ffff            # 0x20 user data
    .quad 0x00affb000000ffff            # 0x28 user 64-bit code
    .globl gdt_task_state
gdt_task_state:
    .quad 0, 0                          # 0x30 TSS, filled in by trap.rs
    .quad 0x00009b000000ffff            # 0x40 16-bit code, base 0
    .quad 0x000093000000ffff            # 0x48 16-bit data, base 0
gdt_end:
    .globl gdt_pointer
gdt_pointer:
    .short gdt_end - gdt - 1
    .quad gdt

    .section .bss.tables, "aw", @nobits
    .p2align 12
    .globl pml4
pml4:             .skip 4096
pdpt:             .skip 4096
page_directories: .skip 4 * 4096
    .globl boot_stack
boot_stack:       .skip 64 * 1024
    .globl boot_stack_top
boot_stack_top:
"#,
    start = sym crate::machine::start,
);
