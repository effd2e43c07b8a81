//! The border to the machine: what a virtualization back end offers to the code that decides.
//!
//! Implemented three times: for VT-x and for SVM in the `hypervisor` binary, and by the fake in
//! `crate::fake`, whose encodings are deliberately odd. All methods speak architecture (SDM and
//! APM terms), never VMCS fields or VMCB offsets.

use godwit_records::{Segment, VcpuState};

/// Index of a general register in x86 encoding order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[allow(missing_docs)]
pub enum Gpr {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rsp = 4,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

/// The control registers a back end can read and write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Control {
    Cr0,
    Cr2,
    Cr3,
    Cr4,
}

/// A segment register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SegmentName {
    Es = 0,
    Cs = 1,
    Ss = 2,
    Ds = 3,
    Fs = 4,
    Gs = 5,
    Ldtr = 6,
    Tr = 7,
}

/// MSRs whose guest value lives in the back end: in the VMCS or VMCB, or swapped with the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum SwitchedMsr {
    Efer,
    Star,
    Lstar,
    Cstar,
    Sfmask,
    FsBase,
    GsBase,
    KernelGsBase,
    SysenterCs,
    SysenterEsp,
    SysenterEip,
    Pat,
    TscAux,
}

/// Something delivered to the guest through its IDT at the next entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A maskable interrupt.
    External(u8),
    /// A non-maskable interrupt.
    Nmi,
    /// A fault or trap of the instruction at RIP, with its error code where it has one.
    Exception(u8, Option<u32>),
}

/// Vectors of the exceptions this crate injects.
pub mod vector {
    /// #DB.
    pub const DEBUG: u8 = 1;
    /// #UD.
    pub const INVALID_OPCODE: u8 = 6;
    /// #GP.
    pub const GENERAL_PROTECTION: u8 = 13;
    /// #MC.
    pub const MACHINE_CHECK: u8 = 18;
    /// #PF.
    pub const PAGE_FAULT: u8 = 14;
}

impl Event {
    /// #UD.
    pub const INVALID_OPCODE: Event = Event::Exception(vector::INVALID_OPCODE, None);
    /// #GP(0).
    pub const GENERAL_PROTECTION: Event = Event::Exception(vector::GENERAL_PROTECTION, Some(0));
}

/// A vCPU in its back end. Every method needs the vCPU to be loaded on the calling CPU.
pub trait VcpuHardware {
    /// The general registers as of the last exit. The slot of RSP is not kept: see `rsp`.
    fn gprs(&self) -> &[u64; 16];
    /// As `gprs`, to change.
    fn gprs_mut(&mut self) -> &mut [u64; 16];
    /// RIP.
    fn rip(&self) -> u64;
    /// Sets RIP.
    fn set_rip(&mut self, rip: u64);
    /// RSP.
    fn rsp(&self) -> u64;
    /// RFLAGS.
    fn rflags(&self) -> u64;
    /// Sets RFLAGS.
    fn set_rflags(&mut self, rflags: u64);
    /// A control register as the guest would read it.
    fn control(&self, register: Control) -> u64;
    /// Sets a control register to a value the guest is to read back; the back end adds what its
    /// hardware needs (NE and VMXE on VT-x).
    fn set_control(&mut self, register: Control, value: u64);
    /// A segment register.
    fn segment(&self, name: SegmentName) -> Segment;
    /// A switched MSR as the guest would read it (EFER without SVME).
    fn msr(&self, msr: SwitchedMsr) -> u64;
    /// Sets a switched MSR. The caller has checked that the value is allowed.
    fn set_msr(&mut self, msr: SwitchedMsr, value: u64);
    /// Ticks added to the host's TSC to make the guest's.
    fn set_tsc_offset(&mut self, offset: u64);
    /// Whether an event waits for the next entry already: injected, or interrupted in its
    /// delivery by the last exit. No second one may be injected then.
    fn event_pending(&self) -> bool;
    /// Injects an event at the next entry. Only while none is pending.
    fn inject(&mut self, event: Event);
    /// Whether the guest could take a maskable interrupt now: IF set, no STI or MOV SS shadow, no
    /// event pending.
    fn interrupt_allowed(&self) -> bool;
    /// Whether the guest could take an NMI now.
    fn nmi_allowed(&self) -> bool;
    /// Asks for an exit (`Exit::InterruptWindow`) as soon as an interrupt could be taken.
    fn set_interrupt_window(&mut self, wanted: bool);
    /// Asks for an exit (`Exit::NmiWindow`) as soon as an NMI could be taken.
    fn set_nmi_window(&mut self, wanted: bool);
    /// Clears the STI and MOV SS shadow: the instruction at RIP is being stepped over.
    fn clear_interrupt_shadow(&mut self);
    /// Whether RFLAGS.TF asks for a #DB after the instruction that is being stepped over; the
    /// back end makes it pending (VT-x: pending debug exceptions; SVM: injected).
    fn step_trap(&mut self);
    /// The task priority (CR8) as the guest last wrote it, where the hardware keeps it (SVM's V_TPR).
    /// `None`: accesses to CR8 exit.
    fn virtual_tpr(&self) -> Option<u8> {
        None
    }
    /// Sets what the guest reads from CR8, where the hardware keeps it. `held`: an interrupt
    /// waits for a lower priority, so the guest's next write must exit.
    fn set_virtual_tpr(&mut self, _priority: u8, _held: bool) {}
    /// The whole architectural state, except what other records hold (LAPIC, extended state).
    /// `tsc` is left 0: time is the caller's.
    fn save(&self) -> VcpuState;
    /// Takes on a state that has passed [`VcpuState::check`].
    fn load(&mut self, state: &VcpuState);
    /// Reports, and forgets, the guest-physical page addresses in the processor's log of dirty pages, where there is one. It has
    /// room for at most so many, 1 to 512, from then on.
    fn drain_dirty_log(&mut self, room: u16, report: impl FnMut(u64));
    /// Drops translations tagged for this vCPU before the next entry.
    fn flush_translations(&mut self);
    /// Writes every relevant field by its name in the manual, one a line: for a failed entry and
    /// for the debug keys.
    fn dump(&self, out: &mut dyn core::fmt::Write) -> core::fmt::Result;
}
