//! Commands that show something for as long as the operator wants: `xl console` and `xl top`.

use super::typed::Typed;
use super::{Shell, domains};
use crate::console;
use crate::executor::EventPort;
use crate::hypercall::Host;
use alloc::format;
use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer};
use godwit_abi::{DomainId, DomainState, ShutdownReason, Status};
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::show::{Snapshot, Stream, Tail, TopState, ends_console, ends_top};

/// The screen that `xl top` fills, which a serial line cannot be asked for.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

impl Shell {
    /// Shows a domain's console until the operator or the domain ends it. False: interrupted.
    pub(super) async fn follow(&mut self, domain: DomainId) -> bool {
        domains::hold(Some(domain));
        let shown = select(
            show_console(domain, &self.guest_output),
            hand_over(domain, &mut self.typed),
        )
        .await;
        domains::hold(None);
        match shown {
            Either::First(Ok(())) => true,
            Either::First(Err(status)) => {
                console::write(format!("the console of {domain}: {status}\n").as_bytes());
                false
            }
            Either::Second(()) => {
                console::write(b"\n");
                false
            }
        }
    }

    /// Shows the live view. False: interrupted.
    pub(super) async fn top(&mut self, delay_s: u32, iterations: Option<u32>, batch: bool) -> bool {
        let shown = select(
            show_top(delay_s, iterations, batch),
            self.typed.until(ends_top),
        )
        .await;
        if !batch {
            console::write(b"\n");
        }
        match shown {
            Either::First(Ok(())) => true,
            Either::First(Err(status)) => {
                console::write(format!("the hypervisor refuses: {status}\n").as_bytes());
                false
            }
            Either::Second(()) => false,
        }
    }
}

/// How long to wait before a guest that takes no more typing is asked again.
const INPUT_RETRY: Duration = Duration::from_millis(10);

/// Hands what is typed to a guest, until a byte that ends it. What the guest does not take waits.
async fn hand_over(domain: DomainId, typed: &mut Typed) {
    loop {
        let (bytes, ended) = typed.take_until(ends_console).await;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match Host.guest_input(domain, rest) {
                Ok(0) => {
                    let retry = Timer::after(INPUT_RETRY);
                    if let Either::Second(()) = select(retry, typed.until(ends_console)).await {
                        return;
                    }
                }
                Ok(taken) => rest = &rest[taken..],
                // It has ended, which is shown, or nothing can be typed to any guest.
                Err(_) => return typed.until(ends_console).await,
            }
        }
        if ended {
            return;
        }
    }
}

/// Until the domain has ended and all it wrote is shown.
async fn show_console(domain: DomainId, guest_output: &EventPort) -> Result<(), Status> {
    let mut tail = Tail::open(&Host, Stream::Guest(domain))?;
    loop {
        // The state first: what a domain that has ended wrote is all there by then.
        let end = ended(domain)?;
        loop {
            let more = tail.next(&Host)?;
            if more.is_empty() {
                break;
            }
            console::write(more.as_bytes());
            console::flush().await;
        }
        if let Some(how) = end {
            console::write(format!("\n[domain {domain} has ended: {how}]\n").as_bytes());
            return Ok(());
        }
        select(guest_output.wait(), domains::CHANGED.wait()).await;
    }
}

/// How a domain has ended, if it has.
pub(super) fn ended(domain: DomainId) -> Result<Option<&'static str>, Status> {
    let info = match Host.domain_info(domain) {
        Ok(info) => info,
        Err(Status::NoDomain) => return Ok(Some("destroyed")),
        Err(status) => return Err(status),
    };
    let reason = ShutdownReason::from_number(info.reason);
    Ok(match DomainState::from_number(info.state) {
        Some(DomainState::Shutdown | DomainState::Crashed) => {
            Some(reason.map_or("for a reason of another version", ShutdownReason::text))
        }
        Some(DomainState::Dying) => Some("being destroyed"),
        Some(DomainState::Building | DomainState::Running | DomainState::Paused) | None => None,
    })
}

async fn show_top(delay_s: u32, iterations: Option<u32>, batch: bool) -> Result<(), Status> {
    let mut state = TopState::new();
    let mut left = iterations;
    if !batch {
        console::write(b"\x1b[2J");
    }
    loop {
        let lines = state.update(Snapshot::take(&Host)?);
        if batch {
            console::write(lines.as_bytes());
        } else {
            console::write(TopState::screen(&lines, ROWS, COLUMNS).as_bytes());
        }
        console::flush().await;
        left = left.map(|left| left - 1);
        if left == Some(0) {
            return Ok(());
        }
        Timer::after(Duration::from_secs(delay_s.into())).await;
    }
}
