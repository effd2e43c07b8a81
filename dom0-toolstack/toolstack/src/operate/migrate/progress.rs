//! How far a job is, as people and programs want to know it: what is left, how long that takes, and why it
//! gets no nearer if it does not.

use super::job::{Job, Stage};
use super::plan::Spread;
use alloc::format;
use alloc::string::String;
use godwit_abi::PAGE_SIZE_BYTES;

/// Of what is sent, so much may become dirty again before no end can be foretold, percent.
const CONVERGING_PERCENT_MAX: u64 = 90;

impl Job {
    /// What a page takes on the link, nanoseconds.
    fn page_ns(&self) -> Option<u64> {
        let rate = self.progress()?.link_rate.filter(|rate| *rate > 0)?;
        let sent = self.sent();
        let bytes = sent.bytes().checked_div(sent.pages())?.max(1);
        Some(bytes.saturating_mul(1_000_000_000) / rate)
    }

    /// Of the pages that are sent, how many become dirty again meanwhile, percent.
    fn again_percent(&self) -> Option<u64> {
        let dirty = self.progress()?.dirty_rate?;
        Some(dirty.saturating_mul(self.page_ns()?) / 10_000_000)
    }

    /// Bytes on the wire of 100 bytes of memory, with pages of zeroes.
    pub fn compression_percent(&self) -> Option<u64> {
        let sent = self.sent();
        let memory = sent.pages() * PAGE_SIZE_BYTES;
        (sent.bytes() * 100).checked_div(memory)
    }

    /// How much longer it takes, microseconds: with nothing written any more, and at the present rate.
    /// `None`: nobody can tell.
    pub fn eta_us(&self) -> Option<Spread> {
        let progress = self.progress()?;
        if self.stage() > Stage::Copy {
            return None;
        }
        let left_us = progress.pages_left.saturating_mul(self.page_ns()?) / 1000;
        let again = self.again_percent()?;
        if again >= CONVERGING_PERCENT_MAX {
            return None;
        }
        let stop_us = progress.downtime_us?;
        let most_us = left_us.saturating_mul(100) / (100 - again);
        Some(Spread::of(left_us, most_us.saturating_add(stop_us)))
    }

    /// Why it gets no nearer to its end; nothing while it does.
    pub fn stuck(&self) -> Option<String> {
        let progress = self.progress()?;
        let again = self.again_percent()?;
        if self.stage() != Stage::Copy || again < CONVERGING_PERCENT_MAX {
            return None;
        }
        let slowed = match progress.quota {
            Some(quota) => format!("; its vCPUs are slowed to {quota} pages/s each"),
            None => String::new(),
        };
        Some(format!(
            "it writes to {} pages/s, {again} % of what the link carries{slowed}",
            progress.dirty_rate.unwrap_or(0)
        ))
    }
}
