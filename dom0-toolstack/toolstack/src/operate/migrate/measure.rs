//! Measuring what a move will take, with little effort: some pages are encoded, the dirty log is read a
//! few times, some bytes are sent. `xl migrate --dry-run` does that and leaves nothing behind; a move
//! does less of it before its first round, and predicts what it will be compared with.

use super::check::{Readiness, object_to_departure};
use super::copy::{COSTS, Copy};
use super::localhost::{LOCALHOST, object_to_copy};
use super::objection::{Cause, Objection};
use super::plan::{Measured, Prediction, Spread, Window};
use super::rounds::still_there;
use super::source::{Leaving, unexpected};
use super::stop::compare_clocks;
use super::survey::Survey;
use super::talk::Talk;
use super::{ANSWER_LIMIT_US, FAREWELL_LIMIT_US, MoveOptions, Peers};
use crate::dirty::DirtyLog;
use crate::host::Hypervisor;
use crate::loader::memory_of;
use crate::operate::save::is_hole;
use crate::operate::{OperateError, Toolstack};
use crate::registry::Entry;
use crate::site::{Site, yield_now};
use crate::table::{Align, Table};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainInfo, PAGE_SIZE_BYTES};
use godwit_migrate::encode::choice::Encoder;
use godwit_migrate::encode::{PAGE_BYTES, Page};
use godwit_migrate::link::Link;
use godwit_migrate::stream::{FRAME_HEADER_BYTES, FrameKind};

/// Pages that are encoded for a plan, and before a move.
const SAMPLE_PAGES: u64 = 512;
const SAMPLE_PAGES_FEW: u64 = 128;
/// How long writes are noted for a plan, microseconds, and before a move.
const WINDOWS_US: [u64; 3] = [100_000, 200_000, 400_000];
const WINDOW_US: [u64; 1] = [50_000];
/// Bytes sent to measure the link, until one of them takes long enough.
const PROBES: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const PROBE_US: u64 = 50_000;
/// A link nothing is known of, bytes a second: 100 Mbit/s.
const LINK_RATE: u64 = 12_500_000;
/// Nobody measures a faster one.
const LINK_RATE_MAX: u64 = 100_000_000_000;
/// Reading, sending and setting the states of a domain costs about as much as encoding so many pages.
const STATES_PAGES: u64 = 1000;
/// Answers that are waited for while a domain stands still: the last pages taken, proven, running, and one
/// more for the clock.
const STOP_TRIPS: u64 = 4;
/// Least that stopping is taken to cost, and most, microseconds.
const FIXED_US: Spread = Spread {
    least: 5_000,
    most: 2_000_000,
};

/// What encoding some pages showed.
#[derive(Clone, Copy, Default)]
struct Sample {
    pages: u64,
    bytes: u64,
    us: u64,
}

impl<S: Site> Toolstack<S> {
    /// `xl migrate --dry-run`: checks everything on both sides, measures, and predicts each mode. Nothing
    /// is left of it. Not to be dropped half way.
    pub async fn plan_move<P: Peers>(
        &self,
        peers: &P,
        peer: &str,
        domain: DomainId,
        options: &MoveOptions,
    ) -> Result<String, OperateError> {
        let entry = self.known(domain)?;
        let peer = self.host_named(peer);
        let is_local = peer == LOCALHOST;
        let mut own = object_to_departure(&entry, is_local);
        own.extend(object_to_copy(options).filter(|_| is_local));
        let busy = self.reserve(domain);
        if let Err(error) = &busy {
            own.push(Objection::new(Cause::Busy, error.to_string()));
        }
        let there = still_there(self.site.hypervisor(), domain);
        if there.is_err() {
            own.push(Objection::new(Cause::Ended, "it has ended"));
        }
        let (Ok(info), true) = (there, own.is_empty()) else {
            return Err(self.refuse_with_theirs(peers, peer, domain, &own).await);
        };
        let Survey { mut talk, verdict } = self.survey(peers, peer, domain, &entry).await?;
        let readiness = match verdict {
            Ok(readiness) => readiness,
            Err(lines) => {
                let _ = talk.finish(FAREWELL_LIMIT_US).await;
                return Err(OperateError::Other(lines.join("\n")));
            }
        };
        let measured = self.measure(&mut talk, domain, &info, readiness).await;
        let _ = talk.finish(FAREWELL_LIMIT_US).await;
        Ok(plan_text(&entry, &info, peer, &measured?, options))
    }

