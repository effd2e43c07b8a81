//! The destination's side of the handover: runs the guest once it is told to, or never.

use super::{Ask, Attempt, Boot, Effects as AnyEffects, GuestAction, Past, Reply, Request, Tell};

/// How far an attempt is at the destination. Kept until the host is restarted, `Refused` too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum State {
    /// Never heard of.
    #[default]
    Unknown,
    /// The guest is coming.
    Receiving,
    /// It is here and equal, and stands still.
    Ready,
    /// It is this host's.
    Running,
    /// It never will be by this attempt.
    Refused,
}

/// What is in the journal of the destination about an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// Its guest is this host's.
    Committed,
    /// It was, of a boot that is over; the source's operator has claimed it since.
    Withdrawn,
}

/// What happens to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A request of this attempt has come.
    Request(Request),
    /// What was asked for by [`GuestAction::Compare`]: equal.
    Proven,
    /// A failure, a time-out, unequal digests or the operator. Nothing once it is committed.
    GiveUp,
    /// dom0 was restarted and found this state.
    Restarted,
}

/// What a step wants done.
pub type Effects = AnyEffects<Entry, Reply>;

/// One step of `attempt` on the boot `here`. `past`: what the journal on disk says of earlier boots.
pub fn step(
    attempt: Attempt,
    here: Boot,
    past: Past,
    state: State,
    input: Input,
) -> (State, Effects) {
    let tell = |tell| Effects {
        send: Some(Reply {
            attempt,
            boot: here,
            tell,
        }),
        ..Effects::NONE
    };
    match input {
        Input::Request(request) if request.attempt != attempt => (state, Effects::NONE),
        Input::Request(request) => match request.boot {
            Some(boot) if boot != here => {
                let tell = match past {
                    Past::Never => Tell::Gone { committed: false },
                    Past::Committed => Tell::Gone { committed: true },
                    Past::Unknown => Tell::Unsure,
                };
                let gone = Reply {
                    attempt,
                    boot,
                    tell,
                };
                // What is committed is cancelled by nobody but a source that has claimed it.
                let withdrawn = past == Past::Committed && request.ask == Ask::Cancel;
                let effects = Effects {
                    journal: withdrawn.then_some(Entry::Withdrawn),
                    send: Some(gone),
                    ..Effects::NONE
                };
                (state, effects)
            }
            // An old offer, of an attempt that an earlier boot committed: what it left is this host's.
            Some(_) | None if past == Past::Committed && state == State::Unknown => {
                (state, Effects::NONE)
            }
            Some(_) | None => asked(state, request.ask, tell),
        },
        Input::Proven => match state {
            State::Receiving => (State::Ready, tell(Tell::Ready)),
            _elsewhere => (state, Effects::NONE),
        },
        Input::GiveUp => match state {
            State::Receiving | State::Ready => refuse(tell),
            State::Unknown | State::Running | State::Refused => (state, Effects::NONE),
        },
        Input::Restarted => match state {
            State::Unknown => (state, Effects::NONE),
            // What was coming was lost with the connection.
            State::Receiving | State::Refused => refuse(tell),
            State::Ready => (state, tell(Tell::Ready)),
            State::Running => run(tell),
        },
    }
}

fn refuse(tell: impl Fn(Tell) -> Effects) -> (State, Effects) {
    (
        State::Refused,
        Effects {
            guest: Some(GuestAction::Discard),
            ..tell(Tell::Refused)
        },
    )
}

fn run(tell: impl Fn(Tell) -> Effects) -> (State, Effects) {
    (
        State::Running,
        Effects {
            journal: Some(Entry::Committed),
            guest: Some(GuestAction::Run),
            ..tell(Tell::Running)
        },
    )
}

fn asked(state: State, ask: Ask, tell: impl Fn(Tell) -> Effects) -> (State, Effects) {
    match (state, ask) {
        (State::Unknown | State::Receiving, Ask::Offer) => (State::Receiving, tell(Tell::Accepted)),
        (State::Receiving, Ask::Prove) => (
            state,
            Effects {
                guest: Some(GuestAction::Compare),
                ..Effects::NONE
            },
        ),
        (State::Ready, Ask::Offer) => (state, tell(Tell::Accepted)),
        (State::Ready, Ask::Prove) => (state, tell(Tell::Ready)),
        (State::Ready, Ask::Commit) => run(tell),
        (State::Running, _) => (state, tell(Tell::Running)),
        (State::Refused, _) => (state, tell(Tell::Refused)),
        // Never heard of, so it can be refused for ever: an offer that comes later is too late. A
        // commit before everything was proven is a broken peer's; it has given its guest up.
        (State::Unknown, Ask::Prove | Ask::Commit | Ask::Cancel)
        | (State::Receiving, Ask::Commit | Ask::Cancel)
        | (State::Ready, Ask::Cancel) => refuse(tell),
    }
}
