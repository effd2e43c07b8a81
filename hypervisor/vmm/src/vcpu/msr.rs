//! MSRs by policy. What a guest may touch without an exit is in the back ends' bitmaps; what exits
//! is answered here or refused with #GP, by name and counted.

use super::{Next, Refused, Vcpu, World};
use crate::code::Opcode;
use crate::cpuid::{IA32_ARCH_CAPABILITIES, Policy};
use crate::devices::kvmclock::{MSR_SYSTEM_TIME, MSR_WALL_CLOCK};
use crate::devices::lapic::{IA32_APIC_BASE, IA32_TSC_DEADLINE, X2APIC_MSR_FIRST, X2APIC_MSR_LAST};
use crate::exit::Length;
use crate::hardware::{Control, Event, Gpr, SwitchedMsr, VcpuHardware};

const IA32_TSC: u32 = 0x10;
const IA32_FEATURE_CONTROL: u32 = 0x3a;
const IA32_TSC_ADJUST: u32 = 0x3b;
const IA32_BIOS_SIGN_ID: u32 = 0x8b;
const IA32_MTRRCAP: u32 = 0xfe;
const IA32_SYSENTER_CS: u32 = 0x174;
const IA32_SYSENTER_ESP: u32 = 0x175;
const IA32_SYSENTER_EIP: u32 = 0x176;
const IA32_MCG_CAP: u32 = 0x179;
const IA32_MCG_STATUS: u32 = 0x17a;
const IA32_MISC_ENABLE: u32 = 0x1a0;
const IA32_PAT: u32 = 0x277;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
const IA32_EFER: u32 = 0xc000_0080;
const IA32_STAR: u32 = 0xc000_0081;
const IA32_LSTAR: u32 = 0xc000_0082;
const IA32_CSTAR: u32 = 0xc000_0083;
const IA32_FMASK: u32 = 0xc000_0084;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_GS_BASE: u32 = 0xc000_0101;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
const IA32_TSC_AUX: u32 = 0xc000_0103;

/// Variable ranges that MTRRCAP announces: none. Fixed ranges are announced and kept, because
/// operating systems expect them; they have no effect (guest RAM is write-back).
const FIXED: [u32; 11] = [
    0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f,
];
const MTRRCAP_FIXED: u64 = 1 << 8;
/// Performance monitoring and BTS not available.
const MISC_ENABLE: u64 = 1 << 11 | 1 << 12;
const MISC_ENABLE_FAST_STRINGS: u64 = 1;
const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;
const CR0_PG: u64 = 1 << 31;

/// Memory type range registers: values kept, without effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mtrrs {
    pub(super) default_type: u64,
    pub(super) fixed: [u64; FIXED.len()],
}

impl Default for Mtrrs {
    /// As firmware leaves them: enabled, everything write-back.
    fn default() -> Self {
        Self {
            default_type: 1 << 11 | 1 << 10 | 6,
            fixed: [0x0606_0606_0606_0606; FIXED.len()],
        }
    }
}

impl Mtrrs {
    /// With these values, which came from elsewhere.
    pub(super) fn checked(
        default_type: u64,
        fixed: [u64; FIXED.len()],
    ) -> Result<Mtrrs, crate::devices::BadState> {
        let types = fixed.iter().flat_map(|value| value.to_le_bytes());
        let valid = is_default_type(default_type)
            && types.into_iter().all(|byte| is_memory_type(byte.into()));
        crate::devices::BadState::unless(valid, "vcpu_local.mtrr")?;
        Ok(Mtrrs {
            default_type,
            fixed,
        })
    }
}

fn is_default_type(value: u64) -> bool {
    value & !(1 << 11 | 1 << 10 | 7) == 0 && is_memory_type(value & 7)
}

fn is_memory_type(byte: u64) -> bool {
    matches!(byte, 0 | 1 | 4 | 5 | 6)
}

/// PAT entries also know UC-.
fn is_pat(value: u64) -> bool {
    value
        .to_le_bytes()
        .iter()
        .all(|byte| is_memory_type((*byte).into()) || *byte == 7)
}

