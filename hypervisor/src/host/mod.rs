//! The running host: its domains, its scheduler, its CPUs, and the wiring between exits and the
//! decisions of `godwit_vmm`.
//!
//! Locks, in the order in which they are taken: the domain list, a vCPU, a domain's life, a
//! domain's memory (a guest's before dom0's) or devices, interrupts, events, the scheduler. The serial line and the frame table
//! come last. Interrupt handlers take only the last four, and run only where a CPU holds none.

mod absent;
mod blobs;
mod caller;
pub(crate) mod calls;
mod config_space;
mod control;
pub(crate) mod debug;
mod device_state;
mod devices;
mod dirty;
pub(crate) mod dom0;
mod domain;
mod domains;
mod errand;
mod events;
mod info;
mod interrupts;
mod mapping;
mod memory;
mod platform;
mod ports;
mod rename;
mod reset;
mod restart;
mod run;
mod sleepers;
mod world;
mod xstate;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrayvec::ArrayString;
use godwit_abi::{HostFeatures, PciDevice};
use godwit_vmm::passed_ports::PortRange;
use godwit_vmm::restarts::Restarts;
use godwit_vmm::sched::{CpuIndex, CpuSet, Scheduler, VcpuKey};
use spin::mutex::TicketMutex;
use spin::once::Once;
use spin::rwlock::RwLock;

use crate::backend::Backend;
use crate::boot::info::{BootInfo, STRING_MAX};
use crate::boot::options::Options;
use crate::cpu::{self, smp, vectors};
use crate::platform::acpi::Tables;
use crate::platform::{apic, clock, ioapic, pci, power::Power};
use crate::{console, svm, vmx};
use domain::{Domain, Runnable};
use domains::Domains;
use errand::Errand;
use events::Events;
use interrupts::Interrupts;

/// A back end that has a host of its own kind: generic statics do not exist, so each back end
/// brings its cell.
pub(crate) trait Hosted: Backend {
    /// Where the one host is kept.
    fn cell() -> &'static Once<Host<Self>>;
}

impl Hosted for vmx::Vmx {
    fn cell() -> &'static Once<Host<Self>> {
        static CELL: Once<Host<vmx::Vmx>> = Once::new();
        &CELL
    }
}

impl Hosted for svm::Svm {
    fn cell() -> &'static Once<Host<Self>> {
        static CELL: Once<Host<svm::Svm>> = Once::new();
        &CELL
    }
}

/// The ISA interrupt of COM1.
const SERIAL_IRQ: u8 = 4;

/// vCPUs that sleep until a time: TSC and key. Few, so a list.
type Sleepers = Vec<(u64, VcpuKey)>;

/// Everything the CPUs share.
pub(crate) struct Host<B: Hosted> {
    pub(crate) features: HostFeatures,
    pub(crate) power: Power,
    pub(crate) cmdline: ArrayString<STRING_MAX>,
    pub(crate) cpus_present: u32,
    apic_ids: Vec<u32>,
    scheduler: TicketMutex<Scheduler>,
    sleepers: TicketMutex<Sleepers>,
    /// The earliest time in `sleepers`, so that the exit path need not take the lock.
    next_sleep: AtomicU64,
    vcpus: RwLock<Vec<Option<Runnable<B>>>>,
    domains: RwLock<Domains<B>>,
    control: Once<Arc<Domain<B>>>,
    /// What dom0 is built from, and where.
    origin: Once<dom0::Origin>,
    restarts: TicketMutex<Restarts>,
    /// A debug key asks dom0 to fault.
    fault_control: AtomicBool,
    events: TicketMutex<Events>,
    interrupts: TicketMutex<Interrupts>,
    errand: TicketMutex<Errand<B>>,
    devices: Vec<PciDevice>,
    told: devices::Told,
    /// Ports of ACPI's, which nobody else gets.
    firmware_ports: Vec<PortRange>,
    /// Things refused by name since boot.
    pub(crate) refused: AtomicU64,
    pub(crate) dom0_entry_tsc: AtomicU64,
}

/// Makes the host, without domains.
pub(crate) fn build<B: Hosted>(
    info: &BootInfo,
    options: &Options,
    tables: Tables,
) -> &'static Host<B> {
    let features = B::probe().map_or(HostFeatures::empty(), |features| features);
    let features = match options.page_log {
        true => features,
        false => features - HostFeatures::PML,
    };
    let features = if apic::is_x2apic() {
        features | HostFeatures::X2APIC
    } else {
        features
    };
    let own = apic::own_id();
    let mut apic_ids = alloc::vec![own];
    apic_ids.extend(tables.cpus.iter().copied().filter(|id| *id != own));
    apic_ids.truncate(options.cpus);
    let host = Host {
        features,
        power: tables.power,
        cmdline: info.cmdline,
        cpus_present: tables.cpus_present.max(1),
        scheduler: TicketMutex::new(Scheduler::new(apic_ids.len(), clock::now_ns())),
        apic_ids,
        sleepers: TicketMutex::new(Vec::new()),
        next_sleep: AtomicU64::new(u64::MAX),
        vcpus: RwLock::new(Vec::new()),
        domains: RwLock::new(Domains::new()),
        control: Once::new(),
        origin: Once::new(),
        restarts: TicketMutex::new(Restarts::new()),
        fault_control: AtomicBool::new(false),
        events: TicketMutex::new(Events::new()),
        interrupts: TicketMutex::new(Interrupts::new()),
        errand: TicketMutex::new(Errand::None),
        devices: pci::scan(),
        told: devices::Told::new(),
        firmware_ports: tables.ports.to_vec(),
        refused: AtomicU64::new(0),
        dom0_entry_tsc: AtomicU64::new(0),
    };
    log::info!(
        "{} on {} CPU(s), {} MiB of memory, TSC {} MHz",
        B::NAME,
        host.apic_ids.len(),
        crate::memory::total_bytes() >> 20,
        clock::tsc_hz() / 1_000_000
    );
    log::debug!("features: {features:?}");
    B::cell().call_once(|| host)
}

