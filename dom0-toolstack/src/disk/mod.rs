//! The host's own disks: finds them, starts their drivers, and sees to devices that do not answer.
//!
//! A driver is a [`Controller`], the unsafe-free shell over registers and rings around the deciding
//! parts in `godwit_backends::drive`. Each has a task for its interrupt; one task watches them all.

mod ahci;
mod ata;
mod nvme;
mod virtio;

use crate::memory::HostMemory;
use crate::pci::{self, Function, Interrupt};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::Future;
use core::pin::Pin;
use embassy_executor::Spawner;
use embassy_time::{Duration, Timer};
use godwit_backends::disk::Disk;
use godwit_backends::drive::Engine;
use godwit_backends::memory::Memory;

/// The most controllers in use.
const CONTROLLERS_MAX: usize = 16;
/// How often the watchdog looks.
const WATCHDOG: Duration = Duration::from_millis(500);
/// The same once interrupts were missed: then it is the watchdog that carries the traffic.
const WATCHDOG_ALERT: Duration = Duration::from_millis(10);
/// Looks that found what no interrupt had told of, until the watchdog takes over.
const MISSED_MAX: u32 = 4;

/// Something that takes time.
type Starting<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// A driver's side of an engine.
trait Controller: Engine {
    /// Where it is and what it is, for the log.
    fn name(&self) -> &str;
    /// Looks why it has interrupted, acknowledges, and tells what is done.
    fn interrupt(&self);
    /// Starts the device anew after `stop`. The error says what it does not do.
    fn restart(&self) -> Starting<'_>;
}

/// A disk of the host.
#[derive(Clone)]
pub(crate) struct HostDisk {
    /// `vd0`, `nvme0n1`, `sata0`, `ata0` ...
    pub(crate) name: String,
    /// What the device calls itself.
    pub(crate) model: String,
    /// Its serial number, empty if it has none.
    pub(crate) serial: String,
    /// Driver, address and interrupt.
    pub(crate) place: String,
    /// The disk.
    pub(crate) disk: Rc<dyn Disk>,
}

/// Everything that is there at the boot.
#[derive(Clone)]
pub(crate) struct Disks {
    /// dom0's memory, which their spans are of.
    pub(crate) memory: Rc<dyn Memory>,
    /// The disks, in order of their names' kinds and of PCI addresses.
    pub(crate) all: Vec<HostDisk>,
}

impl Disks {
    /// A disk by its name.
    pub(crate) fn find(&self, name: &str) -> Option<&HostDisk> {
        self.all.iter().find(|disk| disk.name == name)
    }
}

/// What a driver has found behind one function.
struct Found {
    /// One for each thing that is reset by itself; they share the interrupt.
    controllers: Vec<Rc<dyn Controller>>,
    interrupt: Interrupt,
    disks: Vec<HostDisk>,
}

/// Starts a driver for every function that is a controller of disks. One that does not work is
/// said in the log.
pub(crate) async fn start(memory: &Rc<HostMemory>, spawner: Spawner) -> Disks {
    let memory: Rc<dyn Memory> = Rc::clone(memory) as Rc<dyn Memory>;
    let mut all = Vec::new();
    let mut watched = Vec::new();
    let mut numbers = Numbers::default();
    for function in pci::functions() {
        let found = if virtio::matches(&function) {
            let found = virtio::open(&function, &memory, &mut numbers).await;
            found.map(|found| vec![found])
        } else if nvme::matches(&function) {
            let found = nvme::open(&function, &memory, &mut numbers).await;
            found.map(|found| vec![found])
        } else if ahci::matches(&function) {
            let found = ahci::open(&function, &memory, &mut numbers).await;
            found.map(|found| vec![found])
        } else if ata::matches(&function) {
            ata::open(&function, &memory, &mut numbers).await
        } else {
            continue;
        };
        let found = found.unwrap_or_else(|problem| {
            log::error!("disk controller {}: {problem}", function.address());
            Vec::new()
        });
        for found in found {
            if watched.len() == CONTROLLERS_MAX {
                let address = function.address();
                log::error!("disk controller {address}: only {CONTROLLERS_MAX} are used");
                found.controllers.iter().for_each(|one| one.stop());
                continue;
            }
            let shared = Rc::new(Watched {
                controllers: found.controllers,
                interrupts: Cell::new(0),
            });
            watched.push(Rc::clone(&shared));
            let task = interrupt_task(shared, found.interrupt);
            spawner.spawn(task.expect("the pool has as many"));
            all.extend(found.disks);
        }
    }
    for disk in &all {
        log::info!("{}", line(disk));
    }
    if !watched.is_empty() {
        spawner.spawn(watchdog_task(watched).expect("spawned once"));
    }
    Disks { memory, all }
}

