//! The contract of the two virtualization back ends, [`crate::vmx`] and [`crate::svm`]: twins with
//! the same functions in the same order. The vendor is matched once, when the run loop is
//! instantiated; nothing on the exit path asks which it is.

use godwit_abi::HostFeatures;
use godwit_vmm::exit::Exit;
use godwit_vmm::hardware::VcpuHardware;
use godwit_vmm::nested::Format;

use crate::memory::OutOfMemory;

/// Why this machine cannot run guests; printed as `(godwit) FATAL: ...`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Missing(pub(crate) &'static str);

/// What a new vCPU is given.
pub(crate) struct VcpuSetup {
    /// Host-physical address of the root of the domain's nested tables.
    pub(crate) nested_root: u64,
    /// VPID or ASID, unique among living vCPUs, not 0.
    pub(crate) tag: u16,
    /// The processor is to log the pages it makes dirty. Only where there is [`HostFeatures::PML`].
    pub(crate) dirty_log: bool,
}

/// A virtualization back end.
pub(crate) trait Backend: Sized + 'static {
    /// What a CPU holds while virtualization is on (VMXON region, host save area).
    type Cpu;
    /// A vCPU: VMCS or VMCB, bitmaps, registers.
    type Vcpu: VcpuHardware + Send;
    /// The format of nested tables.
    type Nested: Format;

    /// VMCALL or VMMCALL, for dom0: `godwit_abi::VENDOR_*`.
    const VENDOR: u32;
    /// `VT-x` or `SVM`.
    const NAME: &'static str;

    /// What is missing on this machine, by name, or what it offers. Changes nothing.
    fn probe() -> Result<HostFeatures, Missing>;
    /// Switches virtualization on for this CPU.
    fn enable() -> Result<Self::Cpu, Missing>;
    /// Switches it off (before a reset, so that INIT is not blocked).
    fn disable(cpu: &mut Self::Cpu);
    /// A vCPU in the reset state, loaded nowhere.
    fn create(setup: &VcpuSetup) -> Result<Self::Vcpu, OutOfMemory>;
    /// Lets the vCPU, which has never been loaded, use I/O ports by a permission map: 64 Ki bits in
    /// 16 KiB of contiguous memory that stay, a port's bit 0 for no exit, all bits above them 1.
    fn open_ports(vcpu: &mut Self::Vcpu, map: u64);
    /// Makes the vCPU current on this CPU: VMPTRLD, swapped MSRs.
    fn load(cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu);
    /// Takes it off this CPU, so that another may load it: swapped MSRs, VMCLEAR.
    fn unload(cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu);
    /// Runs the loaded vCPU until it exits, at the latest at `deadline_tsc` (host TSC; all ones for
    /// none). Called and returns with host interrupts off.
    fn enter(cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu, deadline_tsc: u64) -> Exit;
}
