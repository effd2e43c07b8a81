//! Devices of guests: virtio functions that dom0 serves, between the hypervisor's calls and the back
//! ends.
//!
//! [`Guests`] holds the functions by domain and PCI device number. Two tasks ([`pumps`]) bring what
//! guests do (accesses, doorbells), one task a function serves it. The memory of a guest is mapped
//! with its first device and unmapped with its last. What a driver has programmed is kept as a blob
//! in the hypervisor whenever it changes, before the access that changed it is answered; so a dom0
//! that was restarted finds it.

mod absent;
mod announce;
mod attach;
mod backing;
mod dirty;
mod host;
mod memory;
mod pumps;

pub(crate) use host::Devices;
pub(crate) use pumps::start;

use crate::hypercall::{HYPERCALLS, Host, input};
use crate::memory::HostMemory;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use backing::{Pages, Screen};
use core::cell::{Cell, RefCell};
use embassy_futures::select::select;
use embassy_sync::blocking_mutex::raw::NoopRawMutex;
use embassy_sync::signal::Signal;
use godwit_abi::{BLOB_BYTES_MAX, DomainId, Status};
use godwit_backends::memory::GuestMemory;
use godwit_backends::network::networks::GuestPort;
use godwit_backends::storage::mirror::SwitchDisk;
use godwit_backends::virtio::balloon::Balloon;
use godwit_backends::virtio::{Interrupts, VirtioFunction};
use godwit_toolstack::host::Hypervisor;

/// Functions served at a time, of all guests together.
pub(crate) const FUNCTIONS_MAX: usize = 256;
/// Key of the blob with the state of PCI device 0; the others follow.
const STATE_KEY: u32 = 0x100;

/// Every device of every guest.
pub(crate) struct Guests {
    memory: Rc<HostMemory>,
    domains: RefCell<BTreeMap<DomainId, Domain>>,
    /// Those whose devices' writes are noted.
    tracked: RefCell<BTreeSet<DomainId>>,
    spawner: embassy_executor::Spawner,
}

/// A guest with devices.
struct Domain {
    memory: Rc<GuestMemory>,
    functions: BTreeMap<u32, Served>,
}

/// A function and what ends its task.
struct Served {
    function: Rc<VirtioFunction>,
    kind: Kind,
    stop: Rc<Stop>,
}

/// What a device is over, where somebody asks for it later.
enum Kind {
    /// What is behind it, and whether that is on a server: it may never answer. A disk of the host's own
    /// always does.
    Disk {
        switch: Rc<SwitchDisk>,
        is_remote: Cell<bool>,
    },
    Vif(Rc<GuestPort>),
    Console(Rc<Screen>),
    Rng,
    Balloon(Rc<Balloon>, Rc<Pages>),
}

/// Tells a task to end, and that it has.
#[derive(Default)]
struct Stop {
    asked: Signal<NoopRawMutex, ()>,
    ended: Signal<NoopRawMutex, ()>,
}

