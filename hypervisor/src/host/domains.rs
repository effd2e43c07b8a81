//! The table of domains: slots with generations, so that an old id never means a new domain.

use alloc::sync::Arc;
use alloc::vec::Vec;

use godwit_abi::DomainId;

use super::Hosted;
use super::domain::Domain;

/// The most domains at a time, dom0 included.
pub(crate) const DOMAINS_MAX: usize = 256;

struct Slot<B: Hosted> {
    generation: u16,
    domain: Option<Arc<Domain<B>>>,
}

/// The domains of a host.
pub(super) struct Domains<B: Hosted> {
    slots: Vec<Slot<B>>,
}

impl<B: Hosted> Domains<B> {
    pub(super) fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// The id the next domain gets. `None`: the table is full. Ids count up as long as they can: a
    /// slot is used again only when every slot has been used as often.
    pub(super) fn next_id(&self) -> Option<DomainId> {
        let next = self.slots.len();
        let fresh = (next < DOMAINS_MAX).then(|| DomainId::new(next as u16, 0));
        // The last generation of a slot is never given out again: the slot is retired.
        let free = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.domain.is_none() && slot.generation < u16::MAX)
            .min_by_key(|(_, slot)| slot.generation)
            .map(|(index, slot)| DomainId::new(index as u16, slot.generation));
        fresh.or(free)
    }

    pub(super) fn insert(&mut self, domain: Arc<Domain<B>>) {
        let index = usize::from(domain.id.slot());
        if index == self.slots.len() {
            self.slots.push(Slot {
                generation: 0,
                domain: None,
            });
        }
        let slot = &mut self.slots[index];
        assert!(
            slot.domain.is_none() && slot.generation == domain.id.generation(),
            "slot {index} is taken"
        );
        slot.domain = Some(domain);
    }

    pub(super) fn remove(&mut self, id: DomainId) -> Option<Arc<Domain<B>>> {
        let slot = self.slots.get_mut(usize::from(id.slot()))?;
        if slot.generation != id.generation() {
            return None;
        }
        let domain = slot.domain.take()?;
        slot.generation += 1;
        Some(domain)
    }

    pub(super) fn find(&self, id: DomainId) -> Option<Arc<Domain<B>>> {
        let slot = self.slots.get(usize::from(id.slot()))?;
        if slot.generation == id.generation() {
            slot.domain.clone()
        } else {
            None
        }
    }

    /// The first domain in a slot from `slot` on.
    pub(super) fn from(&self, slot: u16) -> Option<Arc<Domain<B>>> {
        self.slots
            .get(usize::from(slot)..)?
            .iter()
            .find_map(|slot| slot.domain.clone())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Domain<B>>> {
        self.slots.iter().filter_map(|slot| slot.domain.as_ref())
    }
}
