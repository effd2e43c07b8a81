//! virtio-net (Virtio 1.2, 5.1): one queue pair, checksums where the device offers to make them.

use super::card::{Card, FRAME_BYTES_MAX};
use super::virtio_pci::VirtioDevice;
use super::virtqueue::Virtqueue;
use crate::dma::{BUFFER_BYTES, DmaBuffer};
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use embassy_time::{Duration, Instant, Timer};
use godwit_abi::ids::InterruptKind;
use godwit_backends::frame::{Frame, PartialChecksum};
use godwit_backends::network::offload::Takes;
use godwit_toolstack::net::address::MacAddress;
use godwit_toolstack::net::report::LinkCounters;

const VIRTIO: u16 = 0x1af4;
/// Device ids: modern, and transitional (which has the modern structures too).
const NETWORK: [u16; 2] = [0x1041, 0x1000];

const QUEUE_RECEIVE: u16 = 0;
const QUEUE_TRANSMIT: u16 = 1;
/// Without several queue pairs (5.1.2).
const QUEUE_CONTROL: u16 = 2;

/// The device fills in checksums.
const FEATURE_CHECKSUM: u64 = 1 << 0;
/// The driver takes frames whose checksum is not filled in, or was checked.
const FEATURE_GUEST_CHECKSUM: u64 = 1 << 1;
/// There is a control queue.
const FEATURE_CONTROL: u64 = 1 << 17;
/// By it the driver says which frames it wants.
const FEATURE_CONTROL_RECEIVE: u64 = 1 << 18;

/// The device has an address.
const FEATURE_MAC: u64 = 1 << 5;
/// The device says whether there is a carrier.
const FEATURE_STATUS: u64 = 1 << 16;

// Device specific configuration (5.1.4).
const CONFIG_STATUS: usize = 6;
const STATUS_LINK_UP: u16 = 1;

/// Bytes of `struct virtio_net_hdr` before each frame (5.1.6); all zero without offloads.
const HEADER_BYTES: usize = 12;
/// Header flags: the checksum is to be filled in, it has been checked.
const HEADER_NEEDS_CHECKSUM: u8 = 1;
const HEADER_CHECKED: u8 = 2;
/// Offsets in the header: where the sum begins, where it goes from there.
const HEADER_START: usize = 6;
const HEADER_OFFSET: usize = 8;

/// Command: receive everything, on (5.1.6.5.1).
const PROMISCUOUS_ON: [u8; 3] = [0, 0, 1];
/// The device's answer when it has done it.
const COMMAND_DONE: u8 = 0;
const COMMAND_LIMIT: Duration = Duration::from_millis(100);

const WANTED: u64 = FEATURE_MAC
    | FEATURE_STATUS
    | FEATURE_CHECKSUM
    | FEATURE_GUEST_CHECKSUM
    | FEATURE_CONTROL
    | FEATURE_CONTROL_RECEIVE;

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
    promiscuous: bool,
    /// Buffers were given that the device has not been told of.
    rx_news: bool,
    tx_news: bool,
    counters: LinkCounters,
}

