//! Making and serving one device of a guest.

use super::absent;
use super::dirty::give_notes;
use super::{Domain, Guests, Kind, Served, Stop, keep, kept, memory, serve};
use crate::hypercall::{HYPERCALLS, input};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use embassy_time::{Duration, with_timeout};
use godwit_abi::{DEVICE_SLOT_ANY, DomainId, Status};
use godwit_backends::memory::GuestMemory;
use godwit_backends::virtio::{self, VirtioFunction};
use zerocopy::IntoBytes;

/// How long a device that goes away may take to finish, where that may take for ever.
const UNPLUG_LIMIT: Duration = Duration::from_secs(10);

/// Where a function's state comes from.
pub(super) enum From<'a> {
    /// It is new.
    PowerOn,
    /// It was saved on this or another host.
    Saved(&'a [u8]),
    /// It was kept by a dom0 that is no more; the guest has its PCI function already.
    Kept,
}

impl Guests {
    /// Gives a guest a function for `device`, at PCI device number `slot` if there is one, and
    /// begins to serve it. Failing leaves nothing behind.
    pub(super) fn plug(
        &self,
        domain: DomainId,
        device: Rc<dyn virtio::Device>,
        kind: Kind,
        slot: Option<u32>,
        from: From<'_>,
    ) -> Result<u32, String> {
        let memory = self.memory_of(domain)?;
        let plugged = self.plug_into(domain, memory, device, kind, slot, from);
        if plugged.is_err() {
            self.forget_if_unused(domain);
        }
        plugged
    }

    fn plug_into(
        &self,
        domain: DomainId,
        memory: Rc<GuestMemory>,
        device: Rc<dyn virtio::Device>,
        kind: Kind,
        slot: Option<u32>,
        from: From<'_>,
    ) -> Result<u32, String> {
        let pin = Self::interrupts(domain);
        let function = VirtioFunction::new(memory, device, Rc::clone(&pin) as Rc<_>);
        let slot = match from {
            From::Kept => slot.ok_or("a device that was kept has a PCI device number")?,
            From::PowerOn | From::Saved(_) => {
                let mut definition = function.definition();
                definition.slot = slot.unwrap_or(DEVICE_SLOT_ANY);
                let (address, length) = input(definition.as_bytes());
                HYPERCALLS
                    .device_add(domain, address, length)
                    .map_err(|status| format!("add a PCI function: {status}"))?
            }
        };
        pin.slot.set(slot);
        let begun = self.begin(domain, slot, &function, kind, &from);
        if begun.is_err() && !matches!(from, From::Kept) {
            remove(domain, slot);
        }
        begun.map(|()| slot)
    }

    fn begin(
        &self,
        domain: DomainId,
        slot: u32,
        function: &Rc<VirtioFunction>,
        kind: Kind,
        from: &From<'_>,
    ) -> Result<(), String> {
        let restored = match from {
            From::PowerOn => Ok(()),
            From::Saved(state) => function.restore(state),
            From::Kept => function.restore(&kept(domain, slot)?),
        };
        restored.map_err(|error| error.to_string())?;
        keep(domain, slot, function).map_err(|status| format!("keep its state: {status}"))?;
        if let Kind::Balloon(_, pages) = &kind {
            *pages.guest.borrow_mut() = Rc::downgrade(function.memory());
        }
        let stop = Rc::new(Stop::default());
        let task = serve(Rc::clone(function), Rc::clone(&stop))
            .map_err(|_| "too many devices are served; take some away".to_string())?;
        let mut domains = self.domains.borrow_mut();
        let entry = domains.get_mut(&domain).ok_or("the domain is gone")?;
        let served = Served {
            function: Rc::clone(function),
            kind,
            stop,
        };
        entry.functions.insert(slot, served);
        drop(domains);
        // What was saved stays silent until the rest of the guest is restored: `DeviceHost::resume`.
        if matches!(from, From::Kept) {
            function.resume();
        }
        self.spawner.spawn(task);
        Ok(())
    }

    /// Ends the serving of a function, when what is under way is done.
    pub(super) async fn unplug(&self, domain: DomainId, slot: u32) -> Result<(), String> {
        let served = {
            let mut domains = self.domains.borrow_mut();
            let entry = domains.get_mut(&domain);
            entry.and_then(|entry| entry.functions.remove(&slot))
        };
        let served = served.ok_or_else(|| format!("there is no device {slot}"))?;
        // What waits on somebody else, a server or the host's free memory, must not keep a domain
        // from ending. No device of the host has a part in it, so dropping it is safe at any time.
        match &served.kind {
            Kind::Disk { is_remote, .. } if !is_remote.get() => served.function.quiesce().await,
            Kind::Disk { .. }
            | Kind::Vif(_)
            | Kind::Console(_)
            | Kind::Rng
            | Kind::Balloon(_, _) => {
                let quiet = with_timeout(UNPLUG_LIMIT, served.function.quiesce()).await;
                if quiet.is_err() {
                    log::warn!("device {slot} of domain {domain}: what it was doing is given up");
                }
            }
        }
        served.stop.asked.signal(());
        served.stop.ended.wait().await;
        remove(domain, slot);
        drop(served);
        self.forget_if_unused(domain);
        Ok(())
    }

    /// Ends the serving of a quiesced function that its guest keeps: what it was is kept for [`From::Kept`].
    pub(super) async fn let_go(&self, domain: DomainId, slot: u32) {
        let served = {
            let mut domains = self.domains.borrow_mut();
            let entry = domains.get_mut(&domain);
            entry.and_then(|entry| entry.functions.remove(&slot))
        };
        let Some(served) = served else {
            return;
        };
        if let Err(status) = keep(domain, slot, &served.function) {
            log::warn!("keep the state of device {slot} of domain {domain}: {status}");
        }
        served.stop.asked.signal(());
        served.stop.ended.wait().await;
    }

    /// A guest's memory, mapped now if it is not.
    fn memory_of(&self, domain: DomainId) -> Result<Rc<GuestMemory>, String> {
        if let Some(entry) = self.domains.borrow().get(&domain) {
            return Ok(Rc::clone(&entry.memory));
        }
        let runs = memory::map(domain, &self.memory)
            .map_err(|status| format!("map the guest's memory: {status}"))?;
        let memory = Rc::new(GuestMemory::new(Rc::clone(&self.memory) as Rc<_>, runs));
        memory.track(self.tracked.borrow().contains(&domain));
        absent::read(domain, &memory)
            .map_err(|status| format!("read which memory has yet to come: {status}"))?;
        let entry = Domain {
            memory: Rc::clone(&memory),
            functions: BTreeMap::new(),
        };
        self.domains.borrow_mut().insert(domain, entry);
        Ok(memory)
    }

    /// Unmaps a guest's memory when the last device is gone.
    pub(super) fn forget_if_unused(&self, domain: DomainId) {
        let mut domains = self.domains.borrow_mut();
        if let Some(entry) = domains.get(&domain)
            && entry.functions.is_empty()
        {
            give_notes(domain, &entry.memory);
            memory::unmap(domain, &self.memory, &entry.memory);
            domains.remove(&domain);
        }
    }
}

/// Takes the PCI function away.
fn remove(domain: DomainId, slot: u32) {
    match HYPERCALLS.device_remove(domain, slot) {
        Ok(()) | Err(Status::NoDomain | Status::NotFound) => {}
        Err(status) => log::warn!("remove device {slot} of domain {domain}: {status}"),
    }
}