fn line(disk: &HostDisk) -> String {
    let geometry = disk.disk.geometry();
    format!(
        "disk {}: {}, {} MiB, blocks of {} bytes, {}",
        disk.name,
        disk.model,
        geometry.bytes() >> 20,
        geometry.block_bytes,
        disk.place
    )
}

/// Numbers for names.
#[derive(Default)]
struct Numbers {
    virtio: u32,
    nvme: u32,
    sata: u32,
    ata: u32,
}

/// The next number of a kind.
fn next(number: &mut u32) -> u32 {
    let this = *number;
    *number += 1;
    this
}

/// The controllers behind an interrupt, and how often it came.
struct Watched {
    controllers: Vec<Rc<dyn Controller>>,
    interrupts: Cell<u32>,
}

#[embassy_executor::task(pool_size = CONTROLLERS_MAX)]
async fn interrupt_task(watched: Rc<Watched>, interrupt: Interrupt) -> ! {
    loop {
        interrupt.wait().await;
        watched
            .interrupts
            .set(watched.interrupts.get().wrapping_add(1));
        watched.controllers.iter().for_each(|one| one.interrupt());
        interrupt.served();
    }
}

/// Resets devices that do not answer, and finds what interrupts did not tell.
#[embassy_executor::task]
async fn watchdog_task(all: Vec<Rc<Watched>>) -> ! {
    let mut period = WATCHDOG;
    let mut missed = 0;
    let mut before: Vec<u32> = all.iter().map(|_| 0).collect();
    loop {
        Timer::after(period).await;
        // Else what an interrupt has just told of would count as missed.
        crate::executor::after_events().await;
        for (watched, before) in all.iter().zip(&mut before) {
            // What ended just now is still being told of by a device that interrupts at all.
            let interrupts = watched.interrupts.get();
            let is_silent = core::mem::replace(before, interrupts) == interrupts;
            for controller in &watched.controllers {
                if controller.poll() > 0 && is_silent {
                    missed += 1;
                    if missed == MISSED_MAX {
                        let name = controller.name();
                        log::warn!("{name}: commands end and no interrupt comes: polling");
                        period = WATCHDOG_ALERT;
                    }
                }
                see_to(&**controller).await;
            }
        }
    }
}

/// Resets a device that does not answer.
async fn see_to(controller: &dyn Controller) {
    let requests = controller.requests();
    if requests.is_overdue(controller.now_us()) {
        log::error!("{}: a command timed out: resetting it", controller.name());
        controller.stop();
        requests.stop("timed out; the device was reset");
    }
    if requests.wants_restart() {
        match controller.restart().await {
            Ok(()) => requests.open(),
            Err(why) => {
                log::error!("{}: given up: {why}", controller.name());
                controller.stop();
                requests.gone(&why);
            }
        }
    }
}

/// Microseconds since the boot.
fn now_us() -> u64 {
    embassy_time::Instant::now().as_micros()
}

/// Keeps a function from reading or writing memory, whatever its registers say.
fn cut_off(function: &Function) {
    if let Err(status) = function.master(false) {
        log::error!("{}: stop its DMA: {status}", function.address());
    }
}

fn place(driver: &str, function: &Function, interrupt: &Interrupt) -> String {
    let kind = pci::KindName(interrupt.kind());
    format!("{driver} {} {kind}", function.address())
}
