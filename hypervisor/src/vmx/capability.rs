//! What this machine's VT-x offers (SDM 3D appendix A), and the controls chosen from it.
//!
//! Each control is needed, wanted or only to be allowed; a needed one that is missing is refused by its name in the manual.
//! All CPUs of a machine must offer the same: vCPUs move between them.

use core::arch::x86_64::__cpuid_count;

use godwit_abi::HostFeatures;
use godwit_vmm::exit::vmx::control::FixedBits;
use godwit_vmm::firmware::{self, FEATURE_CONTROL_LOCKED, FEATURE_CONTROL_VMX};
use spin::Once;
use x86_64::registers::model_specific::Msr;

use super::instructions::Extent;
use crate::backend::Missing;

const IA32_FEATURE_CONTROL: u32 = 0x3a;
const IA32_VMX_BASIC: u32 = 0x480;
const IA32_VMX_MISC: u32 = 0x485;
const IA32_VMX_CR0_FIXED0: u32 = 0x486;
const IA32_VMX_CR0_FIXED1: u32 = 0x487;
const IA32_VMX_CR4_FIXED0: u32 = 0x488;
const IA32_VMX_CR4_FIXED1: u32 = 0x489;
const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48b;
const IA32_VMX_EPT_VPID_CAP: u32 = 0x48c;
const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48d;
const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48e;
const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48f;
const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

/// "Interrupt-window exiting".
pub(super) const INTERRUPT_WINDOW: u32 = 1 << 2;
/// "NMI-window exiting".
pub(super) const NMI_WINDOW: u32 = 1 << 22;
/// "Use I/O bitmaps": instead of an exit at every port.
pub(super) const USE_IO_BITMAPS: u32 = 1 << 25;
/// "IA-32e mode guest".
pub(super) const ENTRY_IA32E: u32 = 1 << 9;
/// "Activate VMX-preemption timer".
const PIN_PREEMPTION_TIMER: u32 = 1 << 6;
/// "PAUSE-loop exiting".
pub(super) const SECONDARY_PAUSE_LOOP: u32 = 1 << 10;
/// "Enable ENCLS exiting".
pub(super) const SECONDARY_ENCLS: u32 = 1 << 15;
/// "Enable PML".
pub(super) const SECONDARY_PML: u32 = 1 << 17;
/// "Enable XSAVES/XRSTORS".
pub(super) const SECONDARY_XSAVES: u32 = 1 << 20;
/// "Use TSC scaling".
const SECONDARY_TSC_SCALING: u32 = 1 << 25;

