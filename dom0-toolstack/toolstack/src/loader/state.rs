//! The boot vCPU as the PVH boot ABI wants it: 32-bit protected mode, flat segments, no paging,
//! interrupts off, EBX with the address of the start information.

use godwit_records::{Segment, VcpuState};

const CR0_PE: u64 = 1 << 0;
/// Always 1 on CPUs that have a FPU.
const CR0_ET: u64 = 1 << 4;
const RFLAGS_FIXED: u64 = 1 << 1;
const RBX: usize = 3;

/// Present, ring 0, code, readable, accessed.
const CODE: u16 = 0x9b;
/// Present, ring 0, data, writable, accessed.
const DATA: u16 = 0x93;
/// Present, 32-bit TSS, busy.
const TSS_BUSY: u16 = 0x8b;
/// Least limit of a 32-bit TSS.
const TSS_LIMIT: u32 = 0x67;

/// The state at the entry. The segments' selectors mean nothing until the guest loads its own
/// descriptor table.
pub fn entry_state(entry: u32, start_info: u32) -> VcpuState {
    let flat = Segment::BIG | Segment::GRANULARITY;
    let data = Segment::new(0, 0, u32::MAX, DATA | flat);
    let mut gprs = [0; 16];
    gprs[RBX] = start_info.into();
    VcpuState {
        gprs,
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
