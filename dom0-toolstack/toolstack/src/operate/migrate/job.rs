//! Domains on the move, as the operator sees them.

use super::check::Readiness;
use super::evacuate::{Evacuated, Wanted};
use super::plan::{Actual, Prediction};
use super::queue::Queue;
use super::remembered::Remembered;
use super::resolve::Claim;
use crate::operate::OperateError;
use crate::operate::block_migrate::DiskProgress;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use godwit_abi::DomainId;
use godwit_migrate::encode::choice::Sent;
use godwit_migrate::postcopy::Fetched;
use godwit_migrate::precopy::Progress;

/// Jobs that are over and still shown.
const OVER_MAX: usize = 32;
/// Domains that may come at a time.
pub const ARRIVALS_MAX: usize = 4;
/// Lines kept of a job.
const LINES_MAX: usize = 256;

/// Which way a domain goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// To another host.
    Out,
    /// Here.
    In,
    /// Its disks, from one store of this host to another.
    Within,
}

/// How far a job is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Others leave first.
    Queue,
    /// The other host is asked.
    Check,
    /// Memory goes over while the domain runs.
    Copy,
    /// The domain stands still; the rest goes over.
    Stop,
    /// Both sides compare.
    Prove,
    /// It is given up here and not yet known to run there.
    HandOver,
    /// It runs there; what was missing of its memory goes over.
    Fetch,
    /// What is left here is freed.
    Clean,
    /// Over.
    Done,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Stage::Queue => "queue",
            Stage::Check => "check",
            Stage::Copy => "copy",
            Stage::Stop => "stop",
            Stage::Prove => "prove",
            Stage::HandOver => "hand over",
            Stage::Fetch => "fetch",
            Stage::Clean => "clean",
            Stage::Done => "done",
        })
    }
}

/// One move of one domain.
pub struct Job {
    /// Its number.
    pub id: u32,
    /// The domain's name.
    pub name: String,
    /// The other host, as it was named.
    pub peer: String,
    /// Which way.
    pub direction: Direction,
    /// When it began, by the host's clock, microseconds.
    pub begun_us: u64,
    domain: Cell<Option<DomainId>>,
    stage: Cell<Stage>,
    progress: Cell<Option<Progress>>,
    sent: Cell<Sent>,
    readiness: Cell<Readiness>,
    foreseen: Cell<Option<Prediction>>,
    works_from_us: Cell<u64>,
    rest_us: Cell<Option<u64>>,
    actual: Cell<Option<Actual>>,
    cancelled: Cell<bool>,
    /// The operator has said that the other host is gone for ever.
    claimed: Cell<bool>,
    /// The other host answers and cannot know: only the operator can.
    unsure: Cell<bool>,
    dropped: Cell<bool>,
    fetched: Cell<Fetched>,
    linked: Cell<bool>,
    disks: RefCell<Vec<DiskProgress>>,
    lines: RefCell<Vec<String>>,
    outcome: RefCell<Option<Result<String, String>>>,
}

impl Job {
    /// How far it is.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// How far its copying is.
    pub fn progress(&self) -> Option<Progress> {
        self.progress.get()
    }

    /// What was sent of its memory.
    pub fn sent(&self) -> Sent {
        self.sent.get()
    }

    /// What it was expected to take.
    pub fn foreseen(&self) -> Option<Prediction> {
        self.foreseen.get()
    }

    /// What it has taken, if it has succeeded.
    pub fn actual(&self) -> Option<Actual> {
        self.actual.get()
    }

    /// How the fetching of what was missing is going.
    pub fn fetched(&self) -> Fetched {
        self.fetched.get()
    }

    /// Whether the two hosts are connected, while memory is fetched.
    pub fn is_linked(&self) -> bool {
        self.linked.get()
    }

    /// How far its disks are, if it moves disks.
    pub fn disks(&self) -> Vec<DiskProgress> {
        self.disks.borrow().clone()
    }

    /// How far the disk at a place is: the places before it are known.
    pub(in crate::operate) fn note_disk(&self, at: usize, progress: DiskProgress) {
        let mut disks = self.disks.borrow_mut();
        disks.truncate(at);
        disks.push(progress);
    }

    pub(super) fn note_fetched(&self, fetched: Fetched, linked: bool) {
        self.fetched.set(fetched);
        self.linked.set(linked);
    }

    /// How it ended, if it has.
    pub fn outcome(&self) -> Option<Result<String, String>> {
        self.outcome.borrow().clone()
    }

