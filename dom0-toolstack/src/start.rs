//! What the hypervisor hands over at the entry: checked once, and copied into owned values.

use crate::{fault, heap, hypercall};
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{ABI_VERSION, MODULES_MAX, Module, START_MAGIC, StartInfo};
use godwit_toolstack::modules::BootModule;
use godwit_toolstack::net::options::HostOptions;

/// What dom0 was started with.
pub(crate) struct Boot {
    /// TSC ticks a second.
    pub(crate) tsc_hz: u64,
    /// TSC when the boot loader entered the hypervisor.
    pub(crate) boot_tsc: u64,
    /// How often dom0 was built before, since the machine was switched on.
    pub(crate) restarts: u64,
    /// The options of the dom0 module.
    pub(crate) options: HostOptions,
    /// What is wrong with them, a sentence each.
    pub(crate) problems: Vec<String>,
    /// The other boot modules.
    pub(crate) modules: Vec<BootModule<'static>>,
}

impl Boot {
    /// Checks the hand-over, readies hypercalls and heap. Ends the domain when it is not for us.
    ///
    /// # Safety
    /// To be called once, first of all, with the address in RDI at the entry.
    pub(crate) unsafe fn take(info: *const StartInfo) -> Self {
        // SAFETY: the hypervisor put a `StartInfo` there, or else it is not the hypervisor that
        // this image is for; the magic number is looked at before anything else is believed.
        let info = unsafe { info.read_unaligned() };
        if info.magic != START_MAGIC || !hypercall::choose(info.vendor) {
            // No known way to say anything to anybody.
            fault::end();
        }
        assert!(
            info.abi_version == ABI_VERSION,
            "the hypervisor speaks interface version {}, this dom0 speaks {ABI_VERSION}: boot images of one build",
            info.abi_version
        );
        // SAFETY: by the contract of `StartInfo` nothing else uses the heap's range, and this is
        // the only place that hands it over.
        unsafe { heap::start(info.heap_base, info.heap_bytes) };
        // SAFETY: address and length of a text in our memory that nobody writes.
        let arguments = unsafe { text_at(info.cmdline_address, info.cmdline_bytes) };
        let (options, problems) = HostOptions::parse(arguments);
        let count = (info.module_count as usize).min(MODULES_MAX);
        let modules = info.modules[..count].iter().map(module).collect();
        Self {
            tsc_hz: info.tsc_hz,
            boot_tsc: info.boot_tsc,
            restarts: info.restarts,
            options,
            problems,
            modules,
        }
    }
}

fn module(module: &Module) -> BootModule<'static> {
    // SAFETY: the hypervisor copied the module and its string into our memory, outside image, heap
    // and stack, for us alone; nothing in dom0 writes there.
    unsafe {
        BootModule::new(
            text_at(module.string_address, module.string_bytes),
            bytes_at(module.address, module.bytes),
        )
    }
}

/// # Safety
/// The range is mapped, initialised and never written while the domain runs; or it is empty.
unsafe fn bytes_at(address: u64, length: u64) -> &'static [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: the caller's promise; the address is not null because nothing is mapped there.
    unsafe { core::slice::from_raw_parts(address as *const u8, length as usize) }
}

/// As [`bytes_at`]; text that is not UTF-8 is cut where it stops being so.
///
/// # Safety
/// As [`bytes_at`].
unsafe fn text_at(address: u64, length: u64) -> &'static str {
    // SAFETY: the caller's promise.
    let bytes = unsafe { bytes_at(address, length) };
    godwit_abi::text(bytes)
}
