//! Healing: from any state, what becomes of the guest when nothing goes wrong any more.

use super::{PostCopy, Step, World};
use godwit_migrate::handover::source;

/// Connections that suffice.
const CONNECTIONS_MAX: usize = 4;
/// Steps of one connection that suffice.
const STEPS_MAX: usize = 64;

impl PostCopy {
    /// True: the guest ends whole on one host, or went with a host.
    pub(super) fn heals(&self, world: &World) -> bool {
        let mut world = world.clone();
        for _ in 0..CONNECTIONS_MAX {
            self.drain(&mut world);
            if world.wrong.is_some() {
                return false;
            }
            if world.has_ended() {
                return true;
            }
            // No answer to the proof: it is called off.
            self.act(&mut world, Step::GiveUp);
            self.act(&mut world, Step::Connect);
        }
        false
    }

    fn drain(&self, world: &mut World) {
        for _ in 0..STEPS_MAX {
            let before = world.clone();
            for nth in 0..world.connections.len() {
                self.act(world, Step::DestinationWorks(nth));
                self.act(world, Step::DestinationHears(nth));
            }
            self.act(world, Step::SourceHears);
            if *world == before {
                return;
            }
        }
    }
}

impl World {
    fn has_ended(&self) -> bool {
        let (source, destination) = (&self.source, &self.destination);
        if !source.state.is_over() {
            return false;
        }
        match source.state {
            source::State::Kept => source.runs,
            source::State::Moved => {
                let whole = destination.runs && destination.absent == 0;
                let gone = self.destination_lost && !destination.has_it;
                // Its source went with the rest: the operator ends it.
                !source.has_memory && (whole || gone || self.source_lost)
            }
            source::State::Lost => self.destination_lost,
            source::State::Released => self.source_lost,
            source::State::Offered
            | source::State::Copying(_)
            | source::State::Proving(_)
            | source::State::Committing(_)
            | source::State::Orphaned(_)
            | source::State::Claimed(_)
            | source::State::ClaimedCold(_)
            | source::State::Disputed => false,
        }
    }
}
