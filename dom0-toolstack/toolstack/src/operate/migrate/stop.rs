//! Stopping a domain: what is left of its memory, then its states, with the time they were read at.

use super::copy::{Copy, Pages};
use super::job::Stage;
use super::rest::Rest;
use super::rounds::still_there;
use super::source::Leaving;
use super::talk::{Talk, within};
use super::time::Skew;
use super::timeline::Timeline;
use super::{ANSWER_LIMIT_US, Peers, WORK_LIMIT_US};
use crate::host::Hypervisor;
use crate::operate::OperateError;
use crate::site::{DeviceHost, Site};
use alloc::format;
use godwit_abi::DomainState;
use godwit_migrate::link::Link;
use godwit_migrate::stream::FrameKind;

/// How often the other host is asked for its time.
const CLOCK_READINGS: usize = 4;

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// Stops the domain and sends what is left of it.
    pub(super) async fn stop<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        copy: &mut Copy<'_, S>,
        pages: Pages,
    ) -> Result<(), OperateError> {
        let skew = compare_clocks(&self.tools.site, talk).await?;
        self.job.enter(Stage::Stop);
        let (tools, domain) = (self.tools, self.domain);
        let (site, hypervisor) = (&tools.site, tools.site.hypervisor());
        hypervisor.domain_pause(domain)?;
        let paused_us = site.now_us();
        self.paused_us = Some(paused_us);
        self.timeline = Some(Timeline::begin(paused_us));
        let bytes_before = talk.bytes();
        let info = still_there(hypervisor, domain)?;
        if DomainState::from_number(info.state) == Some(DomainState::Running) {
            return Err(OperateError::Other("it does not stand still".into()));
        }
        self.is_quiesced = true;
        let quiesced = within(site, WORK_LIMIT_US, site.devices().quiesce(domain)).await;
        match quiesced {
            Some(quiesced) => quiesced.map_err(OperateError::Other)?,
            None => {
                let what = "its devices do not come to rest".into();
                return Err(OperateError::Other(what));
            }
        }
        let begun_us = site.now_us();
        match pages {
            Pages::Sent => copy.rest(talk, info.memory_pages).await?,
            Pages::Fetched => {
                let left = copy.leave(talk, info.memory_pages).await?;
                self.rest = self.peers_boot().map(|boot| Rest::new(boot, left));
            }
        }
        self.job.rest_took(site.now_us() - begun_us);
        self.note_time(|timeline, now_us| timeline.memory_us = now_us);
        self.totals = copy.totals(talk.bytes());
        if self.options.verify {
            copy.verify().await?;
        }
        let writing = tools.write_states(domain, &info, &self.entry, talk.writer());
        let read_us = within(site, ANSWER_LIMIT_US, writing).await;
        let Some(read_us) = read_us else {
            return Err(talk.trouble("it takes nothing more"));
        };
        let stopped = skew.there_us(read_us?).to_le_bytes();
        let digest = copy.digest().encode();
        talk.say(FrameKind::STOPPED, &[&stopped], ANSWER_LIMIT_US)
            .await?;
        talk.say(FrameKind::DIGEST, &[&digest], ANSWER_LIMIT_US)
            .await?;
        let bytes = talk.bytes() - bytes_before;
        if self.is_local() {
            self.let_go().await;
        }
        self.note_time(|timeline, now_us| (timeline.states_us, timeline.bytes) = (now_us, bytes));
        let uncertainty_us = skew.uncertainty_us;
        self.job.tell(format!(
            "everything is sent; clocks agree to {uncertainty_us} us"
        ));
        Ok(())
    }
}

/// How far the other host's clock is ahead.
pub(super) async fn compare_clocks<S: Site, L: Link>(
    site: &S,
    talk: &mut Talk<'_, S, L>,
) -> Result<Skew, OperateError> {
    let mut best: Option<Skew> = None;
    for _ in 0..CLOCK_READINGS {
        let asked_us = site.now_us();
        talk.say(
            FrameKind::CLOCK,
            &[&asked_us.to_le_bytes()],
            ANSWER_LIMIT_US,
        )
        .await?;
        let frame = talk.hear(ANSWER_LIMIT_US).await?;
        let answered_us = site.now_us();
        let (number, there) = match (frame.kind, frame.body.as_chunks()) {
            (FrameKind::CLOCK, ([asked, there], [])) => {
                (u64::from_le_bytes(*asked), u64::from_le_bytes(*there))
            }
            (_, _) => return Err(super::source::unexpected(talk, &frame)),
        };
        if number != asked_us {
            return Err(talk.trouble("it answers a question that was not asked"));
        }
        best = Some(Skew::of(asked_us, answered_us, there).or(best));
    }
    Ok(best.expect("it was asked at least once"))
}
