//! `xl rename`: another name for a domain that lives.
//!
//! The hypervisor's name is the one that counts, since it is there first and refuses one that is taken: a
//! dom0 that dies before the note is written finds the name in [`Toolstack::recover`] and notes it then.

use super::{OperateError, Toolstack};
use crate::config;
use crate::host::Hypervisor;
use crate::names;
use crate::registry::Entry;
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use godwit_abi::{DomainId, Status, text};

impl<S: Site> Toolstack<S> {
    /// Gives a domain another name; restarted in place, saved or moved it keeps it. Returns what there
    /// is to tell: files keep the old name.
    pub fn domain_rename(&self, domain: DomainId, name: &str) -> Result<String, OperateError> {
        if let Some(why) = config::name_problem(name) {
            return Err(OperateError::Other(format!("the name {why}")));
        }
        if domain == DomainId::CONTROL {
            return Err(OperateError::Other(
                "the control domain keeps its name".into(),
            ));
        }
        let _busy = self.reserve(domain)?;
        if let Some(why) = self.orphan_in_the_way(name) {
            return Err(OperateError::Other(why));
        }
        let hypervisor = self.site.hypervisor();
        let before = hypervisor.domain_info(domain)?;
        hypervisor
            .domain_rename(domain, name)
            .map_err(|status| self.not_renamed(name, status))?;
        let noted = self
            .registry
            .change(hypervisor, domain, |entry| take_name(entry, name));
        if let Err(status) = noted {
            // Both or none. Should this fail too, the note follows when dom0 starts again.
            let _ = hypervisor.domain_rename(domain, text(&before.name));
            return Err(status.into());
        }
        Ok(self.old_name_in_file(domain, text(&before.name)))
    }

    fn not_renamed(&self, name: &str, status: Status) -> OperateError {
        match (status, names::resolve(self.site.hypervisor(), name)) {
            (Status::Exists, Ok(other)) => {
                let id = names::id_of(&other);
                OperateError::Other(format!("there is a domain '{name}' already (id {id})"))
            }
            (status, _) => OperateError::Refused(status),
        }
    }

    fn old_name_in_file(&self, domain: DomainId, old: &str) -> String {
        let entry = self.registry.entry(domain);
        let Some((source, autostart)) =
            entry.and_then(|entry| Some((entry.source?, entry.config.autostart)))
        else {
            return String::new();
        };
        let when = match autostart {
            true => "autostart with the host",
            false => "xl create",
        };
        format!(
            "{source} names it '{old}' still: {when} makes it by that name until the file is changed\n"
        )
    }

    /// Notes names that the dom0 before gave and did not note any more.
    pub(super) fn recover_name(&self, domain: DomainId) -> Result<(), Status> {
        let hypervisor = self.site.hypervisor();
        let info = hypervisor.domain_info(domain)?;
        if self.recover_copy(domain, &info)? {
            return Ok(());
        }
        let name = text(&info.name);
        match self.registry.entry(domain) {
            Some(entry) if entry.config.name != name => {
                self.registry
                    .change(hypervisor, domain, |entry| take_name(entry, name))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A name that it is to have with its next start, because its configuration says so, stays.
fn take_name(entry: &mut Entry, name: &str) {
    if let Some(next) = &mut entry.next
        && next.name == entry.config.name
    {
        next.name = name.to_string();
    }
    entry.config.name = name.to_string();
}
