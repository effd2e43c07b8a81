//! NVMe (NVM Express Base 1.4): the admin queue, one pair of I/O queues, every namespace a disk.

use super::{Controller, Found, HostDisk, Numbers, Starting, cut_off, next, now_us, place};
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use embassy_time::{Duration, Instant, Timer};
use godwit_backends::disk::Geometry;
use godwit_backends::drive::nvme::{self, Completion, Entry, IDENTIFY_BYTES, Subject};
use godwit_backends::drive::{Command, Drive, Engine, Operation, Requests};
use godwit_backends::memory::{Buffer, Memory, PAGE_BYTES, Span};

/// PCI class, subclass and interface.
const CLASS_NVME: u32 = 0x01_0802;

// Controller registers (3.1).
const CAPABILITIES: usize = 0x00;
const VERSION: usize = 0x08;
const CONFIGURATION: usize = 0x14;
const STATUS: usize = 0x1c;
const ADMIN_SIZES: usize = 0x24;
const ADMIN_SUBMISSION: usize = 0x28;
const ADMIN_COMPLETION: usize = 0x30;
const DOORBELLS: usize = 0x1000;

/// On, entries of 64 and 16 bytes, pages of 4 KiB.
const CONFIGURATION_ON: u32 = 1 | 6 << 16 | 4 << 20;
const STATUS_READY: u32 = 1;
const STATUS_FATAL: u32 = 2;
/// Has the list of active namespaces.
const VERSION_1_1: u32 = 0x1_0100;

/// Entries of each queue: a submission queue is a page then.
const ENTRIES_MAX: u16 = 64;
/// The most commands in flight; fewer than there are entries.
const SLOTS: u16 = 32;
/// The most namespaces in use.
const NAMESPACES_MAX: usize = 16;
const LOOK: Duration = Duration::from_millis(1);
/// For an admin command.
const ADMIN_LIMIT: Duration = Duration::from_secs(5);
/// The longest that readiness is waited for, whatever the controller says.
const READY_LIMIT_MS_MAX: u64 = 20_000;

// Pages of the controller's memory.
const PAGE_ADMIN_SUBMISSION: u64 = 0;
const PAGE_ADMIN_COMPLETION: u64 = 1;
const PAGE_SUBMISSION: u64 = 2;
const PAGE_COMPLETION: u64 = 3;
const PAGE_IDENTIFY: u64 = 4;
/// One for each slot: its list of pages, or the range of its discard.
const PAGE_SLOTS: u64 = 5;
const PAGES: u64 = PAGE_SLOTS + SLOTS as u64;

/// Whether a function is an NVMe controller.
pub(super) fn matches(function: &Function) -> bool {
    function.info.class == CLASS_NVME
}

/// A pair of queues, and where we are in them.
struct Queues {
    memory: Rc<dyn Memory>,
    submission: u64,
    completion: u64,
    entries: u16,
    bells: [(Mmio, usize); 2],
    tail: u16,
    head: u16,
    phase: bool,
}

impl Queues {
    fn submit(&mut self, entry: &Entry) {
        let at = self.submission + u64::from(self.tail) * nvme::COMMAND_BYTES as u64;
        self.memory.write(at, entry);
        self.tail = (self.tail + 1) % self.entries;
        self.memory.fence();
        let (registers, bell) = self.bells[0];
        registers.write(bell, u32::from(self.tail));
    }

    fn take(&mut self) -> Option<Completion> {
        let at = self.completion + u64::from(self.head) * nvme::COMPLETION_BYTES as u64;
        // The half word with the phase first: what is before it is there when it is.
        let phase = self.memory.load_u16(at + 14) & 1 != 0;
        if phase != self.phase {
            return None;
        }
        let mut bytes = [0; nvme::COMPLETION_BYTES];
        self.memory.read(at, &mut bytes);
        self.head = (self.head + 1) % self.entries;
        if self.head == 0 {
            self.phase = !self.phase;
        }
        Some(Completion::parse(&bytes))
    }

