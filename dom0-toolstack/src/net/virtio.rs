//! virtio-net (Virtio 1.2, 5.1), one queue pair, no offloads.

use super::card::{Card, FRAME_BYTES_MAX, Frame};
use super::virtio_pci::VirtioDevice;
use super::virtqueue::Virtqueue;
use crate::dma::{BUFFER_BYTES, DmaBuffer};
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::ids::InterruptKind;
use godwit_toolstack::net::address::MacAddress;
use godwit_toolstack::net::report::LinkCounters;

const VIRTIO: u16 = 0x1af4;
/// Device ids: modern, and transitional (which has the modern structures too).
const NETWORK: [u16; 2] = [0x1041, 0x1000];

const QUEUE_RECEIVE: u16 = 0;
const QUEUE_TRANSMIT: u16 = 1;

/// The device has an address.
const FEATURE_MAC: u64 = 1 << 5;
/// The device says whether there is a carrier.
const FEATURE_STATUS: u64 = 1 << 16;

// Device specific configuration (5.1.4).
const CONFIG_STATUS: usize = 6;
const STATUS_LINK_UP: u16 = 1;

/// Bytes of `struct virtio_net_hdr` before each frame (5.1.6); all zero without offloads.
const HEADER_BYTES: usize = 12;

/// Whether a function is a virtio network card.
pub(crate) fn matches(function: &Function) -> bool {
    function.info.vendor == VIRTIO && NETWORK.contains(&function.info.device)
}

/// A card.
pub(crate) struct VirtioNet {
    device: VirtioDevice,
    mac: MacAddress,
    link_up: bool,
    rx: Virtqueue,
    tx: Virtqueue,
    /// Buffers to send from; never more than there are descriptors.
    spare: Vec<DmaBuffer>,
    tx_interrupt: bool,
    counters: LinkCounters,
}

impl VirtioNet {
    /// Starts a card. The error says what it does not do.
    pub(crate) async fn new(function: &Function, interrupt: InterruptKind) -> Result<Self, String> {
        function
            .enable()
            .map_err(|status| format!("enable: {status}"))?;
        let vector = match interrupt {
            InterruptKind::MsiX(entry) => Some(entry),
            InterruptKind::Line => None,
            InterruptKind::Msi => return Err("a virtio device cannot interrupt by MSI".into()),
        };
        let device = VirtioDevice::new(function, FEATURE_MAC | FEATURE_STATUS, vector).await?;
        if device.features() & FEATURE_MAC == 0 {
            return Err("it has no address of its own".into());
        }
        let mac = device
            .consistent(|config| MacAddress(core::array::from_fn(|at| config.read::<u8>(at))))
            .filter(|mac| mac.is_station())
            .ok_or("it has no usable address")?;
        let rx = device.queue(QUEUE_RECEIVE)?;
        let tx = device.queue(QUEUE_TRANSMIT)?;
        let spare = DmaBuffer::allocate(usize::from(tx.size()));
        let mut card = Self {
            device,
            mac,
            link_up: false,
            rx,
            tx,
            spare,
            tx_interrupt: false,
            counters: LinkCounters::default(),
        };
        card.tx.interrupt(false);
        card.device.run();
        for buffer in DmaBuffer::allocate(usize::from(card.rx.size())) {
            card.rx.post(buffer, BUFFER_BYTES as u32, true);
        }
        card.rx.ring();
        card.look_at_link();
        Ok(card)
    }

    fn look_at_link(&mut self) {
        let status = |config: Mmio| config.read::<u16>(CONFIG_STATUS);
        self.link_up = self.device.features() & FEATURE_STATUS == 0
            || self.device.consistent(status).unwrap_or(0) & STATUS_LINK_UP != 0;
    }

    fn reclaim(&mut self) {
        while let Some((buffer, _)) = self.tx.take(&mut self.counters.rx_dropped) {
            self.spare.push(buffer);
        }
    }
}

impl Card for VirtioNet {
    fn driver(&self) -> &'static str {
        "virtio-net"
    }

    fn mac(&self) -> MacAddress {
        self.mac
    }

    fn is_link_up(&self) -> bool {
        self.link_up
    }

    fn receive(&mut self) -> Option<Frame> {
        // Bounded by the queue: a useless frame goes back behind all others.
        for _ in 0..=self.rx.size() {
            let Some((buffer, bytes)) = self.rx.take(&mut self.counters.rx_dropped) else {
                self.rx.interrupt(true);
                if self.rx.is_any_used() {
                    continue;
                }
                return None;
            };
            let range = HEADER_BYTES..bytes as usize;
            if range.is_empty() || range.len() > FRAME_BYTES_MAX {
                self.counters.rx_dropped += 1;
                self.recycle(buffer);
                continue;
            }
            self.counters.rx_frames += 1;
            self.counters.rx_bytes += range.len() as u64;
            return Some(Frame { buffer, range });
        }
        None
    }

    fn recycle(&mut self, buffer: DmaBuffer) {
        self.rx.post(buffer, BUFFER_BYTES as u32, true);
        self.rx.ring();
    }

    fn is_frame_waiting(&self) -> bool {
        self.rx.is_any_used()
    }

    fn can_transmit(&mut self) -> bool {
        self.reclaim();
        if self.spare.is_empty() && !self.tx_interrupt {
            self.tx_interrupt = true;
            self.tx.interrupt(true);
            self.reclaim();
        }
        !self.spare.is_empty() && self.tx.has_room()
    }

    fn transmit(&mut self, length: usize, fill: &mut dyn FnMut(&mut [u8])) {
        let mut buffer = self.spare.pop().expect("asked can_transmit before");
        let end = HEADER_BYTES + length;
        buffer[..HEADER_BYTES].fill(0);
        fill(&mut buffer[HEADER_BYTES..end]);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += length as u64;
        self.tx.post(buffer, end as u32, false);
        self.tx.ring();
    }

    fn acknowledge(&mut self) {
        self.device.acknowledge();
        // Until the stack has seen everything there is: `receive` switches it on again.
        self.rx.interrupt(false);
        if self.tx_interrupt {
            self.tx_interrupt = false;
            self.tx.interrupt(false);
        }
        self.look_at_link();
    }

    fn counters(&mut self) -> &mut LinkCounters {
        &mut self.counters
    }
}

const _: () = assert!(HEADER_BYTES + FRAME_BYTES_MAX <= BUFFER_BYTES);
