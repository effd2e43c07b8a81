//! What guests do with their devices, from the hypervisor to the functions.

use super::{Guests, keep};
use crate::executor::{self, EventPort, Serve};
use crate::hypercall::HYPERCALLS;
use embassy_executor::Spawner;
use godwit_abi::ids::EventSource;
use godwit_abi::{DeviceRequest, DomainId, Doorbell, Status};
use zerocopy::{FromZeros, IntoBytes};

/// Doorbells taken at a time.
const DOORBELLS: usize = 64;
/// What a read of nothing gives.
const ALL_ONES: u64 = u64::MAX;

/// Begins to serve guests.
pub(crate) fn start(guests: &'static Guests, spawner: Spawner) -> Result<(), Status> {
    let bind = |source| HYPERCALLS.port_bind(source).and_then(EventPort::new);
    let rung = bind(EventSource::Doorbell)?;
    spawner.spawn(doorbells(guests, rung).expect("spawned once"));
    executor::serve(guests);
    Ok(())
}

impl Serve for Guests {
    fn answer(&self, request: &DeviceRequest) -> u64 {
        let domain = DomainId::from_raw(request.domain);
        let slot = u32::from(request.device);
        let Some(function) = self.function(domain, slot) else {
            return ALL_ONES;
        };
        let value = match request.write {
            0 => function.read(request.bar, request.offset, request.width),
            _write => {
                function.write(request.bar, request.offset, request.width, request.value);
                0
            }
        };
        if function.take_changed()
            && let Err(status) = keep(domain, slot, &function)
        {
            log::warn!("keep the state of device {slot} of domain {domain}: {status}");
        }
        value
    }
}

#[embassy_executor::task]
async fn doorbells(guests: &'static Guests, port: EventPort) -> ! {
    let mut batch = [Doorbell::new_zeroed(); DOORBELLS];
    loop {
        port.wait().await;
        loop {
            let address = batch.as_mut_bytes().as_mut_ptr() as u64;
            let taken = HYPERCALLS.doorbells_take(address, DOORBELLS as u64);
            let count = taken.unwrap_or_else(|status| panic!("take doorbells: {status}"));
            let count = (count as usize).min(DOORBELLS);
            for rung in &batch[..count] {
                if let Some(function) =
                    guests.function(DomainId::from_raw(rung.domain), rung.device)
                {
                    function.doorbell(rung.bits);
                }
            }
            if count < DOORBELLS {
                break;
            }
        }
    }
}
