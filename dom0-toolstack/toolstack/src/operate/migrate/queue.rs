//! How many domains leave at a time, and the queue of those that wait; what was learned of other hosts.

use super::job::{Direction, Job, Jobs, Stage};
use crate::operate::migrate::rounds::still_there;
use crate::operate::{OperateError, Toolstack, block_migrate};
use crate::site::Site;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use godwit_abi::DomainId;

/// Domains that leave at a time, unless `xl migrate-limit` says something else.
pub const LIMIT: u32 = 2;
/// Most that it may say.
pub const LIMIT_MAX: u32 = 8;
/// Jobs that are open, waiting ones included.
pub const OPEN_MAX: usize = 64;
/// Hosts of which something is remembered.
const LEARNED_MAX: usize = 64;
/// How often one that waits looks whether it is its turn.
const LOOK_US: u64 = 50_000;

/// What the last move to a host has shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Learned {
    /// What stopping cost besides pages, microseconds.
    pub fixed_us: u64,
    /// Bytes a second.
    pub link_rate: u64,
}

/// The limit, and what is known of other hosts.
#[derive(Debug)]
pub(super) struct Queue {
    limit: Cell<u32>,
    learned: RefCell<BTreeMap<String, Learned>>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            limit: Cell::new(LIMIT),
            learned: RefCell::default(),
        }
    }
}

impl Jobs {
    /// Domains that may leave at a time.
    pub fn limit(&self) -> u32 {
        self.queue.limit.get()
    }

    /// Sets that: 1 to [`LIMIT_MAX`]. Those that are on their way go on.
    pub fn set_limit(&self, limit: u32) {
        assert!((1..=LIMIT_MAX).contains(&limit), "the command was checked");
        self.queue.limit.set(limit);
    }

    /// What is known of a host.
    pub(super) fn learned(&self, peer: &str) -> Option<Learned> {
        self.queue.learned.borrow().get(peer).copied()
    }

    pub(super) fn all_learned(&self) -> Vec<(String, Learned)> {
        let all = self.queue.learned.borrow();
        all.iter().map(|(peer, it)| (peer.clone(), *it)).collect()
    }

    pub(super) fn learn(&self, peer: &str, learned: Learned) {
        let mut all = self.queue.learned.borrow_mut();
        if all.len() < LEARNED_MAX || all.contains_key(peer) {
            all.insert(peer.into(), learned);
        }
    }

    /// Those that may work at a time, of a job's kind.
    fn limit_of(&self, job: &Job) -> u32 {
        match job.direction {
            Direction::Out | Direction::In => self.limit(),
            Direction::Within => block_migrate::LIMIT,
        }
    }

    /// Whether it is a job's turn: fewer of its kind than the limit work, and nobody has waited for longer.
    fn is_due(&self, job: &Job) -> bool {
        let (mut working, mut before) = (0, 0);
        for other in self.all() {
            if other.direction != job.direction {
                continue;
            }
            match (other.direction, other.stage()) {
                (Direction::Out | Direction::Within, Stage::Queue) => {
                    before += u32::from(other.id < job.id);
                }
                (
                    Direction::Out | Direction::Within,
                    Stage::Check | Stage::Copy | Stage::Stop | Stage::Prove,
                ) => working += 1,
                // One that waits for another host's word may wait for long.
                (
                    Direction::Out | Direction::Within,
                    Stage::HandOver | Stage::Fetch | Stage::Clean | Stage::Done,
                )
                | (Direction::In, _) => {}
            }
        }
        before + working < self.limit_of(job)
    }
}

impl<S: Site> Toolstack<S> {
    /// Waits for a job's turn. An error: it was called off, or its domain has ended meanwhile.
    pub(in crate::operate) async fn await_turn(
        &self,
        job: &Job,
        domain: DomainId,
    ) -> Result<(), OperateError> {
        if !self.jobs.is_due(job) {
            let limit = self.jobs.limit_of(job);
            let what = match job.direction {
                Direction::Out | Direction::In => "domains are on their way (xl migrate-limit)",
                Direction::Within => "domains have their disks moved",
            };
            job.tell(alloc::format!("{limit} {what}: it waits"));
        }
        while !self.jobs.is_due(job) {
            self.site.sleep_until(self.site.now_us() + LOOK_US).await;
            job.check_cancelled()?;
            still_there(self.site.hypervisor(), domain)?;
        }
        job.enter(Stage::Check);
        job.works_from(self.site.now_us());
        Ok(())
    }
}
