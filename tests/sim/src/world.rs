//! One run: two hosts, a cable, guests and a script, all from one seed, and what must hold meanwhile
//! and in the end.

mod begin;
mod operator;

use crate::check::{OFFLINE_MOVING, Watch};
use crate::disk::SimDisk;
use crate::executor::Executor;
use crate::guest::{Guest, Pattern};
use crate::host::{Host, name};
use crate::hypervisor::SimHypervisor;
use crate::link::{Cable, Quality};
use crate::random::Random;
use crate::script::{Event, Profile, SCRIPT_US, Script, When, quality};
use godwit_abi::Status;
use godwit_toolstack::operate::migrate::{Job, LOCALHOST, MoveOptions, Stage};
use std::cell::RefCell;
use std::rc::Rc;

/// How often guests run, and how often once all that is left is to settle.
const TICK_US: u64 = 4_000;
const LATE_TICK_US: u64 = 20_000;
/// After everything is well again, everything must be over by then.
const SETTLE_US: u64 = 600_000_000;
/// How often the operator looks after it meanwhile.
const OPERATOR_ROUNDS: u64 = 20;
/// How long a host is off that lost its power at a write to its disk.
const CUT_FOR_US: u64 = 2_000_000;
/// How much later that may be.
const LATER_US: u64 = 60_000;
/// Makes the chance of evacuations another one than that of all else.
const EVACUATIONS: u64 = 0x65_7661_6375_6174;
/// The same of moves within a host.
const COPIES: u64 = 0x0063_6f70_6965_7300;
/// More polls than any run takes.
const POLLS_MAX: u64 = 20_000_000;

/// What is wrong on purpose, so that it can be seen that the checkers find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Broken {
    /// Nothing.
    #[default]
    Nothing,
    /// The source does not keep that it has given a domain up.
    NoteOfTheMove,
    /// The destination does not keep that a domain is its own.
    NoteOfArrivals,
    /// The hypervisor forgets writes to some pages.
    DirtyPages,
    /// The disk with the journal flushes one flush late.
    Disk,
    /// Pages that have not come are there for the guest.
    AbsentPages,
    /// What the processor logs of writes is told nobody.
    LogOfWrites,
}

/// What a run came to.
#[derive(Clone, Copy, Default, Debug)]
pub struct Stats {
    /// Polls of tasks.
    pub polls: u64,
    /// Events of the script that happened.
    pub events: u64,
    /// Moves that were begun.
    pub begun: u64,
    /// Moves that ended with the domain at the other host.
    pub moved: u64,
    /// Of these, within a host.
    pub copied: u64,
    /// Moves that another host had asked for and got.
    pub returned: u64,
    /// Moves that ended with the domain where it was.
    pub kept: u64,
    /// Virtual time, microseconds.
    pub time_us: u64,
}

impl Stats {
    /// Adds another run's.
    pub fn add(&mut self, other: Stats) {
        self.polls += other.polls;
        self.events += other.events;
        self.begun += other.begun;
        self.moved += other.moved;
        self.copied += other.copied;
        self.kept += other.kept;
        self.returned += other.returned;
        self.time_us += other.time_us;
    }
}

/// A run that is under way.
pub struct World {
    executor: Rc<Executor>,
    random: Random,
    cable: Rc<Cable>,
    hosts: [Rc<Host>; 2],
    guests: Vec<Guest>,
    profile: Profile,
    events: Vec<(When, Event)>,
    /// What is to be done later, by absolute time.
    later: Vec<(u64, Later)>,
    watch: Watch,
    broken: Broken,
    cut: Option<PowerCut>,
    /// The cable as it was in the beginning.
    first_quality: Quality,
    /// What happened, for who wants to know why.
    pub log: Rc<RefCell<Vec<String>>>,
    stats: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Later {
    StartDom0(usize),
    PowerOn(usize),
    Heal,
}

/// Runs one seed.
pub fn run_seed(seed: u64, broken: Broken) -> Result<Stats, String> {
    let mut world = World::new(seed, broken);
    let ran = world.run();
    ran.map_err(|what| {
        let mut log = world.log.borrow().join("\n  ");
        log += &world.watch.jobs();
        format!("seed {seed} ({:?}): {what}\n  {log}", world.profile)
    })?;
    Ok(world.stats)
}

/// A power cut at a write to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PowerCut {
    /// Whose power.
    pub host: usize,
    /// After so many writes and flushes since the begin of the move.
    pub writes: u64,
    /// Not at once: first the cable is cut, and what the write allowed is done.
    pub later: bool,
}

