//! The VT-x back end (Intel SDM volume 3C): runs vCPUs with EPT, VPID and unrestricted guest.
//!
//! Twin of [`crate::svm`]. Reading order: `capability` (what the machine offers, which controls are on), `cpu` (VMX operation
//! and host state), `vcpu` (the object), `entry` (into the guest and back), `hardware` (registers and events for the code that
//! decides), `state` (whole states), `dump`.
//!
//! Why unsafe: VMX instructions, MSRs, control and debug registers. One rule carries most of the arguments: a `Vcpu` is
//! *loaded* between [`Backend::load`] and [`Backend::unload`], its VMCS is then the current one of this CPU, and only then are
//! its other functions called. Decoding and every decision about values is in `godwit_vmm::exit::vmx`.

mod capability;
mod cpu;
mod dirty_log;
mod dump;
mod entry;
mod fields;
mod hardware;
mod instructions;
mod state;
mod vcpu;

use godwit_abi::HostFeatures;
use godwit_vmm::exit::Exit;
use godwit_vmm::nested::Ept;

use crate::backend::{Backend, Missing, VcpuSetup};
use crate::memory::OutOfMemory;
use capability::Capability;

pub(crate) use cpu::Cpu;
pub(crate) use vcpu::Vcpu;

/// VT-x.
pub(crate) struct Vmx;

impl Backend for Vmx {
    type Cpu = Cpu;
    type Vcpu = Vcpu;
    type Nested = Ept;

    const VENDOR: u32 = godwit_abi::VENDOR_INTEL;
    const NAME: &'static str = "VT-x";

    fn probe() -> Result<HostFeatures, Missing> {
        Ok(Capability::machine()?.features)
    }

    fn enable() -> Result<Cpu, Missing> {
        Cpu::enable()
    }

    fn disable(cpu: &mut Cpu) {
        cpu.disable();
    }

    fn create(setup: &VcpuSetup) -> Result<Vcpu, OutOfMemory> {
        Vcpu::create(setup)
    }

    fn open_ports(vcpu: &mut Vcpu, map: u64) {
        vcpu.open_ports(map);
    }

    fn load(cpu: &mut Cpu, vcpu: &mut Vcpu) {
        vcpu.make_current(cpu);
    }

    fn unload(_cpu: &mut Cpu, vcpu: &mut Vcpu) {
        vcpu.take_off();
    }

    #[inline]
    fn enter(_cpu: &mut Cpu, vcpu: &mut Vcpu, deadline_tsc: u64) -> Exit {
        entry::run(vcpu, deadline_tsc)
    }
}
