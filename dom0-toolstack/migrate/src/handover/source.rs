//! The source's side of the handover: has the guest, and gives it away once.

use super::{Ask, Attempt, Boot, Effects as AnyEffects, GuestAction, Reply, Request, Tell};

/// How far an attempt is at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Asked; the guest runs here.
    Offered,
    /// Sending; the guest runs here.
    Copying(Boot),
    /// All is sent; the guest stands still here.
    Proving(Boot),
    /// The guest is given up, and stands still until the destination has spoken.
    Committing(Boot),
    /// As `Committing`, but this host was restarted and has no copy in memory any more.
    Orphaned(Boot),
    /// The operator has said that the destination is gone for ever: the guest is here. If the destination
    /// answers all the same, it is told so.
    Claimed(Boot),
    /// As `Claimed`, without a copy in memory: the guest may be started here from its disks.
    ClaimedCold(Boot),
    /// Over: the guest is here.
    Kept,
    /// Over: this host was restarted, and the guest may be started here from its disks.
    Released,
    /// Over: the guest is there.
    Moved,
    /// Over: the destination ran it, and was lost with it. What is left here is stale.
    Lost,
    /// Over: the operator claimed the guest, and the destination runs it all the same. What is here
    /// stands still.
    Disputed,
}

impl State {
    /// Nothing more will come of this attempt.
    pub const fn is_over(self) -> bool {
        matches!(
            self,
            State::Kept | State::Released | State::Moved | State::Lost | State::Disputed
        )
    }

    /// Only the destination's word, or the operator's claim, ends it.
    pub const fn is_undecided(self) -> bool {
        matches!(self, State::Committing(_) | State::Orphaned(_))
    }

    /// The attempt may still be called off by the source alone.
    pub const fn can_cancel(self) -> bool {
        matches!(self, State::Offered | State::Copying(_) | State::Proving(_))
    }
}

/// What is in the journal of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// The guest is given up to this boot.
    Committing(Boot),
    /// The operator has claimed the guest, which was given up to this boot.
    Claimed(Boot),
    /// The attempt is over; the guest is this host's or not.
    Settled {
        /// It may run (or be started) here.
        here: bool,
    },
}

/// What happens to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A reply to this attempt has come.
    Reply(Reply),
    /// All is sent and the guest stands still.
    Stopped,
    /// No answer for a while: ask again.
    AskAgain,
    /// The operator, a failure or a time-out calls the attempt off. Nothing once it is committed.
    GiveUp,
    /// The operator says that the destination is gone for ever. Nothing unless that is undecided.
    Claim,
    /// dom0 was restarted and found this state.
    Restarted,
}

/// What a step wants done.
pub type Effects = AnyEffects<Entry, Request>;

/// The state an attempt begins in, and the offer to send. The state is kept before.
pub fn begin(attempt: Attempt) -> (State, Effects) {
    (State::Offered, ask(attempt, None, Ask::Offer))
}

/// The state after the host was restarted, from the last entry of the attempt in the journal: none
/// means that the guest was this host's, and ended with it.
pub const fn after_host_restart(entry: Option<Entry>) -> State {
    match entry {
        Some(Entry::Committing(boot)) => State::Orphaned(boot),
        Some(Entry::Claimed(boot)) => State::ClaimedCold(boot),
        Some(Entry::Settled { here: false }) => State::Moved,
        Some(Entry::Settled { here: true }) | None => State::Released,
    }
}

const fn ask(attempt: Attempt, boot: Option<Boot>, ask: Ask) -> Effects {
    Effects {
        journal: None,
        guest: None,
        send: Some(Request { attempt, boot, ask }),
    }
}

/// One step of `attempt`. A state unchanged and no effects: the input means nothing here.
pub fn step(attempt: Attempt, state: State, input: Input) -> (State, Effects) {
    match input {
        Input::Reply(reply) if reply.attempt != attempt => (state, Effects::NONE),
        Input::Reply(reply) => replied(attempt, state, reply),
        Input::Stopped => match state {
            State::Copying(boot) => (State::Proving(boot), ask(attempt, Some(boot), Ask::Prove)),
            _elsewhere => (state, Effects::NONE),
        },
        Input::AskAgain => (state, again(attempt, state)),
        Input::GiveUp => give_up(attempt, state),
        Input::Claim => claim(attempt, state),
        Input::Restarted => restarted(attempt, state),
    }
}

fn again(attempt: Attempt, state: State) -> Effects {
    match state {
        State::Offered => ask(attempt, None, Ask::Offer),
        State::Proving(boot) => ask(attempt, Some(boot), Ask::Prove),
        State::Committing(boot) | State::Orphaned(boot) => ask(attempt, Some(boot), Ask::Commit),
        State::Claimed(boot) | State::ClaimedCold(boot) => ask(attempt, Some(boot), Ask::Cancel),
        State::Copying(_)
        | State::Kept
        | State::Released
        | State::Moved
        | State::Lost
        | State::Disputed => Effects::NONE,
    }
}

fn claim(attempt: Attempt, state: State) -> (State, Effects) {
    let (next, boot, guest) = match state {
        State::Committing(boot) => (State::Claimed(boot), boot, GuestAction::Run),
        State::Orphaned(boot) => (State::ClaimedCold(boot), boot, GuestAction::AllowStart),
        _decided => return (state, Effects::NONE),
    };
    (
        next,
        Effects {
            journal: Some(Entry::Claimed(boot)),
            guest: Some(guest),
            ..again(attempt, next)
        },
    )
}

