//! Into the guest and back (SDM 3C 27 and 28). This is the path whose instructions are counted.

use core::arch::global_asm;
use core::arch::x86_64::_rdtsc;

use godwit_vmm::exit::vmx::control::{CR0_PE, Cr0Write, cr0_write};
use godwit_vmm::exit::vmx::event::{Injection, Interruption};
use godwit_vmm::exit::vmx::{
    ENTRY_FAILED, ExitFields, INSTRUCTION_FAILED, decode, nmi_unblocked_by_iret, reason,
};
use godwit_vmm::exit::{ControlAccess, Exit};
use godwit_vmm::hardware::{Event, Gpr, VcpuHardware, vector};

use super::fields::Field;
use super::instructions::{try_vmread, vmread, vmwrite};
use super::vcpu::{Cached, Vcpu, read_debug, write_debug};

// u64 vmx_enter(gprs: *mut [u64; 16], launched: u64, host_rsp: *mut u64): runs the guest until it exits. Returns 0 after an
// exit, 1 if the entry was VMfailValid and 2 if it was VMfailInvalid. Exits load RSP from HOST_RSP and go to vmx_exit; the
// value of HOST_RSP is remembered in *host_rsp and written only when it changes. RSP's slot in gprs is left alone. No guest
// value stays in a register for speculation to use.
global_asm!(
    ".globl vmx_enter",
    "vmx_enter:",
    "push rbp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push rdi",
    "cmp rsp, [rdx]",
    "je 2f",
    "mov [rdx], rsp",
    "mov eax, {host_rsp}",
    "vmwrite rax, rsp",
    "jbe vmx_access_failed",
    "2:",
    "test esi, esi", // The flags survive the loads.
    "mov rax, [rdi]",
    "mov rcx, [rdi + 8]",
    "mov rdx, [rdi + 16]",
    "mov rbx, [rdi + 24]",
    "mov rbp, [rdi + 40]",
    "mov rsi, [rdi + 48]",
    "mov r8, [rdi + 64]",
    "mov r9, [rdi + 72]",
    "mov r10, [rdi + 80]",
    "mov r11, [rdi + 88]",
    "mov r12, [rdi + 96]",
    "mov r13, [rdi + 104]",
    "mov r14, [rdi + 112]",
    "mov r15, [rdi + 120]",
    "mov rdi, [rdi + 56]",
    "jz 3f",
    "vmresume",
    "jmp 4f",
    "3:",
    "vmlaunch",
    "4:", // Only reached on failure: CF or ZF is set.
    "mov eax, 1",
    "mov ecx, 2",
    "cmovc eax, ecx",
    "jmp 5f",
    ".globl vmx_exit",
    "vmx_exit:",
    "push rdi",
    "mov rdi, [rsp + 8]",
    "mov [rdi], rax",
    "mov [rdi + 8], rcx",
    "mov [rdi + 16], rdx",
    "mov [rdi + 24], rbx",
    "mov [rdi + 40], rbp",
    "mov [rdi + 48], rsi",
    "mov [rdi + 64], r8",
    "mov [rdi + 72], r9",
    "mov [rdi + 80], r10",
    "mov [rdi + 88], r11",
    "mov [rdi + 96], r12",
    "mov [rdi + 104], r13",
    "mov [rdi + 112], r14",
    "mov [rdi + 120], r15",
    "pop [rdi + 56]",
    "xor eax, eax",
    "xor ecx, ecx",
    "xor edx, edx",
    "xor esi, esi",
    "xor r8d, r8d",
    "xor r9d, r9d",
    "xor r10d, r10d",
    "xor r11d, r11d",
    "5:",
    "pop rdi",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    host_rsp = const Field::HOST_RSP.0,
);

unsafe extern "C" {
    fn vmx_enter(gprs: *mut [u64; 16], launched: u64, host_rsp: *mut u64) -> u64;
    fn vmx_exit();
}

/// Where exits arrive, for HOST_RIP.
pub(super) fn exit_address() -> u64 {
    vmx_exit as *const () as u64
}

/// Exit information of the current VMCS.
struct Current;

fn read(field: Field) -> u64 {
    // SAFETY: only used in `run` and below, on a loaded vCPU: its VMCS is current.
    unsafe { vmread(field) }
}

impl ExitFields for Current {
    #[inline]
    fn qualification(&self) -> u64 {
        read(Field::EXIT_QUALIFICATION)
    }

