//! AHCI (Serial ATA AHCI 1.3.1): every port with an ATA disk is an engine of its own.

mod registers;

use super::{Controller, Found, HostDisk, Numbers, Starting, cut_off, next, now_us, place};
use crate::mmio::Mmio;
use crate::pci::Function;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;
use embassy_futures::join::join_array;
use embassy_time::{Duration, Instant, Timer};
use godwit_backends::disk::DiskError;
use godwit_backends::drive::ahci;
use godwit_backends::drive::ata::{self, Data, IDENTIFY_WORDS, Identity, Task};
use godwit_backends::drive::{Command, Drive, Engine, Operation, Requests};
use godwit_backends::memory::{Buffer, Memory, PAGE_BYTES, Span};
use registers::*;

/// PCI class, subclass and interface.
const CLASS_AHCI: u32 = 0x01_0601;
const REGISTERS_BAR: usize = 5;

/// The most commands in flight on a port.
const SLOTS_MAX: u32 = 16;
/// The most ports of a controller (3.1.4).
const PORTS_MAX: usize = 32;
/// The slot of IDENTIFY.
const SLOT_IDENTIFY: usize = 0;
/// Offset of received FISes behind the command list.
const RECEIVED_OFFSET: u64 = 1024;
/// Pages before the command tables: list and FISes, and the answer to IDENTIFY.
const PAGE_ANSWER: u64 = 1;
const PAGE_TABLES: u64 = 2;

const LOOK: Duration = Duration::from_millis(1);
const RESET_LIMIT: Duration = Duration::from_secs(1);
const HANDOFF_LIMIT: Duration = Duration::from_secs(2);
/// Until a disk is noticed: it answers the reset of the link within 10 ms (Serial ATA 3.x, 8.4.1).
const PRESENCE_LIMIT: Duration = Duration::from_millis(25);
/// Until the link to a disk that was noticed is up.
const LINK_LIMIT: Duration = Duration::from_secs(1);
/// A disk may need to spin up.
const DISK_LIMIT: Duration = Duration::from_secs(10);
const IDENTIFY_LIMIT: Duration = Duration::from_secs(5);
/// A port stops within it, or never (10.1.2).
const STOP_LIMIT_US: u64 = 500_000;

/// Whether a function is an AHCI controller.
pub(super) fn matches(function: &Function) -> bool {
    function.info.class == CLASS_AHCI
}

/// A port and its disk.
struct Port {
    name: String,
    number: u32,
    function: Function,
    all: Mmio,
    registers: Mmio,
    is_wide: bool,
    memory: Rc<dyn Memory>,
    /// Command list, received FISes, answer to IDENTIFY, command tables.
    pages: Buffer,
    slots: u32,
    requests: Requests,
    /// Slots that the port has been given.
    issued: Cell<u32>,
    disk: Option<Identity>,
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
    let all = function
        .registers(REGISTERS_BAR)
        .filter(|registers| registers.bytes() >= port::FIRST + port::BYTES)
        .ok_or("it has no registers")?;
    reset(all).await.inspect_err(|_| cut_off(function))?;
    function
        .enable()
        .map_err(|status| format!("enable: {status}"))?;
    let interrupt = function
        .bind_interrupt()
        .map_err(|status| format!("bind its interrupt: {status}"))?;
    let implemented: u32 = all.read(PORTS);
    let mut ports: Vec<Rc<dyn Controller>> = Vec::new();
    let mut disks = Vec::new();
    // All ports at a time: links and disks take their time to come up, empty ports to be known as empty.
    let begun = join_array(core::array::from_fn::<_, PORTS_MAX, _>(
        |number| async move {
            if implemented & 1 << number == 0 {
                return Ok(None);
            }
            Port::find(function, all, number as u32, memory).await
        },
    ));
    for found in begun.await {
        let Some(found) = found? else { continue };
        let found = Rc::new(found);
        let identity = found.identity();
        let engine = Rc::clone(&found) as Rc<dyn Engine>;
        let drive = Drive::new(engine, 0, identity.geometry, identity.limits());
        disks.push(HostDisk {
            name: format!("sata{}", next(&mut numbers.sata)),
            model: identity.model.clone(),
            serial: identity.serial.clone(),
            place: place("ahci", function, &interrupt),
            disk: Rc::new(drive),
        });
        ports.push(found);
    }
    all.write(INTERRUPT_STATUS, u32::MAX);
    all.write(CONTROL, CONTROL_AHCI | CONTROL_INTERRUPTS);
    Ok(Found {
        controllers: ports,
        interrupt,
        disks,
    })
}

