//! A CPU of the host: its tables, its per-CPU block, its interrupt vectors, its last words.

pub(crate) mod descriptors;
pub(crate) mod epitaph;
pub(crate) mod features;
pub(crate) mod smp;
pub(crate) mod symbols;
pub(crate) mod vectors;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::model_specific::GsBase;

use crate::memory::OutOfMemory;

/// The most CPUs used.
pub(crate) const CPUS_MAX: usize = 64;

/// What a CPU knows of itself. Reached through GS; others read the atomics.
pub(crate) struct PerCpu {
    /// Its own address, so that GS:0 yields a pointer.
    this: AtomicU64,
    pub(crate) index: u32,
    pub(crate) apic_id: u32,
    /// Raw id of the domain it runs, all ones when idle.
    pub(crate) domain: AtomicU32,
    pub(crate) vcpu: AtomicU32,
    pub(crate) exits: AtomicU64,
    pub(crate) interrupts: AtomicU64,
    /// Another CPU wants this one to look at its run queue.
    pub(crate) kicked: AtomicBool,
}

static CPUS: [AtomicPtr<PerCpu>; CPUS_MAX] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; CPUS_MAX];

impl PerCpu {
    /// Adds one to a counter that only this CPU writes: no locked instruction needed.
    pub(crate) fn bump(counter: &AtomicU64) {
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    pub(crate) fn count_interrupt(&self) {
        Self::bump(&self.interrupts);
    }
}

/// This CPU's block.
#[inline]
pub(crate) fn this() -> &'static PerCpu {
    let pointer: *const PerCpu;
    // SAFETY: `install` has pointed GS at a leaked PerCpu whose first word is its own address, and
    // both back ends restore the host's GS base on every exit.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
        &*pointer
    }
}

/// The block of CPU `index`, once it has started.
pub(crate) fn by_index(index: usize) -> Option<&'static PerCpu> {
    let pointer = CPUS.get(index)?.load(Ordering::Acquire);
    // SAFETY: non-null pointers in CPUS are leaked boxes.
    (!pointer.is_null()).then(|| unsafe { &*pointer })
}

/// CPUs that have started.
pub(crate) fn online() -> impl Iterator<Item = &'static PerCpu> {
    (0..CPUS_MAX).filter_map(by_index)
}

/// Gives this CPU its tables and its block, and switches its protections on.
pub(crate) fn install(index: u32, apic_id: u32) -> Result<(), OutOfMemory> {
    descriptors::install()?;
    features::protect();
    let block = Box::leak(Box::new(PerCpu {
        this: AtomicU64::new(0),
        index,
        apic_id,
        domain: AtomicU32::new(u32::MAX),
        vcpu: AtomicU32::new(0),
        exits: AtomicU64::new(0),
        interrupts: AtomicU64::new(0),
        kicked: AtomicBool::new(false),
    }));
    let address = core::ptr::from_ref(block) as u64;
    block.this.store(address, Ordering::Relaxed);
    GsBase::write(VirtAddr::new(address));
    CPUS[index as usize].store(block, Ordering::Release);
    Ok(())
}

/// Takes a CPU's block away again: it has started and cannot be used. Its number may be given to
/// another.
pub(crate) fn withdraw(index: u32) {
    CPUS[index as usize].store(core::ptr::null_mut(), Ordering::Release);
}

/// Stops this CPU.
pub(crate) fn halt_for_ever() -> ! {
    loop {
        // SAFETY: with interrupts off only NMI and SMI end HLT, and the loop halts again.
        unsafe { core::arch::asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
