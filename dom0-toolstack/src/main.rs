//! Domain 0: the control domain of a Godwit host, as a bare image for the hypervisor's loader.
//!
//! One vCPU, no interrupts, no threads: an executor runs cooperative tasks and sleeps in the `wait`
//! hypercall. Everything that decides is in `godwit-toolstack`; this binary touches the machine.
//!
//! Reading order: [`start`], [`executor`], [`net`], [`shell`].
#![no_std]
#![no_main]

extern crate alloc;

mod bytes;
mod clock;
mod console;
mod disk;
mod dma;
mod executor;
mod fault;
mod guest;
mod heap;
mod hypercall;
mod memory;
mod mmio;
mod nbd;
mod net;
mod pci;
mod peers;
mod ports;
mod random;
mod shell;
mod site;
mod start;
mod stores;
mod tables;
mod tcp;
mod vectors;

use godwit_abi::StartInfo;

/// What the image was built for; the hypervisor refuses another version before it runs it.
#[used]
#[unsafe(link_section = ".note.godwit")]
static ABI_NOTE: godwit_abi::note::AbiNote =
    godwit_abi::note::AbiNote::new(godwit_abi::ABI_VERSION);

core::arch::global_asm!(
    ".section .text._start,\"ax\",@progbits",
    ".global _start",
    "_start:",
    "xor ebp, ebp", // the end of every backtrace
    "and rsp, -16",
    "call {enter}",
    "ud2",
    enter = sym enter,
);

/// Entered once by `_start`, with the address that the hypervisor left in RDI.
extern "C" fn enter(info: *const StartInfo) -> ! {
    // SAFETY: this is the one call, made by the entry code with what the hypervisor passed.
    let boot = unsafe { start::Boot::take(info) };
    vectors::start();
    tables::install();
    clock::start(boot.tsc_hz, boot.boot_tsc);
    console::start(boot.options.log_level);
    executor::run(|spawner| {
        spawner.spawn(shell::run(boot, spawner).expect("spawned once"));
    })
}
