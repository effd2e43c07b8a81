//! The debug keys: what the hypervisor says of itself when dom0 cannot, or when asked by
//! `xl debug-keys`.

use core::fmt::Write;
use core::sync::atomic::Ordering;

use godwit_vmm::hardware::VcpuHardware;

use super::{Host, Hosted};
use crate::cpu;
use crate::memory;
use crate::platform::clock;

/// Writes line by line to the log.
struct LogLines;

impl Write for LogLines {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for line in text.split('\n').filter(|line| !line.is_empty()) {
            log::info!("{line}");
        }
        Ok(())
    }
}

/// Names every relevant register of a vCPU in the log.
pub(super) fn dump_vcpu(hardware: &impl VcpuHardware) {
    let mut text = alloc::string::String::new();
    if hardware.dump(&mut text).is_ok() {
        let _ = LogLines.write_str(&text);
    }
}

/// Touches an address that is never mapped: the guard page below the first stack.
#[inline(never)]
fn crash() -> ! {
    let guard = crate::memory::layout::STACK_BASE as *mut u8;
    // SAFETY: there is nothing at the address, so the write is a page fault, which is its purpose.
    unsafe { guard.write_volatile(0) };
    unreachable!("the guard page is mapped")
}

impl<B: Hosted> Host<B> {
    /// Carries out a debug key. `false`: no such key.
    pub(super) fn debug_key(&self, key: u8) -> bool {
        match key {
            b'h' | b'?' => {
                for line in [
                    "debug keys:",
                    "  h  this help",
                    "  q  domains and their vCPUs",
                    "  r  run queues of the CPUs",
                    "  m  memory",
                    "  i  devices and interrupts",
                    "  t  clocks",
                    "  D  end dom0 as if it had faulted: it is built anew",
                    "  C  crash the hypervisor on purpose: shows what an epitaph looks like",
                    "  R  restart the machine at once",
                ] {
                    log::info!("{line}");
                }
            }
            b'q' => self.dump_domains(),
            b'r' => self.dump_scheduler(),
            b'm' => self.dump_memory(),
            b'i' => self.dump_devices(),
            b't' => log::info!(
                "TSC {:#x}, {} Hz, {} ns since boot, next sleeper {:#x}",
                clock::tsc(),
                clock::tsc_hz(),
                clock::now_ns(),
                self.next_sleep.load(Ordering::Relaxed)
            ),
            b'D' => self.end_control(),
            b'C' => crash(),
            b'R' => {
                crate::platform::apic::halt_others();
                crate::platform::power::restart(&self.power)
            }
            _ => return false,
        }
        true
    }

    /// The CPU that runs dom0 next ends it (`run`).
    fn end_control(&self) {
        self.fault_control.store(true, Ordering::Release);
        if let Some(vcpu) = self
            .control
            .get()
            .and_then(|control| control.vcpus().first())
        {
            self.notify(vcpu);
        }
    }

    fn dump_domains(&self) {
        for domain in self.domains.read().iter() {
            let life = *domain.life.lock();
            log::info!(
                "domain {} '{}' {:?}, pauses {}, {} pages, {} table pages, refused {}",
                domain.id,
                domain.shape.name.lock(),
                life.stage(),
                life.pauses(),
                domain.memory.pages(),
                domain.memory.table_pages(),
                domain.refused.load(Ordering::Relaxed)
            );
            for vcpu in domain.vcpus() {
                log::info!(
                    "  vCPU {}: {} exits, RIP at its last halt {:#x}{}",
                    vcpu.index.0,
                    vcpu.exits.load(Ordering::Relaxed),
                    vcpu.last_rip.load(Ordering::Relaxed),
                    if vcpu.state.is_locked() {
                        ", on a CPU"
                    } else {
                        ""
                    }
                );
            }
        }
    }

    fn dump_scheduler(&self) {
        let now = clock::now_ns();
        let scheduler = self.scheduler.lock().clone();
        for view in scheduler.dump_cpus(now) {
            log::info!(
                "CPU {}: runs {:?}, {} waiting, idle {} ms",
                view.cpu.0,
                view.current,
                view.waiting,
                view.idle_ns / 1_000_000
            );
        }
        for view in scheduler.dump(now) {
            log::info!(
                "  {:?} vCPU {}: {:?}, ran {} ms, {} us ahead, weight {}, cap {}",
                view.domain,
                view.vcpu.0,
                view.state,
                view.ran_ns / 1_000_000,
                view.ahead_ns / 1000,
                view.weight,
                view.cap_percent
            );
        }
    }

    fn dump_memory(&self) {
        log::info!(
            "memory: {} MiB, free {} KiB, hypervisor {} KiB (boot modules {} KiB)",
            memory::total_bytes() >> 20,
            memory::free_bytes() >> 10,
            memory::hypervisor_bytes() >> 10,
            memory::boot_bytes() >> 10
        );
        for domain in self.domains.read().iter() {
            log::info!(
                "  domain {}: {} KiB, tables {} KiB",
                domain.id,
                domain.memory.pages() * 4,
                domain.memory.table_pages() * 4
            );
        }
    }

    fn dump_devices(&self) {
        for device in &self.devices {
            log::info!(
                "{:?}: {:04x}:{:04x} class {:06x} interrupts {:#x}",
                godwit_abi::PciAddress(device.address),
                device.vendor,
                device.device,
                device.class,
                device.interrupts
            );
        }
        for cpu in cpu::online() {
            log::info!(
                "CPU {} (APIC id {}): {} interrupts, {} exits",
                cpu.index,
                cpu.apic_id,
                cpu.interrupts.load(Ordering::Relaxed),
                cpu.exits.load(Ordering::Relaxed)
            );
        }
    }
}
