//! A host in memory, for tests: the fake hypervisor, devices that only note what is done with them,
//! files and volumes in maps. Every device call can be made to fail.

extern crate std;

mod kernel;

pub use kernel::kernel;

use super::*;
use crate::host::fake::FakeHypervisor;
use godwit_backends::disk::Disk as BackendDisk;
use godwit_backends::fake::{Arena, RamDisk};
use godwit_backends::memory::Memory;
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::fat::FatError;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::string::ToString;
use std::task::{Context, Poll, Waker};

/// The first PCI device number the fake gives.
pub const FIRST_SLOT: u32 = 4;
/// Block size of the fake's volumes.
pub const BLOCK_BYTES: u32 = 512;
/// Memory for what is read from volumes.
const ARENA_BYTES: usize = 4 << 20;

/// Runs a future to its end. Panics when it does not end.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..10_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("the future waits for something that never comes");
}

/// A device and the state it was attached with.
pub type Attached = (Device, Option<Vec<u8>>);

/// Devices of guests.
#[derive(Default)]
pub struct FakeDevices {
    /// What each domain has, with the state it was attached with.
    pub attached: RefCell<BTreeMap<(DomainId, u32), Attached>>,
    /// What was served again after a restart.
    pub reattached: RefCell<Vec<(DomainId, Link)>>,
    /// Domains that are quiesced.
    pub quiesced: RefCell<Vec<DomainId>>,
    /// Pages that devices have written to, of domains where that is noted. Tests write here.
    pub written: RefCell<BTreeMap<DomainId, Vec<u64>>>,
    /// What the devices of a domain write again and again.
    pub still_written: RefCell<Option<(DomainId, Vec<u64>)>>,
    /// Absent pages that devices wait for. Tests write here.
    pub wanted: RefCell<BTreeSet<u64>>,
    /// What balloons were told, pages.
    pub targets: RefCell<BTreeMap<DomainId, u64>>,
    /// What every virtio console has written.
    pub console: RefCell<Vec<u8>>,
    /// What was typed into a virtio console.
    pub typed: RefCell<Vec<u8>>,
    /// Domains that were announced.
    pub announced: RefCell<Vec<DomainId>>,
    /// Calls that can fail, made so far.
    pub calls: Cell<usize>,
    /// The call that fails, counted from 0.
    pub fail: Cell<Option<usize>>,
}

impl FakeDevices {
    fn count(&self) -> Result<(), String> {
        let call = self.calls.replace(self.calls.get() + 1);
        match self.fail.get() == Some(call) {
            true => Err("the fake fails as it was told".into()),
            false => Ok(()),
        }
    }

    /// The devices of a domain.
    pub fn of(&self, domain: DomainId) -> Vec<Device> {
        let attached = self.attached.borrow();
        let own = attached.iter().filter(|((id, _), _)| *id == domain);
        own.map(|(_, (device, _))| device.clone()).collect()
    }
}

impl DeviceHost for FakeDevices {
    async fn check(&self, device: &Device) -> Result<(), String> {
        yield_now().await;
        match device {
            Device::Disk(disk) => match &disk.target {
                DiskTarget::Volume { volume, .. } if volume == "absent" => {
                    Err("there is no volume 'absent'".into())
                }
                DiskTarget::Volume { .. } | DiskTarget::Nbd { .. } => self.count(),
            },
            Device::Vif(_) | Device::Console | Device::Rng | Device::Balloon => self.count(),
        }
    }

    async fn attach(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        state: Option<&[u8]>,
    ) -> Result<u32, String> {
        yield_now().await;
        self.count()?;
        let mut attached = self.attached.borrow_mut();
        let free = |slot: &u32| !attached.contains_key(&(domain, *slot));
        let slot = slot.or_else(|| (FIRST_SLOT..32).find(free));
        let slot = slot.filter(free).ok_or("the slot is not free")?;
        attached.insert((domain, slot), (device.clone(), state.map(Vec::from)));
        Ok(slot)
    }

    async fn reattach(&self, domain: DomainId, link: &Link) -> Result<(), String> {
        self.count()?;
        self.reattached.borrow_mut().push((domain, link.clone()));
        Ok(())
    }

