//! This host, as the toolstack knows it. What has no back end yet answers by name.

use crate::guest::{Devices, Guests};
use crate::hypercall::Host;
use crate::random;
use crate::stores::HostStores;
use alloc::rc::Rc;
use alloc::vec::Vec;
use godwit_toolstack::operate::Toolstack;
use godwit_toolstack::site::{FileEntry, FileError, Files, Site};

/// The toolstack of this host.
pub(crate) type Tools = Toolstack<ThisHost>;

/// This host.
pub(crate) struct ThisHost {
    hypervisor: Host,
    devices: Devices,
    stores: Rc<HostStores>,
    absent: Absent,
}

impl ThisHost {
    /// There is one.
    pub(crate) fn new(guests: &'static Guests, stores: HostStores) -> Self {
        let stores = Rc::new(stores);
        Self {
            hypervisor: Host,
            devices: Devices::new(guests, Rc::clone(&stores)),
            stores,
            absent: Absent,
        }
    }
}

impl Site for ThisHost {
    type Hypervisor = Host;
    type Devices = Devices;
    type Files = Absent;
    type Stores = HostStores;

    fn hypervisor(&self) -> &Host {
        &self.hypervisor
    }

    fn devices(&self) -> &Devices {
        &self.devices
    }

    fn files(&self) -> &Absent {
        &self.absent
    }

    fn stores(&self) -> &HostStores {
        &self.stores
    }

    fn random(&self) -> [u8; 16] {
        random::bytes()
    }
}

/// What stands for files until they exist.
pub(crate) struct Absent;

fn no_files<T>() -> Result<T, FileError> {
    Err(FileError::Failed("not implemented: files".into()))
}

impl Files for Absent {
    async fn read(&self, _: &str) -> Result<Vec<u8>, FileError> {
        no_files()
    }

    async fn list(&self, _: &str) -> Result<Vec<FileEntry>, FileError> {
        no_files()
    }

    async fn write(&self, _: &str, _: &[u8]) -> Result<(), FileError> {
        no_files()
    }

    async fn remove(&self, _: &str) -> Result<(), FileError> {
        no_files()
    }
}
