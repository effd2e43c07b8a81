//! The MSR and I/O permission maps, one of each for all vCPUs: what a guest may do without an
//! exit is the same for every guest (APM 2, 15.10 and 15.11).

use godwit_vmm::frames::Zone;
use spin::once::Once;

use crate::memory::layout::direct_map;
use crate::memory::{self, OutOfMemory};

/// MSRs that VMLOAD and VMSAVE switch: the guest's own, read and written freely.
const FREE: [u32; 10] = [
    0x174,       // SYSENTER_CS
    0x175,       // SYSENTER_ESP
    0x176,       // SYSENTER_EIP
    0xc000_0081, // STAR
    0xc000_0082, // LSTAR
    0xc000_0083, // CSTAR
    0xc000_0084, // SFMASK
    0xc000_0100, // FS_BASE
    0xc000_0101, // GS_BASE
    0xc000_0102, // KERNEL_GS_BASE
];

const IOPM_ORDER: u8 = 2;
const MSRPM_ORDER: u8 = 1;

static MAPS: Once<Maps> = Once::new();

/// Physical addresses of the maps.
#[derive(Clone, Copy)]
pub(super) struct Maps {
    pub(super) io: u64,
    pub(super) msr: u64,
}

/// The maps, made at the first call.
pub(super) fn maps() -> Result<Maps, OutOfMemory> {
    MAPS.try_call_once(build).copied()
}

fn build() -> Result<Maps, OutOfMemory> {
    let io = memory::allocate(IOPM_ORDER, Zone::Any)?.address().0;
    let msr = memory::allocate(MSRPM_ORDER, Zone::Any)?.address().0;
    let bits = direct_map(msr);
    // SAFETY: both blocks are ours from now on and never freed.
    unsafe {
        core::ptr::write_bytes(direct_map(io), 0xff, 4096 << IOPM_ORDER);
        core::ptr::write_bytes(bits, 0xff, 4096 << MSRPM_ORDER);
    }
    for index in FREE {
        let bit = position(index);
        // SAFETY: `position` is below the map's 8 KiB.
        unsafe { *bits.add(bit / 8) &= !(3 << (bit % 8)) };
    }
    Ok(Maps { io, msr })
}

/// First of the two bits of an MSR: three ranges of 2000h, 800h bytes each.
fn position(index: u32) -> usize {
    let (range, base) = match index {
        0..=0x1fff => (0, 0),
        0xc000_0000..=0xc000_1fff => (1, 0xc000_0000),
        0xc001_0000..=0xc001_1fff => (2, 0xc001_0000),
        _ => panic!("MSR {index:#x} has no place in the permission map"),
    };
    range * 0x800 * 8 + (index - base) as usize * 2
}
