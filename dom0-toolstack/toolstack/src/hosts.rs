//! Who this host is and which other hosts it knows.
//!
//! Each host has a key pair, made at its first start, and a file `hosts.conf` with the hosts that
//! may send it domains and that it may send some to. A host gets into the file by an operator who
//! compared its fingerprint; nothing is trusted because it was there first. Input nobody vouches for:
//! both files ([`KnownHosts::parse`], [`key::decode`]), total and bounded.

pub mod endpoint;
pub mod key;
mod known;
pub mod link;
mod operate;
#[cfg(test)]
mod tests;

pub use endpoint::{Endpoint, MIGRATION_PORT};
pub use known::{HOSTS_MAX, KnownHost, KnownHosts};
pub use operate::{KEY_PATH, KNOWN_PATH};

use crate::site::Site;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::{Cell, RefCell};
use godwit_migrate::channel::{Identity, Random, Sessions};

/// What the toolstack holds of keys and hosts.
pub struct Hosts {
    identity: RefCell<Result<Rc<Identity>, String>>,
    /// The key is in a file.
    kept: Cell<bool>,
    known: RefCell<KnownHosts>,
    /// The connections accepted last.
    pub sessions: Sessions,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            identity: RefCell::new(Err("keys have not been loaded".into())),
            kept: Cell::new(false),
            known: RefCell::default(),
            sessions: Sessions::default(),
        }
    }
}

/// A site's numbers that nobody can guess, as the channel wants them.
pub struct SiteRandom<'a, S>(pub &'a S);

impl<S: Site> Random for SiteRandom<'_, S> {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), String> {
        self.0.entropy(out)
    }
}