    /// Tells the controller how far the completions have been taken.
    fn taken(&self) {
        let (registers, bell) = self.bells[1];
        registers.write(bell, u32::from(self.head));
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Namespace {
    id: u32,
    geometry: Geometry,
}

/// A controller.
struct Nvme {
    name: String,
    function: Function,
    registers: Mmio,
    memory: Rc<dyn Memory>,
    pages: Buffer,
    requests: Requests,
    queues: RefCell<Option<Queues>>,
    identity: nvme::Controller,
    namespaces: Vec<Namespace>,
}

/// Starts a controller.
pub(super) async fn open(
    function: &Function,
    memory: &Rc<dyn Memory>,
    numbers: &mut Numbers,
) -> Result<Found, String> {
    function
        .decode()
        .map_err(|status| format!("enable: {status}"))?;
    let interrupt = function
        .bind_interrupt()
        .map_err(|status| format!("bind its interrupt: {status}"))?;
    let registers = function
        .registers(0)
        .filter(|registers| registers.bytes() >= 2 * DOORBELLS)
        .ok_or("it has no registers")?;
    let pages = Buffer::new(memory, (PAGES * PAGE_BYTES) as usize);
    let pages = pages.ok_or("no memory for its queues")?;
    let started = Starter {
        function,
        registers,
        memory,
        pages: &pages,
    };
    let begun = started.begin().await;
    let (queues, identity, namespaces) = begun.inspect_err(|_| cut_off(function))?;
    let name = format!("nvme{}", next(&mut numbers.nvme));
    let controller = Rc::new(Nvme {
        name: name.clone(),
        function: *function,
        registers,
        memory: Rc::clone(memory),
        pages,
        requests: Requests::new(SLOTS.into()),
        queues: RefCell::new(Some(queues)),
        identity,
        namespaces,
    });
    let disk = |(unit, namespace): (usize, &Namespace)| {
        let engine = Rc::clone(&controller) as Rc<dyn Engine>;
        let limits = controller.identity.limits();
        HostDisk {
            name: format!("{name}n{}", namespace.id),
            model: controller.identity.model.clone(),
            serial: controller.identity.serial.clone(),
            place: place("nvme", function, &interrupt),
            disk: Rc::new(Drive::new(engine, unit as u32, namespace.geometry, limits)),
        }
    };
    let disks = controller.namespaces.iter().enumerate().map(disk).collect();
    Ok(Found {
        controllers: vec![controller.clone()],
        interrupt,
        disks,
    })
}

/// Starts a controller, for the first time or again.
struct Starter<'a> {
    function: &'a Function,
    registers: Mmio,
    memory: &'a Rc<dyn Memory>,
    pages: &'a Buffer,
}

impl Starter<'_> {
    fn page(&self, number: u64) -> u64 {
        self.pages.address() + number * PAGE_BYTES
    }

    fn write_wide(&self, register: usize, value: u64) {
        self.registers.write(register, value as u32);
        self.registers.write(register + 4, (value >> 32) as u32);
    }

    /// Empty queues `number`, each of `entries`.
    fn queues(&self, number: u16, entries: u16, [submission, completion]: [u64; 2]) -> Queues {
        for page in [submission, completion] {
            self.memory
                .write(self.page(page), &[0; PAGE_BYTES as usize]);
        }
        let stride = 4 << (self.registers.read::<u32>(CAPABILITIES + 4) & 0xf);
        let bell = |which: usize| {
            let offset = DOORBELLS + (2 * usize::from(number) + which) * stride;
            (self.registers, offset)
        };
        Queues {
            memory: Rc::clone(self.memory),
            submission: self.page(submission),
            completion: self.page(completion),
            entries,
            bells: [bell(0), bell(1)],
            tail: 0,
            head: 0,
            phase: true,
        }
    }