    #[inline]
    fn instruction_length(&self) -> u32 {
        read(Field::EXIT_INSTRUCTION_LENGTH) as u32
    }

    #[inline]
    fn guest_physical(&self) -> u64 {
        read(Field::GUEST_PHYSICAL_ADDRESS)
    }

    #[inline]
    fn interruption(&self) -> Interruption {
        Interruption(read(Field::EXIT_INTERRUPTION) as u32)
    }

    #[inline]
    fn interruption_error_code(&self) -> u32 {
        read(Field::EXIT_INTERRUPTION_ERROR) as u32
    }
}

/// Runs a loaded vCPU until it exits.
#[inline]
pub(super) fn run(vcpu: &mut Vcpu, deadline_tsc: u64) -> Exit {
    loop {
        if vcpu.stale != 0 {
            vcpu.drop_translations();
        }
        vcpu.set_deadline(deadline_tsc);
        vcpu.cache_valid.set(0);
        vcpu.reflected = None;
        // SAFETY: the VMCS is current, its host state is this CPU's, its controls return to us every event that is not the
        // guest's; `gprs` and `host_rsp` are ours. Interrupts are off. Memory the guest may write is reached through the EPT
        // alone, which maps none of ours.
        let failure = unsafe {
            vmx_enter(
                &raw mut vcpu.gprs,
                u64::from(vcpu.launched),
                &raw mut vcpu.host_rsp,
            )
        };
        if failure != 0 {
            return entry_failure();
        }
        let exit_reason = read(Field::EXIT_REASON) as u32;
        if exit_reason & ENTRY_FAILED == 0 {
            vcpu.launched = true;
            vcpu.after_exit(exit_reason);
        }
        if exit_reason == u32::from(reason::CONTROL_REGISTER) && vcpu.retry_cr0_write(exit_reason) {
            continue;
        }
        return decode(exit_reason, &Current);
    }
}

/// VMLAUNCH or VMRESUME itself failed.
#[cold]
fn entry_failure() -> Exit {
    // SAFETY: in VMX operation.
    let error = unsafe { try_vmread(Field::VM_INSTRUCTION_ERROR) };
    Exit::EntryFailed {
        code: INSTRUCTION_FAILED | error.unwrap_or(0),
        detail: 0,
    }
}

impl Vcpu {
    /// The timer fires at the first multiple of its period at or after the deadline (SDM 3C 26.5.1), so never early. It has
    /// 32 bits: a deadline far away ends in an exit before its time.
    #[inline]
    fn set_deadline(&mut self, deadline_tsc: u64) {
        let Some(shift) = self.timer_shift else {
            return crate::timer::arm(deadline_tsc);
        };
        // SAFETY: RDTSC is on every CPU that has VT-x.
        let now = unsafe { _rdtsc() } >> shift;
        let then = deadline_tsc.saturating_add((1 << shift) - 1) >> shift;
        let value = u32::try_from(then.saturating_sub(now)).unwrap_or(u32::MAX);
        if value != self.timer_value {
            self.timer_value = value;
            // SAFETY: the VMCS is current, and the field exists with the timer.
            unsafe { vmwrite(Field::PREEMPTION_TIMER, u64::from(value)) };
        }
    }

    /// What every exit may have left to be put right, whatever its reason (SDM 3C 28.2.3, 28.2.4).
    #[inline]
    fn after_exit(&mut self, exit_reason: u32) {
        self.pending = false;
        let vectoring = Interruption(read(Field::IDT_VECTORING) as u32);
        let exception = exit_reason as u16 == reason::EXCEPTION_OR_NMI;
        if vectoring.is_valid() {
            self.delivery_interrupted(vectoring, exception);
        } else if nmi_unblocked_by_iret(exit_reason, &Current) {
            self.set_nmi_blocked(true);
        }
        if exception {
            self.note_exception();
        }
    }

    /// An event was being delivered: it is delivered again, unless what interrupted it is an exception that goes to the guest
    /// in its place, as on a processor without a hypervisor.
    #[cold]
    fn delivery_interrupted(&mut self, vectoring: Interruption, exception: bool) {
        let host_nmi = || {
            matches!(
                decode(u32::from(reason::EXCEPTION_OR_NMI), &Current),
                Exit::HostNmi
            )
        };
        if exception && !host_nmi() {
            return;
        }
        let error_code = if vectoring.has_error_code() {
            read(Field::IDT_VECTORING_ERROR) as u32
        } else {
            0
        };
        let length = Current.instruction_length();
        if let Some(injection) = Injection::of_exit(vectoring, error_code, length, self.protected())
        {
            if injection.is_nmi() {
                self.set_nmi_blocked(false);
            }
            self.deliver(injection);
        }
    }

