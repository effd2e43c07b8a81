//! ATA disks on a PIIX-style IDE controller in compatibility mode: bus-master DMA (SFF-8038i), one
//! command at a time on a channel, as its two disks share the registers.
//!
//! The transfer mode and its timings stay what the firmware has set.

use super::{Controller, Found, HostDisk, Numbers, Starting, next, now_us, place};
use crate::pci::Function;
use crate::ports::Ports;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use embassy_time::{Duration, Instant, Timer};
use godwit_abi::ids::InterruptKind;
use godwit_backends::disk::DiskError;
use godwit_backends::drive::ata::{self, Data, IDENTIFY_WORDS, Identity, Task};
use godwit_backends::drive::{Command, Drive, Engine, Operation, Requests, ide};
use godwit_backends::memory::{Buffer, Memory, Span};

/// PCI class and subclass.
const CLASS_IDE: u32 = 0x0101;
/// Bus-master registers: 16 ports, 8 a channel.
const BUS_MASTER_BAR: usize = 4;
const BUS_MASTER_PORTS: u16 = 8;

// Command block.
const DATA: u16 = 0;
const ERROR: u16 = 1;
const COUNT: u16 = 2;
const LBA: u16 = 3;
const DEVICE: u16 = 6;
const STATUS: u16 = 7;
/// Device register: the second disk.
const SECOND: u8 = 1 << 4;
const DEVICE_BASE: u8 = 0xa0;
/// Control register: reset both disks.
const RESET: u8 = 1 << 2;

// Bus master.
const MASTER_COMMAND: u16 = 0;
const MASTER_STATUS: u16 = 2;
const MASTER_TABLE: u16 = 4;
const MASTER_START: u8 = 1;
/// The device writes memory.
const MASTER_TO_MEMORY: u8 = 1 << 3;
const MASTER_ERROR: u8 = 1 << 1;
const MASTER_INTERRUPT: u8 = 1 << 2;

/// The slot of a channel.
const SLOT: usize = 0;
/// A disk may need to spin up.
const RESET_LIMIT: Duration = Duration::from_secs(10);
/// For IDENTIFY.
const IDENTIFY_LIMIT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(1);
/// Between two commands a disk is busy for no time worth naming.
const READY_LIMIT_US: u64 = 10_000;
/// Where the list of a TRIM is, after the table of regions.
const LIST_OFFSET: u64 = 4096;

/// Whether a function is an IDE controller.
pub(super) fn matches(function: &Function) -> bool {
    function.info.class >> 8 == CLASS_IDE
}

/// A channel and its disks.
struct Channel {
    name: String,
    command: Ports,
    control: Ports,
    master: Ports,
    memory: Rc<dyn Memory>,
    /// Table of regions, list of a TRIM.
    table: Buffer,
    requests: Requests,
    disks: [Option<Identity>; 2],
    has_data: Cell<bool>,
}

/// Starts both channels. The error says why there is none.
pub(super) async fn open(
    function: &Function,
    memory: &Rc<dyn Memory>,
    numbers: &mut Numbers,
) -> Result<Vec<Found>, String> {
    function
        .decode()
        .map_err(|status| format!("enable: {status}"))?;
    let master = function
        .ports(BUS_MASTER_BAR)
        .filter(|master| master.count() >= 2 * BUS_MASTER_PORTS)
        .ok_or("it has no bus-master registers")?;
    // What a dom0 before this one may have begun.
    for channel in 0..2 {
        master.write(channel * BUS_MASTER_PORTS + MASTER_COMMAND, 0u8);
    }
    function
        .enable()
        .map_err(|status| format!("enable: {status}"))?;
    let mut found = Vec::new();
    for channel in 0..2 {
        match open_channel(function, channel, master, memory, numbers).await {
            Ok(channel) => found.extend(channel),
            Err(problem) => {
                log::error!("IDE {} channel {channel}: {problem}", function.address());
            }
        }
    }
    Ok(found)
}