    async fn begin(&self) -> Result<(Queues, nvme::Controller, Vec<Namespace>), String> {
        self.function
            .decode()
            .map_err(|status| format!("enable: {status}"))?;
        let low: u32 = self.registers.read(CAPABILITIES);
        let high: u32 = self.registers.read(CAPABILITIES + 4);
        if high >> 16 & 0xf != 0 {
            return Err("it has no pages of 4 KiB".into());
        }
        let stride = 4usize << (high & 0xf);
        if DOORBELLS + 4 * stride > self.registers.bytes() {
            return Err("its doorbells are out of reach".into());
        }
        let entries = ((low & 0xffff) + 1).min(ENTRIES_MAX.into()) as u16;
        if entries <= SLOTS {
            return Err(format!("its queues have only {entries} entries"));
        }
        let ready_limit_ms = (u64::from(low >> 24) * 500).clamp(500, READY_LIMIT_MS_MAX);
        let ready_limit = Duration::from_millis(ready_limit_ms);
        self.registers.write(CONFIGURATION, 0u32);
        self.wait_ready(0, ready_limit).await?;
        self.function
            .enable()
            .map_err(|status| format!("enable: {status}"))?;
        let admin_pages = [PAGE_ADMIN_SUBMISSION, PAGE_ADMIN_COMPLETION];
        let mut admin = self.queues(0, ENTRIES_MAX, admin_pages);
        let sizes = u32::from(ENTRIES_MAX - 1);
        self.registers.write(ADMIN_SIZES, sizes | sizes << 16);
        self.write_wide(ADMIN_SUBMISSION, admin.submission);
        self.write_wide(ADMIN_COMPLETION, admin.completion);
        self.registers.write(CONFIGURATION, CONFIGURATION_ON);
        self.wait_ready(STATUS_READY, ready_limit).await?;
        let identity = self.identify(&mut admin, Subject::Controller).await?;
        let identity = nvme::Controller::parse(&identity);
        let namespaces = self.namespaces(&mut admin, &identity).await?;
        let queues = self.queues(1, entries, [PAGE_SUBMISSION, PAGE_COMPLETION]);
        let make = nvme::create_completion(0, entries, queues.completion);
        self.admin(&mut admin, &make).await?;
        let make = nvme::create_submission(0, entries, queues.submission);
        self.admin(&mut admin, &make).await?;
        Ok((queues, identity, namespaces))
    }

    async fn wait_ready(&self, wanted: u32, limit: Duration) -> Result<(), String> {
        let end = Instant::now() + limit;
        loop {
            let status: u32 = self.registers.read(STATUS);
            if status & STATUS_READY == wanted && (wanted == 0 || status & STATUS_FATAL == 0) {
                return Ok(());
            }
            if Instant::now() > end || status == u32::MAX {
                return Err(format!("it does not start or stop (CSTS {status:#x})"));
            }
            Timer::after(LOOK).await;
        }
    }

    /// Runs an admin command, one at a time.
    async fn admin(&self, queues: &mut Queues, entry: &Entry) -> Result<(), String> {
        queues.submit(entry);
        let end = Instant::now() + ADMIN_LIMIT;
        loop {
            if let Some(completion) = queues.take() {
                queues.taken();
                let opcode = entry[0];
                let result = completion.result();
                return result.map_err(|error| format!("admin command {opcode:#04x}: {error}"));
            }
            if Instant::now() > end {
                let status: u32 = self.registers.read(STATUS);
                return Err(format!("no answer to an admin command (CSTS {status:#x})"));
            }
            Timer::after(LOOK).await;
        }
    }

    async fn identify(
        &self,
        admin: &mut Queues,
        subject: Subject,
    ) -> Result<Box<[u8; IDENTIFY_BYTES]>, String> {
        let address = self.page(PAGE_IDENTIFY);
        let command = nvme::identify(0, subject, address);
        self.admin(admin, &command).await?;
        let mut bytes = Box::new([0; IDENTIFY_BYTES]);
        self.memory.read(address, &mut *bytes);
        Ok(bytes)
    }

