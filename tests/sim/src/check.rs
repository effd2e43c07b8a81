//! What must hold, seen from outside.

use crate::guest::{Fate, Guest};
use crate::host::{Host, name, runs};
use godwit_abi::text;
use godwit_toolstack::host::fake::FakeDomain;
use godwit_toolstack::operate::migrate::{INCOMING, Job, LOCALHOST, MoveOptions, Stage};
use godwit_toolstack::registry::{ENTRY_BLOB, Entry, Phase};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The configuration of a domain that does not run, and its name while it is out of service.
pub const OFFLINE: &str = "guests/off.cfg";
/// As above.
pub const OFFLINE_MOVING: &str = "guests/off.cfg.moving";
/// Key of the blob with the note of a move, and with the attempts that a host has committed.
const MOVE_BLOB: u32 = 2;
/// What a downtime may be more than was promised: other domains use the same link.
const SLACK_US: u64 = 600_000;

/// What is told includes the way of the last word.
const TOLD_US: u64 = 120_000;

/// Something that was begun.
struct Begun {
    guest: usize,
    host: usize,
    job: Rc<Job>,
    options: MoveOptions,
}

/// How far a job was when it was looked at last.
struct Seen {
    job: Rc<Job>,
    stage: Stage,
    round: u32,
    bytes: u64,
}

/// Looks on.
#[derive(Default)]
pub struct Watch {
    begun: Vec<Begun>,
    seen: BTreeMap<(usize, usize), Seen>,
    /// Polls when the moments of the script were looked at last.
    pub seen_polls: u64,
    free_bytes: [u64; 2],
    furthest: Option<Stage>,
}

impl Watch {
    /// Begins.
    pub fn baseline(&mut self, hosts: &[Rc<Host>; 2]) {
        self.free_bytes = [0, 1].map(|index| hosts[index].baseline_bytes);
    }

    /// The furthest stage of any job under way.
    pub fn furthest(&self) -> Option<Stage> {
        self.furthest
    }

    /// A move was begun.
    pub fn begun(&mut self, guest: usize, host: usize, job: &Rc<Job>, options: MoveOptions) {
        let job = Rc::clone(job);
        self.begun.push(Begun {
            guest,
            host,
            job,
            options,
        });
    }

    /// How many moves ended there, and here.
    pub fn outcomes(&self) -> (u64, u64) {
        let ended = |good: bool| {
            let outcomes = self.begun.iter().filter_map(|begun| begun.job.outcome());
            outcomes.filter(|outcome| outcome.is_ok() == good).count() as u64
        };
        (ended(true), ended(false))
    }

    /// How many ended there that were within a host.
    pub fn copies(&self) -> u64 {
        let good = |begun: &&Begun| begun.job.outcome().is_some_and(|outcome| outcome.is_ok());
        let all = self.begun.iter().filter(good);
        all.filter(|begun| begun.job.peer == LOCALHOST).count() as u64
    }

    /// What the jobs of the script have told, for who wants to know why.
    pub fn jobs(&self) -> String {
        let mut all = String::new();
        for begun in &self.begun {
            let job = &begun.job;
            all += &format!("\n  {} from {}:", job.name, name(begun.host));
            for line in job.lines(0) {
                all += &format!("\n    {line}");
            }
            all += &format!("\n    {:?}", job.outcome());
        }
        all
    }

    /// After every step.
    pub fn look(&mut self, hosts: &[Rc<Host>; 2], guests: &[Guest]) -> Result<(), String> {
        for guest in guests {
            if guest.copies_running(hosts) > 1 {
                return Err(format!("{} runs twice", guest.name));
            }
        }
        let copy =
            |domain: &mut FakeDomain| text(&domain.info.name).ends_with(INCOMING) && runs(domain);
        if hosts.iter().any(|host| host.guests(copy).contains(&true)) {
            return Err("a copy runs that has not the name of its domain".into());
        }
        let mut parts = hosts.iter().filter_map(|host| host.parts());
        if let Some(what) = parts.find_map(|parts| parts.hypervisor.wrong()) {
            return Err(what);
        }
        if hosts.iter().all(|host| host.has_file(OFFLINE)) {
            return Err(format!("{OFFLINE} is in service on both hosts"));
        }
        self.look_at_jobs(hosts)
    }