pub(super) fn is_canonical(address: u64) -> bool {
    (address as i64) << 16 >> 16 == address as i64
}

/// Whether a value may be written.
type Check = fn(u64) -> bool;

/// Which switched MSR an index is, with the check its value must pass. `None`: none, or one that the
/// guest's CPU does not have.
fn switched(index: u32, policy: &Policy) -> Option<(SwitchedMsr, Check)> {
    let low = |value: u64| value >> 32 == 0;
    let any = |_: u64| true;
    Some(match index {
        IA32_SYSENTER_CS => (SwitchedMsr::SysenterCs, low),
        IA32_SYSENTER_ESP => (SwitchedMsr::SysenterEsp, is_canonical),
        IA32_SYSENTER_EIP => (SwitchedMsr::SysenterEip, is_canonical),
        IA32_PAT => (SwitchedMsr::Pat, is_pat),
        IA32_STAR => (SwitchedMsr::Star, any),
        IA32_LSTAR => (SwitchedMsr::Lstar, is_canonical),
        IA32_CSTAR => (SwitchedMsr::Cstar, is_canonical),
        IA32_FMASK => (SwitchedMsr::Sfmask, low),
        IA32_FS_BASE => (SwitchedMsr::FsBase, is_canonical),
        IA32_GS_BASE => (SwitchedMsr::GsBase, is_canonical),
        IA32_KERNEL_GS_BASE => (SwitchedMsr::KernelGsBase, is_canonical),
        IA32_TSC_AUX if policy.has_tsc_aux() => (SwitchedMsr::TscAux, low),
        _ => return None,
    })
}