    async fn measure<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        domain: DomainId,
        info: &DomainInfo,
        readiness: Readiness,
    ) -> Result<Measured, OperateError> {
        let sample = self.sample(domain, info, SAMPLE_PAGES).await?;
        let round_trip_us = 2 * compare_clocks(&self.site, talk).await?.uncertainty_us;
        let link_rate = self.probe(talk, round_trip_us, &PROBES).await?;
        let log = DirtyLog::new(self.site.hypervisor(), domain)?;
        let windows = self.windows(&log, &WINDOWS_US).await;
        Copy::disarm(&self.site, domain).await?;
        let (windows, harvest_us) = windows?;
        let mut measured = Measured {
            pages: info.memory_pages,
            page_bytes_16: (sample.bytes * 16).div_ceil(sample.pages.max(1)),
            encode_ns: sample.us * 1000 / sample.pages.max(1),
            windows,
            link_rate,
            harvest_us,
            ..Measured::default()
        };
        self.estimate_stop(&mut measured, talk.peer(), round_trip_us, readiness);
        Ok(measured)
    }

    /// What stopping will cost: as the last move to that host, or from how fast this host works, how
    /// long answers take and how long the other took to make a domain.
    fn estimate_stop(
        &self,
        measured: &mut Measured,
        peer: &str,
        round_trip_us: u64,
        readiness: Readiness,
    ) {
        measured.is_fixed_known = self.jobs.learned(peer).is_some();
        let bounded = |us: u64| us.clamp(FIXED_US.least, FIXED_US.most);
        measured.fixed_us = match self.jobs.learned(peer) {
            Some(learned) => Spread {
                least: bounded(learned.fixed_us * 3 / 4),
                most: bounded(learned.fixed_us * 5 / 4),
            },
            None => {
                let states_us = STATES_PAGES * measured.encode_ns / 1000;
                let us = STOP_TRIPS * round_trip_us + measured.harvest_us + states_us;
                let us = us + readiness.make_us;
                // Where nothing is known of that host, the others say of what size it is.
                let others = self.jobs.all_learned();
                let others = others.iter().map(|(_, learned)| learned.fixed_us);
                let least = others.clone().min().unwrap_or(us).min(us);
                let most = others.max().unwrap_or(us).max(us);
                Spread {
                    least: bounded(least / 2),
                    most: bounded(most * 2),
                }
            }
        };
    }

    /// Encodes some pages from all over a domain's memory.
    async fn sample(
        &self,
        domain: DomainId,
        info: &DomainInfo,
        most: u64,
    ) -> Result<Sample, OperateError> {
        let hypervisor = self.site.hypervisor();
        let mut encoder = Encoder::new(0, COSTS);
        let mut page_bytes: Box<Page> = Box::new([0; PAGE_BYTES]);
        let mut out = Vec::new();
        let mut sample = Sample::default();
        let stride = (info.memory_pages_max / most).max(1) * PAGE_SIZE_BYTES;
        let ranges = memory_of(info.memory_pages_max.saturating_mul(PAGE_SIZE_BYTES));
        let mut chance = 1u32;
        // Not at equal distances: what a guest lays out in memory is.
        let mut jitter = |end: u64| {
            chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let jitter = u64::from(chance >> 8) * PAGE_SIZE_BYTES % stride;
            move |address: u64| (address + jitter).min(end - PAGE_SIZE_BYTES)
        };
        let addresses = ranges.into_iter().flat_map(|range| {
            let end = range.end;
            range
                .step_by(stride as usize)
                .map(move |address| (address, end))
        });
        for (count, (address, end)) in addresses.enumerate() {
            let address = jitter(end)(address);
            match hypervisor.memory_read(domain, address, &mut page_bytes[..]) {
                Ok(()) => {}
                Err(status) if is_hole(status) => continue,
                Err(status) => return Err(status.into()),
            }
            let begun_us = self.site.now_us();
            out.clear();
            encoder.encode(address / PAGE_SIZE_BYTES, &page_bytes, None, &mut out);
            sample.us += self.site.now_us() - begun_us;
            sample.pages += 1;
            // With its entry in a batch.
            sample.bytes += out.len() as u64 + size_of::<u64>() as u64;
            if count % 32 == 31 {
                yield_now().await;
            }
        }
        Ok(sample)
    }

    /// Notes writes for a while, and again; with the longest that reading the notes took. The caller ends the noting, whatever this gives.
    async fn windows(
        &self,
        log: &DirtyLog,
        all_us: &[u64],
    ) -> Result<(Vec<Window>, u64), OperateError> {
        let (hypervisor, devices) = (self.site.hypervisor(), self.site.devices());
        while !log.begin_step(hypervisor, devices)? {
            yield_now().await;
        }
        log.count(hypervisor, devices)?;
        let (mut windows, mut harvest_us) = (Vec::new(), 0);
        for window_us in all_us {
            let begun_us = self.site.now_us();
            self.site.sleep_until(begun_us + window_us).await;
            let counted_us = self.site.now_us();
            let pages = log.count(hypervisor, devices)?;
            let now_us = self.site.now_us();
            harvest_us = harvest_us.max(now_us - counted_us);
            let us = now_us - begun_us;
            windows.push(Window { us, pages });
        }
        Ok((windows, harvest_us))
    }

    /// Sends bytes and waits until they were taken.
    async fn probe<L: Link>(
        &self,
        talk: &mut Talk<'_, S, L>,
        round_trip_us: u64,
        probes: &[usize],
    ) -> Result<Spread, OperateError> {
        let mut rates = Vec::new();
        for length in probes {
            let bytes = alloc::vec![0x5a; *length];
            let begun_us = self.site.now_us();
            talk.say(FrameKind::PROBE, &[&bytes], ANSWER_LIMIT_US)
                .await?;
            let answer = talk.hear(ANSWER_LIMIT_US).await?;
            let taken = (bytes.len() as u64).to_le_bytes();
            if answer.kind != FrameKind::PROBE || answer.body != taken {
                return Err(unexpected(talk, &answer));
            }
            let took_us = self.site.now_us() - begun_us;
            // At worst all of it was needed for the bytes, at best an empty answer's time was not.
            let bytes = (*length + FRAME_HEADER_BYTES) as u64 * 1_000_000;
            let rate = |us: u64| (bytes / us.max(1)).min(LINK_RATE_MAX);
            rates.push(rate(took_us));
            rates.push(rate(took_us.saturating_sub(round_trip_us).max(took_us / 4)));
            if took_us > PROBE_US {
                break;
            }
        }
        // The shortest probe says least: a connection begins slowly.
        let telling = &rates[(rates.len() / 2).min(2)..];
        let least = telling.iter().copied().min().unwrap_or(LINK_RATE);
        let most = telling.iter().copied().max().unwrap_or(LINK_RATE);
        Ok(Spread::of(least, most))
    }
}

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// Predicts this move, once its writes are noted and before anything is sent.
    pub(super) async fn foresee<L: Link>(
        &mut self,
        talk: &mut Talk<'_, S, L>,
        copy: &mut Copy<'_, S>,
    ) -> Result<(), OperateError> {
        let tools = self.tools;
        let sample = tools
            .sample(self.domain, &self.info, SAMPLE_PAGES_FEW)
            .await?;
        let round_trip_us = 2 * compare_clocks(&tools.site, talk).await?.uncertainty_us;
        let link_rate = match tools.jobs.learned(self.peer) {
            Some(learned) => Spread::of(learned.link_rate * 3 / 4, learned.link_rate * 5 / 4),
            None => tools.probe(talk, round_trip_us, &PROBES[..1]).await?,
        };
        let log = DirtyLog::new(tools.site.hypervisor(), self.domain)?;
        // What is noted meanwhile is all still to be sent.
        let (windows, harvest_us) = tools.windows(&log, &WINDOW_US).await?;
        let mut measured = Measured {
            pages: self.info.memory_pages,
            page_bytes_16: (sample.bytes * 16).div_ceil(sample.pages.max(1)),
            encode_ns: sample.us * 1000 / sample.pages.max(1),
            windows,
            link_rate,
            harvest_us,
            ..Measured::default()
        };
        if let Some(limit) = self.options.bandwidth_bytes {
            let Spread { least, most } = measured.link_rate;
            measured.link_rate = Spread::of(least.min(limit), most.min(limit));
        }
        let readiness = self.job.readiness();
        tools.estimate_stop(&mut measured, self.peer, round_trip_us, readiness);
        let Spread { least, most } = measured.fixed_us;
        copy.set_fixed_us(least.midpoint(most));
        let options = &self.options;
        let mut foreseen = measured.predict(&options.goals, options.stop_and_copy);
        // With what it has taken so far.
        foreseen.add(talk.bytes(), self.job.worked_us(tools.site.now_us()));
        self.job.foresee(foreseen);
        Ok(())
    }
}