    fn look_at_jobs(&mut self, hosts: &[Rc<Host>; 2]) -> Result<(), String> {
        self.furthest = None;
        for host in hosts {
            let Some(tools) = host.tools() else {
                continue;
            };
            for job in tools.jobs.all() {
                let stage = job.stage();
                let progress = job.progress();
                let (round, bytes) = progress.map_or((0, 0), |it| (it.round, it.sent_bytes));
                let key = (host.index, Rc::as_ptr(&job) as usize);
                if let Some(seen) = self.seen.get(&key)
                    && (stage < seen.stage || round < seen.round || bytes < seen.bytes)
                {
                    return Err(format!(
                        "job {} of {} goes backwards",
                        job.id,
                        name(host.index)
                    ));
                }
                if stage != Stage::Done {
                    self.furthest = self.furthest.max(Some(stage));
                }
                let seen = Seen {
                    job,
                    stage,
                    round,
                    bytes,
                };
                self.seen.insert(key, seen);
            }
        }
        // A job is kept as long as it is compared: no other one has its address.
        self.seen.retain(|_, seen| Rc::strong_count(&seen.job) > 1);
        Ok(())
    }

    /// A host is about to lose its power: guests that may be lost with it.
    pub fn power_lost(&mut self, index: usize, hosts: &[Rc<Host>; 2], guests: &mut [Guest]) {
        for guest in guests {
            let owned = hosts[index].guests(|domain| guest.is(domain) && is_owned(domain));
            // One that lacks memory needs its source.
            let whole = |domain: &mut FakeDomain| {
                guest.is(domain) && runs(domain) && domain.absent.is_empty()
            };
            let elsewhere = hosts[1 - index].guests(whole);
            if owned.contains(&true) && !elsewhere.contains(&true) {
                guest.fate = Fate::MayBeGone("its host lost its power");
            }
            let coming = hosts[index].guests(|domain| match guest.is(domain) {
                true => attempt(domain),
                false => None,
            });
            // One with a journal may have written that it will run it. One without says that it cannot know.
            let mut coming = coming.into_iter().flatten();
            if coming.any(|attempt| hosts[index].may_have_promised(attempt)) {
                guest.fate = Fate::MayBeGone("a host lost its power while it moved");
            }
        }
    }

    /// In the end.
    pub fn finish(
        &self,
        hosts: &[Rc<Host>; 2],
        guests: &[Guest],
        is_settled: bool,
    ) -> Result<(), String> {
        if !is_settled {
            let mut open = String::new();
            for host in hosts {
                let jobs = host.tools().map(|tools| tools.jobs.all());
                for job in jobs
                    .into_iter()
                    .flatten()
                    .filter(|job| job.stage() != Stage::Done)
                {
                    let lines = job.lines(0);
                    let last = lines.last().map_or("", String::as_str);
                    open += &format!(
                        "\n  {} {}: {} {last}",
                        name(host.index),
                        job.name,
                        job.stage()
                    );
                }
            }
            return Err(format!("it never ends:{open}"));
        }
        for guest in guests {
            self.there_once(hosts, guest)?;
        }
        let files = hosts.iter().map(|host| u8::from(host.has_file(OFFLINE)));
        if files.sum::<u8>() != 1 || hosts.iter().any(|host| host.has_file(OFFLINE_MOVING)) {
            return Err(format!("{OFFLINE} is not in service on one host"));
        }
        for host in hosts {
            self.nothing_left(host, guests)?;
        }
        Ok(())
    }

    fn there_once(&self, hosts: &[Rc<Host>; 2], guest: &Guest) -> Result<(), String> {
        let mut there = Vec::new();
        for host in hosts {
            let found = host.guests(|domain| {
                let is_it = guest.is(domain);
                is_it.then(|| check_domain(domain, guest))
            });
            let found = found.into_iter().flatten();
            there.extend(found.map(|checked| (host.index, checked)));
        }
        match (there.as_slice(), &guest.fate) {
            ([(_, Ok(()))], _) | ([], Fate::MayBeGone(_)) => Ok(()),
            ([(host, Err(why))], _) => Err(format!("{} on {}: {why}", guest.name, name(*host))),
            ([], Fate::Alive) => Err(format!("{} is lost", guest.name)),
            (several, _) => Err(format!("{} is there {} times", guest.name, several.len())),
        }
    }

