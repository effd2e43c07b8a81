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
mod check;
mod create;
mod ends;
mod error;
mod recover;
#[cfg(test)]
mod tests;

pub use check::{Checked, Images};
pub use create::Created;
pub use ends::Ended;
pub use error::{OperateError, Undone};

use crate::modules::BootModule;
use crate::registry::Registry;
use crate::site::Site;
use alloc::vec::Vec;

/// The toolstack of a host.
pub struct Toolstack<S: Site> {
    /// What it works on.
    pub site: S,
    /// The domains it answers for.
    pub registry: Registry,
    /// Boot modules.
    pub modules: Vec<BootModule<'static>>,
}

impl<S: Site> Toolstack<S> {
    /// A toolstack that answers for no domain yet.
    pub fn new(site: S, modules: Vec<BootModule<'static>>) -> Self {
        Self {
            site,
            registry: Registry::default(),
            modules,
        }
    }
}
