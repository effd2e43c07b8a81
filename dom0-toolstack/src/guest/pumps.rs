//! What guests do with their devices, from the hypervisor to the functions.

use super::{Guests, keep};
use crate::executor::EventPort;
use crate::hypercall::HYPERCALLS;
use embassy_executor::Spawner;
use godwit_abi::ids::EventSource;
use godwit_abi::{DeviceRequest, DomainId, Doorbell, Status, VcpuIndex};
use zerocopy::{FromZeros, IntoBytes};

/// Accesses taken at a time.
const REQUESTS: usize = 32;
/// Doorbells taken at a time.
const DOORBELLS: usize = 64;
/// What a read of nothing gives.
const ALL_ONES: u64 = u64::MAX;

/// Begins to serve guests.
pub(crate) fn start(guests: &'static Guests, spawner: Spawner) -> Result<(), Status> {
    let bind = |source| HYPERCALLS.port_bind(source).and_then(EventPort::new);
    let (requested, rung) = (
        bind(EventSource::DeviceRequest)?,
        bind(EventSource::Doorbell)?,
    );
    spawner.spawn(requests(guests, requested).expect("spawned once"));
    spawner.spawn(doorbells(guests, rung).expect("spawned once"));
    Ok(())
}

#[embassy_executor::task]
async fn requests(guests: &'static Guests, port: EventPort) -> ! {
    let mut batch = [DeviceRequest::new_zeroed(); REQUESTS];
    loop {
        port.wait().await;
        loop {
            let address = batch.as_mut_bytes().as_mut_ptr() as u64;
            let taken = HYPERCALLS.device_request_take(address, REQUESTS as u64);
            let count = taken.unwrap_or_else(|status| panic!("take device requests: {status}"));
            let count = (count as usize).min(REQUESTS);
            for request in &batch[..count] {
                answer(guests, request);
            }
            if count < REQUESTS {
                break;
            }
        }
    }
}

fn answer(guests: &Guests, request: &DeviceRequest) {
    let domain = DomainId::from_raw(request.domain);
    let slot = u32::from(request.device);
    let value = match guests.function(domain, slot) {
        None => ALL_ONES,
        Some(function) => {
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
    };
    match HYPERCALLS.device_request_complete(domain, VcpuIndex(request.vcpu), value) {
        // The domain was destroyed or reset meanwhile.
        Ok(()) | Err(Status::NoDomain | Status::NotFound) => {}
        Err(status) => log::warn!("answer vCPU {} of domain {domain}: {status}", request.vcpu),
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
