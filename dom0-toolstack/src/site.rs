//! This host, as the toolstack knows it.

use crate::guest::{Devices, Guests};
use crate::heap;
use crate::hypercall::Host;
use crate::nbd::Clock;
use crate::random;
use crate::stores::HostStores;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use embassy_time::Instant;
use godwit_backends::network::networks::Networks;
use godwit_backends::storage::fat::FatError;
use godwit_backends::storage::files;
use godwit_backends::storage::nbd::Timer;
use godwit_toolstack::operate::Toolstack;
use godwit_toolstack::site::{FileEntry, FileError, Files, Site};

/// The toolstack of this host.
pub(crate) type Tools = Toolstack<ThisHost>;

/// This host.
pub(crate) struct ThisHost {
    name: String,
    hypervisor: Host,
    devices: Devices,
    stores: Rc<HostStores>,
    files: HostFiles,
}

impl ThisHost {
    /// There is one.
    pub(crate) fn new(
        name: &str,
        guests: &'static Guests,
        stores: HostStores,
        networks: Rc<Networks>,
    ) -> Self {
        let stores = Rc::new(stores);
        Self {
            name: name.to_string(),
            hypervisor: Host,
            devices: Devices::new(guests, Rc::clone(&stores), networks),
            files: HostFiles {
                stores: Rc::clone(&stores),
            },
            stores,
        }
    }
}

impl Site for ThisHost {
    type Hypervisor = Host;
    type Devices = Devices;
    type Files = HostFiles;
    type Stores = HostStores;

    fn name(&self) -> &str {
        &self.name
    }

    fn hypervisor(&self) -> &Host {
        &self.hypervisor
    }

    fn devices(&self) -> &Devices {
        &self.devices
    }

    fn files(&self) -> &HostFiles {
        &self.files
    }

    fn stores(&self) -> &HostStores {
        &self.stores
    }

    fn entropy(&self, out: &mut [u8]) -> Result<(), String> {
        random::fill_secret(out)
    }

    fn random(&self) -> [u8; 16] {
        random::bytes()
    }

    fn now_us(&self) -> u64 {
        Instant::now().as_micros()
    }

    async fn sleep_until(&self, us: u64) {
        embassy_time::Timer::at(Instant::from_micros(us)).await;
    }

    fn timer(&self) -> Rc<dyn Timer> {
        Rc::new(Clock)
    }

    fn spare_bytes(&self) -> u64 {
        heap::spare_bytes()
    }
}

/// Largest file that is read: a kernel with its ramdisk built in.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The files of the configuration partition.
pub(crate) struct HostFiles {
    stores: Rc<HostStores>,
}

impl HostFiles {
    fn partition(&self) -> Result<Rc<files::Files>, FileError> {
        self.stores.files().ok_or(FileError::NoPartition)
    }
}

fn failed(error: FatError) -> FileError {
    match error {
        FatError::NotFound(_) => FileError::NotFound,
        other => FileError::Failed(other.to_string()),
    }
}

impl Files for HostFiles {
    async fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        let partition = self.partition()?;
        partition.read(path, FILE_BYTES_MAX).await.map_err(failed)
    }

    async fn list(&self, path: &str) -> Result<Vec<FileEntry>, FileError> {
        let all = self.partition()?.list(path).await.map_err(failed)?;
        let entry = |info: files::FileInfo| FileEntry {
            name: info.name,
            is_folder: info.is_directory,
            bytes: info.bytes,
        };
        Ok(all.into_iter().map(entry).collect())
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), FileError> {
        let partition = self.partition()?;
        let written = partition.write(path, bytes).await;
        let (Err(FatError::NotFound(_)), Some((folder, _))) = (&written, path.rsplit_once('/'))
        else {
            return written.map_err(failed);
        };
        // The folder is not there yet.
        let made = partition.make_directory(folder).await;
        made.map_err(failed)?;
        partition.write(path, bytes).await.map_err(failed)
    }

    async fn remove(&self, path: &str) -> Result<(), FileError> {
        self.partition()?.delete(path).await.map_err(failed)
    }
}