fn plan_text(
    entry: &Entry,
    info: &DomainInfo,
    peer: &str,
    measured: &Measured,
    options: &MoveOptions,
) -> String {
    let mut table = Table::new(&[
        ("Mode", Align::Left, 13),
        ("Sent(KiB)", Align::Right, 15),
        ("Rounds", Align::Right, 6),
        ("Time(ms)", Align::Right, 13),
        ("Downtime(ms)", Align::Right, 13),
        ("Kept", Align::Left, 0),
    ]);
    for (mode, stop_and_copy) in [("live", false), ("stop-and-copy", true)] {
        let Prediction {
            bytes,
            rounds,
            duration_us,
            downtime_us,
            ..
        } = measured.predict(&options.goals, stop_and_copy);
        table.row(alloc::vec![
            mode.into(),
            bytes.in_units(1 << 10).to_string(),
            rounds.to_string(),
            duration_us.in_units(1000).to_string(),
            downtime_us.in_units(1000).to_string(),
            measured
                .predict(&options.goals, stop_and_copy)
                .converges_text()
                .into(),
        ]);
    }
    let (name, devices) = (&entry.config.name, entry.links.len());
    let (mib, vcpus) = ((info.memory_pages * PAGE_SIZE_BYTES) >> 20, info.vcpus);
    format!(
        "domain '{name}' can move to {peer}: both hosts have checked everything\n\
         steps: offer it and make a domain there\n\
         steps: send {mib} MiB, and again what is written to, until the rest fits into {} ms\n\
         steps: stop it, send the rest, the states of {vcpus} vCPUs, the platform and {devices} devices\n\
         steps: compare the digests of both memories, hand it over, take it apart here\n\
         {}{}Kept: whether a downtime of {} ms can be had. Nothing was changed on either host.\n",
        options.goals.downtime_us / 1000,
        measured.text(),
        table.render(),
        options.goals.downtime_us / 1000,
    )
}
