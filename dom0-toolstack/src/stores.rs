//! The stores of this host, for the toolstack: its own disks, and the volumes on them.

use crate::disk::Disks;
use crate::nbd::Exports;
use crate::random;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use godwit_backends::disk::Disk;
use godwit_backends::memory::Memory;
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::error::StoreError;
use godwit_backends::storage::files::Files;
use godwit_backends::storage::gpt::Random;
use godwit_backends::storage::info::{Space, StoreOptions};
use godwit_backends::storage::journal::{Journal, Record};
use godwit_backends::storage::store::{self, Store};
use godwit_backends::storage::volume::{Access, Volume};
use godwit_toolstack::config::DiskTarget;
use godwit_toolstack::site::{Entering, NewVolume, Room, StoreInfo, Stores, VolumeInfo};

/// All disks of the host, and the stores that some of them are.
pub(crate) struct HostStores {
    exports: Exports,
    memory: Rc<dyn Memory>,
    drives: RefCell<Vec<Drive>>,
    files: RefCell<Option<Rc<Files>>>,
}

struct Drive {
    name: String,
    disk: Rc<dyn Disk>,
    /// `None`: the disk is no store, for this reason.
    store: Result<Rc<Store>, String>,
}

/// Who uses the partitions of the host's own.
const USER: &str = "this host";

/// Random numbers of the CPU's, for names of partitions.
struct Chance;

impl Random for Chance {
    fn fill(&self, out: &mut [u8]) {
        random::fill(out);
    }
}

fn words(error: impl fmt::Display) -> String {
    error.to_string()
}

impl HostStores {
    /// Looks at every disk; writes nothing.
    pub(crate) async fn open(disks: &Disks, exports: Exports) -> Self {
        let mut drives = Vec::new();
        for disk in &disks.all {
            let opened = Store::open(
                Rc::clone(&disk.disk),
                Rc::clone(&disks.memory),
                &disk.name,
                Rc::new(Chance),
            );
            let store = opened.await.map(Rc::new).map_err(words);
            if let Ok(store) = &store {
                log::info!("disk {} is the store '{}'", disk.name, store.name());
                for finding in store.findings().await {
                    log::warn!("store '{}': {finding}", store.name());
                }
            }
            drives.push(Drive {
                name: disk.name.clone(),
                disk: Rc::clone(&disk.disk),
                store,
            });
        }
        let this = Self {
            exports,
            memory: Rc::clone(&disks.memory),
            drives: RefCell::new(drives),
            files: RefCell::new(None),
        };
        for store in this.all() {
            match this.open_files(&store).await {
                Ok(files) => {
                    *this.files.borrow_mut() = Some(files);
                    break;
                }
                Err(why) => log::warn!("files of the store '{}': {why}", store.name()),
            }
        }
        this
    }

    /// The configuration partition: that of the first store that has a readable one.
    pub(crate) fn files(&self) -> Option<Rc<Files>> {
        self.files.borrow().clone()
    }

    async fn open_files(&self, store: &Store) -> Result<Rc<Files>, String> {
        let files = Files::open(self.part(store.open_files(Access::Write, USER))?);
        let files = files.await.map_err(words)?;
        if let Some(damage) = files.damage().await {
            log::warn!("files of the store '{}': {damage}", store.name());
        }
        Ok(Rc::new(files))
    }

    fn part(&self, opened: Result<Rc<Volume>, StoreError>) -> Result<Blocks, String> {
        let disk: Rc<dyn Disk> = opened.map_err(words)?;
        Ok(Blocks::new(disk, Rc::clone(&self.memory)))
    }

    /// Makes the file system and the journal of a new store.
    async fn format(&self, store: &Store) -> Result<Rc<Files>, String> {
        let journal = self.part(store.open_journal(Access::Write, USER))?;
        Journal::format(journal).await.map_err(words)?;
        let files = self.part(store.open_files(Access::Write, USER))?;
        let serial = random::bits() as u32;
        let files = Files::format(files, serial).await.map_err(words)?;
        Ok(Rc::new(files))
    }

    /// The store of a name.
    pub(crate) fn store(&self, name: &str) -> Result<Rc<Store>, String> {
        let drives = self.drives.borrow();
        let mut stores = drives.iter().filter_map(|drive| drive.store.as_ref().ok());
        match stores.find(|store| store.name() == name) {
            Some(store) => Ok(Rc::clone(store)),
            None => Err(match drives.iter().find(|drive| drive.name == name) {
                Some(Drive {
                    store: Err(why), ..
                }) => format!("disk '{name}' is no store: {why}"),
                Some(_) | None => format!("there is no store '{name}' (see 'xl store-list')"),
            }),
        }
    }

    /// All stores, by disk.
    pub(crate) fn all(&self) -> Vec<Rc<Store>> {
        let drives = self.drives.borrow();
        let stores = drives.iter().filter_map(|drive| drive.store.as_ref().ok());
        stores.cloned().collect()
    }

    /// Opens what a guest's disk, or the toolstack itself, is to read and write.
    pub(crate) async fn open_target(
        &self,
        target: &DiskTarget,
        writable: bool,
        user: &str,
    ) -> Result<Rc<dyn Disk>, String> {
        match target {
            DiskTarget::Volume { store, volume } => {
                let access = match writable {
                    true => Access::Write,
                    false => Access::Read,
                };
                let opened = self.store(store)?.open_volume(volume, access, user);
                Ok(opened.map_err(words)? as Rc<dyn Disk>)
            }
            DiskTarget::Nbd { host, port, export } => {
                let opened = self.exports.open(&self.memory, host, *port, export).await?;
                match writable && opened.geometry().read_only {
                    true => Err(format!("{target} is read-only: use access=ro")),
                    false => Ok(opened),
                }
            }
        }
    }
}

