//! The handover: which of two hosts may run the guest, at every moment, whatever is lost.
//!
//! Two machines, [`source`] and [`destination`], step over messages and local events. They do no
//! I/O and know no time. A step gives the next state and [`Effects`], which the caller carries out
//! in this order, each before the next:
//!
//! 1. keep the new state where a restart of dom0 finds it (a blob in the hypervisor);
//! 2. `journal`: write it to disk and flush;
//! 3. `guest`: pause, run or discard;
//! 4. `send`.
//!
//! A dom0 that was restarted gives `Restarted` to the kept state; a host that was restarted has only
//! its journal, see [`source::after_host_restart`] and the `past` argument of
//! [`destination::step`]. Guest actions and journal entries may come twice and must not mind.
//!
//! The three rules (each is needed: `tests/model` finds two running guests without any of them):
//!
//! 1. The source gives the guest up before it sends `Commit`. From then on no time-out brings it
//!    back, only the destination's word that this attempt will never run.
//! 2. Every message carries the attempt. A destination that has refused one refuses it for ever.
//! 3. Every request after the offer is addressed to the boot of the destination that accepted. A
//!    later boot only says that that boot is no more, and whether its journal had committed. Without a
//!    journal it says that it cannot know: a source that has the memory keeps it until its operator speaks.
//!
//! An operator may claim a guest whose destination will never answer ([`source::Input::Claim`]). The
//! machines cannot know whether that is true. If it is not, the two hosts find out when they talk
//! again, and the claimed copy stands still from then on.

pub mod destination;
pub mod source;
mod wire;

pub use wire::MESSAGE_BYTES;

/// One try to move one guest; never used again. The source makes it up from its own boot and a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attempt(pub u64);

/// One boot of a host's hypervisor, drawn at random. dom0's restarts do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Boot(pub u64);

/// What the source asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ask {
    /// Will you take this guest?
    Offer,
    /// All is sent and the guest stands still: compare, and hold it ready.
    Prove,
    /// It is yours: run it. Asked again until answered.
    Commit,
    /// It stays here.
    Cancel,
}

/// From the source to the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// Which try.
    pub attempt: Attempt,
    /// The boot that is meant; only an offer, or the cancelling of one, may be for any.
    pub boot: Option<Boot>,
    /// What is asked.
    pub ask: Ask,
}

/// What the destination answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tell {
    /// Send it.
    Accepted,
    /// It is here, and equal.
    Ready,
    /// It runs here, or will whatever happens.
    Running,
    /// It will never run here by this attempt.
    Refused,
    /// That boot is over.
    Gone {
        /// It had promised to run the guest, and the guest was lost with it.
        committed: bool,
    },
    /// That boot is over, and nothing is written of what it promised.
    Unsure,
}

/// What is written of what the earlier boots of a destination promised in an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Past {
    /// That they never did.
    Never,
    /// That one of them did.
    Committed,
    /// Nothing: there was no journal.
    Unknown,
}

/// From the destination to the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply {
    /// Which try.
    pub attempt: Attempt,
    /// The boot it is about.
    pub boot: Boot,
    /// What is said.
    pub tell: Tell,
}

/// What is to be done with the guest on this side. Each may come again and then does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestAction {
    /// Run it.
    Run,
    /// Free its memory: it is not this host's any more, or never became so.
    Discard,
    /// It runs on the other side, too: it stands still, and the operator says what becomes of it.
    Pause,
    /// Its memory is gone with the host's last boot, but it may be started from its disks here.
    AllowStart,
    /// Compare digests, then give [`destination::Input::Proven`] or `GiveUp`.
    Compare,
}

/// What a step wants done, in this order, after the new state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Effects<J, M> {
    /// To disk, flushed.
    pub journal: Option<J>,
    /// With the guest.
    pub guest: Option<GuestAction>,
    /// To the other side.
    pub send: Option<M>,
}

impl<J, M> Effects<J, M> {
    const NONE: Self = Effects {
        journal: None,
        guest: None,
        send: None,
    };
}
