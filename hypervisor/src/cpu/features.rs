//! What this CPU can do beyond long mode, and the protections that are switched on where it can.

use core::arch::x86_64::__cpuid_count;

use godwit_vmm::cpuid::{HYPERVISOR_FIRST, IA32_ARCH_CAPABILITIES, Leaf};
use godwit_vmm::nested::HOST_PAT;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::Msr;

const IA32_MISC_ENABLE: u32 = 0x1a0;
const IA32_PAT: u32 = 0x277;

/// One CPUID output register of the CPU this runs on.
pub(crate) fn cpuid(leaf: u32, subleaf: u32) -> core::arch::x86_64::CpuidResult {
    let basic = __cpuid_count(leaf & 0xf000_0000, 0).eax;
    if leaf > basic {
        return core::arch::x86_64::CpuidResult {
            eax: 0,
            ebx: 0,
            ecx: 0,
            edx: 0,
        };
    }
    __cpuid_count(leaf, subleaf)
}

/// Whether the firmware left fast string operations on. AMD has no switch for them.
pub(crate) fn has_fast_strings() -> bool {
    const FAST_STRINGS: u64 = 1;
    const GENUINE_INTEL_EBX: u32 = u32::from_le_bytes(*b"Genu");
    if cpuid(0, 0).ebx != GENUINE_INTEL_EBX {
        return true;
    }
    // SAFETY: every 64-bit processor of Intel's has this register; reading it changes nothing.
    unsafe { Msr::new(IA32_MISC_ENABLE).read() & FAST_STRINGS != 0 }
}

/// IA32_ARCH_CAPABILITIES, where this CPU has it (leaf 7 EDX bit 29).
pub(crate) fn arch_capabilities() -> Option<u64> {
    if cpuid(7, 0).edx & 1 << 29 == 0 {
        return None;
    }
    // SAFETY: CPUID says that the register is there; it is read-only.
    Some(unsafe { Msr::new(IA32_ARCH_CAPABILITIES).read() })
}

/// Whether this CPU is emulated by QEMU's TCG.
pub(crate) fn is_tcg() -> bool {
    let leaf = |leaf| {
        let result = cpuid(leaf, 0);
        Leaf {
            eax: result.eax,
            ebx: result.ebx,
            ecx: result.ecx,
            edx: result.edx,
        }
    };
    godwit_vmm::cpuid::is_tcg(leaf(1), leaf(HYPERVISOR_FIRST))
}

/// x2APIC (leaf 1 ECX bit 21).
pub(crate) fn has_x2apic() -> bool {
    cpuid(1, 0).ecx & 1 << 21 != 0
}

/// TSC-deadline timer (leaf 1 ECX bit 24).
pub(crate) fn has_tsc_deadline() -> bool {
    cpuid(1, 0).ecx & 1 << 24 != 0
}

/// XSAVE (leaf 1 ECX bit 26).
pub(crate) fn has_xsave() -> bool {
    cpuid(1, 0).ecx & 1 << 26 != 0
}

/// Switches on write protection in supervisor mode, NX, global pages, machine checks, SMEP, SMAP,
/// UMIP and, for guests' extended state, FXSR and XSAVE, each where this CPU has it. Loads the memory
/// types that nested tables mean.
pub(super) fn protect() {
    const MACHINE_CHECK: u32 = 1 << 7;
    let seven = cpuid(7, 0);
    let mut flags = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    if cpuid(1, 0).edx & MACHINE_CHECK != 0 {
        flags |= Cr4Flags::MACHINE_CHECK_EXCEPTION;
    }
    if has_xsave() {
        flags |= Cr4Flags::OSXSAVE;
    }
    if seven.ebx & 1 << 7 != 0 {
        flags |= Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION;
    }
    if seven.ebx & 1 << 20 != 0 {
        flags |= Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION;
    }
    if seven.ecx & 1 << 2 != 0 {
        flags |= Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION;
    }
    // SAFETY: paging with NX tables is on already, no user pages are mapped, and the bits set are
    // those this CPU lists.
    unsafe {
        Cr4::write(flags);
        Cr0::write(
            Cr0Flags::PROTECTED_MODE_ENABLE
                | Cr0Flags::MONITOR_COPROCESSOR
                | Cr0Flags::EXTENSION_TYPE
                | Cr0Flags::NUMERIC_ERROR
                | Cr0Flags::WRITE_PROTECT
                | Cr0Flags::PAGING,
        );
        Efer::update(|efer| {
            *efer |= EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS
        });
        // Every CPU with long mode has a PAT. It differs from the reset value only in an entry that
        // nothing mapped so far selects, so no cache has to be flushed (SDM 3A, 12.12.4).
        Msr::new(IA32_PAT).write(HOST_PAT);
    }
}

/// Width of physical addresses (leaf 8000_0008 EAX 7:0).
pub(crate) fn physical_address_bits() -> u8 {
    match cpuid(0x8000_0008, 0).eax as u8 {
        0 => 36,
        bits => bits,
    }
}

/// The CPU's name (leaves 8000_0002 to 8000_0004), without leading blanks.
pub(crate) fn name() -> [u8; 48] {
    let mut raw = [0; 48];
    for (index, leaf) in (0x8000_0002..=0x8000_0004).enumerate() {
        let result = cpuid(leaf, 0);
        for (word, value) in [result.eax, result.ebx, result.ecx, result.edx]
            .into_iter()
            .enumerate()
        {
            raw[index * 16 + word * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
    }
    godwit_abi::field(godwit_abi::text(&raw).trim())
}
