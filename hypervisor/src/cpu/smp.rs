//! Starting the other CPUs: INIT, start-up IPI, real mode to long mode on a borrowed page below
//! 1 MiB, one CPU at a time (SDM 3A, 10.4.4).

use core::arch::global_asm;
use core::sync::atomic::{AtomicU32, Ordering};

use godwit_vmm::frames::Zone;

use crate::memory::layout::direct_map;
use crate::memory::{self, tables};
use crate::platform::{apic, clock};

/// How long a CPU may take to arrive.
const ARRIVAL_NS_MAX: u64 = 200_000_000;

// The page: a jump, then data at fixed offsets (below), then code. Everything is reached relative to
// the page, whose address is CS * 16.
global_asm!(
    r#"
    .section .rodata
    .balign 16
    .code16
trampoline:
    jmp trampoline_16
    .balign 8
    .quad 0                         // 8: GDT
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
    .short 31                       // 40: its limit and base
    .long 8
    .balign 8
    .long trampoline_32 - trampoline // 48: far pointer, 32-bit code
    .short 8
    .balign 8
    .long trampoline_64 - trampoline // 56: far pointer, 64-bit code
    .short 24
    .balign 8
    .quad 0                         // 64: CR3
    .quad 0                         // 72: stack
    .quad 0                         // 80: argument
    .quad 0                         // 88: entry
trampoline_16:
    cli
    cld
    mov ax, cs
    mov ds, ax
    xor ebx, ebx
    mov bx, ax
    shl ebx, 4
    lgdtd [40]
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xff, 0x2e, 48, 0   // ljmp dword ptr [48]
    .code32
trampoline_32:
    mov ax, 16
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, 0x20                   // CR4.PAE
    mov cr4, eax
    mov eax, [ebx + 64]
    mov cr3, eax
    mov ecx, 0xc0000080             // EFER.LME and NXE
    rdmsr
    or eax, 0x900
    wrmsr
    mov eax, 0x80010033             // PG, WP, NE, ET, MP, PE
    mov cr0, eax
    ljmp [ebx + 56]
    .code64
trampoline_64:
    mov ebx, ebx
    mov rsp, [rbx + 72]
    mov rdi, [rbx + 80]
    mov rax, [rbx + 88]
    xor ebp, ebp
    call rax
    ud2
trampoline_end:
    .text
    "#
);

/// Offsets of the data in the page.
const GDT_BASE: usize = 42;
const FAR_32: usize = 48;
const FAR_64: usize = 56;
const ROOT: usize = 64;
const STACK: usize = 72;
const ARGUMENT: usize = 80;
const ENTRY: usize = 88;

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// CPUs that have arrived in `entry`, the first not counted.
static ARRIVED: AtomicU32 = AtomicU32::new(0);

/// Says that this CPU has arrived and no longer needs the start-up page.
pub(crate) fn arrived() {
    ARRIVED.fetch_add(1, Ordering::Release);
}

/// Starts the CPUs with `apic_ids`, numbered from 1; each runs `entry(index)` on a stack of its
/// own. Returns how many came; one that does not is named and left out.
pub(crate) fn start(apic_ids: impl Iterator<Item = u32>, entry: extern "C" fn(u64) -> !) -> u32 {
    let Ok(frame) = memory::allocate(0, Zone::Below1M) else {
        log::warn!("no memory below 1 MiB for the start-up page: one CPU is used");
        return 0;
    };
    let page = frame.address().0;
    let start = (&raw const trampoline) as u64;
    let copy = direct_map(page);
    // SAFETY: the page is ours and in the direct map; the code is shorter than a
    // page, the offsets lie inside it.
    unsafe {
        let length = (&raw const trampoline_end) as usize - start as usize;
        assert!(length <= 4096);
        core::ptr::copy_nonoverlapping(&raw const trampoline, copy, length);
        for fix in [GDT_BASE, FAR_32, FAR_64] {
            let word = copy.add(fix).cast::<u32>();
            word.write_unaligned(word.read_unaligned() + page as u32);
        }
        copy.add(ROOT).cast::<u64>().write(tables::root());
        copy.add(ENTRY).cast::<u64>().write(entry as usize as u64);
    }
    assert!(
        tables::root() < 1 << 32,
        "the start-up code loads CR3 in 32-bit mode"
    );
    tables::map_trampoline(page);
    let mut index = 1;
    for apic_id in apic_ids {
        let Ok(stack) = tables::new_stack() else {
            log::warn!("no memory for the stack of the CPU with APIC id {apic_id}: it is not used");
            break;
        };
        // SAFETY: as above; no other CPU is between its start-up IPI and `arrived`.
        unsafe {
            copy.add(STACK).cast::<u64>().write(stack);
            copy.add(ARGUMENT)
                .cast::<u64>()
                .write(index | u64::from(apic_id) << 32);
        }
        if start_one(apic_id, page) {
            index += 1;
        } else {
            // Should it come late after all, it would find neither page nor stack: back to waiting.
            apic::send_init(apic_id);
            log::warn!("the CPU with APIC id {apic_id} does not answer: it is not used");
        }
    }
    tables::unmap_trampoline(page);
    memory::free(frame, 0);
    index as u32 - 1
}

fn start_one(apic_id: u32, page: u64) -> bool {
    let before = ARRIVED.load(Ordering::Acquire);
    let came = |limit_ns: u64| {
        let end = clock::now_ns() + limit_ns;
        while clock::now_ns() < end {
            if ARRIVED.load(Ordering::Acquire) != before {
                return true;
            }
            core::hint::spin_loop();
        }
        false
    };
    apic::send_init(apic_id);
    // The SDM asks for 10 ms after INIT; CPUs since the P6 family need none of it, but old chipsets do.
    clock::spin_ns(1_000_000);
    apic::send_startup(apic_id, (page >> 12) as u8);
    if came(2_000_000) {
        return true;
    }
    apic::send_startup(apic_id, (page >> 12) as u8);
    came(ARRIVAL_NS_MAX)
}
