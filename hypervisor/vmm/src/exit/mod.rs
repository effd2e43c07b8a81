//! Why a vCPU came back: the vendor-neutral form, and the two decoders that produce it.
//!
//! `RawExit -> Exit` is pure: [`vmx`] and [`svm`] take numbers as the hardware reports them and
//! are tested on the build machine with numbers from the manuals.

pub mod svm;
pub mod vmx;

/// Length in bytes of the instruction that exited. `None`: the hardware does not say (SVM without
/// next-RIP saving) and it must be read from the guest's code.
pub type Length = Option<core::num::NonZeroU8>;

pub use crate::devices::ports::Width;

/// An IN, OUT, INS or OUTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortAccess {
    /// The port.
    pub port: u16,
    /// Its width.
    pub width: Width,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS: memory is the other side.
    pub string: bool,
    /// With a REP prefix.
    pub repeat: bool,
    /// Instruction length.
    pub length: Length,
}

/// A guest-physical access the nested tables did not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NestedFault {
    /// Guest-physical address, byte granular where the hardware says so.
    pub gpa: u64,
    /// A read.
    pub read: bool,
    /// A write.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// The address was mapped, only not for this access.
    pub mapped: bool,
}

/// An access to a control register that the hypervisor has a part in: a write to CR0 or CR4 that
/// changes bits it holds, or any to CR8.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ControlAccess {
    /// MOV to CR0 from the general register.
    WriteCr0(u8),
    /// MOV to CR4 from the general register.
    WriteCr4(u8),
    /// MOV to CR8 from the general register.
    WriteCr8(u8),
    /// MOV from CR8 to the general register.
    ReadCr8(u8),
    /// MOV to a control register, of which the hardware does not say the general register (SVM
    /// without decode assists).
    WriteUndecoded,
    /// CLTS.
    Clts,
    /// LMSW with the low 16 bits of CR0.
    Lmsw(u16),
}

/// Why the vCPU came back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// CPUID.
    Cpuid(Length),
    /// RDMSR of a register the hypervisor answers for.
    Rdmsr(Length),
    /// WRMSR, likewise.
    Wrmsr(Length),
    /// HLT.
    Hlt(Length),
    /// VMCALL on VT-x, VMMCALL on SVM.
    Hypercall(Length),
    /// Port access.
    Port(PortAccess),
    /// Nested page fault: EPT violation or NPF.
    Nested(NestedFault),
    /// An entry of the nested tables is malformed: our own bug.
    NestedMisconfigured {
        /// Guest-physical address.
        gpa: u64,
    },
    /// A host interrupt is pending on this CPU and will be taken when the host allows it.
    HostInterrupt,
    /// A host NMI.
    HostNmi,
    /// The deadline given at entry has passed.
    Deadline,
    /// The guest could take an interrupt now.
    InterruptWindow,
    /// The guest could take an NMI now.
    NmiWindow,
    /// Control register access.
    Control(ControlAccess, Length),
    /// XSETBV.
    Xsetbv(Length),
    /// INVD or WBINVD.
    CacheFlush(Length),
    /// PAUSE in a spin loop.
    Pause(Length),
    /// MONITOR, MWAIT, RDPMC, or a VMX or SVM instruction: not offered to guests.
    Forbidden,
    /// An exception the hypervisor intercepts.
    Exception(u8, Option<u32>),
    /// Triple fault, or SVM shutdown.
    TripleFault,
    /// INIT or SIPI of the host: not used by guests.
    Startup,
    /// A hardware task switch, which VT-x leaves to software.
    TaskSwitch,
    /// The page modification log is full.
    DirtyLogFull,
    /// The CPU refused to enter the guest: its own code for why.
    EntryFailed {
        /// VT-x: exit reason, or VM-instruction error with bit 63 set. SVM: exit code.
        code: u64,
        /// VT-x: exit qualification. SVM: EXITINFO1.
        detail: u64,
    },
    /// A reason nothing here knows.
    Unknown {
        /// The vendor's number.
        code: u64,
        /// The vendor's detail.
        detail: u64,
    },
}
