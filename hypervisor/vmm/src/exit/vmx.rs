//! Decodes VM exits of VT-x (SDM 3C, appendix C "VMX basic exit reasons" and 28.2 "Recording VM-exit information").
//!
//! The decoder is pure: it sees the VMCS through [`ExitFields`], so that a field is read only where an exit reason gives
//! it a meaning. What surrounds exits is here too, for the same reason: events ([`event`]), segment attributes
//! ([`access_rights`]), the entry checks a failed entry may have violated ([`entry_checks`]) and the control-register
//! bits the hypervisor keeps for itself ([`control`]).

pub mod access_rights;
pub mod control;
pub mod entry_checks;
pub mod event;
#[cfg(test)]
mod tests;

use core::num::NonZeroU8;

use super::{ControlAccess, Exit, Length, NestedFault, PortAccess, Width};
use event::{Interruption, Kind};

/// The exit-information fields of a VMCS (SDM 3C 25.9), read on demand.
pub trait ExitFields {
    /// Exit qualification.
    fn qualification(&self) -> u64;
    /// VM-exit instruction length, bytes.
    fn instruction_length(&self) -> u32;
    /// Guest-physical address.
    fn guest_physical(&self) -> u64;
    /// VM-exit interruption information.
    fn interruption(&self) -> Interruption;
    /// VM-exit interruption error code.
    fn interruption_error_code(&self) -> u32;
}

/// Bit 31 of the exit reason: the entry failed, no guest instruction has run (SDM 3C 27.8).
pub const ENTRY_FAILED: u32 = 1 << 31;
/// Set by us in the code of [`Exit::EntryFailed`] when VMLAUNCH or VMRESUME itself failed; the rest is the
/// VM-instruction error (SDM 3C 31.4), 0 when there was no current VMCS.
pub const INSTRUCTION_FAILED: u64 = 1 << 63;
/// Bits of the EPT-violation and log-full qualifications, and of the interruption information: an IRET that would have
/// unblocked NMIs has faulted (SDM 3C 28.2.3).
pub const NMI_UNBLOCKED_BY_IRET: u64 = 1 << 12;
/// Longest x86 instruction, bytes.
pub const INSTRUCTION_BYTES_MAX: u32 = 15;

/// Basic exit reasons (SDM 3D table C-1), bits 15:0 of the exit-reason field.
#[allow(missing_docs)]
pub mod reason {
    pub const EXCEPTION_OR_NMI: u16 = 0;
    pub const EXTERNAL_INTERRUPT: u16 = 1;
    pub const TRIPLE_FAULT: u16 = 2;
    pub const INIT: u16 = 3;
    pub const STARTUP_IPI: u16 = 4;
    pub const INTERRUPT_WINDOW: u16 = 7;
    pub const NMI_WINDOW: u16 = 8;
    pub const TASK_SWITCH: u16 = 9;
    pub const CPUID: u16 = 10;
    pub const GETSEC: u16 = 11;
    pub const HLT: u16 = 12;
    pub const INVD: u16 = 13;
    pub const RDPMC: u16 = 15;
    pub const VMCALL: u16 = 18;
    pub const VMCLEAR: u16 = 19;
    pub const VMLAUNCH: u16 = 20;
    pub const VMPTRLD: u16 = 21;
    pub const VMPTRST: u16 = 22;
    pub const VMREAD: u16 = 23;
    pub const VMRESUME: u16 = 24;
    pub const VMWRITE: u16 = 25;
    pub const VMXOFF: u16 = 26;
    pub const VMXON: u16 = 27;
    pub const CONTROL_REGISTER: u16 = 28;
    pub const PORT: u16 = 30;
    pub const RDMSR: u16 = 31;
    pub const WRMSR: u16 = 32;
    pub const MWAIT: u16 = 36;
    pub const MONITOR: u16 = 39;
    pub const PAUSE: u16 = 40;
    pub const EPT_VIOLATION: u16 = 48;
    pub const EPT_MISCONFIGURATION: u16 = 49;
    pub const INVEPT: u16 = 50;
    pub const PREEMPTION_TIMER: u16 = 52;
    pub const INVVPID: u16 = 53;
    pub const WBINVD: u16 = 54;
    pub const XSETBV: u16 = 55;
    pub const VMFUNC: u16 = 59;
    pub const ENCLS: u16 = 60;
    pub const LOG_FULL: u16 = 62;
    pub const XSAVES: u16 = 63;
    pub const XRSTORS: u16 = 64;
}

