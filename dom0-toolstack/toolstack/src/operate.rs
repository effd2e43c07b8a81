//! What the toolstack does with domains: as a whole or not at all.
//!
//! ```text
//!   check (touches nothing) -> create -> note -> populate, write, vCPU -> devices -> note -> unpause
//!                                |        |              |                  |         |        |
//!                                +--------+--------------+------------------+---------+--------+--> on
//!                                                                 error: detach all, destroy, forget
//! ```
//!
//! Operations are asynchronous because disks and servers are; each reserves its domain, so that
//! another one is refused instead of mixed in. An operation is run to its end: its future must not be
//! dropped half way.

mod attach;
pub mod block_migrate;
mod check;
mod cpu;
mod create;
mod ends;
mod error;
pub mod migrate;
mod recover;
mod rename;
mod restore;
mod save;
mod scan;
#[cfg(test)]
pub(crate) mod tests;
mod update;
mod volume_stream;
mod volumes;

pub use attach::MemoryState;
pub use check::{Checked, Images};
pub use create::Created;
pub use ends::Ended;
pub use error::{OperateError, Undone};

use crate::hosts::Hosts;
use crate::modules::BootModule;
use crate::registry::Registry;
use crate::site::{Files, Site, Stores};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use migrate::{Attempts, Fetches, Jobs, MoveJournal};

/// The toolstack of a host.
pub struct Toolstack<S: Site> {
    /// What it works on.
    pub site: S,
    /// The domains it answers for.
    pub registry: Registry,
    /// Boot modules.
    pub modules: Vec<BootModule<'static>>,
    /// This host's key and the hosts it knows.
    pub hosts: Hosts,
    /// What was seen last of files and stores.
    pub seen: RefCell<Seen>,
    /// Domains on the move.
    pub jobs: Jobs,
    /// What became of attempts to bring a domain here.
    pub(crate) attempts: Attempts,
    /// What is on disk about moves.
    pub(crate) moves: MoveJournal,
    /// Domains that run here and whose memory has not all come.
    pub(crate) fetches: Fetches,
}

/// Names for completion, as they were when [`Toolstack::look`] last looked.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Paths of files.
    pub files: Vec<String>,
    /// Names of stores.
    pub stores: Vec<String>,
    /// Volumes, `STORE/VOLUME`.
    pub volumes: Vec<String>,
}

impl<S: Site> Toolstack<S> {
    /// A toolstack that answers for no domain yet.
    pub fn new(site: S, modules: Vec<BootModule<'static>>) -> Self {
        Self {
            site,
            registry: Registry::default(),
            modules,
            hosts: Hosts::default(),
            seen: RefCell::default(),
            jobs: Jobs::default(),
            attempts: Attempts::default(),
            moves: MoveJournal::default(),
            fetches: Fetches::default(),
        }
    }

    /// Looks at files and stores, for completion. What cannot be listed has no names.
    pub async fn look(&self) {
        let mut seen = Seen::default();
        for folder in ["", "boot"] {
            for entry in self.site.files().list(folder).await.unwrap_or_default() {
                let slash = if folder.is_empty() { "" } else { "/" };
                if !entry.is_folder {
                    seen.files.push(format!("{folder}{slash}{}", entry.name));
                }
            }
        }
        let stores = self.site.stores().stores().await.unwrap_or_default();
        seen.stores
            .extend(stores.into_iter().filter_map(|store| store.name));
        let volumes = self.site.stores().volumes(None).await.unwrap_or_default();
        let volumes = volumes
            .iter()
            .map(|volume| format!("{}/{}", volume.store, volume.name));
        seen.volumes.extend(volumes);
        self.seen.replace(seen);
    }
}