/// Moves one domain from the first host to the second, with a power cut. True: there never were so many
/// writes.
pub fn run_cut(seed: u64, cut: PowerCut, broken: Broken) -> Result<bool, String> {
    let mut world = World::new(seed, broken);
    world.profile = Profile::Power;
    for host in &world.hosts {
        let disk = SimDisk::new(
            &world.executor,
            world.random.fork(),
            None,
            broken == Broken::Disk,
        );
        *host.disk.borrow_mut() = Some(disk);
    }
    world.events = vec![(When::At(100_000), Event::Migrate(0, MoveOptions::default()))];
    world.cut = Some(cut);
    let ran = world.run();
    ran.map_err(|what| {
        let log = world.log.borrow().join("\n  ");
        format!("seed {seed}, {cut:?}: {what}\n  {log}")
    })?;
    Ok(world.stats.events < 2)
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let random = Random::new(seed);
        let executor = Executor::new(random.fork());
        let first_quality = quality(&random, false);
        let cable = Cable::new(&executor, random.fork(), first_quality);
        let encrypts = random.one_in_thousand(300);
        let has_disks = random.one_in_thousand(800) || broken == Broken::Disk;
        let hosts = [0, 1].map(|index| {
            let disk = has_disks
                .then(|| SimDisk::new(&executor, random.fork(), None, broken == Broken::Disk));
            Host::new(index, &executor, &cable, random.fork(), encrypts, disk)
        });
        Host::introduce(&hosts[0], &hosts[1]);
        let count = random.between(1, 4) as usize;
        let guests = (0..count).map(|nth| {
            let pattern = random.pick(&[
                Pattern::Idle,
                Pattern::Bytes,
                Pattern::Pages,
                Pattern::Mixed,
            ]);
            let rate = random.pick(&[20, 400, 2_000, 8_000]);
            Guest::new(&format!("guest-{nth}"), pattern, rate, random.fork())
        });
        let guests = guests.collect();
        let mut script = Script::new(&random, count);
        script.evacuate(&Random::new(seed ^ EVACUATIONS));
        script.copy(&Random::new(seed ^ COPIES), count);
        if script.profile == Profile::Damage && encrypts {
            script.profile = Profile::All;
        }
        Self {
            executor,
            cable,
            hosts,
            guests,
            profile: script.profile,
            events: script.events,
            random,
            later: Vec::new(),
            watch: Watch::default(),
            broken,
            cut: None,
            first_quality,
            log: Rc::default(),
            stats: Stats::default(),
        }
    }

    fn say(&self, what: impl AsRef<str>) {
        let at = self.executor.now_us() as f64 / 1e6;
        let line = format!("{at:11.6} {}", what.as_ref());
        self.log.borrow_mut().push(line);
    }

    /// Goes on for a while, or until something is so.
    fn go(&mut self, for_us: u64, until: impl Fn(&Self) -> bool) -> Result<bool, String> {
        let end_us = self.executor.now_us() + for_us;
        let mut tick_us = self.executor.now_us();
        loop {
            let now_us = self.executor.now_us();
            if now_us >= tick_us {
                let is_late = self.events.is_empty() && self.watch.furthest().is_none();
                tick_us = now_us + if is_late { LATE_TICK_US } else { TICK_US };
                if self.broken == Broken::AbsentPages {
                    for host in &self.hosts {
                        let Some(parts) = host.parts() else {
                            continue;
                        };
                        let shown = host.guests(|domain| {
                            let shown = |page: &u64| page.is_multiple_of(7);
                            let pages: Vec<u64> =
                                domain.absent.iter().copied().filter(shown).collect();
                            domain.absent.retain(|page| !shown(page));
                            (domain.id, pages)
                        });
                        for (id, pages) in shown {
                            parts.hypervisor.show(id, &pages);
                        }
                    }
                }
                for guest in &mut self.guests {
                    guest.tick(&self.hosts, now_us)?;
                }
                if until(self) {
                    return Ok(true);
                }
            }
            if now_us >= end_us {
                return Ok(false);
            }
            self.carry_out(now_us)?;
            self.executor.step(tick_us.min(end_us));
            self.watch.look(&self.hosts, &self.guests)?;
            if self.executor.polls() > POLLS_MAX {
                return Err("it does not end".into());
            }
        }
    }

    fn run(&mut self) -> Result<(), String> {
        let mut events = std::mem::take(&mut self.events);
        self.begin()?;
        let begun_us = self.executor.now_us();
        for (when, _) in &mut events {
            if let When::At(us) = when {
                *us += begun_us;
            }
        }
        self.events = events;
        if let Some(PowerCut { host, writes, .. }) = self.cut {
            let host = &self.hosts[host];
            let before = host.disk.borrow().as_ref().map(|disk| disk.writes());
            host.cut_after.set(before.map(|before| before + writes));
        }
        self.go(SCRIPT_US, |_| false)?;
        self.events.clear();
        // Whatever is broken is mended when its time has come; then all must end well.
        self.go(SETTLE_US, |world| world.later.is_empty())?;
        // Not another one: nobody can foresee that in the middle of a move.
        self.cable.quality.set(self.first_quality);
        self.cable.damage.set(None);
        self.say("everything is well again");
        let mut settled = false;
        for _ in 0..OPERATOR_ROUNDS {
            self.tidy_up();
            settled = self.go(SETTLE_US / OPERATOR_ROUNDS, Self::is_settled)?;
            if settled {
                break;
            }
        }
        // What has ended is taken apart, and what was said last arrives.
        self.go(5_000_000, |_| false)?;
        self.stats.polls = self.executor.polls();
        self.stats.time_us = self.executor.now_us();
        self.count();
        self.watch.finish(&self.hosts, &self.guests, settled)?;
        match self.profile {
            Profile::Calm => self.watch.kept_promises(&self.guests),
            Profile::Operator
            | Profile::Cable
            | Profile::Damage
            | Profile::Dom0
            | Profile::Power
            | Profile::All => Ok(()),
        }
    }

    fn carry_out(&mut self, now_us: u64) -> Result<(), String> {
        for index in [0, 1] {
            if !self.hosts[index].is_cut_due() {
                continue;
            }
            self.hosts[index].cut_after.set(None);
            match self.cut {
                Some(PowerCut { later: true, .. }) => {
                    self.happen(Event::Cut(CUT_FOR_US));
                    let when = When::At(now_us + LATER_US);
                    self.events.push((when, Event::PowerOff(index, CUT_FOR_US)));
                }
                Some(_) | None => self.happen(Event::PowerOff(index, CUT_FOR_US)),
            }
        }
        let due: Vec<Later> = {
            let (now, later) = self.later.iter().partition(|(us, _)| *us <= now_us);
            self.later = later;
            let now: Vec<(u64, Later)> = now;
            now.into_iter().map(|(_, what)| what).collect()
        };
        for what in due {
            self.mend(what);
        }
        let furthest = self.watch.furthest();
        let polls = self.executor.polls();
        let mut events = std::mem::take(&mut self.events);
        let mut due = Vec::new();
        events.retain_mut(|(when, event)| {
            let is_due = match when {
                When::At(us) => *us <= now_us,
                When::Stage(stage, rest) => match furthest {
                    Some(there) if there >= *stage && *rest == 0 => true,
                    Some(there) if there >= *stage => {
                        *rest -= (*rest).min(u64::from(polls != self.watch.seen_polls));
                        false
                    }
                    Some(_) | None => false,
                },
            };
            if is_due {
                due.push(event.clone());
            }
            !is_due
        });
        self.watch.seen_polls = polls;
        self.events = events;
        for event in due {
            self.happen(event);
        }
        Ok(())
    }

    fn mend(&mut self, what: Later) {
        match what {
            Later::StartDom0(index) => {
                let host = &self.hosts[index];
                if host.is_on() && !host.has_dom0() {
                    self.say(format!("dom0 of {} is built anew", name(index)));
                    host.start_dom0();
                }
            }
            Later::PowerOn(index) => {
                if !self.hosts[index].is_on() {
                    self.say(format!("{} is switched on", name(index)));
                    self.hosts[index].power_on();
                    let parts = self.hosts[index].parts().expect("it is on");
                    self.broken.apply(&parts.hypervisor);
                }
            }
            Later::Heal => {
                self.say("the cable is mended");
                self.cable.heal();
            }
        }
    }

    fn happen(&mut self, event: Event) {
        self.stats.events += 1;
        let now_us = self.executor.now_us();
        self.say(format!("{event:?}"));
        match event {
            Event::Migrate(guest, options) => self.migrate(guest, None, options),
            Event::Copy(guest, options) => self.migrate(guest, Some(LOCALHOST), options),
            Event::Offline => self.offline(),
            Event::Evacuate(index) => self.evacuate(index),
            Event::Return(index) => self.hosts[index].ask_back(),
            Event::Cancel(guest) => self.cancel(guest),
            Event::Command(verb, guest) => self.command(verb, guest),
            Event::End(guest, again) => self.end(guest, again),
            Event::CrashDom0(index, for_us) => {
                if self.hosts[index].has_dom0() {
                    self.hosts[index].crash_dom0();
                    self.later.push((now_us + for_us, Later::StartDom0(index)));
                }
            }
            Event::PowerOff(index, for_us) => {
                if self.hosts[index].is_on() {
                    self.watch.power_lost(index, &self.hosts, &mut self.guests);
                    self.hosts[index].power_off();
                    for guest in &mut self.guests {
                        // Ids begin anew with the host.
                        guest.home = guest.home.filter(|(host, _)| *host != index);
                    }
                    self.later.push((now_us + for_us, Later::PowerOn(index)));
                }
            }
            Event::Cut(for_us) => {
                self.cable.cut();
                self.later.push((now_us + for_us, Later::Heal));
            }
            Event::Quality(quality) => self.cable.quality.set(quality),
            Event::Damage(damage) => self.cable.damage.set(Some(damage)),
            Event::FailCall(index, nth) => {
                if let Some(parts) = self.hosts[index].parts() {
                    parts.hypervisor.fail_call(nth, Status::NoMemory);
                }
            }
        }
    }

    /// Nothing is under way any more.
    fn is_settled(&self) -> bool {
        self.hosts.iter().all(|host| {
            host.tools().is_some_and(|tools| {
                let over = |job: &Rc<Job>| job.stage() == Stage::Done;
                tools.jobs.all().iter().all(over)
                    && tools.unsettled().is_empty()
                    && tools.orphans().is_empty()
            }) && !host.has_file(OFFLINE_MOVING)
        })
    }

    fn count(&mut self) {
        (self.stats.moved, self.stats.kept) = self.watch.outcomes();
        self.stats.copied = self.watch.copies();
        self.stats.returned = self.hosts.iter().map(|host| host.returned.get()).sum();
    }
}

impl Drop for World {
    /// Tasks hold their hosts, and hosts their executor and each other: taken apart, or a run's memory is never given back.
    fn drop(&mut self) {
        for host in &self.hosts {
            host.take_apart();
        }
    }
}

impl Broken {
    fn apply(self, hypervisor: &SimHypervisor) {
        let mut state = hypervisor.state.borrow_mut();
        match self {
            Broken::Nothing | Broken::Disk | Broken::AbsentPages => {}
            Broken::LogOfWrites => hypervisor.loses_log.set(true),
            Broken::NoteOfTheMove => state.ignored_blob = Some(2),
            Broken::NoteOfArrivals => state.ignored_blob = Some(3),
            Broken::DirtyPages => state.forgotten_writes = Some(7),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_run_is_left() {
        for seed in 0..4 {
            let mut world = World::new(seed, Broken::Nothing);
            world.run().unwrap();
            let (executor, cable) = (Rc::downgrade(&world.executor), Rc::downgrade(&world.cable));
            drop(world);
            assert_eq!(
                (executor.strong_count(), cable.strong_count()),
                (0, 0),
                "seed {seed}"
            );
        }
    }
}
