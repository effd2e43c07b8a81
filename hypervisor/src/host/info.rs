//! What the host says of itself.

use core::sync::atomic::Ordering;

use godwit_abi::{ABI_VERSION, CpuInfo, HostInfo, Status, field};

use super::{Host, Hosted};
use crate::backend::Backend;
use crate::memory::layout::ImageBorders;
use crate::platform::clock;
use crate::{cpu, memory};

impl<B: Hosted> Host<B> {
    /// One of its CPUs.
    pub(super) fn cpu(&self, index: u32) -> Result<CpuInfo, Status> {
        let block = cpu::by_index(index as usize).ok_or(Status::NotFound)?;
        let now_ns = clock::now_ns();
        let idle_ns = self
            .scheduler
            .lock()
            .dump_cpus(now_ns)
            .nth(index as usize)
            .map_or(0, |view| view.idle_ns);
        let info = CpuInfo {
            apic_id: block.apic_id,
            online: 1,
            idle_ns,
            exits: block.exits.load(Ordering::Relaxed),
            now_ns,
            domain: block.domain.load(Ordering::Relaxed),
            vcpu: block.vcpu.load(Ordering::Relaxed),
            interrupts: block.interrupts.load(Ordering::Relaxed),
        };
        Ok(info)
    }

    pub(super) fn info(&self) -> HostInfo {
        let domains = self.domains.read().iter().count() as u32;
        HostInfo {
            abi_version: ABI_VERSION,
            vendor: <B as Backend>::VENDOR,
            cpus: cpu::online().count() as u32,
            cpus_present: self.cpus_present,
            memory_bytes: memory::total_bytes(),
            free_bytes: memory::free_bytes(),
            hypervisor_bytes: memory::hypervisor_bytes() - memory::boot_bytes(),
            tsc_hz: clock::tsc_hz(),
            boot_tsc: clock::boot_tsc(),
            dom0_entry_tsc: self.dom0_entry_tsc.load(Ordering::Relaxed),
            features: self.features.bits(),
            cpu_signature: cpu::features::cpuid(1, 0).eax,
            domains,
            cpu_name: cpu::features::name(),
            version: field(concat!(env!("CARGO_PKG_VERSION"))),
            cmdline: field(&self.cmdline),
            unhandled: self.refused.load(Ordering::Relaxed),
            image_bytes: {
                let borders = ImageBorders::here();
                borders.physical_end() - borders.physical_start
            },
        }
    }
}
