//! The domains that the toolstack answers for: what each was made from, what it has, what is to be
//! done when it ends.
//!
//! Every entry is kept twice: here, and as a text in a blob that the hypervisor holds with the
//! domain, so that a restarted dom0 finds its domains again. The blob is written before anything
//! that it announces is done: a domain whose making was interrupted says so itself.

mod entry;
#[cfg(test)]
mod tests;

pub use entry::{Arrival, Entry, EntryError, LINKS_MAX, Phase};

use crate::config::EndAction;
use crate::host::Hypervisor;
use crate::names;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use godwit_abi::{DomainId, DomainInfo, DomainState, ShutdownReason, Status};

/// Key of the blob that holds a domain's [`Entry`].
pub const ENTRY_BLOB: u32 = 1;
/// Keys of the blobs of a domain's devices, for `DeviceHost` to use as it likes.
pub const DEVICE_BLOBS: Range<u32> = 0x100..0x200;

/// All entries. Methods borrow it for their own duration only.
#[derive(Default, Debug)]
pub struct Registry {
    entries: RefCell<BTreeMap<DomainId, Entry>>,
    /// Domains that an operation works on.
    busy: RefCell<BTreeSet<DomainId>>,
}

/// An operation works on a domain, and no other may. Ends when it is dropped.
#[derive(Debug)]
pub struct Busy<'a> {
    registry: &'a Registry,
    domain: DomainId,
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.registry.busy.borrow_mut().remove(&self.domain);
    }
}

/// What a restarted dom0 has found.
#[derive(Default, Debug)]
pub struct Recovered {
    /// Domains that go on; their devices are to be served again.
    pub found: Vec<DomainId>,
    /// Domains whose making or taking apart was interrupted; they are to be destroyed.
    pub unfinished: Vec<DomainId>,
    /// Domains that nothing usable is known of: they are left alone.
    pub unknown: Vec<(DomainId, EntryError)>,
}

impl Registry {
    /// Reserves a domain for an operation. `None`: another one works on it.
    pub fn reserve(&self, domain: DomainId) -> Option<Busy<'_>> {
        let registry = self;
        let free = self.busy.borrow_mut().insert(domain);
        // Made only then: dropping one would end what the other operation has reserved.
        free.then(|| Busy { registry, domain })
    }

    /// A copy of a domain's entry.
    pub fn entry(&self, domain: DomainId) -> Option<Entry> {
        self.entries.borrow().get(&domain).cloned()
    }

    /// Every domain with a copy of its entry.
    pub fn all(&self) -> Vec<(DomainId, Entry)> {
        let entries = self.entries.borrow();
        entries
            .iter()
            .map(|(id, entry)| (*id, entry.clone()))
            .collect()
    }

    /// Sets a domain's entry, in its blob first. A hypervisor without blobs is no error: then
    /// nothing survives a restart of dom0.
    pub fn set(
        &self,
        hypervisor: &impl Hypervisor,
        domain: DomainId,
        entry: Entry,
    ) -> Result<(), Status> {
        match hypervisor.blob_write(domain, ENTRY_BLOB, entry.encode().as_bytes()) {
            Ok(()) | Err(Status::NotSupported) => {}
            Err(status) => return Err(status),
        }
        self.entries.borrow_mut().insert(domain, entry);
        Ok(())
    }

    /// Changes a domain's entry, if it has one.
    pub fn change(
        &self,
        hypervisor: &impl Hypervisor,
        domain: DomainId,
        change: impl FnOnce(&mut Entry),
    ) -> Result<(), Status> {
        let Some(mut entry) = self.entry(domain) else {
            return Ok(());
        };
        change(&mut entry);
        self.set(hypervisor, domain, entry)
    }

    /// Forgets a domain that is gone.
    pub fn forget(&self, domain: DomainId) {
        self.entries.borrow_mut().remove(&domain);
    }

    /// Finds all domains again from what the hypervisor keeps. `is_ours` says of an attempt to bring one
    /// here that it had come to its end.
    pub fn recover(
        &self,
        hypervisor: &impl Hypervisor,
        is_ours: impl Fn(u64) -> bool,
    ) -> Result<Recovered, Status> {
        let mut recovered = Recovered::default();
        for info in names::all(hypervisor)? {
            let domain = names::id_of(&info);
            if domain == DomainId::CONTROL {
                continue;
            }
            let entry = match hypervisor.blob_read(domain, ENTRY_BLOB) {
                Ok(text) => Entry::decode(&text),
                // It was made and died before the blob was written.
                Err(Status::NotFound) if info.state == DomainState::Building as u32 => {
                    recovered.unfinished.push(domain);
                    continue;
                }
                Err(Status::NotFound | Status::NotSupported) => Err(EntryError::Absent),
                Err(Status::NoDomain) => continue,
                Err(status) => return Err(status),
            };
            match entry {
                Ok(entry) => match entry.phase {
                    Phase::Live => {
                        self.entries.borrow_mut().insert(domain, entry);
                        recovered.found.push(domain);
                    }
                    Phase::Building if entry.arrival.is_some_and(|it| is_ours(it.attempt)) => {
                        let phase = Phase::Live;
                        self.set(hypervisor, domain, Entry { phase, ..entry })?;
                        recovered.found.push(domain);
                    }
                    Phase::Building | Phase::Ending => recovered.unfinished.push(domain),
                },
                Err(error) => recovered.unknown.push((domain, error)),
            }
        }
        Ok(recovered)
    }

    /// Domains that have ended, with what is to be done now; without those that are busy and without
    /// `held`, which somebody looks at. Entries of domains that are gone are dropped.
    pub fn due(
        &self,
        hypervisor: &impl Hypervisor,
        held: Option<DomainId>,
    ) -> Vec<(DomainInfo, EndAction)> {
        let mut due = Vec::new();
        for (domain, entry) in self.all() {
            if self.busy.borrow().contains(&domain) {
                continue;
            }
            match hypervisor.domain_info(domain) {
                Ok(info) => match action_due(&info, &entry) {
                    Some(EndAction::Preserve) | None => {}
                    Some(EndAction::Destroy | EndAction::Restart) if held == Some(domain) => {}
                    Some(action @ (EndAction::Destroy | EndAction::Restart)) => {
                        due.push((info, action));
                    }
                },
                Err(Status::NoDomain) => self.forget(domain),
                // Asked again at the next change.
                Err(_refused) => {}
            }
        }
        due
    }
}

/// What is to be done with a domain; `None` while it has not ended.
fn action_due(info: &DomainInfo, entry: &Entry) -> Option<EndAction> {
    let end = entry.config.end;
    match DomainState::from_number(info.state)? {
        DomainState::Building | DomainState::Running | DomainState::Paused | DomainState::Dying => {
            None
        }
        DomainState::Crashed => Some(end.on_crash),
        DomainState::Shutdown if info.reason == ShutdownReason::Reboot as u32 => {
            Some(end.on_reboot)
        }
        // The operator's `xl reboot` presses the power button.
        DomainState::Shutdown if entry.reboot_asked => Some(EndAction::Restart),
        DomainState::Shutdown => Some(end.on_poweroff),
    }
}