impl Guests {
    /// None yet.
    pub(crate) fn new(memory: Rc<HostMemory>, spawner: embassy_executor::Spawner) -> &'static Self {
        alloc::boxed::Box::leak(alloc::boxed::Box::new(Self {
            memory,
            domains: RefCell::new(BTreeMap::new()),
            tracked: RefCell::new(BTreeSet::new()),
            spawner,
        }))
    }

    /// The function of a guest at a PCI device number.
    fn function(&self, domain: DomainId, slot: u32) -> Option<Rc<VirtioFunction>> {
        let domains = self.domains.borrow();
        let served = domains.get(&domain)?.functions.get(&slot)?;
        Some(Rc::clone(&served.function))
    }

    /// The functions of a guest.
    fn functions(&self, domain: DomainId) -> Vec<Rc<VirtioFunction>> {
        let domains = self.domains.borrow();
        let functions = domains.get(&domain).map(|domain| domain.functions.values());
        functions
            .into_iter()
            .flatten()
            .map(|served| Rc::clone(&served.function))
            .collect()
    }

    /// The PCI device numbers of a guest's functions.
    fn slots(&self, domain: DomainId) -> Vec<u32> {
        let domains = self.domains.borrow();
        let functions = domains.get(&domain).map(|domain| domain.functions.keys());
        functions.into_iter().flatten().copied().collect()
    }

    /// What `of` finds in the devices of a guest.
    fn find<T>(&self, domain: DomainId, of: impl Fn(u32, &Served) -> Option<T>) -> Option<T> {
        let domains = self.domains.borrow();
        let mut functions = domains.get(&domain)?.functions.iter();
        functions.find_map(|(slot, served)| of(*slot, served))
    }

    /// What a guest's virtio console shows.
    fn screen(&self, domain: DomainId) -> Option<Rc<Screen>> {
        self.find(domain, |_, served| match &served.kind {
            Kind::Console(screen) => Some(Rc::clone(screen)),
            Kind::Disk { .. } | Kind::Vif(_) | Kind::Rng | Kind::Balloon(..) => None,
        })
    }

    /// The plug of a guest's network card.
    fn port(&self, domain: DomainId, slot: u32) -> Option<Rc<GuestPort>> {
        self.find(domain, |at, served| match &served.kind {
            Kind::Vif(port) if at == slot => Some(Rc::clone(port)),
            Kind::Disk { .. } | Kind::Vif(_) | Kind::Console(_) | Kind::Rng | Kind::Balloon(..) => {
                None
            }
        })
    }

    /// What is behind a guest's disk.
    fn disk(&self, domain: DomainId, slot: u32) -> Option<Rc<SwitchDisk>> {
        self.find(domain, |at, served| match &served.kind {
            Kind::Disk { switch, .. } if at == slot => Some(Rc::clone(switch)),
            Kind::Disk { .. } | Kind::Vif(_) | Kind::Console(_) | Kind::Rng | Kind::Balloon(..) => {
                None
            }
        })
    }

    /// Something else is behind a guest's disk.
    fn disk_moved(&self, domain: DomainId, slot: u32, remote: bool) {
        self.find(domain, |at, served| match &served.kind {
            Kind::Disk { is_remote, .. } if at == slot => {
                is_remote.set(remote);
                Some(())
            }
            Kind::Disk { .. } | Kind::Vif(_) | Kind::Console(_) | Kind::Rng | Kind::Balloon(..) => {
                None
            }
        });
    }

    /// Has a guest's balloon leave it `pages` of what it was given.
    fn set_balloon(&self, domain: DomainId, pages: u64) -> Result<(), String> {
        let found = self.find(domain, |_, served| match &served.kind {
            Kind::Balloon(balloon, _) => Some((Rc::clone(balloon), Rc::clone(&served.function))),
            Kind::Disk { .. } | Kind::Vif(_) | Kind::Console(_) | Kind::Rng => None,
        });
        let (balloon, function) = found.ok_or("the domain has no balloon")?;
        let info = Host
            .domain_info(domain)
            .map_err(|status| alloc::format!("{status}"))?;
        let whole = info.memory_pages + u64::from(balloon.actual_pages());
        let target = whole.saturating_sub(pages);
        balloon.set_target(u32::try_from(target).unwrap_or(u32::MAX));
        function.config_changed();
        Ok(())
    }

    /// Tells the function's guest by hypercalls.
    fn interrupts(domain: DomainId) -> Rc<Pin> {
        Rc::new(Pin {
            domain,
            slot: Cell::new(u32::MAX),
        })
    }
}

/// Where the interrupts of a function go.
struct Pin {
    domain: DomainId,
    slot: Cell<u32>,
}

impl Pin {
    fn report(&self, result: Result<(), Status>) {
        match result {
            // A domain that is being destroyed hears nothing any more.
            Ok(()) | Err(Status::NoDomain) => {}
            Err(status) => log::warn!(
                "interrupt for device {} of domain {}: {status}",
                self.slot.get(),
                self.domain
            ),
        }
    }
}

impl Interrupts for Pin {
    fn raise(&self, vector: u16) {
        self.report(HYPERCALLS.device_interrupt(self.domain, self.slot.get(), vector));
    }

    fn lower(&self) {
        self.report(HYPERCALLS.device_interrupt_clear(self.domain, self.slot.get()));
    }
}

/// Serves a function until it is told to stop.
#[embassy_executor::task(pool_size = FUNCTIONS_MAX)]
async fn serve(function: Rc<VirtioFunction>, stop: Rc<Stop>) {
    select(function.run(), stop.asked.wait()).await;
    stop.ended.signal(());
}

/// Keeps what the driver of a function has programmed.
fn keep(domain: DomainId, slot: u32, function: &VirtioFunction) -> Result<(), Status> {
    let state = function.save();
    let (address, length) = input(&state);
    HYPERCALLS.blob_write(domain, STATE_KEY + slot, address, length)
}

/// What was kept of a function.
fn kept(domain: DomainId, slot: u32) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; BLOB_BYTES_MAX as usize];
    let (address, length) = crate::hypercall::output(&mut bytes);
    let found = HYPERCALLS.blob_read(domain, STATE_KEY + slot, address, length);
    let length = crate::hypercall::bounded(found, &bytes)
        .map_err(|status| alloc::format!("no state of device {slot} is kept: {status}"))?;
    bytes.truncate(length);
    Ok(bytes)
}
