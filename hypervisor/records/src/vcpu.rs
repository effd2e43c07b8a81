//! What one vCPU is, apart from its extended (FPU, vector) state and its local APIC.
//!
//! The fields are what the guest itself would read. Whatever a back end needs on top (SVME in a
//! VMCB's EFER, VMXE in a VMCS's CR4) it adds and takes away; state that this version does not
//! carry (CET, PKS, FRED, LBR, performance counters, nested virtualization) is not offered to
//! guests, and [`check`](VcpuState::check) refuses control bits that would need it.

use crate::kind::Kind;
use crate::segment::Segment;
use crate::{choice, record, structure};

choice! {
    /// Whether interrupts are held back for one instruction (SDM 3A 6.8.3).
    pub enum Shadow {
        /// They are not.
        0 None,
        /// The instruction before was STI.
        1 Sti,
        /// The instruction before wrote SS.
        2 MovSs,
    }
}

choice! {
    /// What a CPU is doing (SDM 3C 25.4.2, activity state).
    pub enum Activity {
        /// Executes instructions.
        0 Running,
        /// Waits in HLT for an interrupt.
        1 Halted,
        /// Has had an INIT and waits for a start-up IPI.
        2 WaitForSipi,
        /// Has had a triple fault.
        3 Shutdown,
    }
}

choice! {
    /// How an event came about, which decides how it is delivered (SDM 3C 25.8.3).
    pub enum EventKind {
        /// Through the interrupt controllers; already acknowledged.
        0 External,
        /// Non-maskable interrupt.
        1 Nmi,
        /// Exception raised by the CPU.
        2 Exception,
        /// INT n.
        3 SoftwareInterrupt,
        /// INT1.
        4 PrivilegedSoftwareException,
        /// INT3 or INTO.
        5 SoftwareException,
    }
}

structure! {
    /// An event whose delivery had begun, or was due, when the state was saved.
    pub struct PendingEvent {
        /// How it came about.
        kind: EventKind,
        /// IDT entry.
        vector: u8,
        /// What an exception pushes.
        error_code: Option<u32>,
        /// Bytes of the instruction that raised a software event; 0 for the other kinds.
        instruction_length: u8,
    }
}

