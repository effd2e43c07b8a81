//! The devices of guests, as the toolstack asks for them.

use super::attach::From;
use super::backing::{Chance, Pages, Screen};
use super::{Guests, Kind};
use crate::hypercall::Host;
use crate::stores::HostStores;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::ops::Range;
use embassy_time::{Duration, with_timeout};
use godwit_abi::{DomainId, text};
use godwit_backends::disk::Disk as HostDisk;
use godwit_backends::memory::Memory;
use godwit_backends::network;
use godwit_backends::network::bucket::Rate;
use godwit_backends::network::mac::MacAddress;
use godwit_backends::network::nat::packet::Protocol as NatProtocol;
use godwit_backends::network::networks::{GuestPort, Networks};
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::mirror::SwitchDisk;
use godwit_backends::virtio;
use godwit_backends::virtio::balloon::Balloon;
use godwit_backends::virtio::block::Block;
use godwit_backends::virtio::console::Console;
use godwit_backends::virtio::entropy::Entropy;
use godwit_backends::virtio::net::Net;
use godwit_toolstack::config::{Attachment, Disk, DiskTarget, Forward, Protocol, Vif};
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::operate::migrate::domain_of;
use godwit_toolstack::site::{Device, DeviceHost, Link};

/// Largest IP packet of guests' cards.
const MTU_BYTES: u16 = 1500;
/// A burst lets at least some full frames through.
const RATE_BURST_BYTES_MIN: u64 = 16 << 10;
/// The size a virtio console tells its guest.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// How long a server that was reached before may take to answer again.
const STILL_THERE_LIMIT: Duration = Duration::from_secs(2);

/// To who asks for a console that is not there.
const NO_CONSOLE: &str = "it has no virtio console: set console=1";

/// The same for the back end.
fn forward(forward: &Forward) -> network::attachment::Forward {
    network::attachment::Forward {
        protocol: match forward.protocol {
            Protocol::Tcp => NatProtocol::Tcp,
            Protocol::Udp => NatProtocol::Udp,
        },
        host: forward.host_port,
        guest: forward.guest_port,
    }
}

/// What makes devices: the functions, and what stands behind them.
pub(crate) struct Devices {
    guests: &'static Guests,
    stores: Rc<HostStores>,
    networks: Rc<Networks>,
    /// Disks on servers, reached for domains that come.
    prepared: RefCell<BTreeMap<(DomainId, u32), Rc<dyn HostDisk>>>,
}

impl Devices {
    /// Of this host.
    pub(crate) fn new(
        guests: &'static Guests,
        stores: Rc<HostStores>,
        networks: Rc<Networks>,
    ) -> Self {
        Self {
            guests,
            stores,
            networks,
            prepared: RefCell::default(),
        }
    }

    /// The device's side of a virtio function.
    async fn make(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
    ) -> Result<(Rc<dyn virtio::Device>, Kind), String> {
        match device {
            Device::Disk(disk) => {
                let is_remote = Cell::new(match &disk.target {
                    DiskTarget::Volume { .. } => false,
                    DiskTarget::Nbd { .. } => true,
                });
                let (block, switch) = self.block(domain, disk, slot).await?;
                Ok((block, Kind::Disk { switch, is_remote }))
            }
            Device::Vif(vif) => {
                let port = self.port(vif)?;
                let mac = port.mac().0;
                let net = Net::new(Rc::clone(&port) as Rc<_>, mac, MTU_BYTES);
                Ok((net, Kind::Vif(port)))
            }
            Device::Console => {
                let screen = Rc::new(Screen::default());
                let console = Console::new(Rc::clone(&screen) as Rc<_>, COLUMNS, ROWS);
                Ok((console, Kind::Console(screen)))
            }
            Device::Rng => Ok((Entropy::new(Rc::new(Chance)), Kind::Rng)),
            Device::Balloon => {
                let pages = Pages::new(domain, Rc::clone(&self.guests.memory));
                let balloon = Balloon::new(Rc::clone(&pages) as Rc<_>, false);
                Ok((Rc::clone(&balloon) as Rc<_>, Kind::Balloon(balloon, pages)))
            }
        }
    }

    /// Plugs a guest's network card in. Dropping what this gives unplugs it.
    fn port(&self, vif: &Vif) -> Result<Rc<GuestPort>, String> {
        let mac = vif.mac.ok_or("a network device has a MAC address")?;
        let rate = vif.rate_bytes.map(|bytes_per_second| Rate {
            bytes_per_second,
            burst_bytes: (bytes_per_second / 20).max(RATE_BURST_BYTES_MIN),
        });
        let mut wanted = network::attachment::Attachment {
            rate,
            ..Default::default()
        };
        match &vif.attachment {
            Attachment::Bridge { bridge } => {
                wanted.kind = bridge.as_ref().map(|_| network::attachment::Kind::Bridge);
            }
            Attachment::Gateway {
                routed,
                ip,
                forwards,
            } => {
                wanted.kind = Some(match routed {
                    true => network::attachment::Kind::Routed,
                    false => network::attachment::Kind::Nat,
                });
                wanted.address = *ip;
                wanted.forwards = forwards.iter().map(forward).collect();
            }
        }
        let attached = self.networks.attach(MacAddress(mac.0), &wanted);
        attached.map_err(|error| error.to_string())
    }