async fn open_channel(
    function: &Function,
    number: u8,
    master: Ports,
    memory: &Rc<dyn Memory>,
    numbers: &mut Numbers,
) -> Result<Option<Found>, String> {
    let (command, control) = function
        .legacy_ide(number)
        .ok_or("native mode is not implemented")?;
    let master = master.part(u16::from(number) * BUS_MASTER_PORTS, BUS_MASTER_PORTS);
    let master = master.expect("there are two such parts");
    let mut channel = Channel {
        name: format!("IDE {} channel {number}", function.address()),
        command,
        control,
        master,
        memory: Rc::clone(memory),
        table: Buffer::new(memory, 2 * 4096).ok_or("no memory for its table")?,
        requests: Requests::new(1),
        disks: [None, None],
        has_data: Cell::new(false),
    };
    if !channel.is_anybody_there() {
        return Ok(None);
    }
    channel.stop();
    channel.reset().await?;
    for unit in 0..2 {
        channel.disks[usize::from(unit)] = channel.identify(unit).await;
    }
    if channel.disks.iter().flatten().count() == 0 {
        return Ok(None);
    }
    let interrupt = function
        .bind(InterruptKind::LegacyIde(number))
        .map_err(|status| format!("bind its interrupt: {status}"))?;
    let channel = Rc::new(channel);
    let mut disks = Vec::new();
    for (unit, disk) in channel.disks.iter().enumerate() {
        let Some(disk) = disk else { continue };
        let engine = Rc::clone(&channel) as Rc<dyn Engine>;
        let drive = Drive::new(engine, unit as u32, disk.geometry, disk.limits());
        disks.push(HostDisk {
            name: format!("ata{}", next(&mut numbers.ata)),
            model: disk.model.clone(),
            serial: disk.serial.clone(),
            place: place("ata", function, &interrupt),
            disk: Rc::new(drive),
        });
    }
    Ok(Some(Found {
        controllers: vec![channel],
        interrupt,
        disks,
    }))
}

impl Channel {
    /// Reading the status there acknowledges nothing.
    fn status(&self) -> u8 {
        self.control.read(0)
    }

    /// A bus without disks floats, or is pulled to 0. To be asked before a reset, as a disk that is
    /// busy with one cannot be selected. Leaves the first disk selected, which speaks for both then.
    fn is_anybody_there(&self) -> bool {
        let found = [SECOND, 0].map(|unit| {
            self.command.write(DEVICE, DEVICE_BASE | unit);
            self.settle();
            !matches!(self.status(), 0 | 0x7f | 0xff)
        });
        found.contains(&true)
    }

    /// 400 ns, which the status takes to be right after a write: four reads take longer.
    fn settle(&self) {
        for _ in 0..4 {
            self.status();
        }
    }

    async fn wait_idle(&self, limit: Duration) -> Result<u8, String> {
        let end = Instant::now() + limit;
        loop {
            let status = self.status();
            if status & ata::STATUS_BUSY == 0 {
                return Ok(status);
            }
            if Instant::now() > end {
                return Err(format!("it stays busy (ATA status {status:#04x})"));
            }
            Timer::after(LOOK).await;
        }
    }

    /// Ends a software reset that `stop` has begun; interrupts are on then.
    async fn reset(&self) -> Result<(), String> {
        Timer::after(LOOK).await;
        self.control.write(0, 0u8);
        // Disks may look before they say that they are busy.
        Timer::after(Duration::from_millis(3)).await;
        self.wait_idle(RESET_LIMIT).await.map(drop)
    }

    /// What a disk says of itself. `None`: there is no (usable) disk.
    async fn identify(&self, unit: u8) -> Option<Identity> {
        self.command.write(DEVICE, DEVICE_BASE | (unit * SECOND));
        self.settle();
        if matches!(self.status(), 0 | 0x7f | 0xff) {
            return None;
        }
        // Others than ATA disks have left their signature after the reset (ATA8-ACS, 9.12).
        let signature: [u8; 2] = [self.command.read(LBA + 1), self.command.read(LBA + 2)];
        if signature != [0, 0] {
            return None;
        }
        self.command.write(STATUS, ata::IDENTIFY);
        self.settle();
        let ended = self.wait_idle(IDENTIFY_LIMIT).await;
        let status = ended
            .inspect_err(|problem| log::error!("{} disk {unit}: {problem}", self.name))
            .ok()?;
        if status & ata::STATUS_ERROR != 0 || status & ata::STATUS_DATA == 0 {
            return None;
        }
        let words: [u16; IDENTIFY_WORDS] = core::array::from_fn(|_| self.command.read(DATA));
        // Lets go of the interrupt.
        self.command.read::<u8>(STATUS);
        let identity = Identity::parse(&words);
        identity
            .inspect_err(|problem| log::warn!("{} disk {unit} is not used: {problem}", self.name))
            .ok()
    }

    /// Waits until the selected disk takes commands.
    fn is_ready(&self) -> bool {
        let end = now_us() + READY_LIMIT_US;
        loop {
            if self.status() & (ata::STATUS_BUSY | ata::STATUS_DATA) == 0 {
                return true;
            }
            if now_us() > end {
                return false;
            }
            core::hint::spin_loop();
        }
    }