/// RDX holds the CPU's signature; this is family 6. Whoever knows the guest's CPUID leaf 1 puts
/// that leaf's EAX in its place.
const RESET_GPRS: [u64; 16] = [0, 0, 0x600, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// Data segments: present, writable, accessed.
const RESET_DATA: Segment = Segment::new(0, 0, 0xffff, 0x93);

record! {
    /// The architectural state of a vCPU. Reset values: SDM 3A table 10-1, power-up.
    pub struct VcpuState = Kind::VCPU_STATE;
    version 1 {
        /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of instruction encodings.
        gprs: [u64; 16] = RESET_GPRS;
        /// Instruction pointer.
        rip: u64 = 0xfff0;
        /// Flags.
        rflags: u64 = 2;
        /// CR0 as the guest reads it.
        cr0: u64 = 0x6000_0010;
        /// Linear address of the last page fault.
        cr2: u64 = 0;
        /// Root of the guest's page tables.
        cr3: u64 = 0;
        /// CR4 as the guest reads it.
        cr4: u64 = 0;
        /// Task priority, 0 to 15.
        cr8: u64 = 0;
        /// Extended state components enabled.
        xcr0: u64 = 1;
        /// IA32_EFER as the guest reads it: SCE, LME, LMA, NXE.
        efer: u64 = 0;
        /// Code segment.
        cs: Segment = Segment::new(0xf000, 0xffff_0000, 0xffff, 0x9b);
        /// Data segment.
        ds: Segment = RESET_DATA;
        /// Extra segment.
        es: Segment = RESET_DATA;
        /// FS; its base is IA32_FS_BASE.
        fs: Segment = RESET_DATA;
        /// GS; its base is IA32_GS_BASE.
        gs: Segment = RESET_DATA;
        /// Stack segment; its DPL is the CPL.
        ss: Segment = RESET_DATA;
        /// Task register.
        tr: Segment = Segment::new(0, 0, 0xffff, 0x8b);
        /// Local descriptor table register.
        ldtr: Segment = Segment::new(0, 0, 0xffff, 0x82);
        /// Linear address of the global descriptor table.
        gdtr_base: u64 = 0;
        /// Its last byte's offset.
        gdtr_limit: u16 = 0xffff;
        /// Linear address of the interrupt descriptor table.
        idtr_base: u64 = 0;
        /// Its last byte's offset.
        idtr_limit: u16 = 0xffff;
        /// Breakpoint address 0.
        dr0: u64 = 0;
        /// Breakpoint address 1.
        dr1: u64 = 0;
        /// Breakpoint address 2.
        dr2: u64 = 0;
        /// Breakpoint address 3.
        dr3: u64 = 0;
        /// Debug status.
        dr6: u64 = 0xffff_0ff0;
        /// Debug control.
        dr7: u64 = 0x400;
        /// IA32_STAR.
        star: u64 = 0;
        /// IA32_LSTAR.
        lstar: u64 = 0;
        /// IA32_CSTAR.
        cstar: u64 = 0;
        /// IA32_FMASK; its upper half is reserved.
        sfmask: u32 = 0;
        /// IA32_KERNEL_GS_BASE.
        kernel_gs_base: u64 = 0;
        /// IA32_SYSENTER_CS; its upper half is reserved.
        sysenter_cs: u32 = 0;
        /// IA32_SYSENTER_ESP.
        sysenter_esp: u64 = 0;
        /// IA32_SYSENTER_EIP.
        sysenter_eip: u64 = 0;
        /// IA32_PAT.
        pat: u64 = 0x0007_0406_0007_0406;
        /// IA32_TSC_AUX; its upper half is reserved.
        tsc_aux: u32 = 0;
        /// The guest's time-stamp counter when it was saved.
        tsc: u64 = 0;
        /// Interrupts held back for one instruction.
        interrupt_shadow: Shadow = Shadow::None;
        /// An NMI handler has not yet executed its IRET.
        nmi_blocked: bool = false;
        /// An event to deliver before the next instruction.
        pending_event: Option<PendingEvent> = None;
        /// What the vCPU is doing.
        activity: Activity = Activity::Running;
    }
}

impl VcpuState {
    /// The current privilege level.
    pub const fn cpl(&self) -> u8 {
        self.ss.dpl()
    }

    /// The state after an INIT: registers as after power-on, except for what an INIT leaves alone
    /// (SDM 3A table 10-1: the cache bits of CR0, XCR0, MSRs, the TSC). The vCPU waits for a
    /// start-up IPI; one that boots the domain is set to run by the caller.
    pub fn after_init(&self) -> Self {
        const CACHE_BITS: u64 = 0x6000_0000;
        let reset = Self::reset();
        Self {
            cr0: reset.cr0 & !CACHE_BITS | self.cr0 & CACHE_BITS,
            xcr0: self.xcr0,
            star: self.star,
            lstar: self.lstar,
            cstar: self.cstar,
            sfmask: self.sfmask,
            kernel_gs_base: self.kernel_gs_base,
            sysenter_cs: self.sysenter_cs,
            sysenter_esp: self.sysenter_esp,
            sysenter_eip: self.sysenter_eip,
            pat: self.pat,
            tsc_aux: self.tsc_aux,
            tsc: self.tsc,
            activity: Activity::WaitForSipi,
            ..reset
        }
    }

    /// Starts a vCPU that waits for a start-up IPI at the 4 KiB page `vector` (SDM 3A 9.4.4.1).
    pub fn start_at(&mut self, vector: u8) {
        self.cs.selector = u16::from(vector) << 8;
        self.cs.base = u64::from(vector) << 12;
        self.rip = 0;
        self.activity = Activity::Running;
    }
}
