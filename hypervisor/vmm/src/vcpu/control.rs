//! Control register writes that the back end holds back, and XSETBV.

use super::{Next, Vcpu, World, advance, end, fetch, is_long_code};
use crate::code::{self, Opcode};
use crate::exit::{ControlAccess, Length};
use crate::hardware::{Control, Event, Gpr, SegmentName, SwitchedMsr, VcpuHardware};

use godwit_abi::ShutdownReason;

const CR0_PE: u64 = 1;
const CR0_TS: u64 = 1 << 3;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
/// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG; writes to the others of the low half are ignored.
const CR0_DEFINED: u64 = 0xe005_003f;
const CR0_ET: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_VMXE: u64 = 1 << 13;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_OSXSAVE: u64 = 1 << 18;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// CR4 bits a guest may set where the CPU has them: VME to OSXMMEXCPT, UMIP, FSGSBASE, PCIDE,
/// OSXSAVE, SMEP, SMAP, PKE. Not LA57, VMXE, SMXE, CET.
pub(super) const CR4_ALLOWED: u64 =
    0x7ff | 1 << 11 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22;

/// Reads from the guest's code which register is moved where.
fn decode_write<H: VcpuHardware, W: World>(
    hw: &H,
    world: &W,
) -> Option<(ControlAccess, core::num::NonZeroU8)> {
    let mut bytes = [0; code::INSTRUCTION_BYTES_MAX];
    let count = fetch(hw, world, &mut bytes);
    let found = code::mov_to_control(&bytes[..count], is_long_code(hw))?;
    let access = match found.control {
        0 => ControlAccess::WriteCr0(found.register),
        4 => ControlAccess::WriteCr4(found.register),
        8 => ControlAccess::WriteCr8(found.register),
        _ => return None,
    };
    Some((access, found.length))
}

impl Vcpu {
    pub(super) fn control<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        access: ControlAccess,
        length: Length,
    ) -> Next {
        let (access, length) = match access {
            ControlAccess::WriteUndecoded => match decode_write(hw, world) {
                Some((access, length)) => (access, Some(length)),
                None => return end(ShutdownReason::BadInstruction, hw.rip()),
            },
            decoded => (decoded, length),
        };
        let register = |hw: &H, index: u8| {
            if index == Gpr::Rsp as u8 {
                hw.rsp()
            } else {
                hw.gprs()[usize::from(index & 15)]
            }
        };
        let done = match access {
            ControlAccess::WriteCr0(index) => self.write_cr0(hw, register(hw, index)),
            ControlAccess::WriteCr4(index) => self.write_cr4(hw, world, register(hw, index)),
            ControlAccess::Clts => {
                hw.set_control(Control::Cr0, hw.control(Control::Cr0) & !CR0_TS);
                true
            }
            ControlAccess::Lmsw(word) => {
                // LMSW sets PE but cannot clear it.
                let old = hw.control(Control::Cr0);
                let value = old & !0xe | u64::from(word & 0xf) | old & CR0_PE;
                self.write_cr0(hw, value)
            }
            ControlAccess::WriteCr8(index) => {
                let value = register(hw, index);
                let valid = value < 16;
                if valid {
                    self.lapic.set_cr8(value);
                }
                valid
            }
            ControlAccess::WriteUndecoded => unreachable!("decoded above"),
            ControlAccess::ReadCr8(index) => {
                let value = self.lapic.cr8();
                hw.gprs_mut()[usize::from(index & 15)] = value;
                true
            }
        };
        if !done {
            return self.inject(hw, Event::GENERAL_PROTECTION);
        }
        match length {
            Some(length) => {
                advance(hw, length.get());
                Next::Enter
            }
            None => end(ShutdownReason::BadInstruction, hw.rip()),
        }
    }

    /// MOV to CR0 (SDM 3A, 2.5 and 4.1). `false`: #GP.
    fn write_cr0<H: VcpuHardware>(&mut self, hw: &mut H, value: u64) -> bool {
        let old = hw.control(Control::Cr0);
        if value >> 32 != 0
            || (value & CR0_PG != 0 && value & CR0_PE == 0)
            || (value & CR0_NW != 0 && value & CR0_CD == 0)
        {
            return false;
        }
        let value = value & CR0_DEFINED | CR0_ET;
        let efer = hw.msr(SwitchedMsr::Efer);
        if value & CR0_PG != 0 && old & CR0_PG == 0 && efer & EFER_LME != 0 {
            let long_code =
                hw.segment(SegmentName::Cs).attributes & godwit_records::Segment::LONG != 0;
            if hw.control(Control::Cr4) & CR4_PAE == 0 || long_code {
                return false;
            }
            hw.set_msr(SwitchedMsr::Efer, efer | EFER_LMA);
        }
        if value & CR0_PG == 0 && old & CR0_PG != 0 && efer & EFER_LMA != 0 {
            let pcide = hw.control(Control::Cr4) & CR4_PCIDE != 0;
            if pcide || hw.segment(SegmentName::Cs).attributes & godwit_records::Segment::LONG != 0
            {
                return false;
            }
            hw.set_msr(SwitchedMsr::Efer, efer & !EFER_LMA);
        }
        hw.set_control(Control::Cr0, value);
        if (value ^ old) & CR0_PG != 0 {
            hw.flush_translations();
        }
        true
    }

    /// MOV to CR4. `false`: #GP.
    fn write_cr4<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        value: u64,
    ) -> bool {
        let long = hw.msr(SwitchedMsr::Efer) & EFER_LMA != 0;
        let no_xsave = value & CR4_OSXSAVE != 0 && world.policy().xcr0_allowed() == 0;
        // PCIDs are switched on in long mode only, with none of them in CR3 (SDM 3A, 4.10.1).
        let pcide = value & !hw.control(Control::Cr4) & CR4_PCIDE != 0;
        if pcide && (!long || hw.control(Control::Cr3) & 0xfff != 0) {
            return false;
        }
        if value & !CR4_ALLOWED != 0
            || value & CR4_VMXE != 0
            || (long && value & CR4_PAE == 0)
            || no_xsave
        {
            return false;
        }
        hw.set_control(Control::Cr4, value);
        hw.flush_translations();
        true
    }

    pub(super) fn xsetbv<H: VcpuHardware, W: World>(
        &mut self,
        hw: &mut H,
        world: &mut W,
        length: Length,
    ) -> Next {
        let gprs = hw.gprs();
        let index = gprs[Gpr::Rcx as usize] as u32;
        let value = gprs[Gpr::Rdx as usize] << 32 | gprs[Gpr::Rax as usize] & 0xffff_ffff;
        let kernel = hw.segment(SegmentName::Ss).dpl() == 0;
        if index != 0 || !kernel || !world.policy().xcr0_valid(value) {
            return self.inject(hw, Event::GENERAL_PROTECTION);
        }
        world.set_xcr0(value);
        self.step_over(hw, world, length, Opcode::Xsetbv)
    }
}