/// Takes the controller from the firmware and resets it (10.6.3, 10.4.3).
async fn reset(all: Mmio) -> Result<(), String> {
    all.write(CONTROL, CONTROL_AHCI);
    if all.read::<u32>(CAPABILITIES_2) & 1 != 0 {
        all.write(HANDOFF, all.read::<u32>(HANDOFF) | HANDOFF_OS);
        let end = Instant::now() + HANDOFF_LIMIT;
        // Firmware that does not let go loses it all the same.
        while all.read::<u32>(HANDOFF) & HANDOFF_BIOS != 0 && Instant::now() < end {
            Timer::after(LOOK).await;
        }
    }
    all.write(CONTROL, CONTROL_AHCI | CONTROL_RESET);
    let end = Instant::now() + RESET_LIMIT;
    while all.read::<u32>(CONTROL) & CONTROL_RESET != 0 {
        if Instant::now() > end {
            return Err("it does not come out of its reset".into());
        }
        Timer::after(LOOK).await;
    }
    all.write(CONTROL, CONTROL_AHCI);
    Ok(())
}

impl Port {
    /// Starts a port. `None`: there is no disk on it that can be used.
    async fn find(
        function: &Function,
        all: Mmio,
        number: u32,
        memory: &Rc<dyn Memory>,
    ) -> Result<Option<Port>, String> {
        let Some(mut port) = Port::new(function, all, number, memory)? else {
            return Ok(None);
        };
        port.disk = port.begin().await.unwrap_or_else(|why| {
            log::error!("{}: {why}", port.name);
            None
        });
        if port.disk.is_none() {
            port.stop();
            return Ok(None);
        }
        Ok(Some(port))
    }

    fn new(
        function: &Function,
        all: Mmio,
        number: u32,
        memory: &Rc<dyn Memory>,
    ) -> Result<Option<Port>, String> {
        let capabilities: u32 = all.read(CAPABILITIES);
        let slots = ((capabilities >> 8 & 0x1f) + 1).min(SLOTS_MAX);
        let offset = port::FIRST + number as usize * port::BYTES;
        let Some(registers) = all.part(offset, port::BYTES) else {
            return Ok(None);
        };
        let pages = PAGE_TABLES + u64::from(slots);
        let pages = Buffer::new(memory, (pages * PAGE_BYTES) as usize);
        Ok(Some(Port {
            name: format!("AHCI {} port {number}", function.address()),
            number,
            function: *function,
            all,
            registers,
            is_wide: capabilities & CAPABILITY_WIDE != 0,
            memory: Rc::clone(memory),
            pages: pages.ok_or("no memory for its commands")?,
            slots,
            requests: Requests::new(slots as usize),
            issued: Cell::new(0),
            disk: None,
        }))
    }

    fn identity(&self) -> &Identity {
        self.disk.as_ref().expect("set before anybody has the port")
    }

    fn read(&self, register: usize) -> u32 {
        self.registers.read(register)
    }

    fn write(&self, register: usize, value: u32) {
        self.registers.write(register, value);
    }

    fn change_command(&self, clear: u32, set: u32) {
        let command = self.read(port::COMMAND) & !(COMMAND_ACTIVE | clear);
        self.write(port::COMMAND, command | set);
    }

    /// Waits, without letting anybody else run, until bits of the command register are 0.
    fn wait_clear(&self, bits: u32) -> bool {
        let end = now_us() + STOP_LIMIT_US;
        while self.read(port::COMMAND) & bits != 0 {
            if now_us() > end {
                return false;
            }
            core::hint::spin_loop();
        }
        true
    }