    /// What there was to tell, from line `from` on.
    pub fn lines(&self, from: usize) -> Vec<String> {
        let lines = self.lines.borrow();
        lines.get(from..).unwrap_or_default().into()
    }

    /// Asks it to end. Nothing once the domain is given up.
    pub fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// Whether the operator has said that the other host is gone for ever.
    pub fn is_claimed(&self) -> bool {
        self.claimed.get()
    }

    /// The domain it is about, once there is one.
    pub fn domain(&self) -> Option<DomainId> {
        self.domain.get()
    }

    /// The other host was restarted and cannot know whether it ran the domain: the operator says it.
    pub fn is_unsure(&self) -> bool {
        self.unsure.get()
    }

    pub(super) fn set_unsure(&self) {
        self.unsure.set(true);
    }

    /// The operator has said that the domain ran there.
    pub(super) fn is_dropped(&self) -> bool {
        self.dropped.get()
    }

    pub(super) fn set_dropped(&self) {
        self.dropped.set(true);
    }

    pub(super) fn set_claimed(&self, claimed: bool) {
        self.claimed.set(claimed);
    }

    /// Whether it can still be called off.
    pub fn is_open(&self) -> bool {
        self.stage() < Stage::HandOver
    }

    /// Ends it before it has begun.
    pub fn give_up(&self, why: String) {
        self.end(Err(why));
    }

    pub(in crate::operate) fn enter(&self, stage: Stage) {
        // What people see never runs backwards.
        self.stage.set(stage.max(self.stage.get()));
    }

    pub(in crate::operate) fn concerns(&self, domain: DomainId) {
        self.domain.set(Some(domain));
    }

    pub(super) fn advance(&self, progress: Progress, sent: Sent) {
        let before = self.progress.get();
        let (round, bytes) = before.map_or((0, 0), |it| (it.round, it.sent_bytes));
        self.sent.set(sent);
        self.progress.set(Some(Progress {
            round: progress.round.max(round),
            sent_bytes: progress.sent_bytes.max(bytes),
            ..progress
        }));
    }

    pub(super) fn readiness(&self) -> Readiness {
        self.readiness.get()
    }

    pub(super) fn said_ready(&self, readiness: Readiness) {
        // Only the first answer says it.
        if self.stage() == Stage::Check {
            self.readiness.set(readiness);
        }
    }

    pub(super) fn foresee(&self, foreseen: Prediction) {
        self.foreseen.set(Some(foreseen));
    }

    pub(super) fn rest_took(&self, us: u64) {
        self.rest_us.set(Some(us));
    }

    /// How long the pages took that were sent while the domain stood still, microseconds.
    pub(super) fn rest_us(&self) -> Option<u64> {
        self.rest_us.get()
    }

    pub(super) fn works_from(&self, us: u64) {
        self.works_from_us.set(us);
    }

    /// For how long it has worked, its time in the queue left out, microseconds.
    pub fn worked_us(&self, now_us: u64) -> u64 {
        now_us.saturating_sub(self.works_from_us.get())
    }

    pub(super) fn took(&self, actual: Actual) {
        self.actual.set(Some(actual));
    }

    pub(in crate::operate) fn tell(&self, line: String) {
        let mut lines = self.lines.borrow_mut();
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }

    /// Tells something that is told again and again: only the last time is kept.
    pub(super) fn tell_last(&self, line: String) {
        let mut lines = self.lines.borrow_mut();
        lines.clear();
        lines.push(line);
    }

    pub(in crate::operate) fn check_cancelled(&self) -> Result<(), OperateError> {
        match self.cancelled.get() {
            true => Err(OperateError::Other("it was called off".into())),
            false => Ok(()),
        }
    }

    pub(in crate::operate) fn end(&self, outcome: Result<String, String>) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.stage.set(Stage::Done);
        self.domain.set(None);
    }
}

/// All jobs, those that are over included for a while.
#[derive(Default)]
pub struct Jobs {
    all: RefCell<Vec<Rc<Job>>>,
    last: Cell<u32>,
    pub(super) queue: Queue,
    /// Domains that were moved away to empty this host, once they are known.
    pub(super) evacuated: RefCell<Option<Vec<Evacuated>>>,
    /// Domains that other hosts have asked for.
    wanted: RefCell<Vec<Wanted>>,
    /// Domains that the operator has claimed, and that nobody tells the other host of yet.
    claims: RefCell<Vec<Claim>>,
    /// Bytes of dom0's memory that the caches of jobs may take.
    lent_bytes: Cell<u64>,
}

