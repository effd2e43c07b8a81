//! A host as its toolstack sees it, over the fakes; its time is the simulation's, and it has a clock
//! of its own.

use crate::executor::Executor;
use crate::hypervisor::SimHypervisor;
use crate::random::Random;
use godwit_backends::storage::nbd::Timer;
use godwit_toolstack::site::Site;
use godwit_toolstack::site::fake::{FakeDevices, FakeFiles, FakeStores};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// What lives as long as the host is on.
pub struct Parts {
    /// The hypervisor, with its domains.
    pub hypervisor: SimHypervisor,
    /// The devices.
    pub devices: FakeDevices,
}

impl Parts {
    /// Those of a host: one has a log of writes, the other has not.
    pub fn new(index: usize) -> Self {
        Self {
            hypervisor: SimHypervisor::new(index == 0),
            devices: FakeDevices::default(),
        }
    }
}

/// What dom0 has.
pub struct SimSite {
    /// The host's name.
    pub name: String,
    /// The host.
    pub parts: Rc<Parts>,
    /// Its configuration partition.
    pub files: Rc<FakeFiles>,
    /// Its stores.
    pub stores: Rc<FakeStores>,
    /// Time.
    pub executor: Rc<Executor>,
    /// What its clock is ahead of the simulation's.
    pub ahead_us: u64,
    /// Chance.
    pub random: Random,
}

/// The simulation's time.
struct SimTimer(Rc<Executor>);

impl Timer for SimTimer {
    fn now_ms(&self) -> u64 {
        self.0.now_us() / 1000
    }

    fn sleep(&self, ms: u64) -> Pin<Box<dyn Future<Output = ()>>> {
        let executor = Rc::clone(&self.0);
        let until_us = executor.now_us() + ms * 1000;
        Box::pin(async move { executor.sleep_until(until_us).await })
    }
}

impl Site for SimSite {
    type Hypervisor = SimHypervisor;
    type Devices = FakeDevices;
    type Files = FakeFiles;
    type Stores = FakeStores;

    fn name(&self) -> &str {
        &self.name
    }

    fn hypervisor(&self) -> &SimHypervisor {
        &self.parts.hypervisor
    }

    fn devices(&self) -> &FakeDevices {
        &self.parts.devices
    }

    fn files(&self) -> &FakeFiles {
        &self.files
    }

    fn stores(&self) -> &FakeStores {
        &self.stores
    }

    fn entropy(&self, out: &mut [u8]) -> Result<(), String> {
        self.random.fill(out);
        Ok(())
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        bytes
    }

    fn now_us(&self) -> u64 {
        self.executor.now_us() + self.ahead_us
    }

    async fn sleep_until(&self, us: u64) {
        let until_us = us.saturating_sub(self.ahead_us);
        self.executor.sleep_until(until_us).await;
    }

    fn timer(&self) -> Rc<dyn Timer> {
        Rc::new(SimTimer(Rc::clone(&self.executor)))
    }

    fn spare_bytes(&self) -> u64 {
        8 << 20
    }
}
