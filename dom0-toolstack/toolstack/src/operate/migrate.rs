//! Moving a running domain to another host, and taking one in.
//!
//! ```text
//!   source                                            destination
//!   hello, note of the domain, offer  ------------->  check, make a domain
//!                                     <-------------  accepted, or every reason against it
//!   rounds: harvest, encode, send     ------------->  write
//!                                     <-------------  taken
//!   stop: pause, last pages, records  ------------->  compare digests, set everything
//!                                     <-------------  ready
//!   give it up, note that, commit     ------------->  note that, run
//!                                     <-------------  running
//!   take the domain apart
//! ```
//!
//! With post-copy the pages that are missing at the stop are only named; the destination, which runs the domain already, fetches
//! them (`fetch`) from the source, which keeps all of it until nothing is missing (`rest`).
//!
//! Source and destination may be one host (`localhost`).
//!
//! Which of the two may run the domain is decided by the machines of `godwit_migrate::handover`; here
//! is what they want done. Until the source has given the domain up, every failure ends with the domain
//! running there and nothing left at the destination. Afterwards the source asks until it has an answer.

mod arrive;
mod attempts;
mod check;
mod copy;
mod destination;
mod differ;
mod evacuate;
mod fetch;
mod hashes;
mod hello;
mod images;
mod job;
mod journal;
mod kept;
mod landing;
mod leave;
mod localhost;
mod measure;
mod objection;
mod offline;
mod orphan;
mod plan;
mod progress;
mod queue;
mod remembered;
mod report;
mod resolve;
mod rest;
mod rounds;
mod settle;
mod source;
mod stop;
mod survey;
mod talk;
mod time;
mod timeline;
mod written;

pub use attempts::Attempts;
pub use copy::Totals;
pub use evacuate::{Evacuated, Wanted, unwatched};
pub use fetch::Fetches;
#[cfg(test)]
pub(super) use hashes::LOOKS as HASHES_LOOKED_FOR;
pub use job::{ARRIVALS_MAX, Direction, Job, Jobs, Stage};
pub use journal::GivenUp;
pub(crate) use journal::MoveJournal;
pub use localhost::{INCOMING, LOCALHOST, domain_of};
pub use objection::{Cause, Objection};
pub use plan::{Actual, Measured, Prediction, Spread, Window};
pub use queue::{LIMIT, LIMIT_MAX, OPEN_MAX};
pub use resolve::Claim;
pub(super) use rounds::still_there;

use alloc::string::String;
use godwit_migrate::link::Link;
use godwit_migrate::precopy::{Goals, OnMiss};

/// Longest downtime unless something else is asked for, microseconds.
pub const DOWNTIME_US: u64 = 300_000;

/// For an answer that needs no work.
const ANSWER_LIMIT_US: u64 = 20_000_000;
/// For an answer that needs disks looked at or memory made.
const WORK_LIMIT_US: u64 = 60_000_000;
/// For the conversation's end, where it matters little.
const FAREWELL_LIMIT_US: u64 = 3_000_000;

/// How a domain is to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MoveOptions {
    /// What is promised.
    pub goals: Goals,
    /// Most bytes a second on the link.
    pub bandwidth_bytes: Option<u64>,
    /// Pause the domain first, then send everything.
    pub stop_and_copy: bool,
    /// Run it there after the first round, and fetch the rest as it is touched.
    pub postcopy: bool,
    /// Read all memory again on both sides while the domain stands still, and compare.
    pub verify: bool,
}

impl MoveOptions {
    /// Whether it may end in post-copy.
    fn may_postcopy(&self) -> bool {
        self.postcopy || self.goals.on_miss == OnMiss::PostCopy
    }
}

impl Default for MoveOptions {
    fn default() -> Self {
        Self {
            goals: Goals {
                downtime_us: DOWNTIME_US,
                deadline_us: None,
                on_miss: OnMiss::Throttle,
            },
            bandwidth_bytes: None,
            stop_and_copy: false,
            postcopy: false,
            verify: false,
        }
    }
}

/// Reaches other hosts.
#[allow(async_fn_in_trait, reason = "one vCPU: nothing is Send")]
pub trait Peers {
    /// A connection to one.
    type Link: Link;
    /// Connects to the host of a name or address. An error in words.
    async fn dial(&self, peer: &str) -> Result<Self::Link, String>;
}
