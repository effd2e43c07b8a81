//! Writes of guests' devices into guests' memory, noted for who copies it.

use super::Guests;
use crate::hypercall::Host;
use alloc::vec::Vec;
use godwit_abi::{DomainId, Status};
use godwit_backends::memory::GuestMemory;
use godwit_toolstack::host::Hypervisor;

impl Guests {
    /// Begins or ends the noting of what a guest's devices write.
    pub(super) fn track(&self, domain: DomainId, on: bool) {
        let mut tracked = self.tracked.borrow_mut();
        match on {
            true => tracked.insert(domain),
            false => tracked.remove(&domain),
        };
        if let Some(entry) = self.domains.borrow().get(&domain) {
            entry.memory.track(on);
        }
    }

    /// Takes what was noted: a bit a page.
    pub(super) fn take_dirty(&self, domain: DomainId) -> Vec<u64> {
        let domains = self.domains.borrow();
        domains
            .get(&domain)
            .map(|entry| entry.memory.harvest())
            .unwrap_or_default()
    }
}

/// The last device is gone and takes its notes with it: gives them to the hypervisor, where the next harvest finds them.
pub(super) fn give_notes(domain: DomainId, memory: &GuestMemory) {
    let mut words = &*memory.harvest();
    let mut page = 0;
    while !words.is_empty() {
        match Host.dirty_put_back(domain, page, words.len() as u64 * 64, words) {
            Ok(pages) if pages >= 64 => {
                page += pages / 64 * 64;
                words = &words[(pages / 64) as usize..];
            }
            // Nobody will ask.
            Err(Status::NoDomain) => return,
            failed => {
                log::error!("dirty pages of domain {domain} are lost: {failed:?}");
                return;
            }
        }
    }
}
