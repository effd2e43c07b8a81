//! What happens in a run: operations and faults, at times or at moments that chance picks.

use crate::link::{Damage, Quality};
use crate::random::Random;
use godwit_migrate::precopy::{Goals, OnMiss};
use godwit_toolstack::operate::migrate::{MoveOptions, Stage};

/// What kinds of faults there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// None: what is promised must be kept.
    Calm,
    /// The operator changes his mind, guests end, calls fail.
    Operator,
    /// The cable.
    Cable,
    /// Packets are damaged.
    Damage,
    /// Either dom0.
    Dom0,
    /// Either host.
    Power,
    /// Everything.
    All,
}

/// Something that happens.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// The domain goes to the other host.
    Migrate(usize, MoveOptions),
    /// The domain goes to its own host.
    Copy(usize, MoveOptions),
    /// The configuration of a domain that does not run goes to the other host.
    Offline,
    /// Every domain of a host goes to the other one.
    Evacuate(usize),
    /// The host asks for what went.
    Return(usize),
    /// A job of the domain is called off.
    Cancel(usize),
    /// A command about the domain.
    Command(&'static str, usize),
    /// The guest ends.
    End(usize, bool),
    /// dom0 of a host dies, and is built anew after a while.
    CrashDom0(usize, u64),
    /// A host loses its power for a while.
    PowerOff(usize, u64),
    /// The cable is cut for a while.
    Cut(u64),
    /// The cable becomes another one.
    Quality(Quality),
    /// The next packet is damaged.
    Damage(Damage),
    /// A call of a host's hypervisor fails.
    FailCall(usize, usize),
}

/// When something happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// At this time after the begin.
    At(u64),
    /// So many polls after some job has come to this stage.
    Stage(Stage, u64),
}

/// What happens in one run.
#[derive(Clone, Debug)]
pub struct Script {
    /// Which faults there are.
    pub profile: Profile,
    /// The events, in any order.
    pub events: Vec<(When, Event)>,
}

/// When the last event is, at the latest.
pub const SCRIPT_US: u64 = 12_000_000;

/// Runs of 1000 in which hosts are evacuated.
const EVACUATED_IN_THOUSAND: u64 = 300;
/// Runs of 1000 in which domains go to their own host.
const COPIED_IN_THOUSAND: u64 = 400;

/// A cable like any other.
pub fn quality(random: &Random, loses: bool) -> Quality {
    Quality {
        rate_bytes: random.pick(&[1_250_000, 4_000_000, 12_500_000, 125_000_000]),
        delay_us: random.pick(&[50, 200, 2_000, 20_000]),
        lost_in_thousand: if loses {
            random.pick(&[0, 5, 20, 80])
        } else {
            0
        },
    }
}

fn options(random: &Random) -> MoveOptions {
    MoveOptions {
        goals: Goals {
            downtime_us: random.pick(&[30_000, 300_000, 300_000, 1_000_000]),
            deadline_us: random.pick(&[None, None, Some(3_000_000)]),
            on_miss: random.pick(&[
                OnMiss::Throttle,
                OnMiss::Pause,
                OnMiss::Abort,
                OnMiss::PostCopy,
            ]),
        },
        bandwidth_bytes: random.pick(&[None, None, Some(3_000_000)]),
        stop_and_copy: random.one_in_thousand(120),
        verify: random.one_in_thousand(400),
        postcopy: random.one_in_thousand(300),
    }
}

impl Profile {
    fn has(self, kind: Profile) -> bool {
        self == kind || self == Profile::All
    }
}

impl Script {
    /// Empties a host, or both, and fills it again, in some runs. By chance of its own: other runs stay what they were.
    pub fn evacuate(&mut self, random: &Random) {
        if !random.one_in_thousand(EVACUATED_IN_THOUSAND) {
            return;
        }
        for _ in 0..random.between(1, 2) {
            let (host, us) = (random.below(2) as usize, random.below(SCRIPT_US / 2));
            self.events.push((When::At(us), Event::Evacuate(host)));
            let back_us = us + random.below(SCRIPT_US - us);
            self.events.push((When::At(back_us), Event::Return(host)));
        }
    }

