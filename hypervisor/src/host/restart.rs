//! dom0 has faulted: it is built anew from the boot loader's modules, and the guests run on.
//!
//! What was its own is gone: memory, event ports, foreign mappings, interrupts. What it kept in the hypervisor
//! (`blobs`), its guests and their devices are still there; accesses that wait for it wait on and are asked again, and
//! every doorbell is rung, because nobody knows which were heard.
//!
//! Its devices may still write to its memory, so bus mastering is switched off before anything is built there. A
//! device that can reset its function does; others are reset by their new driver before it lets them master the bus.

use core::sync::atomic::Ordering;

use godwit_abi::{PciAddress, VcpuIndex};
use godwit_vmm::hardware::VcpuHardware;
use godwit_vmm::vcpu::Ending;

use super::domain::{Runnable, VcpuState};
use super::errand::Errand;
use super::events::Events;
use super::{Host, Hosted, dom0};
use crate::platform::{clock, pci};

const COMMAND: u16 = 4;
const COMMAND_BUS_MASTER: u32 = 1 << 2;
const CAPABILITY_EXPRESS: u8 = 0x10;
/// Device capabilities: function-level reset (PCIe 7.5.3.3).
const FLR_CAPABLE: u32 = 1 << 28;
/// Device control: initiate it.
const FLR_START: u32 = 1 << 15;
/// How long a function may take to reset (PCIe 6.6.2).
const FLR_NS: u64 = 100_000_000;
/// What a function forgets: BARs, ROM base, interrupt line.
const FORGOTTEN: [u16; 8] = [0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c];

impl<B: Hosted> Host<B> {
    /// Builds dom0 anew in place of the one that has ended, whose vCPU is loaded on this CPU.
    pub(super) fn restart_control(
        &'static self,
        slot: &Runnable<B>,
        state: &mut VcpuState<B>,
        ending: Ending,
    ) {
        let count = self.restarts.lock().next(clock::now_ns());
        let Some(count) = count else {
            panic!(
                "dom0 has ended too often ({}, {:#x}): restart the machine",
                ending.reason.text(),
                ending.detail
            );
        };
        log::error!(
            "dom0 has ended: {} ({:#x}). It is built anew (restart {count}); guests run on",
            ending.reason.text(),
            ending.detail
        );
        self.quiesce_devices();
        *self.events.lock() = Events::new();
        *self.errand.lock() = Errand::None;
        let domains: alloc::vec::Vec<_> = self.domains.read().iter().cloned().collect();
        for domain in domains.iter().filter(|domain| !domain.is_control()) {
            let unmapped = self.unmap_from_control(domain);
            assert!(
                unmapped.is_ok(),
                "whole leaves are unmapped without memory: {unmapped:?}"
            );
            domain.console_told.store(false, Ordering::Release);
            self.abandon_tracking(domain);
        }
        self.want_again();
        let entry = dom0::rebuild(self, &slot.domain, count)
            .unwrap_or_else(|error| panic!("dom0 cannot be built anew: {error}"));
        slot.inbox.forget();
        state.core = slot.domain.new_core(VcpuIndex(0));
        state.xstate.reset();
        state.xstate.load();
        state.wait_deadline = u64::MAX;
        state.halted = false;
        // Drops its translations, too.
        state.hardware.load(&entry);
        self.dom0_entry_tsc.store(clock::tsc(), Ordering::Relaxed);
    }

    /// No DMA and no interrupts from dom0's devices any more.
    fn quiesce_devices(&self) {
        for device in &self.devices {
            let address = PciAddress(device.address);
            let command = pci::read(address, COMMAND, 2);
            pci::write(address, COMMAND, 2, command & !COMMAND_BUS_MASTER);
            // The answer comes behind what the device has still written.
            pci::read(address, COMMAND, 2);
        }
        self.unbind_all_interrupts();
        let resets = self.devices.iter().filter_map(|device| {
            let address = PciAddress(device.address);
            let at = pci::capability(address, CAPABILITY_EXPRESS)?;
            let capable = pci::read(address, at + 4, 4) & FLR_CAPABLE != 0;
            capable.then(|| {
                (
                    address,
                    FORGOTTEN.map(|field| pci::read(address, field, 4)),
                    at,
                )
            })
        });
        let resets: alloc::vec::Vec<_> = resets.collect();
        if resets.is_empty() {
            return;
        }
        for (address, _, at) in &resets {
            let control = pci::read(*address, at + 8, 2);
            pci::write(*address, at + 8, 2, control | FLR_START);
        }
        let done = clock::now_ns() + FLR_NS;
        while clock::now_ns() < done {
            core::hint::spin_loop();
        }
        for (address, fields, _) in &resets {
            for (field, value) in FORGOTTEN.into_iter().zip(fields) {
                pci::write(*address, field, 4, *value);
            }
        }
    }
}