/// How much a control matters.
enum Need {
    /// On, or refuse with this text.
    On(&'static str),
    /// Must be allowed to be on, and is switched on at need.
    Allowed(&'static str),
    /// On if there.
    Wanted,
}

macro_rules! lacks {
    ($name:literal) => {
        concat!("this CPU's VT-x lacks \"", $name, "\"; Godwit needs it")
    };
}

/// SDM 3C table 25-5.
const PIN: &[(u32, Need)] = &[
    (1 << 0, Need::On(lacks!("external-interrupt exiting"))),
    (1 << 3, Need::On(lacks!("NMI exiting"))),
    (1 << 5, Need::On(lacks!("virtual NMIs"))),
    (PIN_PREEMPTION_TIMER, Need::Wanted),
];

/// SDM 3C table 25-6. MONITOR and MWAIT exiting are missing only where the instructions are. Ports: all exit but
/// dom0's, which has bitmaps where the CPU knows them.
const PRIMARY: &[(u32, Need)] = &[
    (
        INTERRUPT_WINDOW,
        Need::Allowed(lacks!("interrupt-window exiting")),
    ),
    (1 << 3, Need::On(lacks!("use TSC offsetting"))),
    (1 << 7, Need::On(lacks!("HLT exiting"))),
    (1 << 10, Need::Wanted),
    (1 << 11, Need::On(lacks!("RDPMC exiting"))),
    (1 << 19, Need::On(lacks!("CR8-load exiting"))),
    (1 << 20, Need::On(lacks!("CR8-store exiting"))),
    (NMI_WINDOW, Need::Allowed(lacks!("NMI-window exiting"))),
    (1 << 24, Need::On(lacks!("unconditional I/O exiting"))),
    (1 << 28, Need::On(lacks!("use MSR bitmaps"))),
    (1 << 29, Need::Wanted),
    (1 << 31, Need::On(lacks!("activate secondary controls"))),
];

/// SDM 3C table 25-7. RDTSCP, INVPCID and XSAVES are switched on where the CPU has them; whether a guest learns of them is
/// CPUID policy.
const SECONDARY: &[(u32, Need)] = &[
    (1 << 1, Need::On(lacks!("enable EPT"))),
    (1 << 3, Need::Wanted),
    (1 << 5, Need::On(lacks!("enable VPID"))),
    (1 << 6, Need::Wanted),
    (1 << 7, Need::On(lacks!("unrestricted guest"))),
    (SECONDARY_PAUSE_LOOP, Need::Wanted),
    (1 << 12, Need::Wanted),
    (SECONDARY_ENCLS, Need::Wanted),
    (SECONDARY_XSAVES, Need::Wanted),
];

/// SDM 3C table 25-13.
const EXIT: &[(u32, Need)] = &[
    (1 << 2, Need::On(lacks!("save debug controls"))),
    (1 << 9, Need::On(lacks!("host address-space size"))),
    (1 << 18, Need::On(lacks!("save IA32_PAT"))),
    (1 << 19, Need::On(lacks!("load IA32_PAT (exit)"))),
    (1 << 20, Need::On(lacks!("save IA32_EFER"))),
    (1 << 21, Need::On(lacks!("load IA32_EFER (exit)"))),
];

/// SDM 3C table 25-16.
const ENTRY: &[(u32, Need)] = &[
    (1 << 2, Need::On(lacks!("load debug controls"))),
    (ENTRY_IA32E, Need::Allowed(lacks!("IA-32e mode guest"))),
    (1 << 14, Need::On(lacks!("load IA32_PAT (entry)"))),
    (1 << 15, Need::On(lacks!("load IA32_EFER (entry)"))),
];

/// The controls of every vCPU, and what else depends on the CPU model.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Capability {
    /// VMCS revision identifier.
    pub(super) revision: u32,
    pub(super) pin: u32,
    pub(super) primary: u32,
    pub(super) secondary: u32,
    pub(super) exit: u32,
    pub(super) entry: u32,
    pub(super) fixed: FixedBits,
    /// The preemption timer counts once in `1 << shift` TSC ticks. `None`: there is no such timer.
    pub(super) timer_shift: Option<u8>,
    /// EPT accessed and dirty flags.
    pub(super) ept_dirty: bool,
    pub(super) invept: Extent,
    pub(super) invvpid: Extent,
    /// IA32_TSC_AUX exists.
    pub(super) tsc_aux: bool,
    /// "Enable PML" may be 1.
    pub(super) dirty_log: bool,
    /// "Use I/O bitmaps" may be 1.
    pub(super) io_bitmaps: bool,
    /// Width of host-physical addresses.
    pub(super) physical_bits: u32,
    pub(super) features: HostFeatures,
}

fn rdmsr(index: u32) -> u64 {
    // SAFETY: only called for MSRs of this file, after CPUID has said that VMX, and with it they, exist.
    unsafe { Msr::new(index).read() }
}

fn cpuid(leaf: u32) -> core::arch::x86_64::CpuidResult {
    __cpuid_count(leaf, 0)
}

/// Chooses controls: `allowed` is a capability MSR, bits 31:0 must be 1, bits 63:32 may be.
fn negotiate(allowed: u64, controls: &[(u32, Need)]) -> Result<u32, Missing> {
    let may_be_one = (allowed >> 32) as u32;
    let mut chosen = allowed as u32;
    for (bit, need) in controls {
        match (need, may_be_one & bit != 0) {
            (Need::On(_) | Need::Wanted, true) => chosen |= bit,
            (Need::Allowed(_), true) | (Need::Wanted, false) => {}
            (Need::On(text) | Need::Allowed(text), false) => return Err(Missing(text)),
        }
    }
    Ok(chosen)
}

fn need(holds: bool, text: &'static str) -> Result<(), Missing> {
    if holds { Ok(()) } else { Err(Missing(text)) }
}

/// SDM 3D appendix A.10: EPT and VPID.
fn check_paging(ept_vpid: u64) -> Result<(Extent, Extent), Missing> {
    const INVEPT_SINGLE: u64 = 1 << 25;
    const INVVPID_SINGLE: u64 = 1 << 41;
    need(ept_vpid & 1 << 6 != 0, lacks!("EPT page-walk length 4"))?;
    need(
        ept_vpid & 1 << 14 != 0,
        lacks!("write-back EPT paging structures"),
    )?;
    need(ept_vpid & 1 << 20 != 0, lacks!("INVEPT"))?;
    need(ept_vpid & 1 << 32 != 0, lacks!("INVVPID"))?;
    let extent = |single: u64| {
        if ept_vpid & single != 0 {
            Extent::Single
        } else {
            Extent::All
        }
    };
    let (invept, invvpid) = (extent(INVEPT_SINGLE), extent(INVVPID_SINGLE));
    need(
        invept == Extent::Single || ept_vpid & 1 << 26 != 0,
        lacks!("INVEPT types 1 and 2"),
    )?;
    need(
        invvpid == Extent::Single || ept_vpid & 1 << 42 != 0,
        lacks!("INVVPID types 1 and 2"),
    )?;
    Ok((invept, invvpid))
}

impl Capability {
    /// What this CPU offers, or what it lacks. Changes nothing.
    pub(super) fn read() -> Result<Capability, Missing> {
        const VMX: u32 = 1 << 5;
        const TRUE_CONTROLS: u64 = 1 << 55;
        const STORES_LMA: u64 = 1 << 5;
        need(
            cpuid(1).ecx & VMX != 0,
            "this CPU has no VT-x, or it is hidden: CPUID leaf 1 ECX bit 5 (VMX) is 0",
        )?;
        if let Some(refusal) = firmware::vmx_refusal(rdmsr(IA32_FEATURE_CONTROL)) {
            return Err(Missing(refusal));
        }
        let basic = rdmsr(IA32_VMX_BASIC);
        let misc = rdmsr(IA32_VMX_MISC);
        need(
            basic & TRUE_CONTROLS != 0,
            lacks!("true control capabilities (IA32_VMX_BASIC bit 55)"),
        )?;
        let pin = negotiate(rdmsr(IA32_VMX_TRUE_PINBASED_CTLS), PIN)?;
        let primary_allowed = rdmsr(IA32_VMX_TRUE_PROCBASED_CTLS);
        let primary = negotiate(primary_allowed, PRIMARY)?;
        let secondary_allowed = rdmsr(IA32_VMX_PROCBASED_CTLS2);
        let secondary = negotiate(secondary_allowed, SECONDARY)?;
        let exit = negotiate(rdmsr(IA32_VMX_TRUE_EXIT_CTLS), EXIT)?;
        let entry = negotiate(rdmsr(IA32_VMX_TRUE_ENTRY_CTLS), ENTRY)?;
        // EPT is there, and with it this MSR (SDM 3D A.10).
        let ept_vpid = rdmsr(IA32_VMX_EPT_VPID_CAP);
        let (invept, invvpid) = check_paging(ept_vpid)?;
        need(
            misc & STORES_LMA != 0,
            lacks!("EFER.LMA stored on exits (IA32_VMX_MISC bit 5)"),
        )?;
        let timer = pin & PIN_PREEMPTION_TIMER != 0;
        let mut capability = Capability {
            revision: basic as u32 & 0x7fff_ffff,
            pin,
            primary,
            secondary,
            exit,
            entry,
            fixed: FixedBits {
                cr0_ones: rdmsr(IA32_VMX_CR0_FIXED0),
                cr0_allowed: rdmsr(IA32_VMX_CR0_FIXED1),
                cr4_ones: rdmsr(IA32_VMX_CR4_FIXED0),
                cr4_allowed: rdmsr(IA32_VMX_CR4_FIXED1),
            },
            timer_shift: timer.then_some(misc as u8 & 0x1f),
            ept_dirty: ept_vpid & 1 << 21 != 0,
            invept,
            invvpid,
            tsc_aux: has_tsc_aux(),
            dirty_log: (secondary_allowed >> 32) as u32 & SECONDARY_PML != 0
                && ept_vpid & 1 << 21 != 0,
            io_bitmaps: (primary_allowed >> 32) as u32 & USE_IO_BITMAPS != 0,
            physical_bits: physical_bits(),
            features: HostFeatures::empty(),
        };
        capability.features = capability.host_features(secondary_allowed, ept_vpid);
        Ok(capability)
    }

