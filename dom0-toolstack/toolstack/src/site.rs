//! What the toolstack needs of a host besides the hypervisor, as traits: devices of guests, files of
//! the configuration partition, stores with their volumes, time and chance.
//!
//! dom0 implements them over its back ends and drivers, tests over `fake::FakeSite`. Futures are
//! polled on one vCPU and are not `Send`. An error is a sentence for the operator.

use crate::config::{Disk, DiskTarget, Mac, Vif};
use crate::host::Hypervisor;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::future::{Future, poll_fn};
use core::ops::Range;
use core::pin::Pin;
use core::task::Poll;
use godwit_abi::DomainId;
use godwit_backends::disk::Disk as BackendDisk;
use godwit_backends::storage::journal::{Journal, Record};
use godwit_backends::storage::mirror::SwitchDisk;
use godwit_backends::storage::nbd::Timer;

#[cfg(any(test, feature = "fake"))]
pub mod fake;

/// A device of a guest that dom0 serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Device {
    /// A virtio disk.
    Disk(Disk),
    /// A virtio network device; its `mac` is set.
    Vif(Vif),
    /// A virtio console.
    Console,
    /// A virtio source of entropy.
    Rng,
    /// A virtio balloon.
    Balloon,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Disk(disk) => write!(f, "disk {}", disk.vdev()),
            Device::Vif(vif) => write!(f, "vif {}", vif.mac.unwrap_or(Mac([0; 6]))),
            Device::Console => f.write_str("console"),
            Device::Rng => f.write_str("rng"),
            Device::Balloon => f.write_str("balloon"),
        }
    }
}

/// A device that a domain has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Its PCI device number in the guest.
    pub slot: u32,
    /// What it is.
    pub device: Device,
}

/// The devices of guests. A domain's devices are found by domain and PCI device number.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait DeviceHost {
    /// Why a device could not be attached now: its volume is absent or in use, its server does not
    /// answer, a port is taken. Nothing changes.
    async fn check(&self, device: &Device) -> Result<(), String>;

    /// Reaches what a device needs and what takes its time, a server, for a domain that comes from another host: so that
    /// [`DeviceHost::attach`] with that slot and a state, while the domain stands still, is quick. Attaching uses it, or finds
    /// that it does not answer any more and reaches it anew; [`DeviceHost::detach_all`] drops it. Failing leaves nothing behind.
    async fn prepare(&self, domain: DomainId, device: &Device, slot: u32) -> Result<(), String>;

    /// Gives a domain a device and returns its PCI device number: `slot` if one is given. `state` is
    /// what [`DeviceHost::save`] gave; a device with a state serves nothing and interrupts nobody until
    /// [`DeviceHost::resume`], because the platform's state is set only afterwards. Failing leaves
    /// nothing behind.
    async fn attach(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        state: Option<&[u8]>,
    ) -> Result<u32, String>;

    /// Serves a device again after a restart of dom0: the guest has its PCI function already, what its
    /// driver programmed is in the device's blob.
    async fn reattach(&self, domain: DomainId, link: &Link) -> Result<(), String>;

    /// Lets go of what the devices of a quiesced domain hold of the host, so that another domain can have its volumes,
    /// addresses and ports. The guest keeps its PCI functions; [`DeviceHost::reattach`] of each takes it back.
    async fn let_go(&self, domain: DomainId);

    /// Takes a device away from a domain that lives on.
    async fn detach(&self, domain: DomainId, slot: u32) -> Result<(), String>;

    /// Takes all devices from a domain that is about to be destroyed; requests under way are waited
    /// for. To be called also for a domain that has none.
    async fn detach_all(&self, domain: DomainId);

    /// What is between a domain's disk and what is behind it; `None` for other devices.
    fn disk(&self, domain: DomainId, slot: u32) -> Option<Rc<SwitchDisk>>;

    /// Something else is behind a disk now; `is_remote`: it may not answer for as long as it likes.
    fn disk_moved(&self, domain: DomainId, slot: u32, is_remote: bool);

    /// Waits for the requests under way of a domain that is paused, and begins no more.
    async fn quiesce(&self, domain: DomainId) -> Result<(), String>;

    /// Takes [`DeviceHost::quiesce`] back: all queues are looked at again.
    fn resume(&self, domain: DomainId);

    /// From now on notes which pages of a domain its devices write to, those that it gets later too; or ends that.
    /// Starting again keeps what was noted. What a device is writing at the moment is noted when it has been written.
    fn dirty_track(&self, domain: DomainId, on: bool);

    /// Takes what was noted since the last time: a bit a guest page, from page 0 on, as far as there are any.
    fn dirty_take(&self, domain: DomainId) -> Vec<u64>;

    /// The first and last page of each ring that a domain's devices read and write by themselves: they must have come before
    /// the devices are attached.
    fn ring_pages(&self, domain: DomainId) -> Vec<(u64, u64)>;

    /// Pages of a domain whose contents have not come and that its devices wait for: what they were asked to do there is put
    /// aside.
    fn absent_wanted(&self, domain: DomainId) -> Vec<u64>;

    /// The contents of pages have come: the devices go on with what was put aside for them.
    fn absent_filled(&self, domain: DomainId, pages: Range<u64>);

    /// The record of a quiesced device.
    fn save(&self, domain: DomainId, slot: u32) -> Result<Vec<u8>, String>;

    /// Tells a domain's balloon how many pages of 4 KiB the domain is to have.
    fn balloon_target(&self, domain: DomainId, pages: u64) -> Result<(), String>;

    /// What a domain has written to its virtio console from the absolute offset on, as far as it is
    /// kept, and the offset of its end.
    fn console_read(&self, domain: DomainId, offset: u64) -> Result<(Vec<u8>, u64), String>;

    /// Types into a domain's virtio console. Returns the bytes taken: fewer while the guest does not
    /// read.
    fn console_type(&self, domain: DomainId, bytes: &[u8]) -> Result<usize, String>;

    /// Waits until a domain writes to its virtio console; for ever when it has none.
    async fn console_changed(&self, domain: DomainId);

    /// Tells the networks of a domain that has just come from another host where it is now. Takes no
    /// time; the telling is repeated for a while.
    fn announce(&self, domain: DomainId);

    /// A few words about a device for the operator: whether its driver runs, its address.
    fn describe(&self, domain: DomainId, slot: u32) -> String;
}

