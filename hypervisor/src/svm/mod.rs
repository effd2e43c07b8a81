//! AMD SVM with nested paging: the twin of [`crate::vmx`] (APM volume 2, chapter 15).
//!
//! Needs only what every SVM with NPT has: no next-RIP saving, no decode assists, no flush by
//! ASID, no clean bits. Host interrupts are kept out of the world switch by GIF.

mod cpu;
mod dump;
mod entry;
mod maps;
mod shadow;
mod state;
mod vcpu;
mod vmcb;

use godwit_abi::{HostFeatures, VENDOR_AMD};
use godwit_vmm::exit::Exit;
use godwit_vmm::nested::Npt;

use crate::backend::{Backend, Missing, VcpuSetup};
use crate::memory::OutOfMemory;

pub(crate) use vcpu::SvmVcpu;

/// The SVM back end.
pub(crate) struct Svm;

impl Backend for Svm {
    type Cpu = cpu::SvmCpu;
    type Vcpu = SvmVcpu;
    type Nested = Npt;

    const VENDOR: u32 = VENDOR_AMD;
    const NAME: &'static str = "SVM";

    fn probe() -> Result<HostFeatures, Missing> {
        cpu::probe()
    }

    fn enable() -> Result<Self::Cpu, Missing> {
        cpu::SvmCpu::enable()
    }

    fn disable(cpu: &mut Self::Cpu) {
        cpu.disable();
    }

    fn create(setup: &VcpuSetup) -> Result<Self::Vcpu, OutOfMemory> {
        SvmVcpu::new(setup)
    }

    fn open_ports(vcpu: &mut Self::Vcpu, map: u64) {
        vcpu.open_ports(map);
    }

    fn load(cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu) {
        vcpu.load_on(cpu);
    }

    fn unload(_cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu) {
        vcpu.unload();
    }

    #[inline]
    fn enter(cpu: &mut Self::Cpu, vcpu: &mut Self::Vcpu, deadline_tsc: u64) -> Exit {
        entry::enter(cpu, vcpu, deadline_tsc)
    }
}