    fn nothing_left(&self, host: &Rc<Host>, guests: &[Guest]) -> Result<(), String> {
        let (Some(parts), host_name) = (host.parts(), name(host.index)) else {
            return Err("a host is off".into());
        };
        let used: u64 = host.guests(|domain| domain.pages.len() as u64).iter().sum();
        let free = parts.hypervisor.state.borrow().host.free_bytes;
        let missing = self.free_bytes[host.index].abs_diff(free + used * 4096);
        if missing != 0 {
            return Err(format!(
                "{host_name}: {missing} bytes of memory are missing"
            ));
        }
        let leaked = parts.hypervisor.leaked_frames();
        if leaked != 0 {
            return Err(format!("{host_name}: {leaked} frames belong to nobody"));
        }
        let ids = host.guests(|domain| domain.id);
        let attached = parts.devices.attached.borrow();
        if let Some(((id, _), (device, _))) = attached.iter().find(|((id, _), _)| !ids.contains(id))
        {
            return Err(format!(
                "{host_name}: {device} of domain {id}, which is gone"
            ));
        }
        if let Some(id) = parts.devices.quiesced.borrow().first() {
            return Err(format!(
                "{host_name}: the devices of domain {id} stand still"
            ));
        }
        if let Some((id, _)) = parts.devices.prepared.borrow().first() {
            return Err(format!(
                "{host_name}: servers are kept for domain {id}, which has its devices or is gone"
            ));
        }
        if let Some(id) = parts.devices.written.borrow().keys().next() {
            return Err(format!(
                "{host_name}: writes of domain {id}'s devices are noted"
            ));
        }
        let strange = host.guests(|domain| !guests.iter().any(|guest| guest.is(domain)));
        match strange.contains(&true) {
            true => Err(format!("{host_name} has a domain that nobody made")),
            false => Ok(()),
        }
    }

    /// Where nothing went wrong, what was promised is kept.
    pub fn kept_promises(&self, guests: &[Guest]) -> Result<(), String> {
        for begun in &self.begun {
            let goal_us = begun.options.goals.downtime_us;
            let (guest, from) = (&guests[begun.guest], name(begun.host));
            let Some(Ok(told)) = begun.job.outcome() else {
                continue;
            };
            // A downtime that was not promised is one that is told.
            let lines = begun.job.lines(0).join("\n");
            let expected_ms: Option<u64> = lines
                .split_once("a downtime of ")
                .and_then(|(_, rest)| rest.split_once(" ms")?.0.parse().ok());
            let Some(expected_ms) = expected_ms.filter(|_| !begun.options.stop_and_copy) else {
                continue;
            };
            let real_ms: Option<u64> = told
                .split_once("downtime ")
                .and_then(|(_, rest)| rest.split_once(" ms")?.0.parse().ok());
            let Some(real_ms) = real_ms else {
                return Err(format!(
                    "the move of {} from {from} tells no downtime",
                    guest.name
                ));
            };
            let allowed_ms = 2 * expected_ms.max(goal_us / 1000) + SLACK_US / 1000;
            if real_ms > allowed_ms {
                return Err(format!(
                    "{} from {from}: {real_ms} ms of downtime, {expected_ms} ms were expected",
                    guest.name
                ));
            }
            let longest_us = guest.gaps_us.iter().max().copied().unwrap_or(0);
            if guest
                .gaps_us
                .iter()
                .all(|us| us.abs_diff(real_ms * 1000) > TOLD_US)
                && longest_us > 0
            {
                return Err(format!(
                    "{} from {from}: {real_ms} ms of downtime are told, it saw {:?} us",
                    guest.name, guest.gaps_us
                ));
            }
        }
        Ok(())
    }
}

/// Whether a domain is its host's for good.
fn is_owned(domain: &FakeDomain) -> bool {
    let entry = domain.blobs.get(&ENTRY_BLOB);
    let entry = entry.and_then(|bytes| Entry::decode(bytes).ok());
    entry.is_some_and(|entry| entry.phase == Phase::Live)
}

/// The attempt that a domain comes by that is not its host's yet.
fn attempt(domain: &FakeDomain) -> Option<u64> {
    let entry = Entry::decode(domain.blobs.get(&ENTRY_BLOB)?).ok()?;
    let arrival = entry.arrival.filter(|_| entry.phase == Phase::Building)?;
    Some(arrival.attempt)
}

/// What is left of a domain at the end.
fn check_domain(domain: &FakeDomain, guest: &Guest) -> Result<(), String> {
    if domain.dirty.is_some() {
        return Err("its writes are still noted".into());
    }
    if domain.write_quota != 0 {
        return Err("it is still slowed down".into());
    }
    if domain.blobs.contains_key(&MOVE_BLOB) {
        return Err("a note of its move is left".into());
    }
    if !is_owned(domain) {
        return Err("it is half made".into());
    }
    if !domain.absent.is_empty() {
        return Err("it waits for its memory".into());
    }
    if domain.fills.values().any(|count| *count != 1) {
        return Err("a page of it was filled twice".into());
    }
    match guest.is_reborn {
        true => Ok(()),
        false => guest.compare(domain),
    }
}