impl VirtioNet {
    /// Starts a card. The error says what it does not do.
    pub(crate) async fn new(
        function: &Function,
        interrupt: InterruptKind,
        promiscuous: bool,
    ) -> Result<Self, String> {
        function
            .decode()
            .map_err(|status| format!("enable: {status}"))?;
        let vector = match interrupt {
            InterruptKind::MsiX(entry) => Some(entry),
            InterruptKind::Line => None,
            InterruptKind::Msi | InterruptKind::LegacyIde(_) => {
                return Err("a virtio device interrupts by MSI-X or its line".into());
            }
        };
        let device = VirtioDevice::new(function, WANTED, vector).await?;
        function
            .enable()
            .map_err(|status| format!("enable: {status}"))?;
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
        let has_control = device.features() & FEATURE_CONTROL != 0;
        let filters = has_control && device.features() & FEATURE_CONTROL_RECEIVE != 0;
        let control = if filters {
            Some(device.queue(QUEUE_CONTROL)?)
        } else {
            None
        };
        let mut card = Self {
            device,
            mac,
            link_up: false,
            rx,
            tx,
            spare,
            tx_interrupt: false,
            // A device that cannot be told otherwise passes on everything it sees.
            promiscuous,
            rx_news: false,
            tx_news: false,
            counters: LinkCounters::default(),
        };
        card.tx.interrupt(false);
        card.device.run();
        if let Some(mut control) = control.filter(|_| promiscuous)
            && let Err(problem) = command(&mut control, &PROMISCUOUS_ON).await
        {
            log::warn!("virtio-net: {problem}: guests cannot be on the bridge");
            card.promiscuous = false;
        }
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

    /// Gives a buffer back, for another frame.
    fn recycle(&mut self, buffer: DmaBuffer) {
        self.rx.post(buffer, BUFFER_BYTES as u32, true);
        self.rx_news = true;
    }

    fn has(&self, feature: u64) -> bool {
        self.device.features() & feature != 0
    }

    /// The frame in the first `bytes` of a buffer, behind its header.
    fn frame(&self, buffer: &[u8; BUFFER_BYTES], bytes: usize) -> Frame {
        let flags = if self.has(FEATURE_GUEST_CHECKSUM) {
            buffer[0]
        } else {
            0
        };
        let word = |at: usize| u16::from_le_bytes([buffer[at], buffer[at + 1]]);
        let partial = PartialChecksum {
            start: word(HEADER_START),
            offset: word(HEADER_OFFSET),
        };
        Frame {
            bytes: buffer[HEADER_BYTES..bytes].to_vec(),
            checksum: (flags & HEADER_NEEDS_CHECKSUM != 0).then_some(partial),
            segmentation: None,
            checked: flags & (HEADER_NEEDS_CHECKSUM | HEADER_CHECKED) != 0,
        }
    }
}

/// Gives the device a command and waits for its answer.
async fn command(queue: &mut Virtqueue, bytes: &[u8]) -> Result<(), String> {
    let mut buffers = DmaBuffer::allocate(2);
    let (Some(answer), Some(mut request)) = (buffers.pop(), buffers.pop()) else {
        unreachable!("two were asked for");
    };
    request[..bytes.len()].copy_from_slice(bytes);
    queue.interrupt(false);
    queue.post_pair((request, bytes.len() as u32), (answer, 1));
    queue.ring();
    let limit = Instant::now() + COMMAND_LIMIT;
    loop {
        if let Some(answer) = queue.take_pair() {
            return match answer[0] {
                COMMAND_DONE => Ok(()),
                code => Err(format!("command {bytes:?} is refused with {code}")),
            };
        }
        if Instant::now() > limit {
            return Err(format!("command {bytes:?} is not answered"));
        }
        Timer::after_micros(100).await;
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

    fn is_promiscuous(&self) -> bool {
        self.promiscuous
    }

    fn takes(&self) -> Takes {
        Takes {
            checksum: self.has(FEATURE_CHECKSUM),
            ..Takes::NOTHING
        }
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
            let frame = self.frame(&buffer, range.end);
            self.recycle(buffer);
            return Some(frame);
        }
        None
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

    fn transmit(&mut self, frame: &Frame) {
        let mut buffer = self.spare.pop().expect("asked can_transmit before");
        let end = HEADER_BYTES + frame.bytes.len();
        buffer[..HEADER_BYTES].fill(0);
        if let Some(partial) = frame.checksum {
            buffer[0] = HEADER_NEEDS_CHECKSUM;
            buffer[HEADER_START..HEADER_OFFSET].copy_from_slice(&partial.start.to_le_bytes());
            let offset = HEADER_OFFSET..HEADER_OFFSET + 2;
            buffer[offset].copy_from_slice(&partial.offset.to_le_bytes());
        }
        buffer[HEADER_BYTES..end].copy_from_slice(&frame.bytes);
        self.counters.tx_frames += 1;
        self.counters.tx_bytes += frame.bytes.len() as u64;
        self.tx.post(buffer, end as u32, false);
        self.tx_news = true;
    }

    fn flush(&mut self) {
        if core::mem::take(&mut self.rx_news) {
            self.rx.ring();
        }
        if core::mem::take(&mut self.tx_news) {
            self.tx.ring();
        }
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
