//! Godwit's hypervisor: boot, CPUs, memory, the VT-x and SVM back ends, and the wiring to
//! `godwit_vmm`, which makes the decisions.
//!
//! All unsafe code of the hypervisor is in this crate, because this is what touches the machine:
//! page tables, descriptor tables, MSRs, device registers, guest memory. Nothing here decides
//! anything a host test could have decided.
#![no_std]
#![no_main]

extern crate alloc;

mod backend;
mod boot;
mod console;
mod cpu;
mod host;
mod memory;
mod platform;
mod svm;
mod timer;
mod vmx;

use alloc::boxed::Box;
use backend::Backend;
use boot::info::BootInfo;
use platform::{acpi, apic, clock, ioapic, pci, wall};

/// What is known of the machine.
struct Machine {
    info: BootInfo,
    options: boot::options::Options,
    tables: acpi::Tables,
}

/// First Rust code, on the boot stack and the first page tables. That stack is also the run loop's
/// of the first CPU, so what is only needed once is in functions of its own: their frames go.
#[unsafe(no_mangle)]
extern "C" fn start(magic: u32, information: u32, tsc: u64) -> ! {
    let machine = prepare(magic, information, tsc);
    match virtualization() {
        Vendor::Intel => run::<vmx::Vmx>(machine),
        Vendor::Amd => run::<svm::Svm>(machine),
    }
}

/// Console, memory, this CPU, and what firmware says of the rest.
#[inline(never)]
fn prepare(magic: u32, information: u32, tsc: u64) -> Box<Machine> {
    clock::set_boot_tsc(tsc);
    cpu::descriptors::install_early();
    console::init();
    let info = boot::info::parse(magic, information)
        .unwrap_or_else(|error| refuse(format_args!("{error}: boot with multiboot2 by GRUB 2")));
    let options = boot::options::parse(&info.cmdline, |_| {});
    console::init_log(options.log_level);
    boot::options::parse(&info.cmdline, |word| {
        log::warn!("unknown option '{word}' on the command line: ignored")
    });
    log::info!("Godwit {} ({})", env!("CARGO_PKG_VERSION"), info.loader);
    memory::init(&info).unwrap_or_else(|_| too_little_memory(&info));
    if let Some((table, strings)) = info.symbols {
        cpu::symbols::init(table, strings);
    }
    apic::enable();
    cpu::install(0, apic::own_id()).unwrap_or_else(|_| too_little_memory(&info));
    apic::calibrate();
    let tables = acpi::read(info.rsdp);
    ioapic::init(&tables);
    wall::init(tables.century);
    pci::init(&tables.ecams);
    Box::new(Machine {
        info,
        options,
        tables,
    })
}

enum Vendor {
    Intel,
    Amd,
}

/// Which virtualization this CPU has; refuses the machine when it has neither.
fn virtualization() -> Vendor {
    match (vmx::Vmx::probe(), svm::Svm::probe()) {
        (Ok(_), _) => Vendor::Intel,
        (_, Ok(_)) => Vendor::Amd,
        (Err(intel), Err(amd)) => refuse(format_args!(
            "this machine cannot run guests. VT-x: {}. SVM: {}",
            intel.0, amd.0
        )),
    }
}

/// The rest of the start, for one vendor, and the run loop.
fn run<B: host::Hosted>(machine: Box<Machine>) -> ! {
    let (host, cpu) = begin::<B>(*machine);
    host.run(cpu)
}

/// Domains, the other CPUs, dom0.
#[inline(never)]
fn begin<B: host::Hosted>(machine: Machine) -> (&'static host::Host<B>, B::Cpu) {
    let Machine {
        info,
        options,
        tables,
    } = machine;
    let cpu =
        B::enable().unwrap_or_else(|missing| refuse(format_args!("{}: {}", B::NAME, missing.0)));
    let host = host::build::<B>(&info, &options, tables);
    host::dom0::create(host, info, &options)
        .unwrap_or_else(|error| refuse(format_args!("dom0 cannot be started: {error}")));
    host.start_cpus(&options);
    host.start_interrupts();
    (host, cpu)
}

fn too_little_memory(info: &BootInfo) -> ! {
    let have: u64 = info.usable.iter().map(boot::info::Range::bytes).sum();
    refuse(format_args!(
        "too little memory: {} MiB usable, at least {} MiB are needed",
        have >> 20,
        memory::MEMORY_MIN_BYTES >> 20
    ))
}

/// The machine cannot be used: says why, and stops without resetting it, so that the reason stays
/// on the screen.
fn refuse(why: core::fmt::Arguments<'_>) -> ! {
    console::last_words(format_args!("\n(godwit) FATAL: {why}\n"));
    cpu::halt_for_ever()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    cpu::epitaph::panicked(info)
}
