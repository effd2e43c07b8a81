//! Changing a domain that lives: disks, network devices, balloon.

use super::{OperateError, Toolstack};
use crate::build::PAGES_PER_MIB;
use crate::config::{DISKS_MAX, Disk, Mac, VIFS_MAX, Vif};
use crate::host::Hypervisor;
use crate::registry::Entry;
use crate::site::{Device, DeviceHost, Link, Site};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use godwit_abi::DomainId;

/// What balloon and memory of a domain say, for who waits for `xl mem-set`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryState {
    /// What it has, MiB.
    pub now_mib: u64,
    /// What it is to have, MiB.
    pub target_mib: u64,
}

impl<S: Site> Toolstack<S> {
    /// The entry of a domain.
    pub(super) fn known(&self, domain: DomainId) -> Result<Entry, OperateError> {
        let entry = self.registry.entry(domain);
        entry.ok_or(OperateError::Foreign(domain))
    }

    /// `xl block-attach`.
    pub async fn attach_disk(&self, domain: DomainId, disk: Disk) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let mut entry = self.known(domain)?;
        let other = |what| Err(OperateError::Other(what));
        if entry.config.disks.len() == DISKS_MAX {
            return other(format!("it has {DISKS_MAX} disks already"));
        }
        if entry
            .config
            .disks
            .iter()
            .any(|other| other.index == disk.index)
        {
            return other(format!("it has a disk {} already", disk.vdev()));
        }
        for (_, owner) in self.registry.all() {
            let mut theirs = owner.config.disks.iter();
            let clash = theirs.find(|their| their.target == disk.target);
            if clash.is_some_and(|their| !their.read_only || !disk.read_only) {
                let name = &owner.config.name;
                return other(format!("'{}' is in use by domain '{name}'", disk.target));
            }
        }
        entry.config.disks.push(disk.clone());
        entry.config.disks.sort_by_key(|disk| disk.index);
        self.attach_and_note(domain, entry, Device::Disk(disk))
            .await
    }

    /// `xl network-attach`. Returns the device's address.
    pub async fn attach_vif(&self, domain: DomainId, mut vif: Vif) -> Result<Mac, OperateError> {
        let _busy = self.reserve(domain)?;
        let mut entry = self.known(domain)?;
        if entry.config.vifs.len() == VIFS_MAX {
            let what = format!("it has {VIFS_MAX} network devices already");
            return Err(OperateError::Other(what));
        }
        let all = self.registry.all();
        let used = all.iter().flat_map(|(_, entry)| entry.config.vifs.iter());
        let taken: Vec<Mac> = used.filter_map(|vif| vif.mac).collect();
        let mac = match vif.mac {
            Some(mac) if taken.contains(&mac) => {
                return Err(OperateError::Other(format!("{mac} is in use")));
            }
            Some(mac) => mac,
            None => self.free_mac(&taken),
        };
        vif.mac = Some(mac);
        entry.config.vifs.push(vif.clone());
        self.attach_and_note(domain, entry, Device::Vif(vif))
            .await?;
        Ok(mac)
    }

    /// Attaches a device that `entry` has in its configuration already.
    async fn attach_and_note(
        &self,
        domain: DomainId,
        mut entry: Entry,
        device: Device,
    ) -> Result<(), OperateError> {
        if let Err(why) = self.site.devices().check(&device).await {
            let device = device.to_string();
            return Err(OperateError::Device { device, why });
        }
        let slot = self.attach_to(domain, &device, None, None).await?;
        entry.links.push(Link { slot, device });
        let noted = self.registry.set(self.site.hypervisor(), domain, entry);
        if let Err(status) = noted {
            // Not noted it would be lost with dom0: take it back.
            let detached = self.site.devices().detach(domain, slot).await;
            let left = detached
                .err()
                .map_or("".into(), |why| format!("; and it stays: {why}"));
            return Err(OperateError::Other(format!(
                "cannot be noted: {status}{left}"
            )));
        }
        Ok(())
    }

    /// `xl block-detach` and `xl network-detach`: the device that `wanted` picks.
    pub async fn detach(
        &self,
        domain: DomainId,
        wanted: impl Fn(&Device) -> bool,
    ) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let mut entry = self.known(domain)?;
        let at = entry.links.iter().position(|link| wanted(&link.device));
        let at = at.ok_or_else(|| OperateError::Other("it has no such device".into()))?;
        let Link { slot, device } = entry.links.remove(at);
        let detached = self.site.devices().detach(domain, slot).await;
        detached.map_err(|why| OperateError::Device {
            device: device.to_string(),
            why,
        })?;
        match &device {
            Device::Disk(gone) => entry.config.disks.retain(|disk| disk.index != gone.index),
            Device::Vif(gone) => entry.config.vifs.retain(|vif| vif.mac != gone.mac),
            Device::Console => entry.config.console = false,
            Device::Rng => entry.config.rng = false,
            Device::Balloon => entry.config.balloon = false,
        }
        Ok(self.registry.set(self.site.hypervisor(), domain, entry)?)
    }

    pub(super) fn set_balloon(&self, domain: DomainId, mib: u64) -> Result<(), OperateError> {
        let told = self
            .site
            .devices()
            .balloon_target(domain, mib * PAGES_PER_MIB);
        told.map_err(|why| OperateError::Device {
            device: Device::Balloon.to_string(),
            why,
        })
    }

    /// `xl mem-set`: what the balloon is to leave the domain. Reaching it takes the guest's time; see
    /// [`Toolstack::memory`].
    pub fn memory_set(&self, domain: DomainId, mib: u64) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let entry = self.known(domain)?;
        let other = |what| Err(OperateError::Other(what));
        if !entry.config.balloon {
            return other("it has no balloon (balloon=0)".into());
        }
        if mib == 0 || mib > entry.ceiling_mib {
            let ceiling = entry.ceiling_mib;
            return other(format!(
                "{mib} MiB is not between 1 and its maximum, {ceiling} MiB"
            ));
        }
        let now = self.memory_mib(domain)?;
        let free = self.site.hypervisor().host_info()?.free_bytes >> 20;
        if mib > now && mib - now > free {
            return other(format!(
                "{} MiB are needed and {free} MiB are free",
                mib - now
            ));
        }
        self.set_balloon(domain, mib)?;
        let noted = self
            .registry
            .change(self.site.hypervisor(), domain, |entry| {
                entry.target_mib = mib;
                entry.config.memory_mib = mib;
            });
        Ok(noted?)
    }

    /// How far a domain's memory is from its target.
    pub fn memory(&self, domain: DomainId) -> Result<MemoryState, OperateError> {
        Ok(MemoryState {
            now_mib: self.memory_mib(domain)?,
            target_mib: self.known(domain)?.target_mib,
        })
    }

    /// `xl mem-max`: what `xl mem-set` may ask for at most. A guest cannot get more than it was
    /// started with.
    pub fn memory_max(&self, domain: DomainId, mib: u64) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let entry = self.known(domain)?;
        let (least, most) = (entry.target_mib, entry.config.memory_max_mib);
        if mib < least || mib > most {
            return Err(OperateError::Other(format!(
                "{mib} MiB is not between its target, {least} MiB, and what it was started with, {most} MiB"
            )));
        }
        let hypervisor = self.site.hypervisor();
        let noted = self
            .registry
            .change(hypervisor, domain, |entry| entry.ceiling_mib = mib);
        Ok(noted?)
    }
}
