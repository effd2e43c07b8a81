//! A host in memory, for tests: the fake hypervisor, devices that only note what is done with them,
//! files and volumes in maps. Every device call can be made to fail.

extern crate std;

mod devices;
mod kernel;
mod stores;

pub use devices::{Attached, FIRST_SLOT, FakeDevices};
pub use kernel::kernel;
pub use stores::{FakeStores, Volumes};

use super::*;
use crate::host::fake::FakeHypervisor;
use godwit_backends::storage::fat::FatError;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::string::ToString;
use std::task::{Context, Poll, Waker};

/// Block size of the fake's volumes.
pub const BLOCK_BYTES: u32 = 512;

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

/// The fake's clock.
struct FakeTimer(Rc<Cell<u64>>);

impl Timer for FakeTimer {
    fn now_ms(&self) -> u64 {
        self.0.get() / 1000
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        let (clock, until_us) = (Rc::clone(&self.0), self.0.get() + ms * 1000);
        Box::pin(async move {
            while clock.get() < until_us {
                clock.set(clock.get() + CLOCK_STEP_US);
                yield_now().await;
            }
        })
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

    fn timer(&self) -> Rc<dyn Timer> {
        Rc::new(FakeTimer(Rc::clone(&self.clock_us)))
    }

    fn spare_bytes(&self) -> u64 {
        1 << 20
    }
}