/// The vendor-neutral form of an exit. `exit_reason` is the whole 32-bit field.
#[inline]
pub fn decode(exit_reason: u32, fields: &impl ExitFields) -> Exit {
    if exit_reason & ENTRY_FAILED != 0 {
        return Exit::EntryFailed {
            code: u64::from(exit_reason),
            detail: fields.qualification(),
        };
    }
    match exit_reason as u16 {
        reason::EXCEPTION_OR_NMI => exception(exit_reason, fields),
        reason::EXTERNAL_INTERRUPT => Exit::HostInterrupt,
        reason::TRIPLE_FAULT => Exit::TripleFault,
        reason::INIT | reason::STARTUP_IPI => Exit::Startup,
        reason::INTERRUPT_WINDOW => Exit::InterruptWindow,
        reason::NMI_WINDOW => Exit::NmiWindow,
        reason::TASK_SWITCH => Exit::TaskSwitch,
        reason::CPUID => Exit::Cpuid(length(fields)),
        reason::HLT => Exit::Hlt(length(fields)),
        reason::INVD | reason::WBINVD => Exit::CacheFlush(length(fields)),
        reason::VMCALL => Exit::Hypercall(length(fields)),
        reason::CONTROL_REGISTER => control_register(exit_reason, fields),
        reason::PORT => port(exit_reason, fields),
        reason::RDMSR => Exit::Rdmsr(length(fields)),
        reason::WRMSR => Exit::Wrmsr(length(fields)),
        reason::PAUSE => Exit::Pause(length(fields)),
        reason::EPT_VIOLATION => ept_violation(fields),
        reason::EPT_MISCONFIGURATION => Exit::NestedMisconfigured {
            gpa: fields.guest_physical(),
        },
        reason::PREEMPTION_TIMER => Exit::Deadline,
        reason::XSETBV => Exit::Xsetbv(length(fields)),
        reason::LOG_FULL => Exit::DirtyLogFull,
        reason::GETSEC
        | reason::RDPMC
        | reason::VMCLEAR..=reason::VMXON
        | reason::MWAIT
        | reason::MONITOR
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::ENCLS
        | reason::XSAVES
        | reason::XRSTORS => Exit::Forbidden,
        // Not an enum of ours: the manual's list grows, and what is not asked for does not come.
        _ => unknown(exit_reason, fields),
    }
}

/// Whether the exit was taken in the middle of an IRET that had already unblocked NMIs, so that the blocking has to be
/// put back before the IRET is executed again (SDM 3C 28.2.3). Only asked for exits that no event delivery precedes.
#[inline]
pub fn nmi_unblocked_by_iret(exit_reason: u32, fields: &impl ExitFields) -> bool {
    match exit_reason as u16 {
        reason::EXCEPTION_OR_NMI => fields.interruption().nmi_unblocked_by_iret(),
        reason::EPT_VIOLATION | reason::LOG_FULL => {
            fields.qualification() & NMI_UNBLOCKED_BY_IRET != 0
        }
        _ => false,
    }
}

fn length(fields: &impl ExitFields) -> Length {
    let bytes = fields.instruction_length();
    if bytes > INSTRUCTION_BYTES_MAX {
        return None;
    }
    NonZeroU8::new(bytes as u8)
}

#[cold]
fn unknown(exit_reason: u32, fields: &impl ExitFields) -> Exit {
    Exit::Unknown {
        code: u64::from(exit_reason),
        detail: fields.qualification(),
    }
}

/// SDM 3C 28.2.2 and table 25-18.
fn exception(exit_reason: u32, fields: &impl ExitFields) -> Exit {
    let interruption = fields.interruption();
    match interruption.kind() {
        Some(Kind::Nmi) => Exit::HostNmi,
        Some(
            Kind::HardwareException | Kind::PrivilegedSoftwareException | Kind::SoftwareException,
        ) => {
            let error_code = interruption
                .has_error_code()
                .then(|| fields.interruption_error_code());
            Exit::Exception(interruption.vector(), error_code)
        }
        Some(Kind::External | Kind::SoftwareInterrupt) | None => unknown(exit_reason, fields),
    }
}

/// SDM 3C table 28-3.
fn control_register(exit_reason: u32, fields: &impl ExitFields) -> Exit {
    const MOV_TO: u64 = 0;
    const MOV_FROM: u64 = 1;
    const CLTS: u64 = 2;
    let qualification = fields.qualification();
    let register = qualification as u8 & 0xf;
    let operand = (qualification >> 8) as u8 & 0xf;
    let access = match (qualification >> 4 & 3, register) {
        (MOV_TO, 0) => ControlAccess::WriteCr0(operand),
        (MOV_TO, 4) => ControlAccess::WriteCr4(operand),
        (MOV_TO, 8) => ControlAccess::WriteCr8(operand),
        (MOV_FROM, 8) => ControlAccess::ReadCr8(operand),
        (MOV_TO | MOV_FROM, _) => return unknown(exit_reason, fields),
        (CLTS, _) => ControlAccess::Clts,
        (_, _) => ControlAccess::Lmsw((qualification >> 16) as u16),
    };
    Exit::Control(access, length(fields))
}

/// SDM 3C table 28-5.
fn port(exit_reason: u32, fields: &impl ExitFields) -> Exit {
    let qualification = fields.qualification();
    let width = match qualification & 7 {
        0 => Width::Byte,
        1 => Width::Word,
        3 => Width::Dword,
        _ => return unknown(exit_reason, fields),
    };
    Exit::Port(PortAccess {
        port: (qualification >> 16) as u16,
        width,
        input: qualification & 1 << 3 != 0,
        string: qualification & 1 << 4 != 0,
        repeat: qualification & 1 << 5 != 0,
        length: length(fields),
    })
}

/// SDM 3C table 28-7. The processor's own updates of accessed and dirty flags in guest page tables come as reads and
/// writes at once.
fn ept_violation(fields: &impl ExitFields) -> Exit {
    let qualification = fields.qualification();
    Exit::Nested(NestedFault {
        gpa: fields.guest_physical(),
        read: qualification & 1 != 0,
        write: qualification & 1 << 1 != 0,
        fetch: qualification & 1 << 2 != 0,
        mapped: qualification & 0b11_1000 != 0,
    })
}
