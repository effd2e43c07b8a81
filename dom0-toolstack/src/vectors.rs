//! Vector registers. SSE2 is part of the target (decision 17) and on from the first instruction; AVX is switched on here, where
//! the CPU has it, for the libraries that ask the CPU before they use it. The hypervisor switches both with the vCPU.

use core::arch::x86_64::__cpuid;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// CPUID 1, ECX: XSAVE and AVX.
const XSAVE_AND_AVX: u32 = 1 << 26 | 1 << 28;

/// Switches AVX on, where there is one.
pub(crate) fn start() {
    if __cpuid(1).ecx & XSAVE_AND_AVX != XSAVE_AND_AVX {
        return;
    }
    // SAFETY: the CPU has XSAVE, so it knows OSXSAVE and XCR0, and AVX, whose state needs SSE's beside it. Nothing in this
    // image keeps anything in the upper halves across this.
    unsafe {
        Cr4::update(|flags| flags.insert(Cr4Flags::OSXSAVE));
        XCr0::write(XCr0Flags::X87 | XCr0Flags::SSE | XCr0Flags::AVX);
    }
}
