//! Post-copy: a guest that is handed over before all of its memory has come. The handover's machines, and around them the
//! fetching: connections that are lost with what is under way, a source that connects again and again, a destination of which
//! several connections may ask at a time, and restarts of either dom0 or host between any two effects.
//!
//! What must hold: never two copies; the source frees nothing before nothing is missing, unless the host that ran the guest is gone;
//! and whenever nothing goes wrong any more, the guest has all of its memory, or went with a host.

mod fetch;
mod heal;
#[cfg(test)]
mod tests;

use godwit_migrate::handover::destination;
use godwit_migrate::handover::source;
use godwit_migrate::handover::{Attempt, Boot, GuestAction, Past, Reply, Request};
use stateright::{Model, Property};
use std::collections::VecDeque;

const ATTEMPT: Attempt = Attempt(1);
/// A bit for each page that the guest goes without.
const ABSENT: u8 = 0b11;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// A destination that is asked before it has noted that it fetches says that it has all.
    SaysAllBeforeRegistered,
    /// The source frees everything as soon as the guest runs there.
    FreesWhenItRuns,
    /// A dom0 of the source that is restarted does not know that the rest is to be given.
    RestForgotten,
    /// A dom0 of the destination that is restarted takes it that nothing is missing.
    AbsentForgotten,
    /// A source whose link is lost runs the guest again.
    LostLinkTakesBack,
}

/// From the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Down {
    Request(Request),
    /// The contents of these pages.
    Fetched(u8),
}

/// From the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Up {
    Reply(Reply),
    Fetch(u8),
    Complete,
}