/// Why a file could not be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FileError {
    /// No disk has a configuration partition.
    NoPartition,
    /// There is no such file.
    NotFound,
    /// Anything else, in words.
    Failed(String),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileError::NoPartition => f.write_str("no disk has a partition GODWIT for files"),
            FileError::NotFound => f.write_str("there is no such file"),
            FileError::Failed(why) => f.write_str(why),
        }
    }
}

/// A name in a folder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileEntry {
    /// Its name.
    pub name: String,
    /// It is a folder.
    pub is_folder: bool,
    /// Length in bytes.
    pub bytes: u64,
}

/// The configuration partition. Paths are relative to its root, with `/` between names.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Files {
    /// All of a file.
    async fn read(&self, path: &str) -> Result<Vec<u8>, FileError>;
    /// What is in a folder; `""` is the root.
    async fn list(&self, path: &str) -> Result<Vec<FileEntry>, FileError>;
    /// Writes a file, over the old one if there is one, as a whole or not at all. Makes its folder.
    async fn write(&self, path: &str, bytes: &[u8]) -> Result<(), FileError>;
    /// Removes a file.
    async fn remove(&self, path: &str) -> Result<(), FileError>;
}

/// A disk of volumes, or one that could become it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreInfo {
    /// Name of the store; `None` for a disk without one.
    pub name: Option<String>,
    /// The host's name of the disk.
    pub disk: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes that no volume has.
    pub free_bytes: u64,
    /// Volumes.
    pub volumes: usize,
}

/// A volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// Name of its store.
    pub store: String,
    /// Its name.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// What a store has room for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// Bytes of a block of its disk.
    pub block_bytes: u32,
    /// Bytes that no volume has.
    pub free_bytes: u64,
    /// The largest volume that can be made.
    pub largest_bytes: u64,
}

