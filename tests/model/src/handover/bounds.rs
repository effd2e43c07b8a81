//! Bounds of the world of the handover, and what can be broken in it.

use godwit_migrate::handover::{Attempt, destination, source};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Nothing.
    Nothing,
    /// Rule 1: a time-out at the source takes the guest back after the commit.
    TimeOutTakesBack,
    /// Rule 2: the source takes a reply for that of its present attempt.
    RepliesOfAnyAttempt,
    /// Rule 2: a destination forgets what it has refused.
    RefusalsForgotten,
    /// Rule 3: requests for an earlier boot are taken for this one's.
    RequestsOfAnyBoot,
    /// The destination runs the guest before its journal says so.
    RunsBeforeJournal,
    /// The source commits before its journal says so.
    CommitsBeforeJournal,
    /// A claim ends the attempt: nobody tells the destination.
    ClaimIsTheEnd,
    /// A destination that has no journal says that it had promised, not that it cannot know.
    UnsureIsCommitted,
}

/// When the operator claims the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// Never.
    Never,
    /// When the boot of the destination that it was given up to is over, and then the guest is never started
    /// there from its disks.
    Truly,
    /// At any time: the destination may live.
    Anyhow,
}

/// Bounds of the world.
#[derive(Clone, Debug)]
pub struct Handover {
    /// Attempts, one after the other.
    pub attempts: u64,
    /// Restarts of dom0 or host, both sides together.
    pub crashes: u8,
    /// When the operator claims the guest.
    pub claims: Claims,
    /// The destination has a disk for its journal.
    pub has_journal: bool,
    /// What is broken.
    pub broken: Broken,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The source begins its next attempt.
    Begin,
    /// Something happens to the source.
    Source(source::Input),
    /// The operator claims the guest.
    Claim,
    /// Something happens to the destination.
    Destination(Attempt, destination::Input),
    /// The source carries out its next effect.
    SourceEffect,
    /// The destination carries out its next effect.
    DestinationEffect,
    /// dom0 of the source is restarted.
    SourceDom0Crash,
    /// The source is restarted.
    SourceHostCrash,
    /// dom0 of the destination is restarted.
    DestinationDom0Crash,
    /// The destination is restarted.
    DestinationHostCrash,
    /// The source starts the guest from its disks, where it may.
    SourceColdStart,
    /// The destination does.
    DestinationColdStart,
}