    fn host_features(&self, secondary_allowed: u64, ept_vpid: u64) -> HostFeatures {
        let mut features = HostFeatures::NESTED_PAGING
            | HostFeatures::TAGGED_TLB
            | HostFeatures::UNRESTRICTED
            | HostFeatures::VIRTUAL_NMI;
        let scaling = (secondary_allowed >> 32) as u32 & SECONDARY_TSC_SCALING != 0;
        features.set(HostFeatures::PML, self.dirty_log);
        features.set(HostFeatures::NESTED_DIRTY, self.ept_dirty);
        features.set(HostFeatures::PREEMPTION_TIMER, self.timer_shift.is_some());
        features.set(HostFeatures::TSC_SCALING, scaling);
        features.set(HostFeatures::NESTED_2M, ept_vpid & 1 << 16 != 0);
        features.set(HostFeatures::NESTED_1G, ept_vpid & 1 << 17 != 0);
        features
    }

    /// The machine's: read on the first CPU that asks, compared on each that is enabled.
    pub(super) fn machine() -> Result<&'static Capability, Missing> {
        static MACHINE: Once<Capability> = Once::new();
        MACHINE.try_call_once(Capability::read)
    }
}

/// IA32_TSC_AUX comes with RDTSCP or RDPID.
fn has_tsc_aux() -> bool {
    const RDTSCP: u32 = 1 << 27;
    const RDPID: u32 = 1 << 22;
    cpuid(0x8000_0001).edx & RDTSCP != 0 || cpuid(0).eax >= 7 && cpuid(7).ecx & RDPID != 0
}

fn physical_bits() -> u32 {
    const WITHOUT_LEAF: u32 = 36;
    if cpuid(0x8000_0000).eax >= 0x8000_0008 {
        cpuid(0x8000_0008).eax & 0xff
    } else {
        WITHOUT_LEAF
    }
}

/// Allows VMXON on this CPU where firmware has left that open (SDM 3C 24.7). [`Capability::read`] has refused where
/// firmware has forbidden it.
///
/// # Safety
/// On a CPU for which [`Capability::read`] succeeded.
pub(super) unsafe fn unlock() {
    let value = rdmsr(IA32_FEATURE_CONTROL);
    if value & FEATURE_CONTROL_LOCKED == 0 {
        // SAFETY: the MSR exists, and while it is not locked these bits may be set.
        unsafe {
            Msr::new(IA32_FEATURE_CONTROL)
                .write(value | FEATURE_CONTROL_LOCKED | FEATURE_CONTROL_VMX)
        };
    }
}
