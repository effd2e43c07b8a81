//! Disks on NBD servers, over the host's own network.

use crate::net::Network;
use crate::tcp::TcpStream;
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use core::future::Future;
use core::pin::Pin;
use embassy_executor::Spawner;
use embassy_time::{Duration, Instant};
use godwit_backends::disk::Disk;
use godwit_backends::memory::Memory;
use godwit_backends::storage::nbd::disk::Driver;
use godwit_backends::storage::nbd::{Connecting, Connector, NbdDisk, Stream, Timer};

/// Connections to servers at a time; one a disk.
const DISKS_MAX: usize = 32;

/// One server.
struct Server {
    network: Network,
    host: String,
    port: u16,
}

impl Connector for Server {
    fn connect(&self) -> Connecting<'_> {
        Box::pin(async move {
            let address = self.network.resolve(&self.host).await?;
            let stream = TcpStream::connect(self.network.stack, address, self.port).await?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

/// The clock of the executor.
pub(crate) struct Clock;

impl Timer for Clock {
    fn now_ms(&self) -> u64 {
        Instant::now().as_millis()
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(embassy_time::Timer::after(Duration::from_millis(ms)))
    }
}

/// Opens exports.
#[derive(Clone, Copy)]
pub(crate) struct Exports {
    network: Option<Network>,
    spawner: Spawner,
}

impl Exports {
    /// Over this network.
    pub(crate) fn new(network: Option<Network>, spawner: Spawner) -> Self {
        Self { network, spawner }
    }

    /// Connects to an export. The connection ends when the disk is dropped.
    pub(crate) async fn open(
        &self,
        memory: &Rc<dyn Memory>,
        host: &str,
        port: u16,
        export: &str,
    ) -> Result<Rc<dyn Disk>, String> {
        let network = self.network.ok_or("this host has no network card")?;
        let server = Server {
            network,
            host: host.to_string(),
            port,
        };
        let connecting =
            NbdDisk::connect(Rc::new(server), Rc::new(Clock), Rc::clone(memory), export);
        let connected = connecting.await;
        let (disk, driver) =
            connected.map_err(|error| format!("nbd://{host}:{port}/{export}: {error}"))?;
        let task = drive(driver).map_err(|_| format!("at most {DISKS_MAX} NBD disks are used"))?;
        self.spawner.spawn(task);
        Ok(disk)
    }
}

#[embassy_executor::task(pool_size = DISKS_MAX)]
async fn drive(driver: Driver) {
    driver.await;
}
