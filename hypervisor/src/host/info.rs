//! What the host says of itself.

use core::sync::atomic::Ordering;

use godwit_abi::{ABI_VERSION, HostInfo, field};

use super::{Host, Hosted};
use crate::backend::Backend;
use crate::memory::layout::ImageBorders;
use crate::platform::clock;
use crate::{cpu, memory};

impl<B: Hosted> Host<B> {
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
