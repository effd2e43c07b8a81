//! This host, as the toolstack knows it. What has no back end yet answers by name.

use crate::hypercall::Host;
use crate::random;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::DomainId;
use godwit_backends::disk::Disk;
use godwit_backends::memory::Memory;
use godwit_toolstack::config::DiskTarget;
use godwit_toolstack::operate::Toolstack;
use godwit_toolstack::site::{
    Device, DeviceHost, FileEntry, FileError, Files, Link, Site, StoreInfo, Stores, VolumeInfo,
};

/// The toolstack of this host.
pub(crate) type Tools = Toolstack<ThisHost>;

/// This host.
pub(crate) struct ThisHost {
    hypervisor: Host,
    absent: Absent,
}

impl ThisHost {
    /// There is one.
    pub(crate) fn new() -> Self {
        Self {
            hypervisor: Host,
            absent: Absent,
        }
    }
}

impl Site for ThisHost {
    type Hypervisor = Host;
    type Devices = Absent;
    type Files = Absent;
    type Stores = Absent;

    fn hypervisor(&self) -> &Host {
        &self.hypervisor
    }

    fn devices(&self) -> &Absent {
        &self.absent
    }

    fn files(&self) -> &Absent {
        &self.absent
    }

    fn stores(&self) -> &Absent {
        &self.absent
    }

    fn random(&self) -> [u8; 16] {
        random::bytes()
    }
}

/// What stands for devices, files and stores until they exist.
pub(crate) struct Absent;

fn absent<T>(what: &str) -> Result<T, String> {
    Err(format!("not implemented: {what}"))
}

impl DeviceHost for Absent {
    async fn check(&self, device: &Device) -> Result<(), String> {
        absent(&format!("{device}"))
    }

    async fn attach(
        &self,
        _: DomainId,
        device: &Device,
        _: Option<u32>,
        _: Option<&[u8]>,
    ) -> Result<u32, String> {
        absent(&format!("{device}"))
    }

    async fn reattach(&self, _: DomainId, link: &Link) -> Result<(), String> {
        absent(&format!("{}", link.device))
    }

    async fn detach(&self, _: DomainId, _: u32) -> Result<(), String> {
        absent("devices of guests")
    }

    // No domain has any.
    async fn detach_all(&self, _: DomainId) {}

    // Nothing is under way where there is no device.
    async fn quiesce(&self, _: DomainId) -> Result<(), String> {
        Ok(())
    }

    fn resume(&self, _: DomainId) {}

    fn save(&self, _: DomainId, _: u32) -> Result<Vec<u8>, String> {
        absent("devices of guests")
    }

    fn balloon_target(&self, _: DomainId, _: u64) -> Result<(), String> {
        absent("balloon")
    }

    fn describe(&self, _: DomainId, _: u32) -> String {
        String::new()
    }
}

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

const STORES: &str = "stores and volumes";

impl Stores for Absent {
    async fn stores(&self) -> Result<Vec<StoreInfo>, String> {
        absent(STORES)
    }

    async fn create_store(&self, _: &str, _: &str) -> Result<(), String> {
        absent(STORES)
    }

    async fn check_store(&self, _: &str) -> Result<Vec<String>, String> {
        absent(STORES)
    }

    async fn volumes(&self, _: Option<&str>) -> Result<Vec<VolumeInfo>, String> {
        absent(STORES)
    }

    async fn create_volume(&self, _: &str, _: &str, _: u64) -> Result<(), String> {
        absent(STORES)
    }

    async fn delete_volume(&self, _: &str, _: &str) -> Result<(), String> {
        absent(STORES)
    }

    async fn resize_volume(&self, _: &str, _: &str, _: u64) -> Result<(), String> {
        absent(STORES)
    }

    async fn open(&self, _: &DiskTarget, _: bool) -> Result<Rc<dyn Disk>, String> {
        absent(STORES)
    }

    fn memory(&self) -> Rc<dyn Memory> {
        unreachable!("asked for only once a volume is open")
    }
}
