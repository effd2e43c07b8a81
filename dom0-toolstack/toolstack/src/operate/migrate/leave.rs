//! Post-copy at the stop: what is left of the memory stays behind, and is named.

use super::copy::Copy;
use super::talk::Talk;
use crate::operate::OperateError;
use crate::site::{DeviceHost, Site};
use alloc::vec::Vec;
use core::ops::Range;
use godwit_migrate::link::Link;
use godwit_migrate::stream::FrameKind;

impl<S: Site> Copy<'_, S> {
    /// Instead of [`Copy::rest`]: sends of what is left only the rings of devices, and names the others. Returns how many.
    pub(super) async fn leave<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        pages: u64,
    ) -> Result<u64, OperateError> {
        let last = self.harvest()?;
        let mut left = self.precopy.rest(&last);
        let rings = self.site.devices().ring_pages(self.domain);
        let rings = rings.into_iter().flat_map(|(first, last)| first..=last);
        let rings: Vec<u64> = rings.filter(|page| left.contains(*page)).collect();
        self.send(talk, &rings).await?;
        rings.iter().for_each(|page| left.remove(*page));
        for page in left.iter() {
            self.hashes.remove(page);
        }
        if self.hashes.digest().pages() + left.len() != pages {
            self.find_holes().await?;
            for page in self.ranges.iter().cloned().flatten() {
                if left.contains(page) && !self.is_there(page)? {
                    left.remove(page);
                    self.holes.insert(page);
                }
            }
        }
        let back: Vec<u64> = self
            .holes
            .iter()
            .filter(|page| left.contains(*page))
            .collect();
        back.into_iter().for_each(|page| self.holes.remove(page));
        self.name(talk, FrameKind::HOLES, &runs_of(self.holes.iter()))
            .await?;
        self.name(talk, FrameKind::MISSING, &runs_of(left.iter()))
            .await?;
        self.drain(talk).await?;
        Ok(left.len())
    }
}

/// Pages, runs where one follows the other.
pub(super) fn runs_of(pages: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for page in pages {
        match runs.last_mut() {
            Some(run) if run.end == page => run.end += 1,
            Some(_) | None => runs.push(page..page + 1),
        }
    }
    runs
}