    async fn namespaces(
        &self,
        admin: &mut Queues,
        identity: &nvme::Controller,
    ) -> Result<Vec<Namespace>, String> {
        let mut numbers = if self.registers.read::<u32>(VERSION) >= VERSION_1_1 {
            nvme::active(&*self.identify(admin, Subject::Active).await?)
        } else {
            let last = identity.namespaces.min(NAMESPACES_MAX as u32);
            (1..=last).collect()
        };
        if numbers.len() > NAMESPACES_MAX {
            let all = numbers.len();
            log::warn!("an NVMe controller has {all} namespaces: {NAMESPACES_MAX} are used");
            numbers.truncate(NAMESPACES_MAX);
        }
        let mut all = Vec::new();
        for id in numbers {
            let bytes = self.identify(admin, Subject::Namespace(id)).await?;
            match identity.namespace(&bytes) {
                Ok(Some(geometry)) => all.push(Namespace { id, geometry }),
                Ok(None) => {}
                Err(why) => log::warn!("NVMe namespace {id} is not used: {why}"),
            }
        }
        Ok(all)
    }
}

impl Engine for Nvme {
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
        nvme::pages(spans).is_some()
    }

    fn start(&self, slot: usize, command: &Command<'_>) {
        let own = self.pages.address() + (PAGE_SLOTS + slot as u64) * PAGE_BYTES;
        let fields = match command.operation {
            Operation::Read(spans) | Operation::Write(spans) => {
                let pages = nvme::pages(spans).expect("asked `reaches` before");
                let (fields, list) = nvme::prps(&pages, own);
                self.memory.write(own, &list);
                fields
            }
            Operation::Discard => {
                let range = nvme::range(command.block, command.blocks);
                self.memory.write(own, &range);
                [own, 0]
            }
            Operation::Flush | Operation::WriteZeroes { .. } => [0, 0],
        };
        let namespace = self.namespaces[command.unit as usize].id;
        let entry = nvme::command(slot as u16, namespace, command, fields);
        let mut queues = self.queues.borrow_mut();
        let queues = queues.as_mut().expect("no command while it is stopped");
        queues.submit(&entry);
    }

    fn poll(&self) -> usize {
        let (mut ended, mut taken) = (0, false);
        // Bounded: one turn for each entry.
        for _ in 0..ENTRIES_MAX {
            let completion = self.queues.borrow_mut().as_mut().and_then(Queues::take);
            let Some(completion) = completion else { break };
            taken = true;
            let slot = usize::from(completion.id);
            if self.requests.complete(slot, completion.result()) {
                ended += 1;
            } else {
                log::warn!(
                    "{}: it ended command {slot} that it did not have",
                    self.name
                );
            }
        }
        if taken && let Some(queues) = self.queues.borrow().as_ref() {
            queues.taken();
        }
        ended
    }

    fn stop(&self) {
        cut_off(&self.function);
        self.registers.write(CONFIGURATION, 0u32);
        *self.queues.borrow_mut() = None;
    }
}

impl Controller for Nvme {
    fn name(&self) -> &str {
        &self.name
    }

    fn interrupt(&self) {
        self.poll();
    }

    fn restart(&self) -> Starting<'_> {
        Box::pin(async move {
            let starter = Starter {
                function: &self.function,
                registers: self.registers,
                memory: &self.memory,
                pages: &self.pages,
            };
            let (queues, identity, namespaces) = starter.begin().await?;
            if (&identity, &namespaces) != (&self.identity, &self.namespaces) {
                return Err("it is another controller after its reset".into());
            }
            *self.queues.borrow_mut() = Some(queues);
            Ok(())
        })
    }
}
