//! Extended state (x87, SSE, AVX, ...): switched only between vCPUs, because the hypervisor itself
//! uses none of it.

use core::arch::asm;

use godwit_records::{Bytes, XsaveState};
use godwit_vmm::cpuid::Policy;

use crate::cpu::features::has_xsave;
use crate::memory::{OutOfMemory, Page};

/// Where FCW and MXCSR are in the legacy area, and their values after reset (SDM 1, 10.5.1.2).
const FCW: (usize, u16) = (0, 0x37f);
const MXCSR: (usize, u32) = (24, 0x1f80);
/// Bytes of an area: a page.
const AREA_BYTES: usize = 4096;

/// The extended state of a vCPU.
pub(super) struct Xstate {
    area: Page,
    /// Everything the guest could enable; 0 without XSAVE.
    allowed: u64,
    /// The guest's XCR0, while it is not loaded.
    xcr0: u64,
}

/// XCR0 as loaded.
pub(super) fn xcr0() -> u64 {
    if !has_xsave_cached() {
        return 1;
    }
    // SAFETY: just asked.
    unsafe { read_xcr0() }
}

/// # Safety
/// The CPU has XSAVE: CR4.OSXSAVE is set on every CPU that lists it (`features::protect`).
unsafe fn read_xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller's contract.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}

/// Loads XCR0 with a value that has been checked against the CPU.
pub(super) fn set_xcr0(value: u64) {
    if has_xsave_cached() {
        // SAFETY: just asked; the value is one the CPU accepts (`Policy::xcr0_valid`).
        unsafe { write_xcr0(value) }
    }
}

/// # Safety
/// As [`read_xcr0`]; the CPU accepts the value.
unsafe fn write_xcr0(value: u64) {
    // SAFETY: the caller's contract.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nomem, nostack, preserves_flags));
    }
}

/// CPUID is an exit when Godwit itself is a guest: asked once.
fn has_xsave_cached() -> bool {
    static HAS: spin::once::Once<bool> = spin::once::Once::new();
    *HAS.call_once(has_xsave)
}

impl Xstate {
    pub(super) fn new(allowed: u64) -> Result<Self, OutOfMemory> {
        let mut state = Self {
            area: Page::zeroed()?,
            allowed,
            xcr0: 1,
        };
        state.reset();
        Ok(state)
    }

    /// Sets what the guest may switch on, before it has run.
    pub(super) fn allow(&mut self, allowed: u64) {
        self.allowed = allowed;
    }

    /// Back to the state after power-up, while it is not loaded.
    pub(super) fn reset(&mut self) {
        let area = self.area.pointer();
        // SAFETY: the page is ours, nobody else has a pointer into it, and both offsets lie in it.
        unsafe {
            area.write_bytes(0, AREA_BYTES);
            area.add(FCW.0).cast::<u16>().write(FCW.1);
            area.add(MXCSR.0).cast::<u32>().write(MXCSR.1);
        }
        self.xcr0 = 1;
    }

    /// Puts the state into the CPU.
    pub(super) fn load(&mut self) {
        let area = self.area.pointer();
        if self.allowed == 0 {
            // SAFETY: a 512-byte legacy image written by FXSAVE or by `new`.
            unsafe { asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
            return;
        }
        // SAFETY: something is allowed, so the CPU has XSAVE, and accepts all that is allowed and what the guest has set.
        // The area was written by XSAVE with the same XCR0 (or is all zeroes, which means "initial"), is 4096
        // bytes, aligned to 64, and long enough for every allowed component.
        unsafe {
            write_xcr0(self.allowed);
            asm!("xrstor64 [{}]", in(reg) area, in("eax") self.allowed as u32, in("edx") (self.allowed >> 32) as u32, options(nostack, preserves_flags));
            write_xcr0(self.xcr0);
        }
    }

    /// Takes the state out of the CPU, components the guest has disabled for now included.
    pub(super) fn save(&mut self) {
        let area = self.area.pointer();
        if self.allowed == 0 {
            // SAFETY: the page is ours and aligned.
            unsafe { asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags)) };
            return;
        }
        // SAFETY: as in `load`.
        unsafe {
            self.xcr0 = read_xcr0();
            write_xcr0(self.allowed);
            asm!("xsave64 [{}]", in(reg) area, in("eax") self.allowed as u32, in("edx") (self.allowed >> 32) as u32, options(nostack, preserves_flags));
        }
    }

    /// The state as a record, while the vCPU is off its CPU.
    pub(super) fn record(&self, policy: &Policy) -> XsaveState {
        let components = policy.xsave_components();
        let bytes = policy.xsave_bytes(components) as usize;
        // SAFETY: the page is ours, nobody writes to it while the vCPU is off its CPU (`&self`), and a
        // policy's area is no longer than a page (checked where the policy is made).
        let area = unsafe { core::slice::from_raw_parts(self.area.pointer(), bytes) };
        let mut record = XsaveState {
            xcr0: components,
            area: Bytes::copy_of(area).expect("an area is no longer than a page"),
        };
        if self.allowed == 0 {
            // FXSAVE writes no header: both components are in use.
            record.set_components(components);
        }
        record
    }

    /// Takes on a record that [`Policy::xsave_fits`], while the vCPU is off its CPU.
    pub(super) fn set_record(&mut self, record: &XsaveState) {
        let xcr0 = self.xcr0;
        self.reset();
        self.xcr0 = xcr0;
        let area = record.area.as_slice();
        // SAFETY: the page is ours and nobody else has a pointer into it; a record's area is no longer than
        // a page.
        unsafe {
            self.area
                .pointer()
                .copy_from_nonoverlapping(area.as_ptr(), area.len())
        };
    }

    /// The guest's XCR0, while the vCPU is off its CPU.
    pub(super) fn saved_xcr0(&self) -> u64 {
        self.xcr0
    }

    /// Sets it.
    pub(super) fn set_saved_xcr0(&mut self, value: u64) {
        self.xcr0 = value;
    }
}