    /// Moves domains to their own hosts in some runs, several at once too, and calls some off. By chance of its own.
    pub fn copy(&mut self, random: &Random, guests: usize) {
        if !random.one_in_thousand(COPIED_IN_THOUSAND) {
            return;
        }
        for _ in 0..random.between(1, 3) {
            let when = When::At(random.below(SCRIPT_US));
            let first = random.below(guests as u64) as usize;
            let count = random.between(1, guests as u64) as usize;
            for nth in 0..count {
                let options = options(random);
                let event = Event::Copy((first + nth) % guests, options);
                self.events.push((when, event));
            }
            if self.profile.has(Profile::Operator) {
                let stage = random.pick(&[Stage::Queue, Stage::Check, Stage::Copy, Stage::Prove]);
                let moment = When::Stage(stage, random.below(200));
                self.events.push((moment, Event::Cancel(first)));
            }
        }
    }

    /// One for `guests` domains.
    pub fn new(random: &Random, guests: usize) -> Self {
        let profile = random.pick(&[
            Profile::Calm,
            Profile::Operator,
            Profile::Cable,
            Profile::Damage,
            Profile::Dom0,
            Profile::Dom0,
            Profile::Power,
            Profile::Power,
            Profile::All,
        ]);
        let mut events = Vec::new();
        let at = || When::At(random.below(SCRIPT_US));
        let guest = || random.below(guests as u64) as usize;
        for _ in 0..random.between(2, 6) {
            events.push((at(), Event::Migrate(guest(), options(random))));
        }
        if random.one_in_thousand(300) {
            // All at once, in both directions: more than may leave at a time.
            let when = at();
            events.extend((0..guests).map(|guest| (when, Event::Migrate(guest, options(random)))));
        }
        for _ in 0..random.below(3) {
            events.push((at(), Event::Offline));
        }
        let moment = || match random.below(4) {
            0 => at(),
            3 => When::Stage(Stage::Fetch, random.below(200)),
            1 => {
                let stage = random.pick(&[Stage::Prove, Stage::HandOver, Stage::Clean]);
                When::Stage(stage, random.below(16))
            }
            _anywhere => {
                let stage = random.pick(&[Stage::Check, Stage::Copy, Stage::Stop]);
                When::Stage(stage, random.below(400))
            }
        };
        let host = || random.below(2) as usize;
        let while_us = || random.pick(&[100_000, 1_000_000, 5_000_000, 30_000_000]);
        let faults = random.between(1, 3);
        for _ in 0..faults {
            if profile.has(Profile::Operator) {
                events.push((moment(), operator(random, guest(), host())));
            }
            if profile.has(Profile::Cable) {
                events.push((moment(), cable(random, while_us())));
            }
            if profile.has(Profile::Damage) {
                let damage = random.pick(&[Damage::Flip, Damage::Truncate, Damage::Replay]);
                events.push((moment(), Event::Damage(damage)));
            }
            if profile.has(Profile::Dom0) {
                events.push((moment(), Event::CrashDom0(host(), while_us())));
            }
            if profile.has(Profile::Power) {
                events.push((moment(), Event::PowerOff(host(), while_us())));
            }
        }
        Self { profile, events }
    }
}

fn operator(random: &Random, guest: usize, host: usize) -> Event {
    match random.below(7) {
        0 | 1 => Event::Cancel(guest),
        2 => Event::Command("pause", guest),
        3 => Event::Command("unpause", guest),
        4 => Event::Command("destroy", guest),
        5 => Event::End(guest, random.one_in_thousand(500)),
        _call => Event::FailCall(host, random.below(200) as usize),
    }
}

fn cable(random: &Random, for_us: u64) -> Event {
    match random.below(3) {
        0 => Event::Quality(quality(random, true)),
        _cut => Event::Cut(for_us),
    }
}
