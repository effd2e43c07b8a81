//! Devices of guests that only note what is done with them; of a disk or an address that two domains may not share they
//! refuse the second. Every call can be made to fail.

extern crate std;

use crate::config::DiskTarget;
use crate::site::{Device, DeviceHost, Link, yield_now};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use godwit_abi::DomainId;
use godwit_backends::storage::mirror::SwitchDisk;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

/// The first PCI device number the fake gives.
pub const FIRST_SLOT: u32 = 4;

/// A device and the state it was attached with.
pub type Attached = (Device, Option<Vec<u8>>);

/// Devices of guests.
#[derive(Default)]
pub struct FakeDevices {
    /// What each domain has, with the state it was attached with.
    pub attached: RefCell<BTreeMap<(DomainId, u32), Attached>>,
    /// What was reached for domains that have yet to get it.
    pub prepared: RefCell<BTreeSet<(DomainId, u32)>>,
    /// What was attached with a state and had not been prepared.
    pub unprepared: RefCell<Vec<(DomainId, u32)>>,
    /// What was let go of.
    pub let_go: RefCell<BTreeMap<(DomainId, u32), Attached>>,
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
    /// The disks of domains that have one behind them. Tests write here.
    pub disks: RefCell<BTreeMap<(DomainId, u32), Rc<SwitchDisk>>>,
    /// What is behind a disk now: another one, and whether that is remote.
    pub disks_moved: RefCell<Vec<(DomainId, u32, bool)>>,
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

    /// Whether no other domain has what a disk or network device has.
    fn is_free(&self, domain: DomainId, device: &Device) -> Result<(), String> {
        let attached = self.attached.borrow();
        let shared = attached.iter().any(|((id, _), (other, _))| {
            *id != domain
                && match (device, other) {
                    (Device::Disk(disk), Device::Disk(other)) => {
                        disk.target == other.target && !(disk.read_only && other.read_only)
                    }
                    (Device::Vif(vif), Device::Vif(other)) => {
                        vif.mac.is_some() && vif.mac == other.mac
                    }
                    (_, _) => false,
                }
        });
        match shared {
            true => Err(std::format!("{device} is in use")),
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

    async fn prepare(&self, domain: DomainId, _: &Device, slot: u32) -> Result<(), String> {
        yield_now().await;
        self.count()?;
        self.prepared.borrow_mut().insert((domain, slot));
        Ok(())
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
        self.is_free(domain, device)?;
        let mut attached = self.attached.borrow_mut();
        let free = |slot: &u32| !attached.contains_key(&(domain, *slot));
        let slot = slot.or_else(|| (FIRST_SLOT..32).find(free));
        let slot = slot.filter(free).ok_or("the slot is not free")?;
        let was_prepared = self.prepared.borrow_mut().remove(&(domain, slot));
        if state.is_some() && !was_prepared {
            self.unprepared.borrow_mut().push((domain, slot));
        }
        attached.insert((domain, slot), (device.clone(), state.map(Vec::from)));
        Ok(slot)
    }

    async fn reattach(&self, domain: DomainId, link: &Link) -> Result<(), String> {
        self.count()?;
        let key = (domain, link.slot);
        let freed = self.let_go.borrow().get(&key).cloned();
        if let Some(device) = freed {
            self.is_free(domain, &device.0)?;
            self.let_go.borrow_mut().remove(&key);
            self.attached.borrow_mut().insert(key, device);
        }
        self.reattached.borrow_mut().push((domain, link.clone()));
        Ok(())
    }

    async fn let_go(&self, domain: DomainId) {
        yield_now().await;
        let quiet = self.quiesced.borrow().contains(&domain);
        assert!(quiet, "let go while it works");
        let mut attached = self.attached.borrow_mut();
        let all = core::mem::take(&mut *attached);
        for (key, device) in all {
            match key.0 == domain {
                true => self.let_go.borrow_mut().insert(key, device),
                false => attached.insert(key, device),
            };
        }
        self.quiesced.borrow_mut().retain(|id| *id != domain);
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
        self.let_go.borrow_mut().retain(|(id, _), _| *id != domain);
        self.prepared.borrow_mut().retain(|(id, _)| *id != domain);
        self.quiesced.borrow_mut().retain(|id| *id != domain);
    }

    fn disk(&self, domain: DomainId, slot: u32) -> Option<Rc<SwitchDisk>> {
        self.disks.borrow().get(&(domain, slot)).cloned()
    }

    fn disk_moved(&self, domain: DomainId, slot: u32, is_remote: bool) {
        self.disks_moved
            .borrow_mut()
            .push((domain, slot, is_remote));
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
