//! virtio-blk (Virtio 1.2, 5.2): one queue, as many requests in flight as it has room for.

use super::{Controller, Found, HostDisk, Numbers, Starting, cut_off, next, now_us, place};
use crate::mmio::Mmio;
use crate::net::virtio_pci::{QueuePlace, VirtioDevice};
use crate::pci::Function;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use core::cell::RefCell;
use godwit_abi::ids::InterruptKind;
use godwit_backends::drive::virtio_blk::{self as blk, Device};
use godwit_backends::drive::{Command, Drive, Engine, Operation, Requests, cut};
use godwit_backends::memory::{Buffer, Memory, Span};
use godwit_toolstack::net::virtqueue::QueueLayout;

const VIRTIO: u16 = 0x1af4;
/// Device ids: modern, and transitional (which has the modern structures too).
const BLOCK: [u16; 2] = [0x1042, 0x1001];
/// The queue of a device without multiqueue.
const QUEUE: u16 = 0;
/// The most requests in flight.
const SLOTS_MAX: u16 = 32;
/// Descriptors of a request where they lie in the ring.
const CHUNK: u16 = 16;
/// Descriptor flag: it points at a table of descriptors.
const INDIRECT: u64 = 4;
/// Used ring flag: do not notify.
const NO_NOTIFY: u16 = 1;
/// Where in a slot's memory the parts of a request are.
const RANGE: u64 = 16;
const STATUS: u64 = 32;
const TABLE: u64 = 64;

/// Whether a function is a virtio disk.
pub(super) fn matches(function: &Function) -> bool {
    function.info.vendor == VIRTIO && BLOCK.contains(&function.info.device)
}

/// How requests lie in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    /// Descriptors in the ring for each slot: one that points at a table, or all there are.
    chunk: u16,
    slots: u16,
    /// Descriptors of a request.
    chain: u16,
}

impl Shape {
    fn new(size: u16, indirect: bool) -> Result<Shape, String> {
        if indirect {
            let chain = blk::SEGMENTS_MAX as u16 + 2;
            let slots = size.min(SLOTS_MAX);
            return Ok(Shape {
                chunk: 1,
                slots,
                chain,
            });
        }
        let chunk = size.min(CHUNK);
        if chunk < 3 {
            return Err(format!("a queue of {size} has no room for a request"));
        }
        let slots = (size / chunk).min(SLOTS_MAX);
        Ok(Shape {
            chunk,
            slots,
            chain: chunk,
        })
    }

    fn is_indirect(&self) -> bool {
        self.chunk == 1
    }

    /// Bytes of a slot's memory.
    fn slot_bytes(&self) -> u64 {
        (TABLE + 16 * u64::from(self.chain)).next_multiple_of(64)
    }
}

/// The rings, and where we are in them.
struct Queue {
    memory: Rc<dyn Memory>,
    size: u16,
    layout: QueueLayout,
    rings: Buffer,
    slots: Buffer,
    notify: Mmio,
    bell: usize,
    available_index: u16,
    used_index: u16,
}

impl Queue {
    fn new(memory: &Rc<dyn Memory>, place: &QueuePlace, shape: Shape) -> Option<Queue> {
        let layout = QueueLayout::new(place.size);
        let slots = u64::from(shape.slots) * shape.slot_bytes();
        Some(Queue {
            memory: Rc::clone(memory),
            size: place.size,
            layout,
            rings: Buffer::new(memory, layout.bytes)?,
            slots: Buffer::new(memory, slots as usize)?,
            notify: place.notify,
            bell: place.bell,
            available_index: 0,
            used_index: 0,
        })
    }

    fn available(&self) -> u64 {
        self.rings.address() + self.layout.available as u64
    }

    fn used(&self) -> u64 {
        self.rings.address() + self.layout.used as u64
    }