/// What [`NewVolume::enter`] gives.
pub type Entering<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// Room for a volume that is filled before it is one; dropped before that it leaves nothing.
pub trait NewVolume {
    /// What it holds.
    fn disk(&self) -> Rc<dyn BackendDisk>;
    /// Makes it a volume, which is open as long as somebody has the disk.
    fn enter(&self) -> Entering<'_>;
}

/// Stores and volumes.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Stores {
    /// Every disk of the host.
    async fn stores(&self) -> Result<Vec<StoreInfo>, String>;
    /// Makes a store of a disk. What is on it is lost.
    async fn create_store(&self, disk: &str, name: &str) -> Result<(), String>;
    /// What is wrong with a store, a sentence each.
    async fn check_store(&self, name: &str) -> Result<Vec<String>, String>;
    /// The volumes of one store or of all.
    async fn volumes(&self, store: Option<&str>) -> Result<Vec<VolumeInfo>, String>;
    /// Makes a volume of at least `bytes`.
    async fn create_volume(&self, store: &str, name: &str, bytes: u64) -> Result<(), String>;
    /// Removes a volume. What is on it is lost.
    async fn delete_volume(&self, store: &str, name: &str) -> Result<(), String>;
    /// Makes a volume larger, or smaller with the loss of its end.
    async fn resize_volume(&self, store: &str, name: &str, bytes: u64) -> Result<(), String>;
    /// Gives a volume another name; it may be in use.
    async fn rename_volume(&self, store: &str, name: &str, new: &str) -> Result<(), String>;
    /// What a store has room for.
    async fn room(&self, store: &str) -> Result<Room, String>;
    /// Room for a volume of at least `bytes` that `user` fills; what is there is not zeroed.
    async fn prepare_volume(
        &self,
        store: &str,
        name: &str,
        bytes: u64,
        user: &str,
    ) -> Result<Rc<dyn NewVolume>, String>;
    /// Opens a volume or an export, for the toolstack itself.
    async fn open(
        &self,
        target: &DiskTarget,
        writable: bool,
    ) -> Result<Rc<dyn godwit_backends::disk::Disk>, String>;
    /// Opens the journal of the host's own, and reads what is in it; once. `None`: no store has one.
    async fn journal(&self) -> Result<Option<(Rc<Journal>, Vec<Record>)>, String>;
    /// Memory for what is read from them.
    fn memory(&self) -> Rc<dyn godwit_backends::memory::Memory>;
}

/// A host.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Site {
    /// Its hypervisor.
    type Hypervisor: Hypervisor;
    /// Its devices of guests.
    type Devices: DeviceHost;
    /// Its files.
    type Files: Files;
    /// Its stores.
    type Stores: Stores;

    /// The host's name.
    fn name(&self) -> &str;
    /// The hypervisor.
    fn hypervisor(&self) -> &Self::Hypervisor;
    /// The devices of guests.
    fn devices(&self) -> &Self::Devices;
    /// Files.
    fn files(&self) -> &Self::Files;
    /// Stores.
    fn stores(&self) -> &Self::Stores;
    /// Fills `out` with bytes that nobody can guess, for keys; refuses, in words, when the host has no
    /// good source of them.
    fn entropy(&self, out: &mut [u8]) -> Result<(), String>;
    /// Random bytes, other ones at every call; not for keys.
    fn random(&self) -> [u8; 16];
    /// Microseconds on a clock that is never set and never goes back.
    fn now_us(&self) -> u64;
    /// Waits until that clock has come to `us`.
    async fn sleep_until(&self, us: u64);
    /// The clock that back ends wait by.
    fn timer(&self) -> Rc<dyn Timer>;
    /// Memory the toolstack may use for caches, bytes.
    fn spare_bytes(&self) -> u64;
}

/// Lets other tasks run.
pub(crate) fn yield_now() -> impl Future<Output = ()> {
    let mut yielded = false;
    poll_fn(move |context| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
}

/// A version 4 UUID (RFC 9562 section 5.4) of random bytes.
pub fn random_uuid(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}
