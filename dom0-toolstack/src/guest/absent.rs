//! Memory of a guest that has yet to come from the host it was on: what the hypervisor says of it, for the guest's devices.

use super::Guests;
use crate::hypercall::Host;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::{DomainId, Status};
use godwit_backends::memory::GuestMemory;
use godwit_toolstack::host::Hypervisor;

/// Pages asked about by one call.
const PIECE_PAGES: u64 = 1 << 16;
/// Guest pages below the hole for devices and above it.
const HOLE_BYTES: u64 = 1 << 30;

/// Asks which pages are absent.
pub(super) fn read(domain: DomainId, memory: &GuestMemory) -> Result<(), Status> {
    let info = Host.domain_info(domain)?;
    let end = info.memory_pages_max + HOLE_BYTES / godwit_abi::PAGE_SIZE_BYTES;
    let (mut words, mut page) = (Vec::new(), 0);
    while page < end {
        let mut piece = vec![0; (PIECE_PAGES / 64) as usize];
        let done = Host.absent_read(domain, page, PIECE_PAGES, &mut piece)?;
        let done = done / 64 * 64;
        if done == 0 {
            return Err(Status::BadRecord);
        }
        words.extend_from_slice(&piece[..(done / 64) as usize]);
        page += done;
    }
    if words.iter().any(|word| *word != 0) {
        memory.absent().set(words);
    }
    Ok(())
}

impl Guests {
    /// The absent pages that a guest's devices wait for.
    pub(super) fn absent_wanted(&self, domain: DomainId) -> Vec<u64> {
        let domains = self.domains.borrow();
        let entry = domains.get(&domain);
        entry.map_or_else(Vec::new, |entry| entry.memory.absent().wanted())
    }

    /// Pages have come.
    pub(super) fn absent_filled(&self, domain: DomainId, pages: Range<u64>) {
        let waited = {
            let domains = self.domains.borrow();
            let entry = domains.get(&domain);
            entry.is_some_and(|entry| entry.memory.absent().fill(pages))
        };
        if waited {
            for function in self.functions(domain) {
                function.look_again();
            }
        }
    }
}