    /// Remembers an intercepted exception in the form that gives it back: an INT1 keeps its type and length. Exits for #DB do
    /// not change DR6 and DR7 (SDM 3C 28.1), so that is done here.
    #[cold]
    fn note_exception(&mut self) {
        const CONDITIONS: u64 = 0x600f;
        const REPLACED: u64 = 0xf;
        const RTM: u64 = 1 << 16;
        const DR7_GENERAL_DETECT: u64 = 1 << 13;
        let interruption = Current.interruption();
        let (number, error_code) = match decode(u32::from(reason::EXCEPTION_OR_NMI), &Current) {
            Exit::Exception(number, error_code) => (number, error_code),
            // The exit has taken the host's NMI, and holds back the next until an IRET (SDM 3C 28.3): its handler runs now,
            // as it does on SVM, where it comes by itself.
            // SAFETY: the IDT has a handler for NMI, on a stack of its own.
            Exit::HostNmi => return unsafe { core::arch::asm!("int 2") },
            _ => return,
        };
        let length = Current.instruction_length();
        self.reflected = Injection::of_exit(
            interruption,
            error_code.unwrap_or(0),
            length,
            self.protected(),
        );
        // Its delivery ends the shadow; with TF set an entry would otherwise want a pending step.
        self.clear_interrupt_shadow();
        if number == vector::DEBUG {
            let qualification = Current.qualification();
            let (dr, dr6) = read_debug();
            let dr6 = dr6 & !REPLACED & !RTM | qualification & CONDITIONS | !qualification & RTM;
            // SAFETY: the vCPU is loaded, DR6 is its own, and the host's DR7 is off.
            unsafe {
                write_debug(dr, dr6);
                vmwrite(
                    Field::GUEST_DR7,
                    vmread(Field::GUEST_DR7) & !DR7_GENERAL_DETECT,
                );
            }
        }
    }

    /// A MOV to CR0 that changes NE, CD or NW: see [`Cr0Write`]. False if the exit is another one.
    #[cold]
    fn retry_cr0_write(&mut self, exit_reason: u32) -> bool {
        let Exit::Control(ControlAccess::WriteCr0(register), _) = decode(exit_reason, &Current)
        else {
            return false;
        };
        let value = if usize::from(register) == Gpr::Rsp as usize {
            self.rsp()
        } else {
            self.gprs[usize::from(register)]
        };
        match cr0_write(value) {
            // SAFETY: the VMCS is current; the shadow is only what the guest reads.
            Cr0Write::Retry { shadow } => unsafe { vmwrite(Field::CR0_SHADOW, shadow) },
            Cr0Write::Refuse => self.inject(Event::GENERAL_PROTECTION),
        }
        true
    }

    /// CR0.PE.
    pub(super) fn protected(&self) -> bool {
        read(Field::GUEST_CR0) & CR0_PE != 0
    }

    /// Blocking by NMI, bit 3 of the interruptibility state.
    pub(super) fn set_nmi_blocked(&mut self, blocked: bool) {
        const BLOCKED_BY_NMI: u64 = 1 << 3;
        let state = self.cached(Cached::Interruptibility) & !BLOCKED_BY_NMI;
        let bit = if blocked { BLOCKED_BY_NMI } else { 0 };
        self.set_cached(Cached::Interruptibility, state | bit);
    }

    /// Puts an event into the VM-entry fields.
    pub(super) fn deliver(&mut self, injection: Injection) {
        assert!(!self.pending, "two events for one entry");
        self.pending = true;
        // SAFETY: the VMCS is current; the event is one the guest gets.
        unsafe {
            vmwrite(Field::ENTRY_INTERRUPTION, u64::from(injection.information));
            vmwrite(
                Field::ENTRY_EXCEPTION_ERROR,
                u64::from(injection.error_code),
            );
            vmwrite(
                Field::ENTRY_INSTRUCTION_LENGTH,
                u64::from(injection.instruction_length),
            );
        }
    }
}