    async fn detach(&self, domain: DomainId, slot: u32) -> Result<(), String> {
        self.count()?;
        let removed = self.attached.borrow_mut().remove(&(domain, slot));
        removed.map(|_| ()).ok_or("there is no such device".into())
    }

    async fn detach_all(&self, domain: DomainId) {
        yield_now().await;
        self.attached
            .borrow_mut()
            .retain(|(id, _), _| *id != domain);
        self.quiesced.borrow_mut().retain(|id| *id != domain);
    }

    async fn quiesce(&self, domain: DomainId) -> Result<(), String> {
        self.count()?;
        self.quiesced.borrow_mut().push(domain);
        Ok(())
    }

    fn resume(&self, domain: DomainId) {
        self.quiesced.borrow_mut().retain(|id| *id != domain);
    }

    fn dirty_track(&self, domain: DomainId, on: bool) {
        let mut written = self.written.borrow_mut();
        match on {
            true => drop(written.entry(domain).or_default()),
            false => drop(written.remove(&domain)),
        }
    }

    fn dirty_take(&self, domain: DomainId) -> Vec<u64> {
        let mut written = self.written.borrow_mut();
        let Some(noted) = written.get_mut(&domain) else {
            return Vec::new();
        };
        match &*self.still_written.borrow() {
            Some((restless, words)) if *restless == domain => words.clone(),
            Some(_) | None => core::mem::take(noted),
        }
    }

    fn ring_pages(&self, _: DomainId) -> Vec<(u64, u64)> {
        std::vec![(21, 22)]
    }

    fn absent_wanted(&self, _: DomainId) -> Vec<u64> {
        self.wanted.borrow().iter().copied().collect()
    }

    fn absent_filled(&self, _: DomainId, pages: Range<u64>) {
        self.wanted
            .borrow_mut()
            .retain(|page| !pages.contains(page));
    }

    fn save(&self, domain: DomainId, slot: u32) -> Result<Vec<u8>, String> {
        self.count()?;
        assert!(
            self.quiesced.borrow().contains(&domain),
            "saved while it works"
        );
        let attached = self.attached.borrow();
        let (device, _) = attached
            .get(&(domain, slot))
            .ok_or("there is no such device")?;
        Ok(std::format!("state of {device}").into_bytes())
    }

    fn balloon_target(&self, domain: DomainId, pages: u64) -> Result<(), String> {
        self.count()?;
        self.targets.borrow_mut().insert(domain, pages);
        Ok(())
    }

    fn console_read(&self, domain: DomainId, offset: u64) -> Result<(Vec<u8>, u64), String> {
        if !self.of(domain).contains(&Device::Console) {
            return Err("it has no virtio console: set console=1".into());
        }
        let console = self.console.borrow();
        let start = console.len().min(offset as usize);
        Ok((console[start..].into(), console.len() as u64))
    }

    fn console_type(&self, _: DomainId, bytes: &[u8]) -> Result<usize, String> {
        self.typed.borrow_mut().extend(bytes);
        Ok(bytes.len())
    }

    async fn console_changed(&self, _: DomainId) {
        yield_now().await;
    }

    fn announce(&self, domain: DomainId) {
        self.announced.borrow_mut().push(domain);
    }

    fn describe(&self, _: DomainId, slot: u32) -> String {
        std::format!("slot {slot}")
    }
}

/// Files, in one folder.
#[derive(Default)]
pub struct FakeFiles {
    /// By path.
    pub files: RefCell<BTreeMap<String, Vec<u8>>>,
    /// There is no partition.
    pub absent: Cell<bool>,
    /// Memory there is to read one into, if that is little.
    pub free_bytes: Cell<Option<u64>>,
}

impl FakeFiles {
    fn there(&self) -> Result<(), FileError> {
        match self.absent.get() {
            true => Err(FileError::NoPartition),
            false => Ok(()),
        }
    }
}