fn give_up(attempt: Attempt, state: State) -> (State, Effects) {
    let boot = match state {
        State::Offered => None,
        State::Copying(boot) | State::Proving(boot) => Some(boot),
        _too_late => return (state, Effects::NONE),
    };
    (
        State::Kept,
        Effects {
            guest: Some(GuestAction::Run),
            ..ask(attempt, boot, Ask::Cancel)
        },
    )
}

fn restarted(attempt: Attempt, state: State) -> (State, Effects) {
    let guest = |action| Effects {
        guest: Some(action),
        ..Effects::NONE
    };
    match state {
        // What was being sent is lost with the connection.
        State::Offered | State::Copying(_) | State::Proving(_) => give_up(attempt, state),
        State::Committing(boot) => (
            state,
            Effects {
                // It may not have been written yet.
                journal: Some(Entry::Committing(boot)),
                ..again(attempt, state)
            },
        ),
        State::Orphaned(_) => (state, again(attempt, state)),
        State::Claimed(boot) => (
            state,
            Effects {
                journal: Some(Entry::Claimed(boot)),
                guest: Some(GuestAction::Run),
                ..again(attempt, state)
            },
        ),
        State::ClaimedCold(boot) => (
            state,
            Effects {
                journal: Some(Entry::Claimed(boot)),
                guest: Some(GuestAction::AllowStart),
                ..again(attempt, state)
            },
        ),
        State::Disputed => (state, guest(GuestAction::Pause)),
        State::Kept => (state, guest(GuestAction::Run)),
        State::Released => (state, guest(GuestAction::AllowStart)),
        State::Moved | State::Lost => (state, guest(GuestAction::Discard)),
    }
}

/// The end of a committed attempt.
fn settle(state: State, guest: GuestAction) -> (State, Effects) {
    let here = matches!(state, State::Kept | State::Released);
    (
        state,
        Effects {
            journal: Some(Entry::Settled { here }),
            guest: Some(guest),
            send: None,
        },
    )
}

fn replied(attempt: Attempt, state: State, reply: Reply) -> (State, Effects) {
    match state {
        State::Offered => match reply.tell {
            Tell::Accepted => (State::Copying(reply.boot), Effects::NONE),
            Tell::Refused => give_up(attempt, state),
            // Of an earlier offer's boot, or nonsense.
            Tell::Ready | Tell::Running | Tell::Gone { .. } | Tell::Unsure => {
                (state, Effects::NONE)
            }
        },
        State::Copying(boot) | State::Proving(boot) if reply.boot == boot => match reply.tell {
            Tell::Ready if matches!(state, State::Proving(_)) => (
                State::Committing(boot),
                Effects {
                    journal: Some(Entry::Committing(boot)),
                    ..ask(attempt, Some(boot), Ask::Commit)
                },
            ),
            Tell::Refused | Tell::Gone { .. } | Tell::Unsure => give_up(attempt, state),
            Tell::Accepted | Tell::Ready | Tell::Running => (state, Effects::NONE),
        },
        State::Committing(boot) | State::Orphaned(boot) if reply.boot == boot => {
            let in_memory = matches!(state, State::Committing(_));
            match reply.tell {
                Tell::Running => settle(State::Moved, GuestAction::Discard),
                Tell::Refused | Tell::Gone { committed: false } if in_memory => {
                    settle(State::Kept, GuestAction::Run)
                }
                Tell::Refused | Tell::Gone { committed: false } => {
                    settle(State::Released, GuestAction::AllowStart)
                }
                Tell::Gone { committed: true } => settle(State::Lost, GuestAction::Discard),
                // It may never have run: what is here may be all there is of it. Only the operator can know.
                Tell::Unsure if in_memory => (state, Effects::NONE),
                Tell::Unsure => settle(State::Lost, GuestAction::Discard),
                Tell::Accepted | Tell::Ready => (state, Effects::NONE),
            }
        }
        State::Claimed(boot) | State::ClaimedCold(boot) if reply.boot == boot => match reply.tell {
            Tell::Running => settle(State::Disputed, GuestAction::Pause),
            Tell::Refused | Tell::Gone { .. } | Tell::Unsure
                if matches!(state, State::Claimed(_)) =>
            {
                settle(State::Kept, GuestAction::Run)
            }
            Tell::Refused | Tell::Gone { .. } | Tell::Unsure => {
                settle(State::Released, GuestAction::AllowStart)
            }
            Tell::Accepted | Tell::Ready => (state, Effects::NONE),
        },
        // A destination that still waits for an attempt that is over here.
        State::Kept | State::Released if matches!(reply.tell, Tell::Accepted | Tell::Ready) => {
            (state, ask(attempt, Some(reply.boot), Ask::Cancel))
        }
        State::Copying(_)
        | State::Proving(_)
        | State::Committing(_)
        | State::Orphaned(_)
        | State::Claimed(_)
        | State::ClaimedCold(_)
        | State::Kept
        | State::Released
        | State::Moved
        | State::Lost
        | State::Disputed => (state, Effects::NONE),
    }
}
