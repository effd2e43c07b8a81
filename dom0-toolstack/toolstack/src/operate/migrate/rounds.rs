//! The rounds of a copy: what `PreCopy` decides, carried out, and told to whoever watches.

use super::copy::{Copy, Pages};
use super::job::Job;
use super::talk::Talk;
use crate::host::Hypervisor;
use crate::operate::OperateError;
use crate::site::Site;
use alloc::format;
use alloc::string::String;
use godwit_abi::{DomainId, DomainInfo, DomainState};
use godwit_migrate::link::Link;
use godwit_migrate::precopy::{Miss, Next};

impl<S: Site> Copy<'_, S> {
    /// Copies until the domain may be stopped.
    pub(super) async fn rounds<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        job: &Job,
        postcopy: bool,
    ) -> Result<Pages, OperateError> {
        loop {
            job.check_cancelled()?;
            if postcopy && self.precopy.progress().round > 0 {
                return Ok(Pages::Fetched);
            }
            let now_us = self.site.now_us();
            match self.precopy.next(now_us) {
                Next::Send(pages) => self.send(talk, &pages).await?,
                Next::Harvest => {
                    self.drain(talk).await?;
                    still_there(self.site.hypervisor(), self.domain)?;
                    let dirty = self.harvest()?;
                    self.precopy.harvested(&dirty, self.site.now_us());
                    self.report(job);
                }
                Next::Wait { until_us } => self.site.sleep_until(until_us).await,
                Next::Stop { downtime_us } => {
                    let ms = downtime_us / 1000;
                    job.tell(format!("stopping it: a downtime of {ms} ms is expected"));
                    return Ok(Pages::Sent);
                }
                Next::Throttle { pages_per_s } => {
                    job.tell(format!(
                        "it writes faster than the link carries: at most {pages_per_s} pages/s a vCPU now"
                    ));
                    let hypervisor = self.site.hypervisor();
                    hypervisor.dirty_quota(self.domain, pages_per_s)?;
                }
                Next::PostCopy(miss) => {
                    let why = missed(miss);
                    job.tell(format!("{why}: it goes before its memory"));
                    return Ok(Pages::Fetched);
                }
                Next::Abort(miss) => return Err(OperateError::Other(missed(miss))),
            }
        }
    }

    fn report(&self, job: &Job) {
        let progress = self.precopy.progress();
        job.advance(progress, self.encoder.sent());
        let rate = |rate: Option<u64>| rate.unwrap_or(0);
        job.tell(format!(
            "round {}: {} KiB sent, {} pages left ({} hot), link {} KiB/s, {} pages/s dirty, downtime now {} ms",
            progress.round,
            progress.sent_bytes >> 10,
            progress.pages_left,
            progress.pages_hot,
            rate(progress.link_rate) >> 10,
            rate(progress.dirty_rate),
            rate(progress.downtime_us) / 1000,
        ));
    }
}

fn missed(miss: Miss) -> String {
    match miss {
        Miss::NotConverging { best_us } => format!(
            "it writes faster than the link carries: the best downtime in sight was {} ms \
             (--max-downtime, --on-miss=throttle, postcopy or pause)",
            best_us / 1000
        ),
        Miss::Deadline => "the deadline is over".into(),
        Miss::Fixed { fixed_us } => format!(
            "between these hosts it stands still for {} ms even with nothing left to send (a longer --max-downtime, \
             --on-miss=pause or postcopy)",
            fixed_us / 1000
        ),
    }
}

/// Refuses a domain that has ended.
pub(in crate::operate) fn still_there(
    hypervisor: &impl Hypervisor,
    domain: DomainId,
) -> Result<DomainInfo, OperateError> {
    let info = hypervisor.domain_info(domain)?;
    match DomainState::from_number(info.state) {
        Some(DomainState::Running | DomainState::Paused | DomainState::Building) => Ok(info),
        Some(DomainState::Shutdown | DomainState::Crashed | DomainState::Dying) | None => {
            Err(OperateError::Other("it has ended".into()))
        }
    }
}