impl Vcpu {
    #[inline]
    pub(super) fn read_msr<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
    ) -> Next {
        let index = hw.gprs()[Gpr::Rcx as usize] as u32;
        match self.msr_value(hw, world, index) {
            Some(value) => {
                let gprs = hw.gprs_mut();
                gprs[Gpr::Rax as usize] = value & 0xffff_ffff;
                gprs[Gpr::Rdx as usize] = value >> 32;
                self.step_over(hw, world, length, Opcode::Rdmsr)
            }
            None => {
                world.refused(Refused::ReadMsr(index));
                self.inject(hw, Event::GENERAL_PROTECTION)
            }
        }
    }

    #[inline]
    pub(super) fn write_msr<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
    ) -> Next {
        let gprs = hw.gprs();
        let index = gprs[Gpr::Rcx as usize] as u32;
        let value = gprs[Gpr::Rdx as usize] << 32 | gprs[Gpr::Rax as usize] & 0xffff_ffff;
        match self.set_msr_value(hw, world, index, value) {
            Some(()) => match self.step_over(hw, world, length, Opcode::Wrmsr) {
                Next::Enter if self.init_pending => self.take_init(hw, world),
                other => other,
            },
            // A page of the clock.
            None if world.missed() => self.starve(),
            None => {
                world.refused(Refused::WriteMsr(index, value));
                self.inject(hw, Event::GENERAL_PROTECTION)
            }
        }
    }

    #[inline]
    fn msr_value<H: VcpuHardware, W: World>(
        &mut self,
        hw: &H,
        world: &mut W,
        index: u32,
    ) -> Option<u64> {
        match index {
            X2APIC_MSR_FIRST..=X2APIC_MSR_LAST | IA32_APIC_BASE | IA32_TSC_DEADLINE => {
                let now = self.guest_tsc(world.host_tsc());
                self.lapic.read_msr(index, now).ok()
            }
            IA32_TSC => Some(self.guest_tsc(world.host_tsc())),
            IA32_TSC_ADJUST => Some(self.tsc_adjust),
            IA32_EFER => Some(hw.msr(SwitchedMsr::Efer)),
            IA32_MTRRCAP => Some(MTRRCAP_FIXED),
            IA32_MTRR_DEF_TYPE => Some(self.mtrr.default_type),
            IA32_MISC_ENABLE if world.policy().has_fast_strings() => {
                Some(MISC_ENABLE | MISC_ENABLE_FAST_STRINGS)
            }
            IA32_MISC_ENABLE => Some(MISC_ENABLE),
            IA32_ARCH_CAPABILITIES => world.policy().arch_capabilities(),
            // Locked, without VMX.
            IA32_FEATURE_CONTROL => Some(1),
            IA32_BIOS_SIGN_ID | IA32_MCG_CAP | IA32_MCG_STATUS => Some(0),
            MSR_WALL_CLOCK | MSR_SYSTEM_TIME => self.clock_msr(world, index),
            _ => match FIXED.iter().position(|fixed| *fixed == index) {
                Some(at) => Some(self.mtrr.fixed[at]),
                None => switched(index, world.policy()).map(|(msr, _)| hw.msr(msr)),
            },
        }
    }

    #[inline]
    fn set_msr_value<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        index: u32,
        value: u64,
    ) -> Option<()> {
        match index {
            X2APIC_MSR_FIRST..=X2APIC_MSR_LAST | IA32_APIC_BASE | IA32_TSC_DEADLINE => {
                let now = self.guest_tsc(world.host_tsc());
                let effect = self.lapic.write_msr(index, value, now).ok()?;
                self.apply(world, effect);
                Some(())
            }
            IA32_TSC => {
                let moved = value.wrapping_sub(self.guest_tsc(world.host_tsc()));
                self.move_tsc(hw, world, moved);
                Some(())
            }
            IA32_TSC_ADJUST => {
                let moved = value.wrapping_sub(self.tsc_adjust);
                self.move_tsc(hw, world, moved);
                Some(())
            }
            IA32_EFER => self.set_efer(hw, value),
            MSR_WALL_CLOCK | MSR_SYSTEM_TIME => self.set_clock_msr(world, index, value),
            IA32_MTRR_DEF_TYPE => is_default_type(value).then(|| self.mtrr.default_type = value),
            // Microcode updates and machine-check state: accepted as by a CPU that has none.
            IA32_BIOS_SIGN_ID => Some(()),
            IA32_MCG_STATUS | IA32_MISC_ENABLE => Some(()),
            _ => match FIXED.iter().position(|fixed| *fixed == index) {
                Some(at) => {
                    let valid = value
                        .to_le_bytes()
                        .iter()
                        .all(|byte| is_memory_type((*byte).into()));
                    valid.then(|| self.mtrr.fixed[at] = value)
                }
                None => {
                    let (msr, valid) = switched(index, world.policy())?;
                    valid(value).then(|| hw.set_msr(msr, value))
                }
            },
        }
    }

    /// Moves the guest's TSC. A TSC deadline stays where it is in guest time; a countdown goes on.
    fn move_tsc<H: VcpuHardware, W: World>(&mut self, hw: &mut H, world: &mut W, by: u64) {
        let now = self.guest_tsc(world.host_tsc());
        self.lapic.tsc_moved(now, now.wrapping_add(by));
        self.tsc_adjust = self.tsc_adjust.wrapping_add(by);
        self.tsc_offset = self.tsc_offset.wrapping_add(by);
        hw.set_tsc_offset(self.tsc_offset);
        self.clock_follows(world);
    }

    /// LMA cannot be written; LME cannot change while paging is on (SDM 3A, 4.1.1).
    fn set_efer<H: VcpuHardware>(&mut self, hw: &mut H, value: u64) -> Option<()> {
        const KNOWN: u64 = EFER_SCE | EFER_LME | EFER_LMA | EFER_NXE;
        let old = hw.msr(SwitchedMsr::Efer);
        let paging = hw.control(Control::Cr0) & CR0_PG != 0;
        if value & !KNOWN != 0 || (paging && (value ^ old) & EFER_LME != 0) {
            return None;
        }
        hw.set_msr(SwitchedMsr::Efer, value & !EFER_LMA | old & EFER_LMA);
        Some(())
    }
}
