//! One run: two hosts, a cable, guests and a script, all from one seed, and what must hold meanwhile
//! and in the end.

use crate::check::Watch;
use crate::executor::Executor;
use crate::guest::{Fate, Guest, Pattern, fill};
use crate::host::{Host, name};
use crate::link::Cable;
use crate::random::Random;
use crate::script::{Event, Profile, SCRIPT_US, Script, When, quality};
use godwit_abi::{ShutdownReason, Status};
use godwit_toolstack::command::parse_line;
use godwit_toolstack::names::id_of;
use godwit_toolstack::operate::migrate::{Direction, Job, MoveOptions, Stage};
use godwit_toolstack::run::{Effect, run};
use std::cell::RefCell;
use std::rc::Rc;

/// How often guests run, and how often once all that is left is to settle.
const TICK_US: u64 = 4_000;
const LATE_TICK_US: u64 = 20_000;
/// After everything is well again, everything must be over by then.
const SETTLE_US: u64 = 600_000_000;
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
        self.kept += other.kept;
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
        let log = world.log.borrow().join("\n  ");
        format!("seed {seed} ({:?}): {what}\n  {log}", world.profile)
    })?;
    Ok(world.stats)
}

impl World {
    fn new(seed: u64, broken: Broken) -> Self {
        let random = Random::new(seed);
        let executor = Executor::new(random.fork());
        let cable = Cable::new(&executor, random.fork(), quality(&random, false));
        let encrypts = random.one_in_thousand(300);
        let hosts =
            [0, 1].map(|index| Host::new(index, &executor, &cable, random.fork(), encrypts));
        Host::introduce(&hosts[0], &hosts[1]);
        let count = random.between(1, 3) as usize;
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
        self.go(SCRIPT_US, |_| false)?;
        self.events.clear();
        // Whatever is broken is mended when its time has come; then all must end well.
        self.go(SETTLE_US, |world| world.later.is_empty())?;
        self.cable.quality.set(quality(&Random::new(1), false));
        self.cable.damage.set(None);
        self.say("everything is well again");
        let settled = self.go(SETTLE_US, Self::is_settled)?;
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

    /// Hosts that know each other, and guests on them.
    fn begin(&mut self) -> Result<(), String> {
        for host in &self.hosts {
            host.power_on();
        }
        let up = |world: &Self| world.hosts.iter().all(|host| host.tools().is_some());
        self.go(10_000_000, up)?;
        for host in &self.hosts {
            let peer = &self.hosts[1 - host.index];
            let identity = peer.tools().ok_or("it does not start")?.identity();
            let print = identity
                .map_err(|error| error.to_string())?
                .public()
                .fingerprint();
            let line = format!("{} 10.0.0.{} {print}\n", name(peer.index), peer.index + 1);
            host.files
                .files
                .borrow_mut()
                .insert("hosts.conf".into(), line.into_bytes());
            let tools = host.tools().expect("it was just there");
            host.spawn(async move {
                tools.load_hosts().await;
            });
        }
        let made = Rc::new(RefCell::new(Vec::new()));
        for (nth, guest) in self.guests.iter().enumerate() {
            let host = &self.hosts[nth % 2];
            let settings = settings(&guest.name, nth);
            let (tools, made) = (host.tools().expect("it was just there"), Rc::clone(&made));
            let random = self.random.fork();
            host.spawn(async move {
                let created = tools.create("/dev/null", &settings, true).await;
                let domain = created.expect("it is in order").domain;
                let hypervisor = &tools.site.parts.hypervisor;
                let filled = hypervisor.with(domain, |domain| fill(domain, &random));
                filled.expect("it was just made");
                let unpaused =
                    godwit_toolstack::host::Hypervisor::domain_unpause(hypervisor, domain);
                unpaused.expect("it was paused");
                made.borrow_mut().push(domain);
            });
        }
        let count = self.guests.len();
        let all =
            move |world: &Self| world.guests.iter().filter(|it| it.home.is_some()).count() == count;
        match self.go(10_000_000, all)? {
            true => {}
            false => return Err("the guests do not start".into()),
        }
        for host in &self.hosts {
            let parts = host.parts().expect("it is on");
            self.broken.apply(&parts.hypervisor);
        }
        self.watch.baseline(&self.hosts);
        Ok(())
    }

    fn carry_out(&mut self, now_us: u64) -> Result<(), String> {
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
            Event::Migrate(guest, options) => self.migrate(guest, options),
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

    /// Where the operator finds a guest, if any host lists it.
    fn find(&self, guest: usize) -> Option<(Rc<Host>, godwit_abi::DomainId)> {
        let guest = &self.guests[guest];
        self.hosts.iter().find_map(|host| {
            let parts = host.tools()?.site.parts.clone();
            let all = parts.hypervisor.state.borrow();
            let mut domains = all.slots.iter().flatten();
            let domain = domains.find(|domain| guest.is(domain))?;
            Some((Rc::clone(host), id_of(&domain.info)))
        })
    }

    fn migrate(&mut self, guest: usize, options: MoveOptions) {
        let Some((host, domain)) = self.find(guest) else {
            return;
        };
        self.stats.begun += 1;
        let tools = host.tools().expect("it was found by it");
        let (name, peer) = (&self.guests[guest].name, host.peer_name());
        let now_us = self.executor.now_us();
        let job = tools.jobs.begin(Direction::Out, name, &peer, now_us);
        self.watch.begun(guest, host.index, &job, options);
        host.migrate(job, domain, options);
    }

    fn cancel(&self, guest: usize) {
        let name = &self.guests[guest].name;
        for tools in self.hosts.iter().filter_map(|host| host.tools()) {
            let jobs = tools.jobs.all();
            let open = |job: &&Rc<Job>| job.name == *name && job.stage() != Stage::Done;
            jobs.iter().filter(open).for_each(|job| job.cancel());
        }
    }

    fn command(&mut self, verb: &str, guest: usize) {
        let Some((host, domain)) = self.find(guest) else {
            return;
        };
        let tools = host.tools().expect("it was found by it");
        let line = format!("xl {verb} {domain}");
        if verb == "destroy" {
            match tools.jobs.of(domain) {
                Some(_) => {}
                None => self.guests[guest].fate = Fate::MayBeGone("the operator destroyed it"),
            }
        }
        let log = Rc::clone(&self.log);
        host.spawn(async move {
            let commands = parse_line(&line).expect("it is a command");
            for command in commands {
                let effect = run(&tools, "host", command).await;
                if let Effect::Fail(why) = effect {
                    log.borrow_mut()
                        .push(format!("            {line}: {}", why.trim()));
                }
            }
        });
    }

    fn end(&mut self, guest: usize, again: bool) {
        let guest = &mut self.guests[guest];
        let Some((index, id)) = guest.home else {
            return;
        };
        let Some(parts) = self.hosts[index].parts() else {
            return;
        };
        let running = parts
            .hypervisor
            .with(id, |domain| crate::host::runs(domain));
        if running == Ok(true) {
            let reason = match again {
                true => ShutdownReason::Reboot,
                false => ShutdownReason::PowerOff,
            };
            parts.hypervisor.end(id, reason);
            guest.is_reborn = true;
            guest.fate = Fate::MayBeGone("it ended by itself");
        }
    }

    /// Nothing is under way any more.
    fn is_settled(&self) -> bool {
        self.hosts.iter().all(|host| {
            host.tools().is_some_and(|tools| {
                let over = |job: &Rc<Job>| job.stage() == Stage::Done;
                tools.jobs.all().iter().all(over) && tools.unsettled().is_empty()
            })
        })
    }

    fn count(&mut self) {
        (self.stats.moved, self.stats.kept) = self.watch.outcomes();
    }
}

impl Broken {
    fn apply(self, hypervisor: &godwit_toolstack::host::fake::FakeHypervisor) {
        let mut state = hypervisor.state.borrow_mut();
        match self {
            Broken::Nothing => {}
            Broken::NoteOfTheMove => state.ignored_blob = Some(2),
            Broken::NoteOfArrivals => state.ignored_blob = Some(3),
            Broken::DirtyPages => state.forgotten_writes = Some(7),
        }
    }
}

fn settings(guest: &str, nth: usize) -> Vec<String> {
    [
        format!("name={guest}"),
        "kernel=module:k".into(),
        "memory=2".into(),
        "maxmem=2".into(),
        "rng=1".into(),
        "balloon=1".into(),
        "on_reboot=restart".into(),
        format!("disk=[\"nbd://10.0.0.9/disk-{nth},raw,vda,rw\"]"),
        format!("vif=['type=nat,forward=tcp:{}:22']", 2200 + nth),
    ]
    .into()
}
