//! The gateway's table of connections outlives dom0: the hypervisor keeps it beside dom0's domain.

use crate::hypercall::Host;
use alloc::rc::Rc;
use core::future::poll_fn;
use embassy_time::{Duration, Instant, Timer};
use godwit_abi::{DomainId, Status};
use godwit_backends::network::gateway::Gateway;
use godwit_toolstack::host::Hypervisor;

/// Key of the blob of the control domain that holds the table; below 0x40 are those of moves.
const TABLE_BLOB: u32 = 0x40;
/// The shortest time between two writes: what changes meanwhile is written then. A connection that is younger
/// when dom0 dies goes on only if the guest sends first and its own port is the host's too.
const WRITE_PAUSE: Duration = Duration::from_millis(200);

/// Takes back what the dom0 before has kept. Returns how many connections.
pub(super) fn restore(gateway: &Gateway) -> usize {
    match Host.blob_read(DomainId::CONTROL, TABLE_BLOB) {
        Ok(bytes) => {
            let now_us = Instant::now().as_micros();
            gateway.with_router(|router| router.table().restore(&bytes, now_us))
        }
        Err(Status::NotFound) => 0,
        Err(status) => {
            log::warn!("guests' connections to the outside are lost: {status}");
            0
        }
    }
}

/// Keeps the table whenever it changes.
#[embassy_executor::task]
pub(super) async fn keep_task(gateway: Rc<Gateway>) -> ! {
    let mut failed = false;
    loop {
        poll_fn(|context| gateway.with_router(|router| router.table().poll_changed(context))).await;
        let now_us = Instant::now().as_micros();
        let bytes = gateway.with_router(|router| router.table().keep(now_us));
        let written = Host.blob_write(DomainId::CONTROL, TABLE_BLOB, &bytes);
        if let Err(status) = written
            && !failed
        {
            log::warn!("guests' connections to the outside would not outlive dom0: {status}");
        }
        failed = written.is_err();
        Timer::after(WRITE_PAUSE).await;
    }
}
