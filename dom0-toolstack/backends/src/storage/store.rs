//! A store: a GPT disk with a partition named `GODWIT`, whose other partitions are volumes.
//!
//! Invariants: volume names are unique among those made here; blocks that will become part of a
//! volume are *reserved* while they are zeroed or filled, and enter the table only then, so an
//! operation that fails or a power cut leaves nothing half-made; whoever deletes or shrinks a
//! volume holds it open for writing meanwhile.

mod prepared;

pub use prepared::NewVolume;

use super::blocks::Blocks;
use super::copy::{copy, zero};
use super::error::StoreError;
use super::gpt::{
    ALIGNMENT_BYTES, BlockRange, Gpt, Guid, Name, Partition, Random, Table, TableError,
};
use super::info::{FreeSpace, JOURNAL_PARTITION, STORE_PARTITION, Space, StoreOptions, VolumeInfo};
use super::names::{check_name, check_text, find, is_volume, label, slot_of, unused};
use super::volume::{Access, Extent, Volume};
use crate::disk::Disk;
use crate::memory::Memory;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::mutex::Mutex;

struct State {
    table: Table,
    /// The partitions that are or were in use.
    extents: Vec<Rc<Extent>>,
    reserved: Vec<BlockRange>,
    /// Names of volumes under way.
    names: Vec<String>,
}

impl State {
    fn extent(&self, partition: &Partition) -> Option<&Rc<Extent>> {
        let mut extents = self.extents.iter();
        extents.find(|extent| extent.first() == partition.blocks.first)
    }
}

/// An open store.
pub struct Store {
    name: String,
    blocks: Blocks,
    random: Rc<dyn Random>,
    /// Who holds it may write the table.
    gpt: Mutex<NoopRawMutex, Gpt>,
    state: RefCell<State>,
}

/// Blocks and a name promised to an operation under way.
struct Reservation<'a> {
    state: &'a RefCell<State>,
    range: BlockRange,
    name: Option<String>,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.reserved.retain(|range| *range != self.range);
        state.names.retain(|name| Some(name) != self.name.as_ref());
    }
}

impl Store {
    /// Opens the store on a disk; writes nothing. `device`: the disk's name on this host.
    pub async fn open(
        disk: Rc<dyn Disk>,
        memory: Rc<dyn Memory>,
        device: &str,
        random: Rc<dyn Random>,
    ) -> Result<Store, StoreError> {
        let gpt = Gpt::open(Blocks::new(disk, memory)).await?;
        Store::over(gpt, device, random)
    }

    fn over(gpt: Gpt, device: &str, random: Rc<dyn Random>) -> Result<Store, StoreError> {
        let names = gpt.table().partitions().iter().map(|one| one.name.text());
        let name = names
            .into_iter()
            .find_map(|name| label(&name).map(str::to_string));
        let name = match name.ok_or(StoreError::NotAStore)? {
            none if none.is_empty() => device.to_string(),
            label => label,
        };
        Ok(Store {
            name,
            blocks: gpt.blocks().clone(),
            random,
            state: RefCell::new(State {
                table: gpt.table().clone(),
                extents: Vec::new(),
                reserved: Vec::new(),
                names: Vec::new(),
            }),
            gpt: Mutex::new(gpt),
        })
    }

