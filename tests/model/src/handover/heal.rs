//! Healing: from any state, what becomes of the two hosts when nothing goes wrong any more.

use super::{Handover, Step, World};
use godwit_migrate::handover::Attempt;
use godwit_migrate::handover::{destination, source};

impl Handover {
    /// Lets everything heal: no more crashes, messages arrive, time-outs fire. `gives_up`: whether
    /// each side calls off what it may. True: it ends settled, with the guest somewhere.
    pub(super) fn heals(&self, world: &World, gives_up: bool) -> bool {
        const ROUNDS_MAX: usize = 16;
        let mut world = world.clone();
        for _ in 0..ROUNDS_MAX {
            let attempts: Vec<Attempt> = world.destination.states.keys().copied().collect();
            let mut steps = Vec::new();
            let state = world.source.state;
            if state.is_some() {
                steps.push(Step::Source(source::Input::AskAgain));
                if gives_up {
                    steps.push(Step::Source(source::Input::GiveUp));
                } else {
                    steps.push(Step::Source(source::Input::Stopped));
                }
            }
            for attempt in attempts {
                let present = attempt == world.source.attempt
                    && !state.is_none_or(source::State::is_over)
                    && !world.awaits_operator(self.has_journal);
                if gives_up || !present {
                    steps.push(Step::Destination(attempt, destination::Input::GiveUp));
                } else {
                    steps.push(Step::Destination(attempt, destination::Input::Proven));
                }
            }
            for step in steps {
                let (mut sent, mut told) = (world.requests.clone(), world.replies.clone());
                world.requests.clear();
                world.replies.clear();
                self.act(&mut world, step);
                self.drain(&mut world);
                sent.append(&mut world.requests);
                told.append(&mut world.replies);
                world.requests = sent;
                world.replies = told;
            }
            if world.wrong.is_some() {
                return false;
            }
            if world.is_settled(self.has_journal) {
                if world.source.runs && world.destination.runs {
                    return false;
                }
                let disputed = world.source.state == Some(source::State::Disputed);
                let runs = world.source.runs || world.destination.runs;
                let lost = world.source.state == Some(source::State::Lost);
                // A guest that was moved and has ended with its host may be made again there.
                let moved = world.source.state == Some(source::State::Moved);
                let startable = world.may_start_cold()
                    || !world.destination.journal.is_empty()
                    || moved && !self.has_journal;
                let waits = world.awaits_operator(self.has_journal);
                return runs || lost || disputed || waits || world.host_lost && startable;
            }
        }
        false
    }

    /// Carries out effects and delivers what they send, until there is nothing more.
    fn drain(&self, world: &mut World) {
        for _ in 0..64 {
            while !world.source.todo.is_empty() {
                world.source_effect();
            }
            while !world.destination.todo.is_empty() {
                world.destination_effect();
            }
            if let Some(request) = world.requests.pop_first() {
                self.act(
                    world,
                    Step::Destination(request.attempt, destination::Input::Request(request)),
                );
            } else if let Some(reply) = world.replies.pop_first() {
                self.act(world, Step::Source(source::Input::Reply(reply)));
            } else {
                return;
            }
        }
    }
}

impl World {
    /// The destination cannot know, and the source has the memory: this waits for the operator.
    fn awaits_operator(&self, has_journal: bool) -> bool {
        let boot = self.destination.boot;
        let is_earlier = matches!(self.source.state,
            Some(source::State::Committing(of)) if of != boot);
        !has_journal && is_earlier && self.source.has_memory && !self.source.runs
    }

    pub(super) fn is_settled(&self, has_journal: bool) -> bool {
        let source = self.source.state.is_none_or(source::State::is_over)
            || self.awaits_operator(has_journal);
        let mut states = self.destination.states.values();
        source
            && states.all(|state| {
                !matches!(
                    state,
                    destination::State::Receiving | destination::State::Ready
                )
            })
    }
}
