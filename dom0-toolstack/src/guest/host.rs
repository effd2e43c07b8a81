//! The devices of guests, as the toolstack asks for them.

use super::attach::From;
use super::{Guests, Kind};
use crate::hypercall::Host;
use crate::stores::HostStores;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, text};
use godwit_backends::virtio::{self, block::Block};
use godwit_toolstack::config::Disk;
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::site::{Device, DeviceHost, Link};

/// What makes devices: the functions, and what stands behind them.
pub(crate) struct Devices {
    guests: &'static Guests,
    stores: Rc<HostStores>,
}

impl Devices {
    /// Of this host.
    pub(crate) fn new(guests: &'static Guests, stores: Rc<HostStores>) -> Self {
        Self { guests, stores }
    }

    /// The device's side of a virtio function.
    async fn make(
        &self,
        domain: DomainId,
        device: &Device,
    ) -> Result<(Rc<dyn virtio::Device>, Kind), String> {
        match device {
            Device::Disk(disk) => Ok((self.block(domain, disk).await?, Kind::Disk)),
            Device::Vif(_) => Err("not implemented: vif".into()),
            Device::Console => Err("not implemented: virtio console".into()),
            Device::Rng => Err("not implemented: rng".into()),
            Device::Balloon => Err("not implemented: balloon".into()),
        }
    }

    async fn block(&self, domain: DomainId, disk: &Disk) -> Result<Rc<Block>, String> {
        let name = match Host.domain_info(domain) {
            Ok(info) => text(&info.name).to_string(),
            Err(status) => return Err(status.to_string()),
        };
        let user = format!("domain {name}, {}", disk.vdev());
        let opening = self
            .stores
            .open_target(&disk.target, !disk.read_only, &user);
        let opened = opening.await?;
        let memory = Rc::clone(&self.guests.memory) as Rc<_>;
        Ok(Block::new(opened, memory, &disk.vdev(), None))
    }

    async fn plug(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        from: From<'_>,
    ) -> Result<u32, String> {
        let (made, kind) = self.make(domain, device).await?;
        self.guests.plug(domain, made, kind, slot, from)
    }
}

impl DeviceHost for Devices {
    async fn check(&self, device: &Device) -> Result<(), String> {
        match device {
            Device::Disk(disk) => {
                let user = "a domain to be made";
                self.stores
                    .open_target(&disk.target, !disk.read_only, user)
                    .await
                    .map(drop)
            }
            Device::Vif(_) | Device::Console | Device::Rng | Device::Balloon => {
                self.make(DomainId::CONTROL, device).await.map(drop)
            }
        }
    }

    async fn attach(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        state: Option<&[u8]>,
    ) -> Result<u32, String> {
        let from = state.map_or(From::PowerOn, From::Saved);
        self.plug(domain, device, slot, from).await
    }

    async fn reattach(&self, domain: DomainId, link: &Link) -> Result<(), String> {
        let slot = Some(link.slot);
        self.plug(domain, &link.device, slot, From::Kept)
            .await
            .map(drop)
    }

    async fn detach(&self, domain: DomainId, slot: u32) -> Result<(), String> {
        self.guests.unplug(domain, slot).await
    }

    async fn detach_all(&self, domain: DomainId) {
        for slot in self.guests.slots(domain) {
            if let Err(problem) = self.guests.unplug(domain, slot).await {
                log::warn!("detach device {slot} of domain {domain}: {problem}");
            }
        }
        self.guests.forget_if_unused(domain);
    }

    async fn quiesce(&self, domain: DomainId) -> Result<(), String> {
        for function in self.guests.functions(domain) {
            function.quiesce().await;
        }
        Ok(())
    }

    fn resume(&self, domain: DomainId) {
        for function in self.guests.functions(domain) {
            function.resume();
        }
    }

    fn save(&self, domain: DomainId, slot: u32) -> Result<Vec<u8>, String> {
        let function = self.guests.function(domain, slot);
        let function = function.ok_or_else(|| format!("there is no device {slot}"))?;
        Ok(function.save())
    }

    fn balloon_target(&self, _: DomainId, _: u64) -> Result<(), String> {
        Err("not implemented: balloon".into())
    }

    fn describe(&self, domain: DomainId, slot: u32) -> String {
        match self.guests.function(domain, slot) {
            None => "not served".into(),
            Some(function) => match function.broken() {
                Some(broken) => format!("needs a reset: queue {}: {}", broken.queue, broken.error),
                None if function.features() == 0 => "no driver yet".into(),
                None => "in use".into(),
            },
        }
    }
}
