//! The boot vCPU at a kernel's first instruction, as the boot protocols want it. Interrupts are
//! off, general registers zero unless the protocol says otherwise, everything else as after reset.

use godwit_records::{Segment, VcpuState};

const CR0_PE: u64 = 1 << 0;
/// Always 1 on CPUs that have a FPU.
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const RFLAGS_FIXED: u64 = 1 << 1;

/// Numbers of general registers.
pub(super) const RAX: usize = 0;
pub(super) const RBX: usize = 3;
pub(super) const RSI: usize = 6;

/// `__BOOT_CS` and `__BOOT_DS`, the selectors that Linux demands.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;

/// Present, ring 0, code, readable, accessed.
const CODE: u16 = 0x9b;
/// Present, ring 0, data, writable, accessed.
const DATA: u16 = 0x93;
/// Present, TSS, busy; 32-bit, or in long mode 64-bit.
const TSS_BUSY: u16 = 0x8b;
/// Least limit of a TSS.
const TSS_LIMIT: u32 = 0x67;

/// The descriptor table that goes with [`long_mode`] and [`linux_protected_mode`]: null, unused,
/// code, data (SDM 3A 3.4.5).
pub(super) fn descriptor_table(long_mode: bool) -> [u8; 32] {
    /// Present, ring 0, readable code, 4 GiB.
    const CODE_32: u64 = 0x00cf_9b00_0000_ffff;
    const CODE_64: u64 = 0x00af_9b00_0000_ffff;
    /// Present, ring 0, writable data, 4 GiB.
    const DATA: u64 = 0x00cf_9300_0000_ffff;
    let mut table = [0; 32];
    let code = if long_mode { CODE_64 } else { CODE_32 };
    table[16..24].copy_from_slice(&code.to_le_bytes());
    table[24..].copy_from_slice(&DATA.to_le_bytes());
    table
}

/// 32-bit protected mode, flat segments, no paging (PVH, Multiboot 3.2). The segments' selectors
/// mean nothing until the guest loads its own descriptor table.
pub(super) fn protected_mode(entry: u32) -> VcpuState {
    let flat = Segment::BIG | Segment::GRANULARITY;
    let data = Segment::new(0, 0, u32::MAX, DATA | flat);
    VcpuState {
        gprs: [0; 16],
        rip: entry.into(),
        rflags: RFLAGS_FIXED,
        cr0: CR0_PE | CR0_ET,
        cs: Segment::new(0, 0, u32::MAX, CODE | flat),
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: Segment::new(0, 0, TSS_LIMIT, TSS_BUSY),
        ..VcpuState::reset()
    }
}

/// As [`protected_mode`], with the selectors of a descriptor table at `table` (Linux x86 boot
/// protocol, "32-bit boot protocol").
pub(super) fn linux_protected_mode(entry: u32, table: u64) -> VcpuState {
    let mut state = protected_mode(entry);
    state.gdtr_base = table;
    state.gdtr_limit = descriptor_table(false).len() as u16 - 1;
    state.cs.selector = BOOT_CS;
    for data in [
        &mut state.ds,
        &mut state.es,
        &mut state.fs,
        &mut state.gs,
        &mut state.ss,
    ] {
        data.selector = BOOT_DS;
    }
    state
}

/// 64-bit mode over the page tables rooted at `root` (Linux x86 boot protocol, "64-bit boot
/// protocol").
pub(super) fn long_mode(entry: u64, table: u64, root: u64) -> VcpuState {
    let mut state = linux_protected_mode(0, table);
    state.rip = entry;
    state.cr0 |= CR0_PG;
    state.cr3 = root;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LME | EFER_LMA;
    state.cs.attributes = CODE | Segment::LONG | Segment::GRANULARITY;
    state
}