    fn write_task(&self, task: &Task) {
        let lba = task.lba.to_le_bytes();
        if task.is_long {
            // First what the registers hold behind what is written second.
            self.command.write(ERROR, (task.features >> 8) as u8);
            self.command.write(COUNT, (task.count >> 8) as u8);
            for part in 0..3 {
                self.command.write(LBA + part, lba[3 + usize::from(part)]);
            }
        }
        self.command.write(ERROR, task.features as u8);
        self.command.write(COUNT, task.count as u8);
        for part in 0..3 {
            self.command.write(LBA + part, lba[usize::from(part)]);
        }
        self.command.write(STATUS, task.command);
    }

    /// Readies the bus master for a transfer.
    fn write_table(&self, spans: &[Span], data: Data) -> u8 {
        self.table.write(0, &ide::table(spans));
        self.memory.fence();
        self.master.write(MASTER_TABLE, self.table.address() as u32);
        let direction = match data {
            Data::FromDevice => MASTER_TO_MEMORY,
            Data::ToDevice | Data::None => 0,
        };
        self.master.write(MASTER_COMMAND, direction);
        direction | MASTER_START
    }

    /// Clears what the last command has left in the bus master's status.
    fn clear_master(&self) -> u8 {
        let status: u8 = self.master.read(MASTER_STATUS);
        let sticky = MASTER_ERROR | MASTER_INTERRUPT;
        self.master.write(MASTER_STATUS, status | sticky);
        status
    }
}

impl Engine for Channel {
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
        ide::reaches(spans)
    }

    fn start(&self, slot: usize, command: &Command<'_>) {
        let disk = self.disks[command.unit as usize].as_ref();
        let task = disk.expect("a drive was made of it").task(command);
        let second = if command.unit == 1 { SECOND } else { 0 };
        self.command.write(DEVICE, task.device | second);
        self.settle();
        if !self.is_ready() {
            let why = format!("it is not ready (ATA status {:#04x})", self.status());
            self.requests.complete(slot, Err(DiskError::Failed(why)));
            return;
        }
        self.clear_master();
        let list = [Span {
            address: self.table.address() + LIST_OFFSET,
            bytes: ata::TRIM_LIST_BYTES,
        }];
        let spans = match command.operation {
            Operation::Read(spans) | Operation::Write(spans) => spans,
            Operation::Flush => &[],
            Operation::Discard | Operation::WriteZeroes { .. } => {
                let ranges = ata::trim_list(command.block, command.blocks);
                self.table.write(LIST_OFFSET as usize, &ranges);
                &list
            }
        };
        self.has_data.set(task.data != Data::None);
        if task.data == Data::None {
            self.write_task(&task);
            return;
        }
        let start = self.write_table(spans, task.data);
        self.write_task(&task);
        self.master.write(MASTER_COMMAND, start);
    }

    fn poll(&self) -> usize {
        if !self.requests.is_busy(SLOT) {
            return 0;
        }
        // It says that the disk has interrupted, and for a transfer that all data are in memory.
        let master: u8 = self.master.read(MASTER_STATUS);
        if master & MASTER_INTERRUPT == 0 {
            return 0;
        }
        self.master.write(MASTER_COMMAND, 0u8);
        let status: u8 = self.command.read(STATUS);
        let error: u8 = self.command.read(ERROR);
        self.clear_master();
        if status & ata::STATUS_BUSY != 0 {
            // An interrupt of before this command.
            return 0;
        }
        let mut result = ata::result(status, error);
        if result.is_ok() && self.has_data.get() && master & MASTER_ERROR != 0 {
            let why = format!("the controller could not reach memory (status {master:#04x})");
            result = Err(DiskError::Failed(why));
        }
        self.requests.complete(SLOT, result).into()
    }

    fn stop(&self) {
        self.master.write(MASTER_COMMAND, 0u8);
        self.control.write(0, RESET);
        self.settle();
    }
}

impl Controller for Channel {
    fn name(&self) -> &str {
        &self.name
    }

    fn interrupt(&self) {
        self.poll();
    }

    fn restart(&self) -> Starting<'_> {
        Box::pin(async move {
            self.reset().await?;
            for (unit, disk) in self.disks.iter().enumerate() {
                if disk.is_some() && self.identify(unit as u8).await != *disk {
                    return Err(format!("disk {unit} is another one after its reset"));
                }
            }
            self.clear_master();
            Ok(())
        })
    }
}
