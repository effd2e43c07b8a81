//! Register access to a local APIC: MSRs in x2APIC mode (SDM 3A 11.12), 16-byte-spaced offsets in xAPIC mode (SDM 3A 11.4.1).
//!
//! Both address the same registers: MSR `0x800 + n` is offset `n << 4`. x2APIC faults on what is reserved, xAPIC ignores it
//! and logs "illegal register" in the ESR.

use super::delivery::{ESR_ILLEGAL_REGISTER, ESR_SEND_ILLEGAL_VECTOR};
use super::ipi::{self, Command};
use super::{
    ApicMode, Effect, IA32_APIC_BASE, IA32_TSC_DEADLINE, LVT_MASKED, Lapic, SVR_ENABLE, TimerMode,
    Trigger, X2APIC_MSR_FIRST, X2APIC_MSR_LAST,
};
use crate::devices::GuestFault;

/// Register numbers: MSR less 0x800, offset over 16.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TPR: u32 = 0x08;
    pub(super) const APR: u32 = 0x09;
    pub(super) const PPR: u32 = 0x0A;
    pub(super) const EOI: u32 = 0x0B;
    pub(super) const RRD: u32 = 0x0C;
    pub(super) const LDR: u32 = 0x0D;
    pub(super) const DFR: u32 = 0x0E;
    pub(super) const SVR: u32 = 0x0F;
    pub(super) const ISR_FIRST: u32 = 0x10;
    pub(super) const ISR_LAST: u32 = 0x17;
    pub(super) const TMR_FIRST: u32 = 0x18;
    pub(super) const TMR_LAST: u32 = 0x1F;
    pub(super) const IRR_FIRST: u32 = 0x20;
    pub(super) const IRR_LAST: u32 = 0x27;
    pub(super) const ESR: u32 = 0x28;
    pub(super) const ICR: u32 = 0x30;
    pub(super) const ICR_HIGH: u32 = 0x31;
    pub(super) const LVT_TIMER: u32 = 0x32;
    pub(super) const LVT_AFTER_TIMER: u32 = 0x33;
    pub(super) const LVT_ERROR: u32 = 0x37;
    pub(super) const TIMER_INITIAL: u32 = 0x38;
    pub(super) const TIMER_CURRENT: u32 = 0x39;
    pub(super) const TIMER_DIVIDE: u32 = 0x3E;
    pub(super) const SELF_IPI: u32 = 0x3F;
}
use register::*;

/// Writable bits of each LVT entry, in register order.
pub(super) const LVT_WRITABLE: [u32; 6] = [
    0x0007_00FF,
    0x0001_07FF,
    0x0001_07FF,
    0x0001_A7FF,
    0x0001_A7FF,
    0x0001_00FF,
];
/// Delivery status and remote IRR: read-only, so that writing back what was read is no fault.
const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;
/// Writable bits of the spurious-interrupt vector register.
pub(super) const SVR_WRITABLE: u32 = 0x3FF;

/// IA32_APIC_BASE (SDM 3A 11.12.1).
const BASE_BSP: u64 = 1 << 8;
const BASE_EXTD: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
/// Page-aligned addresses within the architecture's 52 bits.
pub(super) const BASE_ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

impl Lapic {
    /// RDMSR of an APIC register, IA32_APIC_BASE or IA32_TSC_DEADLINE. `now_tsc` is the guest TSC.
    #[inline]
    pub fn read_msr(&self, msr: u32, now_tsc: u64) -> Result<u64, GuestFault> {
        match msr {
            X2APIC_MSR_FIRST..=X2APIC_MSR_LAST if self.mode == ApicMode::X2Apic => {
                match msr - X2APIC_MSR_FIRST {
                    TPR => Ok(u64::from(self.tpr)),
                    ICR => Ok(self.icr),
                    ID => Ok(u64::from(self.id)),
                    LDR => Ok(u64::from(self.x2apic_logical_id())),
                    // In x2APIC mode these do not exist or are write-only.
                    APR | EOI | RRD | DFR | ICR_HIGH | SELF_IPI => Err(GuestFault::Gp),
                    index => self
                        .read_register(index, now_tsc)
                        .map(u64::from)
                        .ok_or(GuestFault::Gp),
                }
            }
            IA32_APIC_BASE => Ok(self.apic_base()),
            IA32_TSC_DEADLINE => Ok(self.timer.tsc_deadline),
            _other => Err(GuestFault::Gp),
        }
    }

