//! What becomes of domains that have ended, and asking them to.

use super::{OperateError, Toolstack};
use crate::config::{self, EndAction};
use crate::host::Hypervisor;
use crate::names::id_of;
use crate::registry::{Entry, Phase};
use crate::site::Site;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::{DomainId, DomainInfo, ShutdownReason, text};

/// A domain that has ended and was seen to.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The domain as it was before.
    pub info: DomainInfo,
    /// The domain that was made in its place, if that was to be.
    pub successor: Option<DomainId>,
    /// Why it could not be done. The domain is left as it is then, or gone as the error says.
    pub problem: Option<String>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = ShutdownReason::from_number(self.info.reason);
        let reason = reason.map_or("for a reason of another version", ShutdownReason::text);
        let (name, id) = (text(&self.info.name), id_of(&self.info));
        write!(f, "domain '{name}' (id {id}) has ended: {reason}")?;
        if let Some(successor) = self.successor {
            write!(f, "; started again (id {successor})")?;
        }
        match &self.problem {
            Some(problem) => write!(f, "; {problem}"),
            None => Ok(()),
        }
    }
}

impl<S: Site> Toolstack<S> {
    /// Sees to the domains that have ended: destroys them or makes them anew, as configured. To be
    /// called when some domain has changed its state. `held` is left alone until a later call, because
    /// somebody looks at it.
    pub async fn settle(&self, held: Option<DomainId>) -> Vec<Ended> {
        let mut all = Vec::new();
        for (info, action) in self.registry.due(self.site.hypervisor(), held) {
            let domain = id_of(&info);
            let Ok(_busy) = self.reserve(domain) else {
                continue;
            };
            let result = match action {
                EndAction::Destroy => self.finish(domain).await.map(|()| None),
                EndAction::Restart => self.restart(domain).await.map(Some),
                EndAction::Preserve => continue,
            };
            let problem = match (&result, action) {
                (Ok(_), _) => None,
                (Err(error), EndAction::Restart) => {
                    Some(format!("starting it again failed: {error}"))
                }
                (Err(error), EndAction::Destroy | EndAction::Preserve) => {
                    Some(format!("destroying it failed: {error}"))
                }
            };
            if problem.is_some() {
                self.preserve(domain);
            }
            let successor = result.ok().flatten();
            all.push(Ended {
                info,
                successor,
                problem,
            });
        }
        all
    }

    /// Tells the operator once, not at every change: the domain is left to them.
    fn preserve(&self, domain: DomainId) {
        let hypervisor = self.site.hypervisor();
        let kept = self.registry.change(hypervisor, domain, |entry| {
            entry.config.end = config::EndActions {
                on_poweroff: EndAction::Preserve,
                on_reboot: EndAction::Preserve,
                on_crash: EndAction::Preserve,
            };
            entry.reboot_asked = false;
            entry.phase = Phase::Live;
        });
        if kept.is_err() {
            // Not even that: it is no longer looked after.
            self.registry.forget(domain);
        }
    }

    async fn finish(&self, domain: DomainId) -> Result<(), OperateError> {
        let hypervisor = self.site.hypervisor();
        self.registry
            .change(hypervisor, domain, |entry| entry.phase = Phase::Ending)?;
        Ok(self.take_apart(domain).await?)
    }

    /// Takes a domain apart and makes it anew: same configuration, uuid, addresses; another id, as in
    /// Xen. Everything that can be checked is checked before the old one goes.
    async fn restart(&self, domain: DomainId) -> Result<DomainId, OperateError> {
        let entry = self.registry.entry(domain);
        let entry = entry.ok_or(OperateError::Foreign(domain))?;
        let rendered = entry.next.as_ref().unwrap_or(&entry.config).render();
        let document = config::read("configuration", &rendered, &[]);
        let document = document.map_err(OperateError::Config)?;
        let checked = self.check(&document, Some(domain)).await?;
        self.finish(domain).await?;
        let mut successor = Entry::new(checked.config.clone(), entry.source);
        successor.restarts = entry.restarts.saturating_add(1);
        let made = self.make(&checked, successor, false).await;
        let made = made.map_err(|error| {
            OperateError::Other(format!(
                "the old one is gone and making it anew failed: {error}"
            ))
        })?;
        Ok(made.domain)
    }

    /// `xl shutdown` and, with `again`, `xl reboot`: asks the guest by its power button.
    pub fn ask_to_end(&self, domain: DomainId, again: bool) -> Result<(), OperateError> {
        let _busy = self.reserve(domain)?;
        let hypervisor = self.site.hypervisor();
        if again && self.registry.entry(domain).is_none() {
            return Err(OperateError::Foreign(domain));
        }
        let noted = self
            .registry
            .change(hypervisor, domain, |entry| entry.reboot_asked = again);
        noted?;
        hypervisor.power_button(domain).map_err(|status| {
            OperateError::Other(format!("its power button cannot be pressed: {status}"))
        })
    }
}
