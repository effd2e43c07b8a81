//! Moving disks of a running domain to other stores of this host while the guest writes: `xl block-migrate`.
//!
//! ```text
//!   check (touches nothing) -> room for a volume -> copy, mirror, compare -> gate closed: -> clean
//!                                                                    volume entered, file, note
//! ```
//!
//! The disk is the source until the registry's entry says otherwise, which is one write of one blob, with
//! both copies equal and lasting and no request of the guest under way. Before it the configuration file
//! is changed, so that a host that loses its power afterwards starts the domain from what it wrote last. The
//! target is in its store's table only then: whatever ends a move earlier leaves nothing of it.
//! Note files (`note`) tell the next dom0 what was under way.

mod carry;
mod check;
mod config_file;
mod note;

pub use check::{DiskChoice, Plan, PlannedDisk};

use crate::config::DiskTarget;
use crate::operate::migrate::Job;
use crate::operate::{OperateError, Toolstack};
use crate::site::Site;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::DomainId;
use godwit_backends::storage::mirror;

/// Moves of disks that work at a time; counted apart from domains that leave.
pub const LIMIT: u32 = 2;

/// Where a disk is to go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Destination {
    /// To a store, as a volume that is made there; without a name it keeps its own.
    Store {
        /// The store.
        store: String,
        /// The volume's name.
        volume: Option<String>,
    },
    /// To an export, whose contents are overwritten.
    Export(DiskTarget),
}

/// What is to be moved, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlockMove {
    /// Disks by number, and where each goes.
    pub disks: Vec<DiskChoice>,
    /// Where all others go.
    pub rest: Option<String>,
    /// Most bytes a second that are copied.
    pub bandwidth_bytes: Option<u64>,
    /// The old volume is deleted once the new one is used; else it is kept under another name.
    pub delete_source: bool,
}

impl BlockMove {
    /// Where to, in a word.
    pub fn to(&self) -> String {
        let named = self.disks.iter().map(|one| match &one.to {
            Destination::Store { store, .. } => store.clone(),
            Destination::Export(target) => format!("{target}"),
        });
        let mut all: Vec<String> = named.chain(self.rest.clone()).collect();
        all.sort();
        all.dedup();
        all.join(",")
    }
}

/// How far one disk is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskProgress {
    /// Its name in the guest.
    pub vdev: String,
    /// Where it goes.
    pub target: String,
    /// It is used from there.
    pub switched: bool,
    /// What was done.
    pub progress: mirror::Progress,
}

impl DiskProgress {
    /// How much is copied, percent.
    pub fn percent(&self) -> u64 {
        let progress = &self.progress;
        (progress.done_bytes * 100)
            .checked_div(progress.bytes)
            .unwrap_or(100)
    }
}

impl<S: Site> Toolstack<S> {
    /// `xl block-migrate`: moves disks; the job gets the outcome too.
    pub async fn block_migrate(
        &self,
        job: &Job,
        domain: DomainId,
        wanted: &BlockMove,
    ) -> Result<String, OperateError> {
        let moved = self.move_disks(job, domain, wanted).await;
        let said = moved.clone();
        job.end(said.map_err(|error| format!("{error}")));
        self.remember_moves().await;
        moved
    }
}
