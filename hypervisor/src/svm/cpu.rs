//! SVM on one CPU: detection, VM_HSAVE_PA, the host state that VMLOAD brings back.

use godwit_abi::HostFeatures;
use godwit_vmm::firmware;
use x86_64::registers::model_specific::{Efer, EferFlags, Msr};

use crate::backend::Missing;
use crate::cpu::features::{cpuid, is_tcg};
use crate::memory::Page;

const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// CPUID 8000_000A EDX.
mod feature {
    pub(super) const NP: u32 = 1;
    pub(super) const NRIPS: u32 = 1 << 3;
    pub(super) const TSC_RATE: u32 = 1 << 4;
    pub(super) const FLUSH_BY_ASID: u32 = 1 << 6;
    pub(super) const VNMI: u32 = 1 << 25;
}

/// What is missing, or what there is.
pub(super) fn probe() -> Result<HostFeatures, Missing> {
    if cpuid(0x8000_0001, 0).ecx & 1 << 2 == 0 {
        return Err(Missing("the CPU has no SVM"));
    }
    let svm = cpuid(0x8000_000a, 0);
    if svm.edx & feature::NP == 0 {
        return Err(Missing("the CPU has no nested paging (NPT)"));
    }
    // SAFETY: the register exists wherever CPUID lists SVM.
    let control = unsafe { Msr::new(VM_CR).read() };
    if let Some(refusal) = firmware::svm_refusal(control) {
        return Err(Missing(refusal));
    }
    if svm.ebx < 2 {
        return Err(Missing("the CPU has no ASIDs for guests"));
    }
    let mut features = HostFeatures::NESTED_PAGING
        | HostFeatures::TAGGED_TLB
        | HostFeatures::UNRESTRICTED
        | HostFeatures::NESTED_DIRTY
        | HostFeatures::NESTED_2M;
    for (bit, flag) in [
        (feature::NRIPS, HostFeatures::NEXT_RIP),
        (feature::TSC_RATE, HostFeatures::TSC_SCALING),
        (feature::VNMI, HostFeatures::VIRTUAL_NMI),
    ] {
        if svm.edx & bit != 0 {
            features |= flag;
        }
    }
    if cpuid(0x8000_0001, 0).edx & 1 << 26 != 0 {
        features |= HostFeatures::NESTED_1G;
    }
    Ok(features)
}

/// A CPU with SVM on.
pub(crate) struct SvmCpu {
    /// Where VMRUN keeps the host's registers.
    _save_area: Page,
    /// FS, GS, TR, LDTR, KERNEL_GS_BASE and the SYSCALL and SYSENTER MSRs of the host, by VMSAVE.
    host_state: Page,
    pub(super) next_rip: bool,
    pub(super) flush_by_asid: bool,
    /// It is emulated by QEMU's TCG, whose traps `shadow` steers clear of.
    pub(super) is_tcg: bool,
    /// ASIDs there are; the last one is shared by all vCPUs whose tags are beyond it.
    pub(super) asids: u32,
}

impl SvmCpu {
    pub(super) fn enable() -> Result<Self, Missing> {
        const NO_MEMORY: Missing = Missing("no memory for the host save area");
        probe()?;
        let save_area = Page::zeroed().map_err(|_| NO_MEMORY)?;
        let host_state = Page::zeroed().map_err(|_| NO_MEMORY)?;
        let svm = cpuid(0x8000_000a, 0);
        let edx = svm.edx;
        // SAFETY: SVM is there and not disabled (`probe`); both pages are ours for as long as this
        // value lives, which is as long as SVM is on.
        unsafe {
            Efer::update(|efer| *efer |= EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE);
            Msr::new(VM_HSAVE_PA).write(save_area.physical());
            core::arch::asm!("vmsave rax", in("rax") host_state.physical(), options(nostack, preserves_flags));
        }
        Ok(Self {
            _save_area: save_area,
            host_state,
            next_rip: edx & feature::NRIPS != 0,
            flush_by_asid: edx & feature::FLUSH_BY_ASID != 0,
            is_tcg: is_tcg(),
            asids: svm.ebx,
        })
    }

    pub(super) fn disable(&mut self) {
        // SAFETY: no guest runs any more; GIF is set outside of the world switch.
        unsafe { Efer::update(|efer| *efer -= EferFlags::SECURE_VIRTUAL_MACHINE_ENABLE) };
    }

    pub(super) fn host_state(&self) -> u64 {
        self.host_state.physical()
    }
}
