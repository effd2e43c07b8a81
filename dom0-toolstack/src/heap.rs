//! The heap: talc over the memory that the hypervisor says nothing uses.

use core::sync::atomic::{AtomicU64, Ordering};
use talc::{TalcLock, source::Manual};

/// Of the heap, what caches may not take.
const NOT_SPARE_BYTES: u64 = 32 << 20;
/// Its size, bytes.
static BYTES: AtomicU64 = AtomicU64::new(0);

/// What caches may take of the heap, bytes.
pub(crate) fn spare_bytes() -> u64 {
    BYTES
        .load(Ordering::Relaxed)
        .saturating_sub(NOT_SPARE_BYTES)
}

/// Never contended: one vCPU and no interrupts, so whoever holds the lock lets go of it before
/// anybody else runs.
#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, Manual> = TalcLock::new(Manual);

/// Hands the heap its memory.
///
/// # Safety
/// The range is mapped, writable and used by nobody else from now on.
pub(crate) unsafe fn start(base: u64, bytes: u64) {
    BYTES.store(bytes, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    let claimed = unsafe { HEAP.lock().claim(base as *mut u8, bytes as usize) };
    assert!(
        claimed.is_some(),
        "{bytes} bytes are too few for a heap: give dom0 more memory (dom0_mem=)"
    );
}