/// The host, from code that has no reference to it (interrupts, start-up of other CPUs).
fn the<B: Hosted>() -> &'static Host<B> {
    B::cell().get().expect("host::build has run")
}

impl<B: Hosted> Host<B> {
    /// Starts the other CPUs; each enters the run loop when it is ready.
    pub(crate) fn start_cpus(&'static self, _options: &Options) {
        let others = self.apic_ids.iter().copied().skip(1);
        let wanted = self.apic_ids.len() as u32 - 1;
        let started = smp::start(others, secondary::<B>);
        if started != wanted {
            log::warn!("{} of {wanted} further CPUs have started", started);
        }
    }

    /// Lets devices interrupt: the serial line now, others as dom0 binds them.
    pub(crate) fn start_interrupts(&'static self) {
        vectors::set_device_handler(device_interrupt::<B>);
        let line = ioapic::isa_line(SERIAL_IRQ);
        if ioapic::route(line, vectors::SERIAL, self.apic_ids[0]) {
            console::start_interrupts();
        } else {
            log::warn!("no I/O APIC takes the serial line's interrupt: the console is slow");
        }
        crate::timer::start_heartbeat(self.apic_ids[0]);
    }

    /// This CPU's number in the scheduler.
    fn here(&self) -> CpuIndex {
        CpuIndex(cpu::this().index as u8)
    }

    /// Sends "look again" to CPUs.
    fn kick(&self, set: CpuSet) {
        for index in 0..self.apic_ids.len() {
            if set.contains(CpuIndex(index as u8)) {
                self.kick_one(CpuIndex(index as u8));
            }
        }
    }

    fn kick_one(&self, target: CpuIndex) {
        let Some(target) = cpu::by_index(usize::from(target.0)) else {
            return;
        };
        target.kicked.store(true, Ordering::Release);
        if target.index != cpu::this().index {
            apic::kick(target.apic_id);
        }
    }

    /// A message waits in a vCPU's inbox: wakes it, or gets its CPU out of the guest to look. That it
    /// will look: see [`run`].
    fn notify(&self, vcpu: &domain::VcpuSlot<B>) {
        let (kick, running) = {
            let mut scheduler = self.scheduler.lock();
            let now = clock::now_ns();
            let kick = scheduler.wake(vcpu.key, now);
            (
                kick,
                scheduler.vcpu_view(vcpu.key, now).map(|view| view.state),
            )
        };
        if let Some(target) = kick {
            self.kick_one(target);
        }
        if let Some(godwit_vmm::sched::VcpuState::Running(target)) = running {
            self.kick_one(target);
        }
    }

    /// Wakes a vCPU that may be waiting.
    fn wake(&self, key: VcpuKey) {
        let kick = self.scheduler.lock().wake(key, clock::now_ns());
        if let Some(target) = kick {
            self.kick_one(target);
        }
    }

    /// Stops every other CPU, switches virtualization off on this one and does `action`, which resets or
    /// switches off the machine.
    fn stop_machine(&self, cpu: &mut B::Cpu, action: impl FnOnce(&Power)) {
        apic::halt_others();
        B::disable(cpu);
        action(&self.power);
    }
}

/// First Rust code of every CPU but the first.
extern "C" fn secondary<B: Hosted>(argument: u64) -> ! {
    let index = argument as u32;
    let apic_id = (argument >> 32) as u32;
    // Tables first: a fault before them would reset the machine.
    let ready = cpu::install(index, apic_id)
        .map_err(|_| "no memory")
        .and_then(|()| {
            apic::enable();
            B::enable().map_err(|missing| missing.0)
        });
    match ready {
        Ok(cpu) => {
            smp::arrived();
            the::<B>().run(cpu)
        }
        Err(why) => {
            log::error!("CPU {index} cannot be used: {why}");
            cpu::withdraw(index);
            cpu::halt_for_ever()
        }
    }
}

/// A device's interrupt, or the serial line's.
fn device_interrupt<B: Hosted>(vector: u8) {
    let host = the::<B>();
    if vector == vectors::SERIAL {
        if console::serve() {
            host.raise(godwit_abi::EventSource::ConsoleInput);
        }
        return;
    }
    host.device_interrupt(vector);
}