/// What the destination has still to do on behalf of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Todo {
    Journal,
    Run,
    Send(Reply),
    /// Note that the memory is fetched, and fetch it.
    Register,
    /// Go on fetching, if that is noted.
    FetchOn,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Connection {
    down: VecDeque<Down>,
    up: VecDeque<Up>,
    source_has_it: bool,
    destination_has_it: bool,
    /// The destination fetches over it.
    fetches: bool,
    todo: VecDeque<Todo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    state: source::State,
    journal: Option<source::Entry>,
    runs: bool,
    has_memory: bool,
    /// What is missing there is to be given.
    gives: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Destination {
    boot: Boot,
    state: destination::State,
    journal: bool,
    /// It has the domain, and runs it.
    has_it: bool,
    runs: bool,
    has_run: bool,
    /// Known to the hypervisor, so that it outlives dom0.
    absent: u8,
    /// dom0 knows that it fetches.
    registered: bool,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    source: Source,
    destination: Destination,
    connections: Vec<Connection>,
    crashes: u8,
    source_lost: bool,
    destination_lost: bool,
    wrong: Option<&'static str>,
}

/// Bounds of the world.
#[derive(Clone, Debug)]
pub struct PostCopy {
    /// Connections that are made at most.
    pub connections: usize,
    /// Restarts of dom0 or host, both sides together.
    pub crashes: u8,
    /// What is broken.
    pub broken: Broken,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The source takes what came over its connection.
    SourceHears,
    /// The source gives the present connection up and makes another.
    Connect,
    /// The source calls the move off, as far as it may.
    GiveUp,
    /// The destination takes what came over a connection.
    DestinationHears(usize),
    /// It goes on with what a connection has left it to do.
    DestinationWorks(usize),
    /// A connection is lost.
    Lose(usize),
    /// dom0 of the source is restarted.
    SourceDom0Crash,
    /// The source is restarted.
    SourceHostCrash,
    /// dom0 of the destination is restarted.
    DestinationDom0Crash,
    /// The destination is restarted.
    DestinationHostCrash,
}

impl World {
    fn check(&mut self) {
        if self.source.runs && self.destination.runs {
            self.wrong = Some("two copies run");
        }
        if self.source.runs && self.destination.has_run {
            self.wrong = Some("the source ran a stale copy");
        }
        let lacks = self.destination.runs && self.destination.absent != 0;
        if lacks && !self.source.has_memory && !self.source_lost {
            self.wrong = Some("freed before all was fetched");
        }
    }

    fn last(&mut self) -> Option<&mut Connection> {
        let last = self.connections.last_mut();
        last.filter(|connection| connection.source_has_it)
    }

    fn say(&mut self, what: Down) {
        if let Some(connection) = self.last().filter(|it| it.destination_has_it) {
            connection.down.push_back(what);
        }
    }

    /// A step of the source's machine, with what follows from it.
    fn source_step(&mut self, model: &PostCopy, input: source::Input) {
        let before = self.source.state;
        let (state, effects) = source::step(ATTEMPT, before, input);
        self.source.state = state;
        if let Some(entry) = effects.journal {
            self.source.journal = Some(entry);
        }
        match effects.guest {
            Some(GuestAction::Run) => self.source.runs = self.source.has_memory,
            Some(GuestAction::Discard) => {
                let gives = self.source.gives && state == source::State::Moved;
                if !gives || model.broken == Broken::FreesWhenItRuns {
                    self.source.has_memory = false;
                }
            }
            Some(GuestAction::Pause | GuestAction::AllowStart | GuestAction::Compare) | None => {}
        }
        if let Some(request) = effects.send {
            self.say(Down::Request(request));
        }
    }

    fn source_crash(&mut self, model: &PostCopy) {
        self.crashes += 1;
        self.connections
            .iter_mut()
            .for_each(|it| it.source_has_it = false);
        let source = &mut self.source;
        // The note with the domain: it is kept until it is taken apart.
        if let (source::State::Moved, true, Some(source::Entry::Settled { .. })) =
            (source.state, source.has_memory, source.journal)
        {
            source.state = source::State::Committing(Boot(1));
        }
        if model.broken == Broken::RestForgotten {
            source.gives = false;
        }
        self.source_step(model, source::Input::Restarted);
    }

    fn destination_crash(&mut self, model: &PostCopy) {
        self.crashes += 1;
        for connection in &mut self.connections {
            connection.destination_has_it = false;
            connection.fetches = false;
            connection.todo.clear();
        }
        let destination = &mut self.destination;
        match destination.state {
            destination::State::Running => {
                destination.journal = true;
                destination.runs = destination.has_it;
                destination.has_run |= destination.has_it;
                let knows = model.broken != Broken::AbsentForgotten;
                destination.registered = knows && destination.has_it && destination.absent != 0;
            }
            destination::State::Unknown
            | destination::State::Receiving
            | destination::State::Ready
            | destination::State::Refused => {
                // What was coming is discarded.
                destination.state = destination::State::Refused;
                destination.has_it = false;
            }
        }
    }

    fn destination_lost(&mut self) {
        self.crashes += 1;
        self.destination_lost = true;
        for connection in &mut self.connections {
            connection.destination_has_it = false;
            connection.fetches = false;
            connection.todo.clear();
        }
        let destination = &mut self.destination;
        destination.boot = Boot(destination.boot.0 + 1);
        destination.state = destination::State::Unknown;
        (destination.has_it, destination.runs, destination.registered) = (false, false, false);
        destination.absent = 0;
    }
}

impl PostCopy {
    fn act(&self, world: &mut World, step: Step) {
        match step {
            Step::SourceHears => self.source_hears(world),
            Step::Connect => self.connect(world),
            Step::GiveUp => {
                let undecided = world.source.state.is_undecided() || world.source.gives;
                if self.broken == Broken::LostLinkTakesBack && undecided {
                    world.source.state = source::State::Kept;
                    world.source.runs = world.source.has_memory;
                } else {
                    world.source_step(self, source::Input::GiveUp);
                }
            }
            Step::DestinationHears(nth) => self.destination_hears(world, nth),
            Step::DestinationWorks(nth) => self.destination_works(world, nth),
            Step::Lose(nth) => {
                let connection = &mut world.connections[nth];
                let todo = std::mem::take(&mut connection.todo);
                *connection = Connection {
                    // What is this host's by now is done in any case.
                    todo,
                    ..Connection::default()
                };
            }
            Step::SourceDom0Crash => world.source_crash(self),
            Step::SourceHostCrash => {
                world.crashes += 1;
                world.source_lost = true;
                world
                    .connections
                    .iter_mut()
                    .for_each(|it| it.source_has_it = false);
                let source = &mut world.source;
                source.state = source::after_host_restart(source.journal);
                (source.runs, source.has_memory, source.gives) = (false, false, false);
            }
            Step::DestinationDom0Crash => world.destination_crash(self),
            Step::DestinationHostCrash => world.destination_lost(),
        }
        world.check();
    }

    /// Whether a step would change anything.
    fn changes(&self, world: &World, step: Step) -> bool {
        let mut next = world.clone();
        self.act(&mut next, step);
        next != *world
    }
}

impl Model for PostCopy {
    type State = World;
    type Action = Step;

    /// All that goes before the guest has gone, it is compared, and the source is about to hear so.
    fn init_states(&self) -> Vec<World> {
        let boot = Boot(1);
        let proven = destination::step(
            ATTEMPT,
            boot,
            Past::Never,
            destination::State::Receiving,
            destination::Input::Proven,
        );
        let ready = proven.1.send.expect("it says that it is ready");
        vec![World {
            source: Source {
                state: source::State::Proving(boot),
                journal: None,
                runs: false,
                has_memory: true,
                gives: true,
            },
            destination: Destination {
                boot,
                state: proven.0,
                journal: false,
                has_it: true,
                runs: false,
                has_run: false,
                absent: ABSENT,
                registered: false,
            },
            connections: vec![Connection {
                up: [Up::Reply(ready)].into(),
                source_has_it: true,
                destination_has_it: true,
                ..Connection::default()
            }],
            crashes: 0,
            source_lost: false,
            destination_lost: false,
            wrong: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.wrong.is_some() {
            return;
        }
        let mut wanted = vec![Step::SourceHears, Step::GiveUp];
        if world.connections.len() < self.connections {
            wanted.push(Step::Connect);
        }
        for nth in 0..world.connections.len() {
            wanted.extend([
                Step::DestinationHears(nth),
                Step::DestinationWorks(nth),
                Step::Lose(nth),
            ]);
        }
        if world.crashes < self.crashes {
            wanted.extend([
                Step::SourceDom0Crash,
                Step::SourceHostCrash,
                Step::DestinationDom0Crash,
                Step::DestinationHostCrash,
            ]);
        }
        actions.extend(wanted.into_iter().filter(|step| self.changes(world, *step)));
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut world = world.clone();
        self.act(&mut world, step);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "one guest runs, and nothing it lacks is freed",
                |_, world: &World| world.wrong.is_none(),
            ),
            Property::always(
                "it ends when everybody goes on",
                |model: &PostCopy, world| model.heals(world),
            ),
            Property::sometimes(
                "all is fetched, and the source is free",
                |_, world: &World| {
                    let whole = world.destination.runs && world.destination.absent == 0;
                    whole && !world.source.has_memory && world.connections.len() == 1
                },
            ),
            Property::sometimes(
                "it is fetched over a second connection",
                |_, world: &World| {
                    let half = world.destination.runs && world.destination.absent.count_ones() == 1;
                    let second = world.connections.get(1);
                    half && second.is_some_and(|it| it.fetches)
                },
            ),
            Property::sometimes("it stays", |_, world: &World| world.source.runs),
            Property::sometimes("it is lost with its host", |_, world: &World| {
                world.source.state == source::State::Lost
            }),
        ]
    }
}
