//! A volume that is filled before it is one.

use super::{Reservation, Store};
use crate::storage::error::StoreError;
use crate::storage::gpt::BlockRange;
use crate::storage::volume::{Access, Extent, Volume};
use alloc::rc::Rc;
use alloc::string::{String, ToString};

/// Room for a volume that is not in the table yet: until [`NewVolume::enter`] a power cut, or dropping
/// it, leaves nothing of it.
pub struct NewVolume {
    store: Rc<Store>,
    name: String,
    range: BlockRange,
    volume: Rc<Volume>,
}

impl Store {
    /// Room for a volume of at least `bytes` that `user` fills with whatever it likes before it is one:
    /// what is there is not zeroed.
    pub fn prepare_volume(
        self: &Rc<Self>,
        name: &str,
        bytes: u64,
        user: &str,
    ) -> Result<NewVolume, StoreError> {
        let mut reserved = self.reserve(name, bytes)?;
        let range = reserved.range;
        let extent = Extent::new(Rc::clone(self.blocks.disk()), range.first, range.count);
        let opened = extent.open(Access::Write, user);
        let volume = opened.expect("nobody else knows it");
        let mut state = self.state.borrow_mut();
        state.extents.retain(|extent| !extent.users().is_empty());
        state.extents.push(extent);
        drop(state);
        // The end of the volume-to-be gives the room back.
        reserved.name = None;
        core::mem::forget(reserved);
        Ok(NewVolume {
            store: Rc::clone(self),
            name: name.to_string(),
            range,
            volume,
        })
    }
}

impl NewVolume {
    /// What it holds, open for writing. Whoever has it must not use it any more when this is dropped
    /// without having been entered.
    pub fn volume(&self) -> Rc<Volume> {
        Rc::clone(&self.volume)
    }

    /// Makes it a volume; it stays open.
    pub async fn enter(&self) -> Result<(), StoreError> {
        self.store.enter_range(&self.name, self.range).await
    }
}

impl Drop for NewVolume {
    fn drop(&mut self) {
        drop(Reservation {
            state: &self.store.state,
            range: self.range,
            name: Some(core::mem::take(&mut self.name)),
        });
    }
}