impl Files for FakeFiles {
    async fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        self.there()?;
        yield_now().await;
        let found = self.files.borrow().get(path).cloned();
        let found = found.ok_or(FileError::NotFound)?;
        let bytes = found.len() as u64;
        match self.free_bytes.get().is_some_and(|free| bytes > free) {
            true => Err(FileError::Failed(FatError::NoMemory { bytes }.to_string())),
            false => Ok(found),
        }
    }

    async fn list(&self, path: &str) -> Result<Vec<FileEntry>, FileError> {
        self.there()?;
        let files = self.files.borrow();
        let inside = files.iter().filter_map(|(name, bytes)| {
            let name = match path {
                "" => name.as_str(),
                folder => name.strip_prefix(folder)?.strip_prefix('/')?,
            };
            (!name.contains('/')).then(|| FileEntry {
                name: name.into(),
                is_folder: false,
                bytes: bytes.len() as u64,
            })
        });
        Ok(inside.collect())
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), FileError> {
        self.there()?;
        self.files.borrow_mut().insert(path.into(), bytes.into());
        Ok(())
    }

    async fn remove(&self, path: &str) -> Result<(), FileError> {
        self.there()?;
        let removed = self.files.borrow_mut().remove(path);
        removed.map(|_| ()).ok_or(FileError::NotFound)
    }
}

/// Volumes.
pub struct FakeStores {
    arena: Rc<dyn Memory>,
    /// By store and name.
    pub volumes: RefCell<BTreeMap<(String, String), Rc<RamDisk>>>,
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
            volumes: RefCell::default(),
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

    async fn open(&self, target: &DiskTarget, _: bool) -> Result<Rc<dyn BackendDisk>, String> {
        let missing = || std::format!("there is no volume '{target}'");
        match target {
            DiskTarget::Volume { store, volume } => {
                let key = (store.clone(), volume.clone());
                let disk = self.volumes.borrow().get(&key).cloned();
                Ok(disk.ok_or_else(missing)?)
            }
            DiskTarget::Nbd { .. } => Err(missing()),
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

/// The fake.
pub struct FakeSite {
    /// Its name.
    pub name: String,
    /// The hypervisor.
    pub hypervisor: FakeHypervisor,
    /// Devices.
    pub devices: FakeDevices,
    /// Files.
    pub files: FakeFiles,
    /// Stores.
    pub stores: FakeStores,
    /// How many random values were given.
    pub randoms: Cell<u8>,
    /// There are no numbers for keys.
    pub no_entropy: Cell<bool>,
    /// The clock; it goes on by a step whenever somebody waits for it.
    pub clock_us: Rc<Cell<u64>>,
}

/// What the fake's clock goes on by when it is looked at while somebody waits.
pub const CLOCK_STEP_US: u64 = 500;

impl Default for FakeSite {
    fn default() -> Self {
        Self {
            name: "fake".into(),
            hypervisor: FakeHypervisor::new(),
            devices: FakeDevices::default(),
            files: FakeFiles::default(),
            stores: FakeStores::default(),
            randoms: Cell::new(0),
            no_entropy: Cell::new(false),
            clock_us: Rc::default(),
        }
    }
}

impl Site for FakeSite {
    type Hypervisor = FakeHypervisor;
    type Devices = FakeDevices;
    type Files = FakeFiles;
    type Stores = FakeStores;

    fn name(&self) -> &str {
        &self.name
    }

    fn hypervisor(&self) -> &FakeHypervisor {
        &self.hypervisor
    }

    fn devices(&self) -> &FakeDevices {
        &self.devices
    }

    fn files(&self) -> &FakeFiles {
        &self.files
    }

    fn stores(&self) -> &FakeStores {
        &self.stores
    }

    fn entropy(&self, out: &mut [u8]) -> Result<(), String> {
        if self.no_entropy.get() {
            return Err("the fake has none".into());
        }
        for byte in out.iter_mut() {
            *byte = self.random()[0];
        }
        Ok(())
    }

    fn random(&self) -> [u8; 16] {
        let count = self.randoms.get().wrapping_add(1);
        self.randoms.set(count);
        [count; 16]
    }

    fn now_us(&self) -> u64 {
        self.clock_us.get()
    }

    async fn sleep_until(&self, us: u64) {
        while self.clock_us.get() < us {
            self.clock_us.set(self.clock_us.get() + CLOCK_STEP_US);
            yield_now().await;
        }
    }

    fn spare_bytes(&self) -> u64 {
        1 << 20
    }
}