    /// Makes a store of a disk. Its files and its journal are still to be formatted.
    pub async fn create(
        disk: Rc<dyn Disk>,
        memory: Rc<dyn Memory>,
        device: &str,
        random: Rc<dyn Random>,
        options: &StoreOptions,
    ) -> Result<Store, StoreError> {
        let mark = match options.label.as_deref() {
            None => STORE_PARTITION.to_string(),
            Some(label) => {
                check_text(label)?;
                alloc::format!("{STORE_PARTITION}:{label}")
            }
        };
        let mark = Name::new(&mark).map_err(|error| StoreError::too_long(&mark, error))?;
        let journal = Name::new(JOURNAL_PARTITION).expect("a short name");
        let blocks = Blocks::new(disk, memory);
        let mut gpt = Gpt::create(blocks, Guid::random(&*random), options.overwrite).await?;
        let mut table = gpt.table().clone();
        let size = gpt.blocks().block_bytes() as u64;
        let parts = [
            (mark, Guid::BASIC_DATA, options.files_bytes),
            (journal, Guid::LINUX_DATA, options.journal_bytes),
        ];
        for (name, kind, bytes) in parts {
            let range = table.first_fit(bytes.div_ceil(size), gpt.align(), &[])?;
            put(&mut table, name, kind, Guid::random(&*random), range)?;
        }
        gpt.commit(table).await?;
        Store::over(gpt, device, random)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with its partition tables, in words; [`Store::repair`] puts it right.
    pub async fn findings(&self) -> Vec<String> {
        self.gpt.lock().await.health().findings()
    }

    /// Repairs the partition tables. Gives what was wrong.
    pub async fn repair(&self) -> Result<Vec<String>, StoreError> {
        let mut gpt = self.gpt.lock().await;
        let found = gpt.repair().await?;
        self.state.borrow_mut().table = gpt.table().clone();
        Ok(found)
    }

    /// The partition of the configuration files, opened by `user`.
    pub fn open_files(&self, access: Access, user: &str) -> Result<Rc<Volume>, StoreError> {
        self.open_part(STORE_PARTITION, |name| label(name).is_some(), access, user)
    }

    /// The partition of the journal, opened by `user`.
    pub fn open_journal(&self, access: Access, user: &str) -> Result<Rc<Volume>, StoreError> {
        let is = |name: &str| name == JOURNAL_PARTITION;
        self.open_part(JOURNAL_PARTITION, is, access, user)
    }

    fn open_part(
        &self,
        what: &'static str,
        is: impl Fn(&str) -> bool,
        access: Access,
        user: &str,
    ) -> Result<Rc<Volume>, StoreError> {
        let state = self.state.borrow();
        let mut partitions = state.table.partitions().iter();
        let found = partitions.find(|one| is(&one.name.text())).cloned();
        drop(state);
        self.open_partition(&found.ok_or(StoreError::NoPart(what))?, access, user)
    }

    /// All volumes by their place in the table.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        let state = self.state.borrow();
        let volumes = state.table.partitions().iter().filter(|one| is_volume(one));
        volumes.map(|one| self.info(&state, one)).collect()
    }

    /// One volume.
    pub fn lookup(&self, name: &str) -> Result<VolumeInfo, StoreError> {
        let state = self.state.borrow();
        Ok(self.info(&state, &find(&state.table, name)?))
    }

    fn info(&self, state: &State, partition: &Partition) -> VolumeInfo {
        let extent = state.extent(partition);
        VolumeInfo {
            name: partition.name.text(),
            bytes: partition.blocks.count * self.blocks.block_bytes() as u64,
            kind: partition.kind,
            guid: partition.guid,
            users: extent.map_or(Vec::new(), |extent| extent.users()),
        }
    }

    /// What is left.
    pub fn free(&self) -> FreeSpace {
        let state = self.state.borrow();
        let free = state.table.free(self.align(), &state.reserved);
        let size = self.blocks.block_bytes() as u64;
        let counts = free.iter().map(|run| run.count * size);
        FreeSpace {
            bytes: counts.clone().sum(),
            largest_bytes: counts.max().unwrap_or(0),
        }
    }

    /// Bytes of a block of its disk.
    pub fn block_bytes(&self) -> u32 {
        self.blocks.block_bytes() as u32
    }

    fn align(&self) -> u64 {
        ALIGNMENT_BYTES / self.blocks.block_bytes() as u64
    }

    /// Opens a volume. `user` in words, for whoever finds it in use. The volume is in use until
    /// what this gives is dropped.
    pub fn open_volume(
        &self,
        name: &str,
        access: Access,
        user: &str,
    ) -> Result<Rc<Volume>, StoreError> {
        let partition = find(&self.state.borrow().table, name)?;
        self.open_partition(&partition, access, user)
    }

