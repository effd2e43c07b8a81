//! Waiting for what a guest does in its own time: `xl shutdown -w`, `xl mem-set`.

use super::live::ended;
use super::typed::interrupts;
use super::{Shell, domains};
use crate::console;
use crate::hypercall::Host;
use crate::site::Tools;
use alloc::format;
use alloc::string::String;
use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use embassy_time::{Duration, Instant, Timer};
use godwit_abi::{DomainId, Status};
use godwit_toolstack::dirty::{DirtyLog, DirtyRate};
use godwit_toolstack::operate::OperateError;
use godwit_toolstack::site::{DeviceHost, Site};

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// A balloon that does nothing for so long is not waited for.
const IDLE: Duration = Duration::from_secs(20);

impl Shell {
    /// Until a domain has ended. False: interrupted.
    pub(super) async fn await_end(&mut self, domain: DomainId) -> bool {
        match select(has_ended(domain), self.typed.until(interrupts)).await {
            Either::First(Ok(how)) => {
                console::write(format!("domain {domain} has ended: {how}\n").as_bytes());
                true
            }
            Either::First(Err(status)) => {
                console::write(format!("the hypervisor refuses: {status}\n").as_bytes());
                false
            }
            Either::Second(()) => {
                console::write(b"^C\n");
                false
            }
        }
    }

    /// Counts the pages that a domain writes to. False: interrupted, or refused.
    pub(super) async fn dirty_rate(&mut self, domain: DomainId, seconds: u32) -> bool {
        let counted = async {
            let log = DirtyLog::new(&Host, domain)?;
            let devices = self.tools.site.devices();
            let counting = dirty_rate(&log, devices, seconds);
            let rate = match select(counting, self.typed.until(interrupts)).await {
                Either::First(rate) => rate.map(Some),
                Either::Second(()) => Ok(None),
            };
            while !log.end_step(&Host, devices)? {
                yield_now().await;
            }
            rate
        };
        match counted.await {
            Ok(Some(rate)) => {
                console::write(rate.text().as_bytes());
                true
            }
            Ok(None) => {
                console::write(b"^C\n");
                false
            }
            Err(status) => {
                console::write(format!("the hypervisor refuses: {status}\n").as_bytes());
                false
            }
        }
    }

    /// Until a domain's balloon has reached its target. False: interrupted, or it does not.
    pub(super) async fn await_memory(&mut self, domain: DomainId) -> bool {
        let settled = memory_settled(self.tools, domain);
        match select(settled, self.typed.until(interrupts)).await {
            Either::First(Ok((text, reached))) => {
                console::write(text.as_bytes());
                reached
            }
            Either::First(Err(error)) => {
                console::write(format!("{error}\n").as_bytes());
                false
            }
            Either::Second(()) => {
                console::write(b"^C\n");
                false
            }
        }
    }
}

async fn dirty_rate(
    log: &DirtyLog,
    devices: &impl DeviceHost,
    seconds: u32,
) -> Result<DirtyRate, Status> {
    while !log.begin_step(&Host, devices)? {
        yield_now().await;
    }
    log.count(&Host, devices)?;
    let mut rate = DirtyRate::default();
    let mut last = Instant::now();
    for _ in 0..seconds {
        Timer::at(last + Duration::from_secs(1)).await;
        let now = Instant::now();
        rate.add(log.count(&Host, devices)?, (now - last).as_micros() * 1000);
        last = now;
    }
    Ok(rate)
}

async fn has_ended(domain: DomainId) -> Result<&'static str, Status> {
    loop {
        if let Some(how) = ended(domain)? {
            return Ok(how);
        }
        domains::CHANGED.wait().await;
    }
}

/// What to tell, and whether the target is reached.
async fn memory_settled(tools: &Tools, domain: DomainId) -> Result<(String, bool), OperateError> {
    let mut last = tools.memory(domain)?;
    let mut moved = Instant::now();
    loop {
        let state = tools.memory(domain)?;
        let (now, target) = (state.now_mib, state.target_mib);
        if now == target {
            return Ok((format!("{now} MiB\n"), true));
        }
        if state != last {
            (last, moved) = (state, Instant::now());
        }
        if moved.elapsed() > IDLE {
            let text = format!("{now} MiB; the guest's balloon does not come to {target} MiB\n");
            return Ok((text, false));
        }
        Timer::after(LOOK).await;
    }
}
