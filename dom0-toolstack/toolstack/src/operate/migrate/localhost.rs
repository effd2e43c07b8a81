//! A move to this host itself (`xl migrate DOMAIN localhost`): the same engine, frames and handover, with both sides here.
//!
//! The hypervisor never has two domains of one name or uuid, so a copy is made as `NAME--incoming` with a uuid of chance.
//! Who runs has the name: when the copy is this host's for good, and before it runs, the two change names and uuids in one
//! step (`domain_exchange_identity`), which the hypervisor refuses unless both stand still. A dom0 that dies before that
//! finds a copy that it has committed and does it then; afterwards `NAME--incoming` is what is left of the original.
//!
//! What the domain's devices hold of the host, volumes, addresses and ports, only one of the two can have: the source lets
//! go of it when it has saved their states, and takes it back should the move end there.
//!
//! Which domain is which is not believed of the stream: only a connection that this dom0 has made to itself may bring a copy.

use super::Peers;
use super::arrive::tried;
use super::evacuate::ORIGIN_BLOB;
use super::job::Job;
use super::objection::{Cause, Objection};
use super::source::Leaving;
use super::{MoveOptions, WORK_LIMIT_US};
use crate::config::{Config, NAME_BYTES_MAX};
use crate::host::Hypervisor;
use crate::names;
use crate::operate::{OperateError, Toolstack};
use crate::site::{DeviceHost, Site, random_uuid};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use godwit_abi::{DomainId, DomainInfo, Status, text};
use godwit_migrate::handover::Attempt;

/// The name of this host for itself.
pub const LOCALHOST: &str = "localhost";
/// The end of a copy's name; no domain is given such a one.
pub const INCOMING: &str = "--incoming";
/// Between two looks whether the copy has let go of what the domain had.
const LOOK_US: u64 = 50_000;

/// The name of a domain's copy, as much of it as fits.
fn incoming(name: &str) -> String {
    let mut length = name.len().min(NAME_BYTES_MAX - INCOMING.len());
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    format!("{}{INCOMING}", &name[..length])
}

/// The name without the mark of a copy.
pub fn domain_of(name: &str) -> &str {
    name.strip_suffix(INCOMING).unwrap_or(name)
}

/// Why a domain is not moved here with some options.
pub(super) fn object_to_copy(options: &MoveOptions) -> Option<Objection> {
    options.may_postcopy().then(|| {
        let what = "post-copy to localhost: all of the memory is on this host already; use \
                    --on-miss=throttle, pause or abort";
        Objection::new(Cause::Itself, what)
    })
}

impl<S: Site> Toolstack<S> {
    /// Whom the operator means: [`LOCALHOST`] also by this host's own name, unless another host is known by it.
    pub fn host_named<'a>(&self, peer: &'a str) -> &'a str {
        let own = peer == self.site.name() && self.known_hosts().find(peer).is_none();
        if own { LOCALHOST } else { peer }
    }

    /// The domain whose copy is offered.
    pub(super) fn original(&self, config: &Config) -> Result<DomainId, OperateError> {
        let all = names::all(self.site.hypervisor())?;
        let original = all.iter().find(|info| Some(info.uuid) == config.uuid);
        let gone = || OperateError::Other("the domain to be copied is not here".into());
        original.map(names::id_of).ok_or_else(gone)
    }

    /// What a domain that comes is made from; a copy of another as its copy.
    pub(super) fn made_from<'a>(&self, config: &'a Config, is_copy: bool) -> Cow<'a, Config> {
        match is_copy {
            false => Cow::Borrowed(config),
            true => Cow::Owned(Config {
                name: incoming(&config.name),
                uuid: Some(random_uuid(self.site.random())),
                ..config.clone()
            }),
        }
    }

    /// The copy came from where its original did.
    pub(super) fn copy_origin(
        &self,
        copy: DomainId,
        original: DomainId,
    ) -> Result<(), OperateError> {
        let hypervisor = self.site.hypervisor();
        match hypervisor.blob_read(original, ORIGIN_BLOB) {
            Ok(from) => Ok(hypervisor.blob_write(copy, ORIGIN_BLOB, &from)?),
            Err(Status::NotFound | Status::NotSupported) => Ok(()),
            Err(status) => Err(status.into()),
        }
    }

    /// A copy that is to run becomes the domain. It must not fail: a dom0 that is started again tries it once more.
    pub(super) fn take_identity(&self, copy: DomainId, original: DomainId, job: &Job) {
        let hypervisor = self.site.hypervisor();
        if let Err(status) = tried(|| hypervisor.domain_exchange_identity(copy, original)) {
            job.tell(format!("it keeps the name of a copy: {status}"));
        }
    }

    /// After a restart of dom0: does so for a copy that had come to its end. True: the domain's name is none to be noted.
    pub(crate) fn recover_copy(&self, domain: DomainId, info: &DomainInfo) -> Result<bool, Status> {
        if !text(&info.name).ends_with(INCOMING) {
            return Ok(false);
        }
        let Some(entry) = self.registry.entry(domain) else {
            return Ok(true);
        };
        // What was left of the original; it is settled whose it is.
        if self.move_of(domain)?.is_some() {
            return Ok(true);
        }
        let attempt = entry.arrival.map(|arrival| Attempt(arrival.attempt));
        let mut all = self.registry.all().into_iter().map(|(id, _)| id);
        let original = all.find(|id| {
            let kept = self.move_of(*id).ok().flatten();
            kept.is_some_and(|kept| Some(kept.attempt) == attempt)
        });
        let hypervisor = self.site.hypervisor();
        match original {
            Some(original) => hypervisor.domain_exchange_identity(domain, original)?,
            None => hypervisor.domain_rename(domain, &entry.config.name)?,
        }
        Ok(true)
    }
}

impl<S: Site, P: Peers> Leaving<'_, S, P> {
    /// Whether it is moved to this host itself.
    pub(super) fn is_local(&self) -> bool {
        self.peer == LOCALHOST
    }

    /// Frees for the copy what the domain's devices hold of this host; their states are saved.
    pub(super) async fn let_go(&mut self) {
        self.is_let_go = true;
        self.tools.site.devices().let_go(self.domain).await;
    }

    /// Takes that back, when the copy has let go of it.
    pub(super) async fn take_back(&self) {
        let site = &self.tools.site;
        let end_us = site.now_us() + WORK_LIMIT_US;
        for link in &self.entry.links {
            while let Err(why) = site.devices().reattach(self.domain, link).await {
                if site.now_us() >= end_us {
                    let device = &link.device;
                    self.job
                        .tell(format!("{device} is not served again: {why}"));
                    break;
                }
                site.sleep_until(site.now_us() + LOOK_US).await;
            }
        }
    }
}
