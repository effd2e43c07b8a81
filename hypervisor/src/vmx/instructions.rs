//! The VMX instructions (SDM 3C 31.3).
//!
//! Why unsafe: they touch the current VMCS, an object of the processor and not of the language. Every function but VMXON
//! needs VMX operation. [`vmread`] and [`vmwrite`] also need a current VMCS that is the caller's; that holds for whoever has
//! a loaded `Vcpu` by reference. A VMREAD or VMWRITE that fails is our own bug and panics.

use core::arch::{asm, global_asm};

use super::fields::Field;

/// How an instruction of the VMX set failed (SDM 3C 31.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failure {
    /// VMfailValid: the VM-instruction error field says why.
    Valid,
    /// VMfailInvalid: there is no current VMCS to say why.
    Invalid,
}

fn outcome(carry: u8, zero: u8) -> Result<(), Failure> {
    match (carry, zero) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Valid),
        (_, _) => Err(Failure::Invalid),
    }
}

macro_rules! with_address {
    ($(#[$meta:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$meta])*
        pub(super) unsafe fn $name(physical: u64) -> Result<(), Failure> {
            let (carry, zero): (u8, u8);
            // SAFETY: the caller's contract; the operand is eight readable bytes of ours.
            unsafe {
                asm!(concat!($mnemonic, " qword ptr [{}]"), "setc {}", "setz {}",
                    in(reg) &raw const physical, out(reg_byte) carry, out(reg_byte) zero,
                    options(nostack));
            }
            outcome(carry, zero)
        }
    };
}

with_address! {
    /// Enters VMX operation.
    ///
    /// # Safety
    /// `physical` is a page that carries the VMCS revision and is given to the processor until [`vmxoff`]. CR0, CR4 and
    /// IA32_FEATURE_CONTROL are as SDM 3C 24.7 and 24.8 want them.
    vmxon, "vmxon"
}

with_address! {
    /// Makes a VMCS current.
    ///
    /// # Safety
    /// `physical` is a VMCS region that is active on no other CPU and stays given to the processor until [`vmclear`].
    vmptrld, "vmptrld"
}

with_address! {
    /// Writes a VMCS back to memory, makes it clear and no longer current.
    ///
    /// # Safety
    /// `physical` is a VMCS region of ours, not active on another CPU.
    vmclear, "vmclear"
}

/// Leaves VMX operation.
///
/// # Safety
/// In VMX operation. No VMCS is active on this CPU any more.
pub(super) unsafe fn vmxoff() {
    // SAFETY: the caller's contract.
    unsafe { asm!("vmxoff", options(nostack, nomem)) };
}

// VMREAD and VMWRITE of our fields never fail; checking costs one branch that is not taken. Its target does not return, so
// no flow of the surrounding function is hidden from the compiler.
global_asm!(
    ".globl vmx_access_failed",
    "vmx_access_failed:",
    "and rsp, -16",
    "call {}",
    "ud2",
    sym access_failed,
);

extern "C" fn access_failed() -> ! {
    // SAFETY: in VMX operation, or the instruction that failed had not been reached; a failure here is ignored.
    let error = unsafe { try_vmread(Field::VM_INSTRUCTION_ERROR) };
    match error {
        // SDM 3C 31.4: 12 is an unsupported component, 13 a read-only one.
        Some(error) => panic!("VMREAD or VMWRITE failed: VM-instruction error {error}"),
        None => panic!("VMREAD or VMWRITE without a current VMCS"),
    }
}

/// Reads a field of the current VMCS.
///
/// # Safety
/// A VMCS that is the caller's is current.
#[inline(always)]
pub(super) unsafe fn vmread(field: Field) -> u64 {
    let value;
    // SAFETY: the caller's contract. No memory of the language is touched.
    unsafe {
        asm!("vmread {}, {}", "jbe vmx_access_failed", out(reg) value, in(reg) u64::from(field.0),
            options(nostack, nomem));
    }
    value
}

/// Reads a field that this CPU may lack.
///
/// # Safety
/// In VMX operation.
pub(super) unsafe fn try_vmread(field: Field) -> Option<u64> {
    let (value, failed): (u64, u8);
    // SAFETY: the caller's contract. No memory of the language is touched.
    unsafe {
        asm!("vmread {}, {}", "setbe {}", lateout(reg) value, in(reg) u64::from(field.0),
            lateout(reg_byte) failed, options(nostack, nomem));
    }
    (failed == 0).then_some(value)
}

/// Writes a field of the current VMCS.
///
/// # Safety
/// A VMCS that is the caller's is current, and the value keeps the host safe: it is the guest's state, or what
/// [`super::capability`] and the host made.
#[inline(always)]
pub(super) unsafe fn vmwrite(field: Field, value: u64) {
    // SAFETY: the caller's contract. No memory of the language is touched.
    unsafe {
        asm!("vmwrite {}, {}", "jbe vmx_access_failed", in(reg) u64::from(field.0), in(reg) value,
            options(nostack, nomem));
    }
}

/// What INVEPT and INVVPID drop (SDM 3C 31.3, "INVEPT", "INVVPID"): one context, or all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub(super) enum Extent {
    /// The EPT pointer or VPID given.
    Single = 1,
    /// All of them.
    All = 2,
}

macro_rules! invalidate {
    ($(#[$meta:meta])* $name:ident, $mnemonic:literal) => {
        $(#[$meta])*
        pub(super) unsafe fn $name(extent: Extent, context: u64) -> Result<(), Failure> {
            let descriptor = [context, 0u64];
            let (carry, zero): (u8, u8);
            // SAFETY: the caller's contract; the operand is sixteen readable bytes of ours.
            unsafe {
                asm!(concat!($mnemonic, " {}, xmmword ptr [{}]"), "setc {}", "setz {}",
                    in(reg) extent as u64, in(reg) &raw const descriptor,
                    out(reg_byte) carry, out(reg_byte) zero, options(nostack));
            }
            outcome(carry, zero)
        }
    };
}

invalidate! {
    /// Drops translations that came from an EPT pointer.
    ///
    /// # Safety
    /// In VMX operation.
    invept, "invept"
}

invalidate! {
    /// Drops linear translations of a VPID.
    ///
    /// # Safety
    /// In VMX operation.
    invvpid, "invvpid"
}