    async fn wait(&self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + limit;
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() > end {
                return false;
            }
            Timer::after(LOOK).await;
        }
    }

    /// Starts a stopped port. `None`: there is no ATA disk on it.
    async fn begin(&self) -> Result<Option<Identity>, String> {
        if !self.halt() {
            return Err("it does not stop".into());
        }
        let list = self.pages.address();
        for (register, address) in [(port::LIST, list), (port::RECEIVED, list + RECEIVED_OFFSET)] {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.change_command(0, COMMAND_POWER | COMMAND_SPIN_UP | COMMAND_RECEIVE);
        // A reset of the link, and with it of the disk (10.4.2).
        self.write(port::LINK_CONTROL, 1);
        Timer::after(Duration::from_millis(2)).await;
        self.write(port::LINK_CONTROL, 0);
        let link = |port: &Self| port.read(port::LINK_STATUS) & 0xf;
        if !self
            .wait(PRESENCE_LIMIT, |port| link(port) != LINK_NONE)
            .await
        {
            return Ok(None);
        }
        if !self.wait(LINK_LIMIT, |port| link(port) == LINK_UP).await {
            return Err(format!(
                "its link does not come up (status {:#x})",
                link(self)
            ));
        }
        self.write(port::LINK_ERROR, u32::MAX);
        let busy = u32::from(ata::STATUS_BUSY | ata::STATUS_DATA);
        let idle = |port: &Self| port.read(port::TASK_FILE) & busy == 0;
        if !self.wait(DISK_LIMIT, idle).await {
            let status = self.read(port::TASK_FILE);
            return Err(format!("the disk stays busy (task file {status:#x})"));
        }
        if self.read(port::SIGNATURE) != SIGNATURE_ATA {
            return Ok(None);
        }
        self.write(port::INTERRUPT_STATUS, u32::MAX);
        self.change_command(0, COMMAND_START);
        let identity = self.identify().await?;
        self.write(port::INTERRUPT_STATUS, u32::MAX);
        self.write(port::INTERRUPT_ENABLE, INTERRUPTS);
        match identity {
            Ok(identity) => Ok(Some(identity)),
            Err(why) => {
                log::warn!("{}: the disk is not used: {why}", self.name);
                Ok(None)
            }
        }
    }

    async fn identify(&self) -> Result<Result<Identity, &'static str>, String> {
        let task = Task {
            command: ata::IDENTIFY,
            features: 0,
            lba: 0,
            count: 0,
            device: 0,
            is_long: true,
            data: Data::FromDevice,
        };
        let answer = Span {
            address: self.pages.address() + PAGE_ANSWER * PAGE_BYTES,
            bytes: 2 * IDENTIFY_WORDS as u32,
        };
        self.write_command(SLOT_IDENTIFY, &task, &[answer]);
        self.write(port::ISSUE, 1 << SLOT_IDENTIFY);
        let ended = |port: &Self| {
            port.read(port::ISSUE) & 1 << SLOT_IDENTIFY == 0
                || port.read(port::INTERRUPT_STATUS) & ERRORS != 0
        };
        let in_time = self.wait(IDENTIFY_LIMIT, ended).await;
        let (status, errors) = (
            self.read(port::TASK_FILE),
            self.read(port::INTERRUPT_STATUS) & ERRORS,
        );
        if !in_time || errors != 0 {
            return Err(format!(
                "IDENTIFY failed (task file {status:#x}, errors {errors:#x})"
            ));
        }
        let mut bytes = [0; 2 * IDENTIFY_WORDS];
        self.memory.read(answer.address, &mut bytes);
        let word = |at: usize| u16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]);
        Ok(Identity::parse(&core::array::from_fn(word)))
    }

    fn table(&self, slot: usize) -> u64 {
        self.pages.address() + PAGE_TABLES * PAGE_BYTES + slot as u64 * ahci::TABLE_BYTES
    }

    fn write_command(&self, slot: usize, task: &Task, spans: &[Span]) {
        let table = self.table(slot);
        self.memory.write(table, &ahci::table(task, spans));
        let header = ahci::header(task, spans, table);
        let offset = slot as u64 * ahci::HEADER_BYTES as u64;
        self.memory.write(self.pages.address() + offset, &header);
        self.memory.fence();
    }

    /// Stops the port; then it touches no memory. False: it does not stop.
    fn halt(&self) -> bool {
        self.write(port::INTERRUPT_ENABLE, 0);
        self.change_command(COMMAND_START, 0);
        if !self.wait_clear(COMMAND_RUNS) {
            return false;
        }
        self.change_command(COMMAND_RECEIVE, 0);
        self.wait_clear(COMMAND_RECEIVES)
    }

    /// After an error: ends the command that has failed and has the port go on with the others
    /// (6.2.2.1).
    fn recover(&self, errors: u32) -> usize {
        let task_file = self.read(port::TASK_FILE);
        let current = self.read(port::COMMAND) >> 8 & 0x1f;
        self.change_command(COMMAND_START, 0);
        let busy = u32::from(ata::STATUS_BUSY | ata::STATUS_DATA);
        let is_lost = !self.wait_clear(COMMAND_RUNS) || task_file & busy != 0;
        if is_lost || errors & TASK_FILE_ERROR == 0 {
            log::error!(
                "{}: errors {errors:#x}, task file {task_file:#x}",
                self.name
            );
            let before = self.requests.busy().len();
            self.stop();
            self.requests.stop("the link or the controller failed");
            return before;
        }
        let (status, error) = (task_file as u8, (task_file >> 8) as u8);
        let result = ata::result(status, error)
            .and_then(|()| Err(DiskError::Failed("task file error without one".into())));
        let left = self.issued.get() & !(1 << current);
        self.issued.set(left);
        self.write(port::LINK_ERROR, u32::MAX);
        self.write(port::INTERRUPT_STATUS, u32::MAX);
        self.change_command(0, COMMAND_START);
        self.write(port::ISSUE, left);
        self.requests.complete(current as usize, result).into()
    }
}