/// Memory that a job may take, until it is dropped.
pub(super) struct Loan<'a> {
    jobs: &'a Jobs,
    bytes: u64,
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let lent_bytes = &self.jobs.lent_bytes;
        lent_bytes.set(lent_bytes.get() - self.bytes);
    }
}

impl Jobs {
    /// Begins one.
    pub fn begin(&self, direction: Direction, name: &str, peer: &str, now_us: u64) -> Rc<Job> {
        let id = self.last.get() + 1;
        self.last.set(id);
        let job = Rc::new(Job {
            id,
            name: name.into(),
            peer: peer.into(),
            direction,
            begun_us: now_us,
            domain: Cell::new(None),
            stage: Cell::new(match direction {
                Direction::Out | Direction::Within => Stage::Queue,
                Direction::In => Stage::Check,
            }),
            progress: Cell::new(None),
            sent: Cell::default(),
            readiness: Cell::default(),
            foreseen: Cell::new(None),
            works_from_us: Cell::new(now_us),
            rest_us: Cell::new(None),
            actual: Cell::new(None),
            cancelled: Cell::new(false),
            claimed: Cell::new(false),
            unsure: Cell::new(false),
            dropped: Cell::new(false),
            fetched: Cell::default(),
            linked: Cell::new(true),
            disks: RefCell::default(),
            lines: RefCell::default(),
            outcome: RefCell::default(),
        });
        let mut all = self.all.borrow_mut();
        let over = |job: &Rc<Job>| job.stage() == Stage::Done;
        while all.iter().filter(|job| over(job)).count() > OVER_MAX {
            let oldest = all.iter().position(&over).expect("there are some");
            all.remove(oldest);
        }
        all.push(Rc::clone(&job));
        job
    }

    /// What an earlier dom0 kept: its jobs are over.
    pub(super) fn recall(&self, remembered: Remembered) {
        self.set_limit(remembered.limit);
        for (peer, learned) in remembered.learned {
            self.learn(&peer, learned);
        }
        for past in remembered.past {
            let job = self.begin(past.direction, &past.name, &past.peer, 0);
            job.foreseen.set(past.foreseen);
            job.actual.set(past.actual);
            job.end(past.outcome);
        }
    }

    pub(super) fn want(&self, wanted: Wanted) {
        self.wanted.borrow_mut().push(wanted);
    }

    /// Domains that the host that was served last wants back: each is to be moved to it.
    pub fn take_wanted(&self) -> Vec<Wanted> {
        self.wanted.take()
    }

    pub(super) fn press(&self, claim: Claim) {
        self.claims.borrow_mut().push(claim);
    }

    /// Claims that the other hosts are to be told of, each by [`crate::operate::Toolstack::press_claim`].
    pub fn take_claims(&self) -> Vec<Claim> {
        self.claims.take()
    }

    /// Lets a job take so much memory.
    pub(super) fn lend(&self, bytes: u64) -> Loan<'_> {
        self.lent_bytes.set(self.lent_bytes() + bytes);
        Loan { jobs: self, bytes }
    }

    /// What jobs may take by now.
    pub(super) fn lent_bytes(&self) -> u64 {
        self.lent_bytes.get()
    }

    /// All that are known, oldest first.
    pub fn all(&self) -> Vec<Rc<Job>> {
        self.all.borrow().clone()
    }

    /// Whether another domain may come, whose job is among the `begun`. The error is for the other host's operator.
    pub(super) fn room_for_arrival(&self, begun: usize) -> Result<(), String> {
        let all = self.all.borrow();
        let coming = |job: &&Rc<Job>| job.direction == Direction::In && job.stage() < Stage::Done;
        match all.iter().filter(coming).count() < ARRIVALS_MAX + begun {
            true => Ok(()),
            false => Err(format!(
                "{ARRIVALS_MAX} domains are on their way to it already"
            )),
        }
    }

    /// The one that moves a domain.
    pub fn of(&self, domain: DomainId) -> Option<Rc<Job>> {
        let all = self.all.borrow();
        let job = all.iter().find(|job| job.domain.get() == Some(domain));
        job.cloned()
    }

    /// Why nothing else may be done with a domain that moves.
    pub fn why_not(&self, domain: DomainId) -> Option<OperateError> {
        let job = self.of(domain)?;
        let (to, peer) = match job.direction {
            Direction::Out => ("to", &job.peer),
            Direction::In => ("here from", &job.peer),
            Direction::Within => ("with its disks to", &job.peer),
        };
        Some(OperateError::Other(format!(
            "domain '{}' is being moved {to} {peer} (xl migrate-status; xl migrate-cancel {domain})",
            job.name
        )))
    }
}