    /// WRMSR, as for [`Lapic::read_msr`].
    #[inline]
    pub fn write_msr(&mut self, msr: u32, value: u64, now_tsc: u64) -> Result<Effect, GuestFault> {
        match msr {
            X2APIC_MSR_FIRST..=X2APIC_MSR_LAST if self.mode == ApicMode::X2Apic => {
                self.write_x2apic(msr - X2APIC_MSR_FIRST, value, now_tsc)
            }
            IA32_APIC_BASE => self.set_apic_base(value),
            IA32_TSC_DEADLINE => {
                self.expire(now_tsc);
                self.timer.set_tsc_deadline(value, self.rate);
                Ok(Effect::TimerChanged)
            }
            _other => Err(GuestFault::Gp),
        }
    }

    #[inline]
    fn write_x2apic(&mut self, index: u32, value: u64, now_tsc: u64) -> Result<Effect, GuestFault> {
        let valid = match index {
            EOI | ESR => value == 0,
            TPR | SELF_IPI => value >> 8 == 0,
            ICR => value & !(ipi::ICR_WRITABLE | ipi::ICR_BUSY) == 0,
            SVR => value & !u64::from(SVR_WRITABLE) == 0,
            LVT_TIMER => {
                value & !u64::from(LVT_WRITABLE[0] | 1 << 12) == 0
                    && TimerMode::of_lvt(value as u32).is_some()
            }
            LVT_AFTER_TIMER..=LVT_ERROR => {
                value & !u64::from(LVT_WRITABLE[(index - LVT_TIMER) as usize] | LVT_READ_ONLY) == 0
            }
            TIMER_INITIAL => value >> 32 == 0,
            TIMER_DIVIDE => value & !0b1011 == 0,
            _read_only_or_absent => false,
        };
        if !valid {
            return Err(GuestFault::Gp);
        }
        match index {
            ICR => Ok(self.command(value & !ipi::ICR_BUSY)),
            SELF_IPI => Ok(self.interrupt_self(value as u8)),
            // Checked above to fit.
            other => Ok(self.write_register(other, value as u32, now_tsc)),
        }
    }