/// A volume that is filled first.
struct Prepared(store::NewVolume);

impl NewVolume for Prepared {
    fn disk(&self) -> Rc<dyn Disk> {
        self.0.volume()
    }

    fn enter(&self) -> Entering<'_> {
        Box::pin(async { self.0.enter().await.map_err(words) })
    }
}

impl Stores for HostStores {
    async fn stores(&self) -> Result<Vec<StoreInfo>, String> {
        let drives = self.drives.borrow();
        let info = |drive: &Drive| StoreInfo {
            name: drive.store.as_ref().ok().map(|store| store.name().into()),
            disk: drive.name.clone(),
            bytes: drive.disk.geometry().bytes(),
            free_bytes: drive.store.as_ref().map_or(0, |store| store.free().bytes),
            volumes: drive
                .store
                .as_ref()
                .map_or(0, |store| store.volumes().len()),
        };
        Ok(drives.iter().map(info).collect())
    }

    async fn create_store(&self, disk: &str, name: &str) -> Result<(), String> {
        let device = {
            let drives = self.drives.borrow();
            let found = drives.iter().find(|drive| drive.name == disk);
            let drive =
                found.ok_or_else(|| format!("there is no disk '{disk}' (see 'xl disk-list')"))?;
            if let Ok(store) = &drive.store {
                return Err(format!(
                    "disk '{disk}' is the store '{}' already",
                    store.name()
                ));
            }
            Rc::clone(&drive.disk)
        };
        if self.store(name).is_ok() {
            return Err(format!("there is a store '{name}' already"));
        }
        let options = StoreOptions {
            label: Some(name.into()),
            overwrite: true,
            ..StoreOptions::default()
        };
        let memory = Rc::clone(&self.memory);
        let created = Store::create(device, memory, disk, Rc::new(Chance), &options);
        let store = Rc::new(created.await.map_err(words)?);
        let files = self.format(&store).await?;
        self.files.borrow_mut().get_or_insert(files);
        let mut drives = self.drives.borrow_mut();
        if let Some(drive) = drives.iter_mut().find(|drive| drive.name == disk) {
            drive.store = Ok(store);
        }
        Ok(())
    }

    async fn check_store(&self, name: &str) -> Result<Vec<String>, String> {
        Ok(self.store(name)?.findings().await)
    }

    async fn volumes(&self, store: Option<&str>) -> Result<Vec<VolumeInfo>, String> {
        let stores = match store {
            Some(name) => alloc::vec![self.store(name)?],
            None => self.all(),
        };
        let mut all = Vec::new();
        for store in stores {
            all.extend(store.volumes().into_iter().map(|volume| VolumeInfo {
                store: store.name().into(),
                name: volume.name,
                bytes: volume.bytes,
            }));
        }
        Ok(all)
    }

    async fn create_volume(&self, store: &str, name: &str, bytes: u64) -> Result<(), String> {
        let store = self.store(store)?;
        let created = store.create_volume(name, bytes, Space::Sparse).await;
        created.map_err(words)
    }

    async fn delete_volume(&self, store: &str, name: &str) -> Result<(), String> {
        let deleted = self.store(store)?.delete_volume(name).await;
        deleted.map_err(words)
    }

    async fn resize_volume(&self, store: &str, name: &str, bytes: u64) -> Result<(), String> {
        let resized: Result<(), StoreError> = self.store(store)?.resize_volume(name, bytes).await;
        resized.map_err(words)
    }

    async fn rename_volume(&self, store: &str, name: &str, new: &str) -> Result<(), String> {
        let renamed = self.store(store)?.rename_volume(name, new).await;
        renamed.map_err(words)
    }

    async fn room(&self, store: &str) -> Result<Room, String> {
        let store = self.store(store)?;
        let free = store.free();
        Ok(Room {
            block_bytes: store.block_bytes(),
            free_bytes: free.bytes,
            largest_bytes: free.largest_bytes,
        })
    }

    async fn prepare_volume(
        &self,
        store: &str,
        name: &str,
        bytes: u64,
        user: &str,
    ) -> Result<Rc<dyn NewVolume>, String> {
        let prepared = self.store(store)?.prepare_volume(name, bytes, user);
        Ok(Rc::new(Prepared(prepared.map_err(words)?)))
    }

    async fn open(&self, target: &DiskTarget, writable: bool) -> Result<Rc<dyn Disk>, String> {
        self.open_target(target, writable, "the toolstack").await
    }

    async fn journal(&self) -> Result<Option<(Rc<Journal>, Vec<Record>)>, String> {
        let mut why = None;
        for store in self.all() {
            let opened = match self.part(store.open_journal(Access::Write, USER)) {
                Ok(blocks) => Journal::open_or_format(blocks).await.map_err(words),
                Err(error) => Err(error),
            };
            match opened {
                Ok((journal, records)) => return Ok(Some((Rc::new(journal), records))),
                Err(error) => why = Some(format!("store '{}': {error}", store.name())),
            }
        }
        match why {
            Some(why) => Err(why),
            None => Ok(None),
        }
    }

    fn memory(&self) -> Rc<dyn Memory> {
        Rc::clone(&self.memory)
    }
}
