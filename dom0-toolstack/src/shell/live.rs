//! Commands that show something for as long as the operator wants: `xl console` and `xl top`.

use super::typed::Typed;
use super::{Shell, domains};
use crate::console;
use crate::executor::EventPort;
use crate::guest::Devices;
use crate::hypercall::Host;
use alloc::format;
use alloc::string::{String, ToString};
use embassy_futures::select::{Either, select};
use embassy_time::{Duration, Timer};
use godwit_abi::{DomainId, DomainState, ShutdownReason, Status};
use godwit_toolstack::command::ConsoleKind;
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::show::{
    DeviceTail, Snapshot, Stream, Tail, TopState, ends_console, ends_top,
};
use godwit_toolstack::site::{DeviceHost, Site};

/// The screen that `xl top` fills, which a serial line cannot be asked for.
const ROWS: usize = 24;
const COLUMNS: usize = 80;

impl Shell {
    /// Shows a domain's console until the operator or the domain ends it. False: interrupted.
    pub(super) async fn follow(&mut self, domain: DomainId, kind: ConsoleKind) -> bool {
        let devices = self.tools.site.devices();
        domains::hold(Some(domain));
        let shown = match kind {
            ConsoleKind::Serial => {
                let give = |bytes: &[u8]| Host.guest_input(domain, bytes).ok();
                let typing = hand_over(give, &mut self.typed);
                select(show_console(domain, &self.guest_output), typing).await
            }
            ConsoleKind::Virtio => {
                let give = |bytes: &[u8]| devices.console_type(domain, bytes).ok();
                let typing = hand_over(give, &mut self.typed);
                select(show_virtio_console(domain, devices), typing).await
            }
        };
        domains::hold(None);
        match shown {
            Either::First(Ok(())) => true,
            Either::First(Err(why)) => {
                console::write(format!("the console of {domain}: {why}\n").as_bytes());
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

/// Hands what is typed to a guest, until a byte that ends it. `give` says how much the guest has taken,
/// `None` when it cannot be asked; what it does not take waits.
async fn hand_over(give: impl Fn(&[u8]) -> Option<usize>, typed: &mut Typed) {
    loop {
        let (bytes, ended) = typed.take_until(ends_console).await;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match give(rest) {
                Some(0) => {
                    let retry = Timer::after(INPUT_RETRY);
                    if let Either::Second(()) = select(retry, typed.until(ends_console)).await {
                        return;
                    }
                }
                Some(taken) => rest = &rest[taken..],
                // It has ended, which is shown, or nothing can be typed to any guest.
                None => return typed.until(ends_console).await,
            }
        }
        if ended {
            return;
        }
    }
}

/// Until the domain has ended and all it wrote is shown.
async fn show_console(domain: DomainId, guest_output: &EventPort) -> Result<(), String> {
    let text = |status: Status| status.to_string();
    let mut tail = Tail::open(&Host, Stream::Guest(domain)).map_err(text)?;
    loop {
        // The state first: what a domain that has ended wrote is all there by then.
        let end = ended(domain).map_err(text)?;
        loop {
            let more = tail.next(&Host).map_err(text)?;
            if more.is_empty() {
                break;
            }
            console::write(more.as_bytes());
            console::flush().await;
        }
        if let Some(how) = end {
            return say_ended(domain, how);
        }
        select(guest_output.wait(), domains::CHANGED.wait()).await;
    }
}

fn say_ended(domain: DomainId, how: &str) -> Result<(), String> {
    console::write(format!("\n[domain {domain} has ended: {how}]\n").as_bytes());
    Ok(())
}

/// The same of its virtio console.
async fn show_virtio_console(domain: DomainId, devices: &Devices) -> Result<(), String> {
    let mut tail = DeviceTail::open(domain);
    loop {
        let end = ended(domain).map_err(|status| status.to_string())?;
        // With its device a domain that is destroyed loses what it wrote there.
        match (tail.next(devices), end) {
            (Ok(more), _) => console::write(more.as_bytes()),
            (Err(_), Some(_)) => {}
            (Err(why), None) => return Err(why),
        }
        console::flush().await;
        if let Some(how) = end {
            return say_ended(domain, how);
        }
        select(devices.console_changed(domain), domains::CHANGED.wait()).await;
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