    /// Offers a chain and rings the bell unless the device does not want to hear it.
    fn offer(&mut self, head: u16) {
        let entry = u64::from(self.available_index & (self.size - 1));
        self.memory
            .store_u16(self.available() + 4 + 2 * entry, head);
        self.available_index = self.available_index.wrapping_add(1);
        self.memory
            .store_u16(self.available() + 2, self.available_index);
        self.memory.fence();
        if self.memory.load_u16(self.used()) & NO_NOTIFY == 0 {
            self.notify.write(self.bell, QUEUE);
        }
    }

    /// The head of the next chain that the device is done with.
    fn take(&mut self) -> Option<u32> {
        if self.memory.load_u16(self.used() + 2) == self.used_index {
            return None;
        }
        let entry = u64::from(self.used_index & (self.size - 1));
        let mut head = [0; 4];
        self.memory.read(self.used() + 4 + 8 * entry, &mut head);
        self.used_index = self.used_index.wrapping_add(1);
        Some(u32::from_le_bytes(head))
    }
}

/// A virtio disk.
struct VirtioBlk {
    name: String,
    function: Function,
    vector: Option<u16>,
    memory: Rc<dyn Memory>,
    shape: Shape,
    device: Device,
    requests: Requests,
    parts: RefCell<(VirtioDevice, Queue)>,
}

/// Starts a disk.
pub(super) async fn open(
    function: &Function,
    memory: &Rc<dyn Memory>,
    numbers: &mut Numbers,
) -> Result<Found, String> {
    let interrupt = function
        .bind_interrupt()
        .map_err(|status| format!("bind its interrupt: {status}"))?;
    let vector = match interrupt.kind() {
        InterruptKind::MsiX(entry) => Some(entry),
        InterruptKind::Line => None,
        InterruptKind::Msi | InterruptKind::LegacyIde(_) => {
            return Err("a virtio device interrupts by MSI-X or its line".into());
        }
    };
    let begun = begin(function, vector, memory).await;
    let (virtio, queue, shape, device) = begun.inspect_err(|_| cut_off(function))?;
    let name = format!("vd{}", next(&mut numbers.virtio));
    let serial = String::new();
    let engine = Rc::new(VirtioBlk {
        name: name.clone(),
        function: *function,
        vector,
        memory: Rc::clone(memory),
        shape,
        device,
        requests: Requests::new(shape.slots.into()),
        parts: RefCell::new((virtio, queue)),
    });
    let drive = Drive::new(
        Rc::clone(&engine) as Rc<dyn Engine>,
        0,
        device.geometry,
        device.limits(),
    );
    let disk = HostDisk {
        name,
        model: "virtio-blk".into(),
        serial,
        place: place("virtio-blk", function, &interrupt),
        disk: Rc::new(drive),
    };
    Ok(Found {
        controllers: vec![engine],
        interrupt,
        disks: vec![disk],
    })
}

/// Resets the device, sets up its queue and lets it run.
async fn begin(
    function: &Function,
    vector: Option<u16>,
    memory: &Rc<dyn Memory>,
) -> Result<(VirtioDevice, Queue, Shape, Device), String> {
    function
        .decode()
        .map_err(|status| format!("enable: {status}"))?;
    let virtio = VirtioDevice::new(function, blk::FEATURES, vector).await?;
    function
        .enable()
        .map_err(|status| format!("enable: {status}"))?;
    let features = virtio.features();
    let queue_place = virtio.place_queue(QUEUE)?;
    let indirect = features & blk::FEATURE_INDIRECT != 0;
    let shape = Shape::new(queue_place.size, indirect)?;
    let config = virtio
        .consistent(|config| {
            let bytes = config.bytes();
            core::array::from_fn(|at| if at < bytes { config.read::<u8>(at) } else { 0 })
        })
        .ok_or("its configuration changes all the time")?;
    let device = Device::parse(features, &config, u32::from(shape.chain) - 2)?;
    let queue = Queue::new(memory, &queue_place, shape).ok_or("no memory for its queue")?;
    virtio.enable_queue(queue.rings.address(), queue.available(), queue.used());
    virtio.run();
    Ok((virtio, queue, shape, device))
}

