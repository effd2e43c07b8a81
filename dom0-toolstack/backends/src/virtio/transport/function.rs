//! A virtio PCI function: registers, queues and the device behind them.

use super::definition::{
    self, CONFIG_BYTES_MAX, DOORBELL_STRIDE, DOORBELLS, ISR, MEMORY_BAR, PORT_BAR,
};
use super::registers::{Effect, ISR_CONFIG, ISR_QUEUE, NEEDS_RESET, Registers, part};
use crate::memory::GuestMemory;
use crate::virtio::queue::{Chain, Queue, QueueError};
use crate::virtio::{
    Device, FEATURE_EVENT_INDEX, FEATURE_INDIRECT, FEATURE_VERSION_1, RING_FEATURES,
};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::Waker;
use godwit_abi::DeviceDefinition;
use godwit_records::VIRTIO_NO_VECTOR;

/// How a function interrupts its guest.
pub trait Interrupts {
    /// Sends an MSI-X vector, or raises INTx for 0xffff (`device_interrupt`).
    fn raise(&self, vector: u16);
    /// Lowers INTx (`device_interrupt_clear`).
    fn lower(&self);
}

/// What a driver did, so that its device needs a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The queue.
    pub queue: usize,
    /// What is wrong with it.
    pub error: QueueError,
}

/// A function of a guest. Not `Send`; all methods but [`run`](VirtioFunction::run) and
/// [`quiesce`](VirtioFunction::quiesce) return at once.
pub struct VirtioFunction {
    memory: Rc<GuestMemory>,
    pub(super) device: Rc<dyn Device>,
    interrupts: Rc<dyn Interrupts>,
    pub(super) registers: RefCell<Registers>,
    /// Those in use.
    pub(super) queues: Vec<RefCell<Option<Queue>>>,
    /// Who waits for a queue to have something.
    wakers: Vec<Cell<Option<Waker>>>,
    /// Who waits for nothing to be in flight.
    pub(super) quiescing: Cell<Option<Waker>>,
    /// No chain is taken.
    pub(super) paused: Cell<bool>,
    /// The driver has asked for a reset, which waits for what is in flight.
    resetting: Cell<bool>,
    changed: Cell<bool>,
    broken: Cell<Option<Broken>>,
}

impl VirtioFunction {
    /// A function as after power-on.
    pub fn new(
        memory: Rc<GuestMemory>,
        device: Rc<dyn Device>,
        interrupts: Rc<dyn Interrupts>,
    ) -> Rc<VirtioFunction> {
        let (identity, sizes) = (device.identity(), device.queue_sizes());
        let offered = device.features() | RING_FEATURES;
        Rc::new(VirtioFunction {
            registers: RefCell::new(Registers::new(identity.device_id, offered, sizes)),
            queues: sizes.iter().map(|_| RefCell::new(None)).collect(),
            wakers: sizes.iter().map(|_| Cell::new(None)).collect(),
            memory,
            device,
            interrupts,
            quiescing: Cell::new(None),
            paused: Cell::new(false),
            resetting: Cell::new(false),
            changed: Cell::new(false),
            broken: Cell::new(None),
        })
    }

    /// What the hypervisor is told of it.
    pub fn definition(&self) -> DeviceDefinition {
        definition::definition(&*self.device)
    }

    /// Serves the guest; ends only when it is dropped, and then the function must not be used again.
    pub async fn run(&self) {
        self.device.serve(self).await;
    }

    /// The guest reads `width` bytes (1, 2, 4 or 8) of a BAR. What nothing is behind reads as 0.
    pub fn read(&self, bar: u8, offset: u64, width: u8) -> u64 {
        match (bar, offset) {
            (MEMORY_BAR, ..ISR) => self.registers.borrow().read(offset, width),
            (MEMORY_BAR, ISR) => self.read_isr(),
            (MEMORY_BAR, definition::DEVICE..DOORBELLS) => {
                self.read_config(offset - definition::DEVICE, width)
            }
            (PORT_BAR, _) => self.read_config(offset, width),
            _nothing_there => 0,
        }
    }

    /// The guest writes `width` bytes (1, 2, 4 or 8) of a BAR.
    pub fn write(&self, bar: u8, offset: u64, width: u8, value: u64) {
        match (bar, offset) {
            (MEMORY_BAR, ..ISR) => self.write_common(offset, width, value),
            (MEMORY_BAR, definition::DEVICE..DOORBELLS) => {
                self.write_config(offset - definition::DEVICE, width, value);
            }
            (MEMORY_BAR, DOORBELLS..) => {
                let queue = (offset - DOORBELLS) / DOORBELL_STRIDE;
                self.doorbell(1u64.checked_shl(queue as u32).unwrap_or(0));
            }
            (PORT_BAR, _) => self.write_config(offset, width, value),
            _nothing_there => {}
        }
    }

