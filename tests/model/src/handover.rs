//! The handover between two hosts: `migrate::handover` under loss, duplication, reordering and crashes
//! of either side, with every crash between any two effects of a step. The network is the set of all
//! messages ever sent: each may come at any time, any number of times, or never.

mod bounds;
mod heal;
#[cfg(test)]
mod tests;

pub use bounds::{Broken, Claims, Handover, Step};

use godwit_migrate::handover::destination;
use godwit_migrate::handover::source::{self, Entry};
use godwit_migrate::handover::{Attempt, Boot, GuestAction, Past, Reply, Request, Tell};
use stateright::{Model, Property};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An effect that is still to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Todo<J, M> {
    Journal(J),
    Guest(GuestAction),
    Send(M),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Source {
    attempt: Attempt,
    state: Option<source::State>,
    journal: BTreeMap<Attempt, Entry>,
    todo: VecDeque<Todo<Entry, Request>>,
    runs: bool,
    /// It still has the guest's memory.
    has_memory: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Destination {
    boot: Boot,
    states: BTreeMap<Attempt, destination::State>,
    journal: BTreeSet<Attempt>,
    todo: VecDeque<(Attempt, Todo<destination::Entry, Reply>)>,
    runs: bool,
    has_run: bool,
}

/// One state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    source: Source,
    destination: Destination,
    requests: BTreeSet<Request>,
    replies: BTreeSet<Reply>,
    crashes: u8,
    host_lost: bool,
    claimed: bool,
    /// The destination lived when it was said to be gone for ever.
    lied: bool,
    wrong: Option<&'static str>,
}

impl World {
    fn check(&mut self, has_journal: bool) {
        let claimed = matches!(
            self.source.state,
            Some(source::State::Claimed(_) | source::State::ClaimedCold(_))
        );
        // Until the two have talked, nobody can know.
        let may_be_two = self.lied && (claimed || !self.source.todo.is_empty());
        if !may_be_two && self.source.runs && self.destination.runs {
            self.wrong = Some("two copies run");
        }
        if !self.lied && self.source.runs && self.destination.has_run {
            self.wrong = Some("the source ran a stale copy");
        }
        let lost = self.source.state == Some(source::State::Lost);
        if lost && !self.host_lost {
            self.wrong = Some("lost without a host being lost");
        }
        let never_ran = !self.destination.has_run && !self.claimed;
        if lost && !has_journal && self.source.has_memory && never_ran {
            self.wrong = Some("lost, and all of it is at the source");
        }
    }

    fn source_takes(&mut self, broken: Broken, step: (source::State, source::Effects)) {
        let (state, effects) = step;
        let source = &mut self.source;
        // Standing still comes with `Proving`, and is carried out before the input is given.
        if matches!(state, source::State::Proving(_)) {
            source.runs = false;
        }
        source.state = Some(state);
        source.todo.extend(effects.journal.map(Todo::Journal));
        source.todo.extend(effects.guest.map(Todo::Guest));
        source.todo.extend(effects.send.map(Todo::Send));
        if broken == Broken::CommitsBeforeJournal {
            source.todo.make_contiguous().reverse();
        }
    }

    fn source_effect(&mut self) {
        let source = &mut self.source;
        match source.todo.pop_front() {
            None | Some(Todo::Guest(GuestAction::Compare)) => {}
            Some(Todo::Journal(entry)) => {
                source.journal.insert(source.attempt, entry);
            }
            Some(Todo::Guest(GuestAction::Run)) => {
                if source.has_memory {
                    source.runs = true;
                } else {
                    self.wrong = Some("the source runs a guest it does not have");
                }
            }
            Some(Todo::Guest(GuestAction::Discard)) => source.has_memory = false,
            Some(Todo::Guest(GuestAction::Pause)) => source.runs = false,
            Some(Todo::Guest(GuestAction::AllowStart)) => {}
            Some(Todo::Send(request)) => {
                self.requests.insert(request);
            }
        }
    }

    fn destination_takes(&mut self, attempt: Attempt, model: &Handover, input: destination::Input) {
        let (broken, destination) = (model.broken, &mut self.destination);
        let state = destination.states.entry(attempt).or_default();
        let is_earlier = matches!(input, destination::Input::Request(request)
            if request.boot.is_some_and(|boot| boot != destination.boot));
        let past = match destination.journal.contains(&attempt) {
            true => Past::Committed,
            false if model.has_journal || !is_earlier => Past::Never,
            false if broken == Broken::UnsureIsCommitted => Past::Committed,
            false => Past::Unknown,
        };
        let (next, effects) = destination::step(attempt, destination.boot, past, *state, input);
        *state = next;
        if broken == Broken::RefusalsForgotten && next == destination::State::Refused {
            *state = destination::State::Unknown;
        }
        let mut todo = VecDeque::new();
        todo.extend(effects.journal.map(Todo::Journal));
        todo.extend(effects.guest.map(Todo::Guest));
        if broken == Broken::RunsBeforeJournal {
            todo.make_contiguous().reverse();
        }
        todo.extend(effects.send.map(Todo::Send));
        destination
            .todo
            .extend(todo.into_iter().map(|todo| (attempt, todo)));
    }

    fn destination_effect(&mut self) {
        let destination = &mut self.destination;
        match destination.todo.pop_front() {
            None => {}
            Some((attempt, Todo::Journal(destination::Entry::Committed))) => {
                destination.journal.insert(attempt);
            }
            Some((attempt, Todo::Journal(destination::Entry::Withdrawn))) => {
                destination.journal.remove(&attempt);
            }
            Some((_, Todo::Guest(GuestAction::Run))) => {
                destination.runs = true;
                destination.has_run = true;
            }
            Some((attempt, Todo::Guest(GuestAction::Discard))) => {
                if destination.journal.contains(&attempt) {
                    self.wrong = Some("the destination discards its own guest");
                }
            }
            Some((
                _,
                Todo::Guest(GuestAction::Compare | GuestAction::AllowStart | GuestAction::Pause),
            )) => {}
            Some((_, Todo::Send(reply))) => {
                self.replies.insert(reply);
            }
        }
    }

    fn may_start_cold(&self) -> bool {
        let source = &self.source;
        let released = match source.state {
            Some(state) => matches!(
                state,
                source::State::Released | source::State::ClaimedCold(_)
            ),
            // No attempt was under way when the host was restarted.
            None => true,
        };
        released && !source.has_memory && !source.runs && source.todo.is_empty()
    }
}

impl Handover {
    fn act(&self, world: &mut World, step: Step) {
        match step {
            Step::Begin => {
                world.source.attempt = Attempt(world.source.attempt.0 + 1);
                let begun = source::begin(world.source.attempt);
                world.source_takes(self.broken, begun);
            }
            Step::Source(input) => self.source_input(world, input),
            Step::Claim => {
                let of = match world.source.state {
                    Some(source::State::Committing(boot) | source::State::Orphaned(boot)) => boot,
                    _decided => return,
                };
                world.claimed = true;
                world.lied |= of == world.destination.boot;
                // What it did before is what the operator was warned of.
                world.destination.has_run = false;
                // The destination is told over new connections.
                world.replies.clear();
                self.source_input(world, source::Input::Claim);
                if self.broken == Broken::ClaimIsTheEnd {
                    world.source.state = Some(source::State::Kept);
                    world.source.todo.pop_back();
                }
            }
            Step::Destination(attempt, input) => {
                let input = match input {
                    destination::Input::Request(request)
                        if self.broken == Broken::RequestsOfAnyBoot =>
                    {
                        destination::Input::Request(Request {
                            boot: request.boot.map(|_| world.destination.boot),
                            ..request
                        })
                    }
                    input => input,
                };
                world.destination_takes(attempt, self, input);
            }
            Step::SourceEffect => world.source_effect(),
            Step::DestinationEffect => world.destination_effect(),
            Step::SourceDom0Crash => {
                world.crashes += 1;
                world.source.todo.clear();
                self.source_input(world, source::Input::Restarted);
            }
            Step::SourceHostCrash => {
                world.crashes += 1;
                world.host_lost = true;
                let source = &mut world.source;
                source.todo.clear();
                source.runs = false;
                source.has_memory = false;
                let entry = source.journal.get(&source.attempt).copied();
                source.state = source.state.map(|_| source::after_host_restart(entry));
            }
            Step::DestinationDom0Crash => {
                world.crashes += 1;
                world.destination.todo.clear();
                let attempts: Vec<Attempt> = world.destination.states.keys().copied().collect();
                for attempt in attempts {
                    world.destination_takes(attempt, self, destination::Input::Restarted);
                }
            }
            Step::DestinationHostCrash => {
                world.crashes += 1;
                world.host_lost = true;
                let destination = &mut world.destination;
                destination.boot = Boot(destination.boot.0 + 1);
                destination.todo.clear();
                destination.states.clear();
                destination.runs = false;
                if !self.has_journal {
                    destination.journal.clear();
                }
            }
            Step::SourceColdStart => {
                world.source.runs = true;
                world.source.has_memory = true;
                world.source.state = match world.source.state {
                    Some(source::State::ClaimedCold(boot)) => Some(source::State::Claimed(boot)),
                    _over => None,
                };
            }
            Step::DestinationColdStart => {
                world.destination.runs = true;
                world.destination.has_run = true;
            }
        }
        world.check(self.has_journal);
    }

    fn source_input(&self, world: &mut World, input: source::Input) {
        let Some(state) = world.source.state else {
            return;
        };
        let attempt = world.source.attempt;
        let input = match input {
            source::Input::Reply(reply) if self.broken == Broken::RepliesOfAnyAttempt => {
                source::Input::Reply(Reply { attempt, ..reply })
            }
            source::Input::Reply(mut reply) if self.broken == Broken::RequestsOfAnyBoot => {
                if let source::State::Copying(boot)
                | source::State::Proving(boot)
                | source::State::Committing(boot)
                | source::State::Orphaned(boot)
                | source::State::Claimed(boot)
                | source::State::ClaimedCold(boot) = state
                {
                    reply.boot = boot;
                }
                source::Input::Reply(reply)
            }
            input => input,
        };
        let taken_back = self.broken == Broken::TimeOutTakesBack
            && input == source::Input::GiveUp
            && matches!(state, source::State::Committing(_));
        let stepped = if taken_back {
            let (_, effects) = source::step(attempt, source::State::Offered, source::Input::GiveUp);
            (source::State::Kept, effects)
        } else {
            source::step(attempt, state, input)
        };
        world.source_takes(self.broken, stepped);
    }

    /// Whether a step would change anything: the others only make the same state again.
    fn changes(&self, world: &World, step: Step) -> bool {
        let mut next = world.clone();
        self.act(&mut next, step);
        next != *world
    }
}

impl Model for Handover {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            source: Source {
                attempt: Attempt(0),
                state: None,
                journal: BTreeMap::new(),
                todo: VecDeque::new(),
                runs: true,
                has_memory: true,
            },
            destination: Destination {
                boot: Boot(1),
                states: BTreeMap::new(),
                journal: BTreeSet::new(),
                todo: VecDeque::new(),
                runs: false,
                has_run: false,
            },
            requests: BTreeSet::new(),
            replies: BTreeSet::new(),
            crashes: 0,
            host_lost: false,
            claimed: false,
            lied: false,
            wrong: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Step>) {
        if world.wrong.is_some() {
            return;
        }
        let mut wanted = Vec::new();
        // A side that has effects to carry out does that first, or crashes.
        if !world.source.todo.is_empty() {
            wanted.push(Step::SourceEffect);
        } else {
            let may_begin = match world.source.state {
                None => world.source.runs,
                Some(state) => state == source::State::Kept && world.source.runs,
            };
            if may_begin && world.source.attempt.0 < self.attempts {
                wanted.push(Step::Begin);
            }
            wanted.extend([
                Step::Source(source::Input::Stopped),
                Step::Source(source::Input::AskAgain),
                Step::Source(source::Input::GiveUp),
            ]);
            let may_claim = match (self.claims, world.source.state) {
                (
                    Claims::Truly,
                    Some(source::State::Committing(boot) | source::State::Orphaned(boot)),
                ) => boot != world.destination.boot && !world.destination.runs,
                (Claims::Anyhow, Some(state)) => state.is_undecided(),
                (Claims::Never | Claims::Truly | Claims::Anyhow, _) => false,
            };
            if may_claim {
                wanted.push(Step::Claim);
            }
            let replies = world.replies.iter();
            wanted.extend(replies.map(|reply| Step::Source(source::Input::Reply(*reply))));
            if world.may_start_cold() {
                wanted.push(Step::SourceColdStart);
            }
        }
        if !world.destination.todo.is_empty() {
            wanted.push(Step::DestinationEffect);
        } else {
            for attempt in world.destination.states.keys() {
                wanted.push(Step::Destination(*attempt, destination::Input::Proven));
                wanted.push(Step::Destination(*attempt, destination::Input::GiveUp));
            }
            wanted.extend(world.requests.iter().map(|request| {
                Step::Destination(request.attempt, destination::Input::Request(*request))
            }));
            // A guest that is started anew is none that the machines know.
            let may_start = !world.destination.journal.is_empty()
                && !world.claimed
                && self.claims != Claims::Anyhow;
            if may_start && !world.destination.runs {
                wanted.push(Step::DestinationColdStart);
            }
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
                "one guest runs, and none that is stale",
                |_, world: &World| world.wrong.is_none(),
            ),
            Property::always(
                "it settles when everybody goes on",
                |model: &Handover, world| model.heals(world, false),
            ),
            Property::always(
                "it settles when everybody gives up",
                |model: &Handover, world| model.heals(world, true),
            ),
            Property::sometimes("it is moved", |_, world: &World| {
                world.source.state == Some(source::State::Moved) && world.destination.runs
            }),
            Property::sometimes("it is kept", |_, world: &World| {
                world.source.state == Some(source::State::Kept) && world.source.runs
            }),
            Property::sometimes("a claim is kept", |model: &Handover, world: &World| {
                let kept = world.source.state == Some(source::State::Kept);
                model.claims == Claims::Never || kept && world.claimed && world.source.runs
            }),
            Property::sometimes("a claim is disputed", |model: &Handover, world: &World| {
                let disputed = world.source.state == Some(source::State::Disputed);
                model.claims != Claims::Anyhow || disputed
            }),
            Property::sometimes("it is lost with its host", |_, world: &World| {
                world.source.state == Some(source::State::Lost)
            }),
            Property::sometimes("an orphan finds its guest gone", |_, world: &World| {
                !world.source.has_memory
                    && world.source.state == Some(source::State::Moved)
                    && world.host_lost
            }),
            Property::sometimes("a refusal comes after the commit", |_, world: &World| {
                matches!(world.source.state, Some(source::State::Committing(_)))
                    && world.replies.iter().any(|reply| {
                        reply.attempt == world.source.attempt && reply.tell == Tell::Refused
                    })
            }),
        ]
    }
}
