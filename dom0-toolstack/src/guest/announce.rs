//! Telling networks where a guest is now, after it has come from another host.

use super::{Guests, Kind};
use alloc::rc::Rc;
use alloc::vec::Vec;
use embassy_time::{Duration, Timer};
use godwit_abi::DomainId;
use godwit_backends::network::announce::ROUND_PAUSES_MS;
use godwit_backends::network::networks::GuestPort;

/// Guests that are announced at a time.
const ANNOUNCED_MAX: usize = 4;

impl Guests {
    /// Announces all network cards of a guest, several times.
    pub(super) fn announce(&self, domain: DomainId) {
        let ports: Vec<Rc<GuestPort>> = {
            let domains = self.domains.borrow();
            let functions = domains.get(&domain).map(|domain| domain.functions.values());
            let served = functions.into_iter().flatten();
            let ports = served.filter_map(|served| match &served.kind {
                Kind::Vif(port) => Some(Rc::clone(port)),
                Kind::Disk { .. } | Kind::Console(_) | Kind::Rng | Kind::Balloon(..) => None,
            });
            ports.collect()
        };
        if ports.is_empty() {
            return;
        }
        // The first round must not wait.
        ports.iter().for_each(|port| port.announce());
        match rounds(ports) {
            Ok(task) => self.spawner.spawn(task),
            Err(_) => log::warn!("domain {domain} is announced once only: others are under way"),
        }
    }
}

/// The rounds after the first.
#[embassy_executor::task(pool_size = ANNOUNCED_MAX)]
async fn rounds(ports: Vec<Rc<GuestPort>>) {
    for pause_ms in &ROUND_PAUSES_MS[1..] {
        Timer::after(Duration::from_millis(*pause_ms)).await;
        ports.iter().for_each(|port| port.announce());
    }
}