    fn open_partition(
        &self,
        partition: &Partition,
        access: Access,
        user: &str,
    ) -> Result<Rc<Volume>, StoreError> {
        let mut state = self.state.borrow_mut();
        state.extents.retain(|extent| !extent.users().is_empty());
        let extent = match state.extent(partition) {
            Some(extent) => Rc::clone(extent),
            None => {
                let BlockRange { first, count } = partition.blocks;
                let extent = Extent::new(Rc::clone(self.blocks.disk()), first, count);
                state.extents.push(Rc::clone(&extent));
                extent
            }
        };
        let volume = partition.name.text();
        let opened = extent.open(access, user);
        opened.map_err(|by| StoreError::InUse { volume, by })
    }

    /// Makes a volume of zeroes of at least `bytes`, rounded up to blocks.
    pub async fn create_volume(
        &self,
        name: &str,
        bytes: u64,
        space: Space,
    ) -> Result<(), StoreError> {
        let reserved = self.reserve(name, bytes)?;
        let BlockRange { first, count } = reserved.range;
        zero(&self.blocks, first, count, space == Space::Sparse).await?;
        self.blocks.flush().await?;
        self.enter(&reserved).await
    }

    /// Makes a volume that holds what `source` holds. `done` counts bytes.
    pub async fn import(
        &self,
        name: &str,
        source: &Blocks,
        done: &Cell<u64>,
    ) -> Result<(), StoreError> {
        let reserved = self.reserve(name, source.disk().geometry().bytes())?;
        let BlockRange { first, count } = reserved.range;
        let disk = Rc::clone(self.blocks.disk());
        // Not in the table yet, so nobody else can open it.
        let opened = Extent::new(disk, first, count).open(Access::Write, "import");
        let target: Rc<dyn Disk> = opened.expect("nobody else knows it");
        let target = Blocks::new(target, Rc::clone(self.blocks.memory()));
        copy(source, &target, done).await?;
        self.enter(&reserved).await
    }

    /// Copies a volume to the start of another disk. `done` counts bytes.
    pub async fn export(
        &self,
        name: &str,
        target: &Blocks,
        done: &Cell<u64>,
    ) -> Result<(), StoreError> {
        let source: Rc<dyn Disk> = self.open_volume(name, Access::Read, "export")?;
        let source = Blocks::new(source, Rc::clone(self.blocks.memory()));
        let volume_bytes = source.disk().geometry().bytes();
        let target_bytes = target.disk().geometry().bytes();
        if volume_bytes.next_multiple_of(target.block_bytes() as u64) > target_bytes {
            return Err(StoreError::TargetTooSmall {
                volume_bytes,
                target_bytes,
            });
        }
        Ok(copy(&source, target, done).await?)
    }

    /// Deletes a volume that nobody uses; its space is given back to the disk where it can.
    pub async fn delete_volume(&self, name: &str) -> Result<(), StoreError> {
        let _alone = self.open_volume(name, Access::Write, "deletion")?;
        let volume = find(&self.state.borrow().table, name)?;
        // Nobody takes the blocks before they are discarded.
        let reserved = self.hold(volume.blocks, None);
        self.change(|table, _| {
            table.delete(slot_of(table, &volume)?)?;
            Ok(())
        })
        .await?;
        if self.blocks.disk().geometry().can_discard {
            let BlockRange { first, count } = reserved.range;
            // The volume is gone either way, and its space will be zeroed when it is used again.
            let _ = self.blocks.disk().discard(first, count).await;
        }
        Ok(())
    }

    /// Gives a volume another name; it may be in use.
    pub async fn rename_volume(&self, name: &str, new: &str) -> Result<(), StoreError> {
        let new_name = check_name(new)?;
        let volume = find(&self.state.borrow().table, name)?;
        self.free_name(new)?;
        self.change(|table, _| {
            unused(table, new)?;
            Ok(table.rename(slot_of(table, &volume)?, new_name)?)
        })
        .await
    }