    /// The guest has rung doorbells: one bit a queue.
    pub fn doorbell(&self, bits: u64) {
        for (queue, waker) in self.wakers.iter().enumerate() {
            if bits >> queue & 1 != 0
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Memory has come that was waited for: all queues are looked at again.
    pub fn look_again(&self) {
        self.wake_all();
    }

    /// Appends the first and last page of each ring in use: what the device itself reads and writes without being asked.
    pub fn ring_pages(&self, out: &mut Vec<(u64, u64)>) {
        for queue in &self.queues {
            let queue = queue.borrow();
            out.extend(queue.iter().flat_map(Queue::ring_pages));
        }
    }

    /// Whether what [`save`](VirtioFunction::save) gives is other than when this was asked last.
    pub fn take_changed(&self) -> bool {
        self.changed.take()
    }

    /// What the device itself [keeps](Device::save) has changed.
    pub fn note_changed(&self) {
        self.changed.set(true);
    }

    /// Whether the driver uses the device. While it does not, whatever comes for it is dropped.
    pub fn running(&self) -> bool {
        self.registers.borrow().running() && !self.resetting.get()
    }

    /// Whether the function is between [`quiesce`](VirtioFunction::quiesce) and
    /// [`resume`](VirtioFunction::resume): whatever comes for it is left where it is.
    pub fn paused(&self) -> bool {
        self.paused.get()
    }

    /// Entries of a queue.
    pub fn queue_size(&self, index: usize) -> u16 {
        self.registers.borrow().state.queues[index].size
    }

    /// What the driver did, while the device needs a reset because of it.
    pub fn broken(&self) -> Option<Broken> {
        self.broken.get()
    }

    /// The features that both sides use; none before they agree.
    pub fn features(&self) -> u64 {
        self.registers.borrow().features()
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Rc<GuestMemory> {
        &self.memory
    }

    /// The device configuration is another one: tells the driver.
    pub fn config_changed(&self) {
        let vector = {
            let mut registers = self.registers.borrow_mut();
            let generation = &mut registers.state.config_generation;
            *generation = generation.wrapping_add(1);
            self.changed.set(true);
            registers.running().then_some(registers.state.config_vector)
        };
        if let Some(vector) = vector {
            self.interrupt(vector, ISR_CONFIG);
        }
        self.wake_all();
    }

    /// The next chain of a queue. `None`: there is none, or none may be taken.
    pub fn take(&self, index: usize) -> Option<Chain> {
        if self.paused() || !self.running() {
            return None;
        }
        let taken = match self.queues[index].borrow_mut().as_mut() {
            Some(queue) => queue.take(),
            None => return None,
        };
        self.sound(index, taken, None)
    }

    /// Undoes the last [`take`](VirtioFunction::take) of a queue.
    pub fn put_back(&self, index: usize, chain: Chain) {
        let mut queue = self.queues[index].borrow_mut();
        queue.as_mut().expect("a chain's queue").put_back(chain);
    }

    /// A chain is done; see [`Queue::complete`].
    pub fn complete(&self, index: usize, chain: Chain, written: u32) {
        let done = {
            let mut queue = self.queues[index].borrow_mut();
            let queue = queue.as_mut().expect("a chain's queue");
            queue.complete(chain, written)
        };
        self.sound(index, done, ());
        if self.idle() {
            if self.resetting.get() {
                self.finish_reset();
            }
            if let Some(waker) = self.quiescing.take() {
                waker.wake();
            }
        }
    }

    /// Shows the driver what is done in a queue, and interrupts it if it wants that.
    pub fn publish(&self, index: usize) {
        let published = match self.queues[index].borrow_mut().as_mut() {
            Some(queue) => queue.publish(),
            None => return,
        };
        if self.sound(index, published, false) {
            self.interrupt(self.vector(index), ISR_QUEUE);
        }
    }

    /// Asks for a doorbell of a queue. Returns how many chains there are to take already; 0 while
    /// none may be taken.
    pub fn arm(&self, index: usize) -> u16 {
        if self.paused() || !self.running() {
            return 0;
        }
        let armed = match self.queues[index].borrow_mut().as_mut() {
            Some(queue) => queue.arm(),
            None => return 0,
        };
        self.sound(index, armed, 0)
    }

    /// Wakes `waker` when there may be something to take from a queue.
    pub fn park(&self, index: usize, waker: &Waker) {
        self.wakers[index].set(Some(waker.clone()));
    }

    /// What a queue gave, or, when the driver broke it, `otherwise`; the device needs a reset then.
    fn sound<T>(&self, index: usize, result: Result<T, QueueError>, otherwise: T) -> T {
        result.unwrap_or_else(|error| {
            self.break_off(index, error);
            otherwise
        })
    }

    /// The driver broke the rules (2.1.2): nothing more is taken, and it is told.
    fn break_off(&self, index: usize, error: QueueError) {
        if let Some(queue) = self.queues[index].borrow_mut().as_mut() {
            queue.condemn();
        }
        let vector = {
            let mut registers = self.registers.borrow_mut();
            let vector = registers.running().then_some(registers.state.config_vector);
            registers.state.status |= NEEDS_RESET;
            vector
        };
        if self.broken.get().is_none() {
            self.broken.set(Some(Broken {
                queue: index,
                error,
            }));
        }
        self.changed.set(true);
        if let Some(vector) = vector {
            self.interrupt(vector, ISR_CONFIG);
        }
    }

    pub(super) fn idle(&self) -> bool {
        let idle =
            |queue: &RefCell<Option<Queue>>| queue.borrow().as_ref().is_none_or(Queue::is_idle);
        self.queues.iter().all(idle)
    }

    pub(super) fn vector(&self, index: usize) -> u16 {
        self.registers.borrow().state.queues[index].vector
    }

    /// The interrupt status only counts without MSI-X (4.1.5.1.2).
    pub(super) fn interrupt(&self, vector: u16, isr: u8) {
        if vector == VIRTIO_NO_VECTOR {
            self.registers.borrow_mut().state.isr |= isr;
        }
        self.interrupts.raise(vector);
    }

    pub(super) fn wake_all(&self) {
        self.doorbell(u64::MAX);
    }

    fn read_isr(&self) -> u64 {
        let isr = core::mem::take(&mut self.registers.borrow_mut().state.isr);
        self.interrupts.lower();
        u64::from(isr)
    }

    fn read_config(&self, offset: u64, width: u8) -> u64 {
        let mut config = [0; CONFIG_BYTES_MAX];
        self.device.read_config(self.features(), &mut config);
        part(&config, offset, width)
    }

    fn write_config(&self, offset: u64, width: u8, value: u64) {
        let bytes = value.to_le_bytes();
        let bytes = &bytes[..usize::from(width).min(8)];
        if let Ok(offset) = usize::try_from(offset)
            && offset <= CONFIG_BYTES_MAX - bytes.len()
        {
            self.device.write_config(self.features(), offset, bytes);
            self.changed.set(true);
        }
    }

    fn write_common(&self, offset: u64, width: u8, value: u64) {
        if self.resetting.get() {
            // The driver has to wait until the status reads 0 (4.1.4.3.2).
            return;
        }
        let effect = self.registers.borrow_mut().write(offset, width, value);
        self.changed.set(true);
        match effect {
            Effect::None => {}
            Effect::Reset => {
                self.resetting.set(true);
                if self.idle() {
                    self.finish_reset();
                }
            }
            Effect::Features => self.negotiate(),
            Effect::Run => {
                (0..self.queues.len()).for_each(|index| self.start(index));
                self.wake_all();
            }
            Effect::Enabled(index) => {
                self.start(index);
                self.wake_all();
            }
        }
    }

    fn finish_reset(&self) {
        self.queues
            .iter()
            .for_each(|queue| *queue.borrow_mut() = None);
        self.registers.borrow_mut().reset();
        self.device.reset();
        self.resetting.set(false);
        self.broken.set(None);
        self.changed.set(true);
        self.interrupts.lower();
    }

    /// Features that were not offered, that miss others, or are those of a legacy driver are
    /// refused: FEATURES_OK stays off (2.2.2, 6.1).
    fn negotiate(&self) {
        let mut registers = self.registers.borrow_mut();
        let chosen = registers.state.driver_features;
        let offered = chosen & !registers.offered == 0;
        if offered && chosen & FEATURE_VERSION_1 != 0 && self.device.consistent(chosen) {
            registers.accept_features();
        }
    }

    /// Begins to use a queue, if it is enabled and the driver is ready. One that cannot be is found
    /// out as soon as it is enabled.
    fn start(&self, index: usize) {
        match self.open(index, false) {
            Ok(queue) if self.registers.borrow().running() => {
                *self.queues[index].borrow_mut() = queue;
            }
            Ok(_not_yet) => {}
            Err(error) => self.break_off(index, error),
        }
    }

    pub(super) fn open(
        &self,
        index: usize,
        used_before: bool,
    ) -> Result<Option<Queue>, QueueError> {
        let registers = self.registers.borrow();
        let Some(setup) = registers.setup(index) else {
            return Ok(None);
        };
        let event_index = registers.features() & FEATURE_EVENT_INDEX != 0;
        let indirect = registers.features() & FEATURE_INDIRECT != 0;
        let memory = Rc::clone(&self.memory);
        let open = if used_before {
            Queue::resume
        } else {
            Queue::start
        };
        open(memory, setup, event_index, indirect).map(Some)
    }
}