impl Engine for Port {
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
        ahci::reaches(spans, self.is_wide)
    }

    fn start(&self, slot: usize, command: &Command<'_>) {
        let task = self.identity().task(command);
        let list = [Span {
            address: self.table(slot) + ahci::LIST_OFFSET,
            bytes: ata::TRIM_LIST_BYTES,
        }];
        let spans = match command.operation {
            Operation::Read(spans) | Operation::Write(spans) => spans,
            Operation::Flush => &[],
            Operation::Discard | Operation::WriteZeroes { .. } => {
                let ranges = ata::trim_list(command.block, command.blocks);
                self.memory.write(list[0].address, &ranges);
                &list
            }
        };
        assert!(slot < self.slots as usize, "a slot the port does not have");
        self.write_command(slot, &task, spans);
        self.issued.set(self.issued.get() | 1 << slot);
        self.write(port::ISSUE, 1 << slot);
    }

    fn poll(&self) -> usize {
        let issued = self.issued.get();
        if issued == 0 {
            return 0;
        }
        // The errors first: a command that ends well after this look is seen by the next.
        let errors = self.read(port::INTERRUPT_STATUS) & ERRORS;
        let done = issued & !self.read(port::ISSUE);
        self.issued.set(issued & !done);
        let mut ended = 0;
        for slot in (0..self.slots).filter(|slot| done & 1 << slot != 0) {
            ended += usize::from(self.requests.complete(slot as usize, Ok(())));
        }
        if errors != 0 {
            ended += self.recover(errors);
        }
        ended
    }

    fn stop(&self) {
        if !self.halt() {
            // Cuts off the other ports as well, which time out then.
            log::error!("{}: it does not stop: no DMA for its controller", self.name);
            cut_off(&self.function);
        }
        self.issued.set(0);
    }
}

impl Controller for Port {
    fn name(&self) -> &str {
        &self.name
    }

    fn interrupt(&self) {
        let status = self.read(port::INTERRUPT_STATUS);
        // Errors stay until they are seen to.
        self.write(port::INTERRUPT_STATUS, status & !ERRORS);
        self.poll();
        if self.read(port::INTERRUPT_STATUS) & ERRORS != 0 {
            // Nothing was under way that could have failed.
            self.write(port::INTERRUPT_STATUS, ERRORS);
        }
        self.all.write(INTERRUPT_STATUS, 1u32 << self.number);
    }

    fn restart(&self) -> Starting<'_> {
        Box::pin(async move {
            if self.function.master(true).is_err() {
                return Err("it cannot be given access to memory".into());
            }
            match self.begin().await? {
                Some(identity) if Some(&identity) == self.disk.as_ref() => Ok(()),
                Some(_) => Err("it is another disk after its reset".into()),
                None => Err("no disk answers after its reset".into()),
            }
        })
    }
}
