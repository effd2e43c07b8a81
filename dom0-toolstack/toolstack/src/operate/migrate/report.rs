//! What is told of a move that has succeeded, and learned from it.

use super::Peers;
use super::copy::Totals;
use super::plan::Actual;
use super::queue::Learned;
use super::source::Leaving;
use crate::site::Site;
use alloc::format;
use alloc::string::String;

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// The last lines; what it has taken is kept with the job, and what it says of the other host.
    pub(super) fn report(&self, begun_us: u64) -> String {
        let Totals {
            rounds,
            sent,
            bytes,
        } = self.totals;
        let duration_us = self.tools.site.now_us().saturating_sub(begun_us);
        let actual = Actual {
            bytes,
            rounds: rounds.into(),
            duration_us,
            downtime_us: self.downtime_us,
        };
        self.job.took(actual);
        let link_rate = self.job.progress().and_then(|progress| progress.link_rate);
        let rest_us = self.job.rest_us();
        if let (Some(downtime_us), Some(rest_us)) = (self.downtime_us, rest_us) {
            let before = self.tools.jobs.learned(self.peer);
            let link_rate = link_rate.or(before.map(|learned| learned.link_rate));
            if let Some(link_rate) = link_rate {
                let fixed_us = downtime_us.saturating_sub(rest_us);
                let learned = Learned {
                    fixed_us,
                    link_rate,
                };
                self.tools.jobs.learn(self.peer, learned);
            }
        }
        let downtime = match self.downtime_us {
            Some(us) => format!("{} ms", us / 1000),
            None => "not known: the connection was lost".into(),
        };
        let name = &self.entry.config.name;
        let foreseen = self.job.foreseen();
        let timeline = self.timeline.filter(|_| self.downtime_us.is_some());
        let stop = timeline.map(|timeline| format!("\n{timeline}"));
        let against = foreseen.map(|foreseen| format!("\n{}", foreseen.against(&actual)));
        format!(
            "moved domain '{name}' to {}: {} ms, {rounds} rounds, {} KiB sent, downtime {downtime}\n\
             pages: {} zero, {} delta ({} KiB), {} lz4 ({} KiB), {} raw{}{}",
            self.peer,
            duration_us / 1000,
            bytes >> 10,
            sent.zero,
            sent.delta,
            sent.delta_bytes >> 10,
            sent.lz4,
            sent.lz4_bytes >> 10,
            sent.raw,
            stop.unwrap_or_default(),
            against.unwrap_or_default(),
        )
    }
}