    async fn block(
        &self,
        domain: DomainId,
        disk: &Disk,
        slot: Option<u32>,
    ) -> Result<(Rc<Block>, Rc<SwitchDisk>), String> {
        let opened = match self.take_prepared(domain, slot).await {
            Some(prepared) => prepared,
            None => self.open(domain, disk).await?,
        };
        let memory: Rc<dyn Memory> = Rc::clone(&self.guests.memory) as Rc<_>;
        let switch = SwitchDisk::new(opened, Rc::clone(&memory), disk.read_only);
        let block = Block::new(Rc::clone(&switch) as Rc<_>, memory, &disk.vdev(), None);
        Ok((block, switch))
    }

    /// What was reached for a device, if it still answers.
    async fn take_prepared(&self, domain: DomainId, slot: Option<u32>) -> Option<Rc<dyn HostDisk>> {
        let prepared = self.prepared.borrow_mut().remove(&(domain, slot?))?;
        let blocks = Blocks::new(
            Rc::clone(&prepared),
            Rc::clone(&self.guests.memory) as Rc<_>,
        );
        let mut block = alloc::vec![0; blocks.block_bytes()];
        match with_timeout(STILL_THERE_LIMIT, blocks.read(0, &mut block)).await {
            Ok(Ok(())) => Some(prepared),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn open(&self, domain: DomainId, disk: &Disk) -> Result<Rc<dyn HostDisk>, String> {
        let name = match Host.domain_info(domain) {
            Ok(info) => domain_of(text(&info.name)).to_string(),
            Err(status) => return Err(status.to_string()),
        };
        let user = format!("domain {name}, {}", disk.vdev());
        let writable = !disk.read_only;
        self.stores.open_target(&disk.target, writable, &user).await
    }

    async fn plug(
        &self,
        domain: DomainId,
        device: &Device,
        slot: Option<u32>,
        from: From<'_>,
    ) -> Result<u32, String> {
        let (made, kind) = self.make(domain, device, slot).await?;
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
            Device::Vif(vif) => self.port(vif).map(drop),
            Device::Console | Device::Rng | Device::Balloon => Ok(()),
        }
    }

    async fn prepare(&self, domain: DomainId, device: &Device, slot: u32) -> Result<(), String> {
        match device {
            Device::Disk(disk) => match disk.target {
                DiskTarget::Nbd { .. } => {
                    let opened = self.open(domain, disk).await?;
                    self.prepared.borrow_mut().insert((domain, slot), opened);
                    Ok(())
                }
                DiskTarget::Volume { .. } => Ok(()),
            },
            // At once, and not before they are wanted: a card on a network is seen.
            Device::Vif(_) | Device::Console | Device::Rng | Device::Balloon => Ok(()),
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

    async fn let_go(&self, domain: DomainId) {
        for slot in self.guests.slots(domain) {
            self.guests.let_go(domain, slot).await;
        }
        self.guests.forget_if_unused(domain);
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
        self.prepared
            .borrow_mut()
            .retain(|(id, _), _| *id != domain);
        self.guests.forget_if_unused(domain);
    }

    fn disk(&self, domain: DomainId, slot: u32) -> Option<Rc<SwitchDisk>> {
        self.guests.disk(domain, slot)
    }

    fn disk_moved(&self, domain: DomainId, slot: u32, is_remote: bool) {
        self.guests.disk_moved(domain, slot, is_remote);
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

    fn announce(&self, domain: DomainId) {
        self.guests.announce(domain);
    }

    fn dirty_track(&self, domain: DomainId, on: bool) {
        self.guests.track(domain, on);
    }

    fn dirty_take(&self, domain: DomainId) -> Vec<u64> {
        self.guests.take_dirty(domain)
    }

    fn ring_pages(&self, domain: DomainId) -> Vec<(u64, u64)> {
        let mut pages = Vec::new();
        for function in self.guests.functions(domain) {
            function.ring_pages(&mut pages);
        }
        pages
    }

    fn absent_wanted(&self, domain: DomainId) -> Vec<u64> {
        self.guests.absent_wanted(domain)
    }

    fn absent_filled(&self, domain: DomainId, pages: Range<u64>) {
        self.guests.absent_filled(domain, pages);
    }

    fn save(&self, domain: DomainId, slot: u32) -> Result<Vec<u8>, String> {
        let function = self.guests.function(domain, slot);
        let function = function.ok_or_else(|| format!("there is no device {slot}"))?;
        Ok(function.save())
    }

    fn balloon_target(&self, domain: DomainId, pages: u64) -> Result<(), String> {
        self.guests.set_balloon(domain, pages)
    }

    fn console_read(&self, domain: DomainId, offset: u64) -> Result<(Vec<u8>, u64), String> {
        let screen = self.guests.screen(domain).ok_or(NO_CONSOLE)?;
        Ok(screen.read(offset))
    }

    fn console_type(&self, domain: DomainId, bytes: &[u8]) -> Result<usize, String> {
        let screen = self.guests.screen(domain).ok_or(NO_CONSOLE)?;
        Ok(screen.type_in(bytes))
    }

    async fn console_changed(&self, domain: DomainId) {
        match self.guests.screen(domain) {
            Some(screen) => screen.changed.wait().await,
            None => core::future::pending().await,
        }
    }

    fn describe(&self, domain: DomainId, slot: u32) -> String {
        let port = self.guests.port(domain, slot);
        let address = port.and_then(|port| port.address());
        let address = address.map_or_else(String::new, |address| format!("{address}, "));
        let state = match self.guests.function(domain, slot) {
            None => "not served".into(),
            Some(function) => match function.broken() {
                Some(broken) => format!("needs a reset: queue {}: {}", broken.queue, broken.error),
                None if function.features() == 0 => "no driver yet".into(),
                None => "in use".into(),
            },
        };
        address + &state
    }
}
