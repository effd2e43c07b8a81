//! Stores and exports of the fake: disks in vectors.

extern crate std;

use super::*;
use godwit_backends::fake::{Arena, RamDisk};
use godwit_backends::memory::Memory;
use godwit_backends::storage::blocks::Blocks;

/// Memory for what is read from volumes.
const ARENA_BYTES: usize = 4 << 20;

/// Disks by store and name; exports by target and nothing.
pub type Volumes = Rc<RefCell<BTreeMap<(String, String), Rc<RamDisk>>>>;

/// The fake's stores that have room.
const STORES: [&str; 2] = ["main", "fast"];

/// A volume that is filled first.
struct FakeNewVolume {
    key: (String, String),
    disk: Rc<RamDisk>,
    volumes: Volumes,
}

impl NewVolume for FakeNewVolume {
    fn disk(&self) -> Rc<dyn BackendDisk> {
        Rc::clone(&self.disk) as Rc<_>
    }

    fn enter(&self) -> Entering<'_> {
        Box::pin(async {
            let mut volumes = self.volumes.borrow_mut();
            volumes.insert(self.key.clone(), Rc::clone(&self.disk));
            Ok(())
        })
    }
}

/// Volumes.
pub struct FakeStores {
    arena: Rc<dyn Memory>,
    /// By store and name.
    pub volumes: Volumes,
    /// The volume that was prepared last.
    pub prepared: RefCell<Option<Rc<RamDisk>>>,
    /// The partition of the journal, if there is one.
    pub journal_disk: RefCell<Option<Rc<dyn BackendDisk>>>,
}

impl Default for FakeStores {
    fn default() -> Self {
        Self::over(Arena::new(ARENA_BYTES))
    }
}

impl FakeStores {
    /// Stores whose disks read and write this memory.
    pub fn over(arena: Rc<dyn Memory>) -> Self {
        Self {
            arena,
            volumes: Rc::default(),
            prepared: RefCell::default(),
            journal_disk: RefCell::new(None),
        }
    }
}

impl Stores for FakeStores {
    async fn stores(&self) -> Result<Vec<StoreInfo>, String> {
        Ok(std::vec![StoreInfo {
            name: Some("main".into()),
            disk: "nvme0".into(),
            bytes: 1 << 30,
            free_bytes: 1 << 29,
            volumes: self.volumes.borrow().len(),
        }])
    }

    async fn create_store(&self, disk: &str, _: &str) -> Result<(), String> {
        Err(std::format!("'{disk}' has a store already"))
    }

    async fn check_store(&self, name: &str) -> Result<Vec<String>, String> {
        match name {
            "main" => Ok(Vec::new()),
            name => Err(std::format!("there is no store '{name}'")),
        }
    }

    async fn volumes(&self, store: Option<&str>) -> Result<Vec<VolumeInfo>, String> {
        let volumes = self.volumes.borrow();
        let wanted = volumes
            .iter()
            .filter(|((own, _), _)| store.is_none_or(|store| store == own));
        let all = wanted.map(|((store, name), disk)| VolumeInfo {
            store: store.clone(),
            name: name.clone(),
            bytes: disk.geometry().bytes(),
        });
        Ok(all.collect())
    }

    async fn create_volume(&self, store: &str, name: &str, bytes: u64) -> Result<(), String> {
        let key = (store.to_string(), name.to_string());
        if self.volumes.borrow().contains_key(&key) {
            return Err(std::format!("there is a volume '{name}' already"));
        }
        let blocks = bytes.div_ceil(BLOCK_BYTES.into());
        let disk = RamDisk::new(self.memory(), blocks, BLOCK_BYTES);
        self.volumes.borrow_mut().insert(key, disk);
        Ok(())
    }

    async fn delete_volume(&self, store: &str, name: &str) -> Result<(), String> {
        let key = (store.to_string(), name.to_string());
        let removed = self.volumes.borrow_mut().remove(&key);
        removed
            .map(|_| ())
            .ok_or(std::format!("there is no volume '{name}'"))
    }

    async fn resize_volume(&self, _: &str, _: &str, _: u64) -> Result<(), String> {
        Err("the fake's volumes stay as they are".into())
    }

    async fn rename_volume(&self, store: &str, name: &str, new: &str) -> Result<(), String> {
        let key = |name: &str| (store.to_string(), name.to_string());
        let mut volumes = self.volumes.borrow_mut();
        if volumes.contains_key(&key(new)) {
            return Err(std::format!("there is a volume '{new}' already"));
        }
        let volume = volumes.remove(&key(name));
        let volume = volume.ok_or(std::format!("there is no volume '{name}'"))?;
        volumes.insert(key(new), volume);
        Ok(())
    }

    async fn room(&self, store: &str) -> Result<Room, String> {
        match STORES.contains(&store) {
            true => Ok(Room {
                block_bytes: BLOCK_BYTES,
                free_bytes: 1 << 29,
                largest_bytes: 1 << 29,
            }),
            false => Err(std::format!("there is no store '{store}'")),
        }
    }

    async fn prepare_volume(
        &self,
        store: &str,
        name: &str,
        bytes: u64,
        _: &str,
    ) -> Result<Rc<dyn NewVolume>, String> {
        let key = (store.to_string(), name.to_string());
        let blocks = bytes.div_ceil(BLOCK_BYTES.into());
        let disk = RamDisk::new(self.memory(), blocks, BLOCK_BYTES);
        *self.prepared.borrow_mut() = Some(Rc::clone(&disk));
        let volumes = Rc::clone(&self.volumes);
        Ok(Rc::new(FakeNewVolume { key, disk, volumes }))
    }

    async fn open(&self, target: &DiskTarget, _: bool) -> Result<Rc<dyn BackendDisk>, String> {
        let missing = || std::format!("there is no volume '{target}'");
        match target {
            DiskTarget::Volume { store, volume } => {
                let key = (store.clone(), volume.clone());
                let disk = self.volumes.borrow().get(&key).cloned();
                Ok(disk.ok_or_else(missing)?)
            }
            DiskTarget::Nbd { .. } => {
                let key = (target.to_string(), String::new());
                let disk = self.volumes.borrow().get(&key).cloned();
                Ok(disk.ok_or_else(missing)?)
            }
        }
    }

    async fn journal(&self) -> Result<Option<(Rc<Journal>, Vec<Record>)>, String> {
        let Some(disk) = self.journal_disk.borrow().clone() else {
            return Ok(None);
        };
        let opened = Journal::open_or_format(Blocks::new(disk, self.memory())).await;
        let (journal, records) = opened.map_err(|error| error.to_string())?;
        Ok(Some((Rc::new(journal), records)))
    }

    fn memory(&self) -> Rc<dyn Memory> {
        Rc::clone(&self.arena)
    }
}
