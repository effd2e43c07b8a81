//! `xl dirty-log`: arms the log of a domain's writes, reads its memory, follows the log round by round, and has the last word with
//! the domain paused, which Ctrl-C does not break into. Whatever happens, the domain goes on as before.

use super::Shell;
use super::typed::interrupts;
use crate::clock::tsc;
use crate::console;
use crate::hypercall::Host;
use alloc::format;
use alloc::string::String;
use embassy_futures::select::{Either, select};
use embassy_futures::yield_now;
use embassy_time::{Duration, Instant, Timer};
use godwit_abi::{DomainId, DomainState, Status};
use godwit_toolstack::command::DirtyLogOptions;
use godwit_toolstack::dirty::DirtyLog;
use godwit_toolstack::dirty::check::{DirtyCheck, ranges};
use godwit_toolstack::host::Hypervisor;
use godwit_toolstack::site::{DeviceHost, Site};

fn refused(status: Status) -> String {
    format!("the hypervisor refuses: {status}")
}

impl Shell {
    /// False: interrupted, refused, or the log has missed a page.
    pub(super) async fn dirty_log(&mut self, domain: DomainId, options: DirtyLogOptions) -> bool {
        let devices = self.tools.site.devices();
        let examined = select(
            examine(domain, devices, options),
            self.typed.until(interrupts),
        );
        let verdict = match examined.await {
            Either::First(Ok(check)) => conclude(check, devices).await,
            Either::First(Err(why)) => Err(why),
            Either::Second(()) => Err("^C".into()),
        };
        let (text, good) = match (verdict, restore(domain, devices).await) {
            (Ok(missed), Ok(())) => (String::new(), missed == 0),
            (Err(why), Ok(())) => (why, false),
            (_, Err(status)) => (refused(status), false),
        };
        if !text.is_empty() {
            console::write(format!("{text}\n").as_bytes());
        }
        good
    }
}

/// Pauses a domain. Whether it ran.
fn pause(domain: DomainId) -> Result<bool, String> {
    let state = Host.domain_info(domain).map_err(refused)?.state;
    let runs = state == DomainState::Running as u32;
    if runs {
        Host.domain_pause(domain).map_err(refused)?;
    }
    Ok(runs)
}

/// Ends what [`examine`] has begun, wherever that was left.
async fn restore(domain: DomainId, devices: &impl DeviceHost) -> Result<(), Status> {
    let log = DirtyLog::new(&Host, domain)?;
    Host.dirty_quota(domain, 0)?;
    while !log.end_step(&Host, devices)? {
        yield_now().await;
    }
    Ok(())
}

/// Arms, and says what that took.
async fn arm(log: &DirtyLog, devices: &impl DeviceHost) -> Result<(), Status> {
    let (mut steps, mut longest) = (0, 0);
    let begin = tsc();
    loop {
        let step = tsc();
        let done = log.begin_step(&Host, devices)?;
        longest = longest.max(tsc() - step);
        steps += 1;
        if done {
            break;
        }
        yield_now().await;
    }
    let text = format!(
        "armed in {} ticks, {steps} steps of at most {longest}\n",
        tsc() - begin
    );
    console::write(text.as_bytes());
    Ok(())
}

/// Everything while the domain runs.
async fn examine(
    domain: DomainId,
    devices: &impl DeviceHost,
    options: DirtyLogOptions,
) -> Result<DirtyCheck, String> {
    let log = DirtyLog::new(&Host, domain).map_err(refused)?;
    arm(&log, devices).await.map_err(refused)?;
    let mut check = DirtyCheck::new(log);
    while !check.read_step(&Host).map_err(refused)? {
        yield_now().await;
    }
    if let Some(pages) = options.pages_per_s {
        Host.dirty_quota(domain, pages.into()).map_err(refused)?;
        // What was written before it does not count.
        check.round(&Host, devices, tsc).map_err(refused)?;
    }
    let mut last = Instant::now();
    for number in 1..=options.rounds {
        // From here: reading takes a while, and the guest is to have its time.
        Timer::after(Duration::from_millis(options.interval_ms.into())).await;
        let now = Instant::now();
        let paused = options.pauses && pause(domain)?;
        let round = check.round(&Host, devices, tsc);
        if paused {
            Host.domain_unpause(domain).map_err(refused)?;
        }
        let round = round.map_err(refused)?;
        let text = round.text(number, (now - last).as_millis(), options.verbose);
        console::write(text.as_bytes());
        last = now;
    }
    Ok(check)
}

/// The last word, with the domain paused. Returns the pages missed.
async fn conclude(mut check: DirtyCheck, devices: &impl DeviceHost) -> Result<usize, String> {
    let domain = check.log().domain();
    let ran = pause(domain)?;
    let compared = compare(&mut check, devices).await;
    devices.resume(domain);
    if ran {
        Host.domain_unpause(domain).map_err(refused)?;
    }
    compared?;
    let missed = check.missed();
    let mut text = format!(
        "{} pages compared, {} missed\n",
        check.pages(),
        missed.len()
    );
    if !missed.is_empty() {
        text += &format!("  missed: {}\n", ranges(missed));
    }
    console::write(text.as_bytes());
    Ok(missed.len())
}

/// With the domain standing still: the last harvest, and all of its memory against what is known of it.
async fn compare(check: &mut DirtyCheck, devices: &impl DeviceHost) -> Result<(), String> {
    devices.quiesce(check.log().domain()).await?;
    check.round(&Host, devices, tsc).map_err(refused)?;
    while !check.compare_step(&Host).map_err(refused)? {
        yield_now().await;
    }
    Ok(())
}