    /// 32-bit read at `offset` from the base in xAPIC mode. What is not there reads 0.
    pub fn mmio_read(&mut self, offset: u32, now_tsc: u64) -> u32 {
        if self.mode != ApicMode::XApic || offset & 0xF != 0 {
            return 0;
        }
        match offset >> 4 {
            ID => self.id << 24,
            LDR => self.ldr,
            DFR => self.dfr,
            ICR => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            APR | EOI | RRD => 0,
            index => self.read_register(index, now_tsc).unwrap_or_else(|| {
                self.note_error(ESR_ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// 32-bit write at `offset` from the base in xAPIC mode. Reserved bits and what is not there are ignored.
    pub fn mmio_write(&mut self, offset: u32, value: u32, now_tsc: u64) -> Effect {
        if self.mode != ApicMode::XApic || offset & 0xF != 0 {
            return Effect::None;
        }
        match offset >> 4 {
            LDR => {
                self.ldr = value & 0xFF00_0000;
                return Effect::ModeChanged;
            }
            DFR => {
                self.dfr = value | 0x0FFF_FFFF;
                return Effect::ModeChanged;
            }
            ICR => {
                return self
                    .command(self.icr & !0xFFFF_FFFF | u64::from(value) & ipi::ICR_WRITABLE);
            }
            ICR_HIGH => self.icr = self.icr & 0xFFFF_FFFF | u64::from(value & 0xFF00_0000) << 32,
            // Read-only here.
            ID | VERSION | APR | PPR | RRD | ISR_FIRST..=IRR_LAST | TIMER_CURRENT => {}
            index @ (TPR
            | EOI
            | SVR
            | ESR
            | LVT_TIMER..=LVT_ERROR
            | TIMER_INITIAL
            | TIMER_DIVIDE) => {
                return self.write_register(index, value, now_tsc);
            }
            _absent => self.note_error(ESR_ILLEGAL_REGISTER),
        }
        Effect::None
    }

    /// Registers that read alike in both modes.
    fn read_register(&self, index: u32, now_tsc: u64) -> Option<u32> {
        Some(match index {
            VERSION => super::VERSION,
            TPR => self.tpr,
            PPR => self.ppr(),
            SVR => self.svr,
            ISR_FIRST..=ISR_LAST => self.isr.register((index - ISR_FIRST) as usize),
            TMR_FIRST..=TMR_LAST => self.tmr.register((index - TMR_FIRST) as usize),
            IRR_FIRST..=IRR_LAST => self.irr.register((index - IRR_FIRST) as usize),
            ESR => self.esr,
            LVT_TIMER..=LVT_ERROR => self.lvt[(index - LVT_TIMER) as usize],
            TIMER_INITIAL => self.timer.initial,
            TIMER_CURRENT => self.timer.current(now_tsc, self.rate),
            TIMER_DIVIDE => self.timer.divide,
            _absent => return None,
        })
    }

    /// Registers that write alike in both modes; the callers admit no others.
    fn write_register(&mut self, index: u32, value: u32, now_tsc: u64) -> Effect {
        match index {
            EOI => {
                return self
                    .end_of_interrupt()
                    .map_or(Effect::PendingChanged, Effect::EndOfLevel);
            }
            TPR => self.tpr = value & 0xFF,
            SVR => self.set_svr(value & SVR_WRITABLE),
            ESR => self.esr = core::mem::take(&mut self.esr_gathering),
            LVT_TIMER..=LVT_ERROR => {
                return self.set_lvt((index - LVT_TIMER) as usize, value, now_tsc);
            }
            TIMER_INITIAL => {
                self.expire(now_tsc);
                self.timer.set_initial(value, now_tsc, self.rate);
                return Effect::TimerChanged;
            }
            TIMER_DIVIDE => {
                self.expire(now_tsc);
                self.timer.set_divide(value, now_tsc, self.rate);
                return Effect::TimerChanged;
            }
            other => unreachable!("APIC register {other:#x} is not written here"),
        }
        Effect::PendingChanged
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value;
        if value & SVR_ENABLE == 0 {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
    }

    fn set_lvt(&mut self, index: usize, value: u32, now_tsc: u64) -> Effect {
        // The timer's past belongs to the old entry.
        self.expire(now_tsc);
        let mut entry = value & LVT_WRITABLE[index];
        if self.svr & SVR_ENABLE == 0 {
            entry |= LVT_MASKED;
        }
        if index != 0 {
            self.lvt[index] = entry;
            return Effect::PendingChanged;
        }
        match TimerMode::of_lvt(entry) {
            Some(mode) => self.timer.set_mode(mode, now_tsc, self.rate),
            // xAPIC only: a reserved mode leaves the one there was.
            None => entry = entry & !(3 << 17) | self.lvt[0] & 3 << 17,
        }
        self.lvt[0] = entry;
        Effect::TimerChanged
    }

    /// A write of the (low) interrupt command register.
    fn command(&mut self, icr: u64) -> Effect {
        self.icr = icr;
        match ipi::decode(icr, self.mode == ApicMode::X2Apic) {
            Command::Nothing => Effect::None,
            Command::IllegalVector => {
                self.note_error(ESR_SEND_ILLEGAL_VECTOR);
                Effect::PendingChanged
            }
            Command::ToSelf(vector) => self.interrupt_self(vector),
            Command::Send(ipi) => Effect::Ipi(ipi),
        }
    }

    fn interrupt_self(&mut self, vector: u8) -> Effect {
        if vector < 16 {
            self.note_error(ESR_SEND_ILLEGAL_VECTOR);
        } else {
            let _whether_enabled = self.accept(vector, Trigger::Edge);
        }
        Effect::PendingChanged
    }

    fn apic_base(&self) -> u64 {
        let mode = match self.mode {
            ApicMode::Disabled => 0,
            ApicMode::XApic => BASE_ENABLE,
            ApicMode::X2Apic => BASE_ENABLE | BASE_EXTD,
        };
        self.base | mode | if self.bootstrap { BASE_BSP } else { 0 }
    }

    /// SDM 3A 11.12.5, figure 11-27: x2APIC mode is left only by switching the APIC off, and entered only from xAPIC mode.
    fn set_apic_base(&mut self, value: u64) -> Result<Effect, GuestFault> {
        if value & !(BASE_ADDRESS | BASE_BSP | BASE_EXTD | BASE_ENABLE) != 0 {
            return Err(GuestFault::Gp);
        }
        let mode = match (value & BASE_ENABLE != 0, value & BASE_EXTD != 0) {
            (false, false) => ApicMode::Disabled,
            (true, false) => ApicMode::XApic,
            (true, true) => ApicMode::X2Apic,
            (false, true) => return Err(GuestFault::Gp),
        };
        match (self.mode, mode) {
            (ApicMode::X2Apic, ApicMode::XApic) | (ApicMode::Disabled, ApicMode::X2Apic) => {
                return Err(GuestFault::Gp);
            }
            // Switching on or off is a reset of the registers.
            (ApicMode::XApic | ApicMode::X2Apic, ApicMode::Disabled)
            | (ApicMode::Disabled, ApicMode::XApic) => self.init(),
            // The high half of the ICR does not survive: its format differs.
            (ApicMode::XApic, ApicMode::X2Apic) => self.icr &= 0xFFFF_FFFF,
            (ApicMode::Disabled, ApicMode::Disabled)
            | (ApicMode::XApic, ApicMode::XApic)
            | (ApicMode::X2Apic, ApicMode::X2Apic) => {}
        }
        self.mode = mode;
        self.base = value & BASE_ADDRESS;
        Ok(Effect::ModeChanged)
    }
}