impl Engine for VirtioBlk {
    fn requests(&self) -> &Requests {
        &self.requests
    }

    fn memory(&self) -> &Rc<dyn Memory> {
        &self.memory
    }

    fn now_us(&self) -> u64 {
        now_us()
    }

    fn reaches(&self, spans: &[Span]) -> bool {
        self.device.has_room(spans)
    }

    fn start(&self, slot: usize, command: &Command<'_>) {
        let queue = &mut self.parts.borrow_mut().1;
        let base = queue.slots.address() + slot as u64 * self.shape.slot_bytes();
        let (header, range) = blk::header(command, self.device.geometry.block_bytes);
        self.memory.write(base, &header);
        self.memory.write(base + STATUS, &[blk::STATUS_UNWRITTEN]);
        let (data, device_writes) = match command.operation {
            Operation::Read(spans) => (cut(spans, self.device.segment_bytes, 1 << 63), true),
            Operation::Write(spans) => (cut(spans, self.device.segment_bytes, 1 << 63), false),
            Operation::Flush | Operation::Discard | Operation::WriteZeroes { .. } => {
                let span = range.map(|range| {
                    self.memory.write(base + RANGE, &range);
                    Span {
                        address: base + RANGE,
                        bytes: blk::RANGE_BYTES,
                    }
                });
                (span.into_iter().collect(), false)
            }
        };
        let head = slot as u16 * self.shape.chunk;
        let in_ring = queue.rings.address() + 16 * u64::from(head);
        let header = Span {
            address: base,
            bytes: blk::HEADER_BYTES,
        };
        let (table, first) = if self.shape.is_indirect() {
            (base + TABLE, 0)
        } else {
            (in_ring, head)
        };
        let chain = blk::descriptors(header, &data, device_writes, base + STATUS, first);
        for (at, words) in chain.iter().enumerate() {
            self.write_words(table + 16 * at as u64, *words);
        }
        if self.shape.is_indirect() {
            let length = 16 * chain.len() as u64;
            self.write_words(in_ring, [table, length | INDIRECT << 32]);
        }
        queue.offer(head);
    }

    fn poll(&self) -> usize {
        let mut ended = 0;
        // Bounded: one turn for each element of the ring.
        let size = self.parts.borrow().1.size;
        for _ in 0..size {
            let Some(head) = self.parts.borrow_mut().1.take() else {
                break;
            };
            let slot = (head / u32::from(self.shape.chunk)) as usize;
            let mut status = [0];
            let is_ours = slot < usize::from(self.shape.slots)
                && head.is_multiple_of(self.shape.chunk.into());
            if is_ours {
                let offset = slot * self.shape.slot_bytes() as usize + STATUS as usize;
                self.parts.borrow().1.slots.read(offset, &mut status);
            }
            if is_ours && self.requests.complete(slot, blk::result(status[0])) {
                ended += 1;
            } else {
                log::warn!(
                    "{}: it ended a request {head} that it did not have",
                    self.name
                );
            }
        }
        ended
    }

    fn stop(&self) {
        cut_off(&self.function);
        self.parts.borrow().0.halt();
    }
}

impl VirtioBlk {
    fn write_words(&self, address: u64, [first, second]: [u64; 2]) {
        self.memory.write(address, &first.to_le_bytes());
        self.memory.write(address + 8, &second.to_le_bytes());
    }
}

impl Controller for VirtioBlk {
    fn name(&self) -> &str {
        &self.name
    }

    fn interrupt(&self) {
        self.parts.borrow().0.acknowledge();
        self.poll();
    }

    fn restart(&self) -> Starting<'_> {
        Box::pin(async move {
            let begun = begin(&self.function, self.vector, &self.memory).await?;
            let (virtio, queue, shape, device) = begun;
            if (shape, device) != (self.shape, self.device) {
                return Err("it is another device after its reset".into());
            }
            *self.parts.borrow_mut() = (virtio, queue);
            Ok(())
        })
    }
}