    /// Changes a volume's size, rounded up to blocks. It grows by zeroes, also while in use, when
    /// there is room behind it; it shrinks only when nobody uses it.
    pub async fn resize_volume(&self, name: &str, bytes: u64) -> Result<(), StoreError> {
        let count = bytes.div_ceil(self.blocks.block_bytes() as u64);
        let volume = find(&self.state.borrow().table, name)?;
        let old = volume.blocks;
        let _alone = match count < old.count {
            true => Some(self.open_volume(name, Access::Write, "resize")?),
            false => None,
        };
        {
            let state = self.state.borrow();
            let mut table = state.table.clone();
            table.resize(volume.slot, count, &state.reserved)?;
        }
        let more = BlockRange {
            first: old.end(),
            count: count.saturating_sub(old.count),
        };
        let _reserved = (more.count > 0).then(|| self.hold(more, None));
        zero(&self.blocks, more.first, more.count, true).await?;
        self.blocks.flush().await?;
        self.change(|table, reserved| {
            let others = reserved.iter().filter(|range| **range != more);
            let others: Vec<BlockRange> = others.copied().collect();
            let slot = slot_of(table, &volume)?;
            Ok(table.resize(slot, count, &others)?)
        })
        .await?;
        if let Some(extent) = self.state.borrow().extent(&volume) {
            extent.set_count(count);
        }
        Ok(())
    }

    fn free_name(&self, name: &str) -> Result<(), StoreError> {
        let state = self.state.borrow();
        if state.names.iter().any(|one| one == name) {
            return Err(StoreError::Exists(name.to_string()));
        }
        unused(&state.table, name)
    }

    fn reserve(&self, name: &str, bytes: u64) -> Result<Reservation<'_>, StoreError> {
        check_name(name)?;
        self.free_name(name)?;
        let count = bytes.div_ceil(self.blocks.block_bytes() as u64);
        let state = self.state.borrow();
        let range = state
            .table
            .first_fit(count, self.align(), &state.reserved)?;
        state.table.free_slot()?;
        drop(state);
        Ok(self.hold(range, Some(name.to_string())))
    }

    fn hold(&self, range: BlockRange, name: Option<String>) -> Reservation<'_> {
        let mut state = self.state.borrow_mut();
        state.reserved.push(range);
        state.names.extend(name.clone());
        Reservation {
            state: &self.state,
            range,
            name,
        }
    }

    /// A reserved range becomes a volume.
    async fn enter(&self, reserved: &Reservation<'_>) -> Result<(), StoreError> {
        let text = reserved.name.as_deref().expect("a volume has a name");
        self.enter_range(text, reserved.range).await
    }

    async fn enter_range(&self, text: &str, range: BlockRange) -> Result<(), StoreError> {
        let name = check_name(text)?;
        let guid = Guid::random(&*self.random);
        let change = |table: &mut Table, _: &[BlockRange]| {
            unused(table, text)?;
            Ok(put(table, name, Guid::LINUX_DATA, guid, range)?)
        };
        self.change(change).await
    }

    /// Changes the table on the disk; on an error it is as it was, or the disk failed.
    async fn change(
        &self,
        change: impl FnOnce(&mut Table, &[BlockRange]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut gpt = self.gpt.lock().await;
        gpt.reload().await?;
        let mut table = gpt.table().clone();
        change(&mut table, &self.state.borrow().reserved)?;
        let committed = gpt.commit(table).await;
        if committed.is_err() {
            // Which of the two tables the disk has now, it must say itself; if it cannot, the
            // next change asks again.
            let _ = gpt.reload().await;
        }
        self.state.borrow_mut().table = gpt.table().clone();
        Ok(committed?)
    }
}

fn put(
    table: &mut Table,
    name: Name,
    kind: Guid,
    guid: Guid,
    blocks: BlockRange,
) -> Result<(), TableError> {
    let slot = table.free_slot()?;
    table.insert(Partition {
        slot,
        kind,
        guid,
        blocks,
        attributes: 0,
        name,
    })
}
