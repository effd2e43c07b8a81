//! What one vCPU is, apart from its FPU state and its local APIC.

use crate::segment::Segment;

/// Whether interrupts are held back for one instruction (SDM 3A 6.8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shadow {
    /// They are not.
    #[default]
    None,
    /// The instruction before was STI.
    Sti,
    /// The instruction before wrote SS.
    MovSs,
}

/// What a CPU is doing (SDM 3C 25.4.2, activity state).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activity {
    /// Executes instructions.
    #[default]
    Running,
    /// Waits in HLT for an interrupt.
    Halted,
    /// Has had an INIT and waits for a start-up IPI.
    WaitForSipi,
    /// Has had a triple fault.
    Shutdown,
}

/// How an event came about, which decides how it is delivered (SDM 3C 25.8.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EventKind {
    /// Through the interrupt controllers; already acknowledged.
    #[default]
    External,
    /// Non-maskable interrupt.
    Nmi,
    /// Exception raised by the CPU.
    Exception,
    /// INT n.
    SoftwareInterrupt,
    /// INT1.
    PrivilegedSoftwareException,
    /// INT3 or INTO.
    SoftwareException,
}

/// An event whose delivery had begun, or was due, when the state was saved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PendingEvent {
    /// How it came about.
    pub kind: EventKind,
    /// IDT entry.
    pub vector: u8,
    /// What an exception pushes.
    pub error_code: Option<u32>,
    /// Bytes of the instruction that raised a software event; 0 for the other kinds.
    pub instruction_length: u8,
}

/// The architectural state of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuState {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of instruction encodings.
    pub gprs: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// CR0 as the guest reads it.
    pub cr0: u64,
    /// Linear address of the last page fault.
    pub cr2: u64,
    /// Root of the guest's page tables.
    pub cr3: u64,
    /// CR4 as the guest reads it.
    pub cr4: u64,
    /// Task priority, 0 to 15.
    pub cr8: u64,
    /// Extended state components enabled.
    pub xcr0: u64,
    /// IA32_EFER as the guest reads it: SCE, LME, LMA, NXE.
    pub efer: u64,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// FS; its base is IA32_FS_BASE.
    pub fs: Segment,
    /// GS; its base is IA32_GS_BASE.
    pub gs: Segment,
    /// Stack segment; its DPL is the CPL.
    pub ss: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table register.
    pub ldtr: Segment,
    /// Linear address of the global descriptor table.
    pub gdtr_base: u64,
    /// Its last byte's offset.
    pub gdtr_limit: u16,
    /// Linear address of the interrupt descriptor table.
    pub idtr_base: u64,
    /// Its last byte's offset.
    pub idtr_limit: u16,
    /// Breakpoint address 0.
    pub dr0: u64,
    /// Breakpoint address 1.
    pub dr1: u64,
    /// Breakpoint address 2.
    pub dr2: u64,
    /// Breakpoint address 3.
    pub dr3: u64,
    /// Debug status.
    pub dr6: u64,
    /// Debug control.
    pub dr7: u64,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_CSTAR.
    pub cstar: u64,
    /// IA32_FMASK; its upper half is reserved.
    pub sfmask: u32,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS; its upper half is reserved.
    pub sysenter_cs: u32,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_PAT.
    pub pat: u64,
    /// IA32_TSC_AUX; its upper half is reserved.
    pub tsc_aux: u32,
    /// The guest's time-stamp counter when it was saved.
    pub tsc: u64,
    /// Interrupts held back for one instruction.
    pub interrupt_shadow: Shadow,
    /// An NMI handler has not yet executed its IRET.
    pub nmi_blocked: bool,
    /// An event to deliver before the next instruction.
    pub pending_event: Option<PendingEvent>,
    /// What the vCPU is doing.
    pub activity: Activity,
}

impl VcpuState {
    /// After power-on (SDM 3A table 10-1).
    pub const fn reset() -> Self {
        let data = Segment::new(0, 0, 0xffff, 0x93);
        let mut gprs = [0; 16];
        gprs[2] = 0x600;
        Self {
            gprs,
            rip: 0xfff0,
            rflags: 2,
            cr0: 0x6000_0010,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            xcr0: 1,
            efer: 0,
            cs: Segment::new(0xf000, 0xffff_0000, 0xffff, 0x9b),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: Segment::new(0, 0, 0xffff, 0x8b),
            ldtr: Segment::new(0, 0, 0xffff, 0x82),
            gdtr_base: 0,
            gdtr_limit: 0xffff,
            idtr_base: 0,
            idtr_limit: 0xffff,
            dr0: 0,
            dr1: 0,
            dr2: 0,
            dr3: 0,
            dr6: 0xffff_0ff0,
            dr7: 0x400,
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            pat: 0x0007_0406_0007_0406,
            tsc_aux: 0,
            tsc: 0,
            interrupt_shadow: Shadow::None,
            nmi_blocked: false,
            pending_event: None,
            activity: Activity::Running,
        }
    }
}
