//! What becomes of domains that have ended: `on_poweroff`, `on_reboot`, `on_crash`.
//!
//! A domain that is not watched (made before this dom0 started) is left as it is: nothing is
//! destroyed that was not asked to be.

use crate::config::{EndAction, EndActions};
use crate::host::Hypervisor;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainInfo, DomainState, ShutdownReason, Status};

/// The domains that were made here, with what is to be done when they end.
#[derive(Clone, Default, Debug)]
pub struct Ends {
    watched: BTreeMap<DomainId, EndActions>,
}

/// A domain that has ended and was to be destroyed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The domain as it was before.
    pub info: DomainInfo,
    /// Whether it could be destroyed. If not it is watched no longer: the operator is told once.
    pub destroyed: Result<(), Status>,
}

impl Ends {
    /// Watches a domain.
    pub fn watch(&mut self, domain: DomainId, actions: EndActions) {
        self.watched.insert(domain, actions);
    }

    /// Destroys the domains that have ended and are not to be kept, and returns them; to be called
    /// when some domain has changed its state. `held` is left alone until a later call, because
    /// somebody looks at it. A domain the hypervisor will not describe now is tried again later;
    /// one that is gone is forgotten.
    pub fn settle(&mut self, hypervisor: &impl Hypervisor, held: Option<DomainId>) -> Vec<Ended> {
        let mut all = Vec::new();
        self.watched.retain(|domain, actions| {
            let info = match hypervisor.domain_info(*domain) {
                Ok(info) => info,
                Err(status) => return status != Status::NoDomain,
            };
            match action_due(&info, actions) {
                Some(EndAction::Destroy) if held != Some(*domain) => {
                    let destroyed = hypervisor.domain_destroy(*domain);
                    all.push(Ended { info, destroyed });
                    false
                }
                Some(EndAction::Destroy | EndAction::Preserve) | None => true,
            }
        });
        all
    }
}

/// What is to be done with a domain; `None` while it has not ended.
fn action_due(info: &DomainInfo, actions: &EndActions) -> Option<EndAction> {
    match DomainState::from_number(info.state)? {
        DomainState::Building | DomainState::Running | DomainState::Paused | DomainState::Dying => {
            None
        }
        DomainState::Crashed => Some(actions.on_crash),
        DomainState::Shutdown if info.reason == ShutdownReason::Reboot as u32 => {
            Some(actions.on_reboot)
        }
        DomainState::Shutdown => Some(actions.on_poweroff),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;

    fn end(host: &FakeHypervisor, domain: DomainId, state: DomainState, reason: ShutdownReason) {
        host.with(domain, |fake| {
            fake.info.state = state as u32;
            fake.info.reason = reason as u32;
        })
        .expect("the domain is there");
    }

    fn actions(on_crash: EndAction) -> EndActions {
        EndActions {
            on_crash,
            ..Default::default()
        }
    }

    #[test]
    fn each_way_to_end_has_its_action() {
        let host = FakeHypervisor::new();
        let mut ends = Ends::default();
        let names = ["runs", "off", "crashes", "kept"];
        let all = names.map(|name| host.add_domain(name, 8));
        for (index, domain) in all.into_iter().enumerate() {
            let kept = if index == 3 {
                EndAction::Preserve
            } else {
                EndAction::Destroy
            };
            ends.watch(domain, actions(kept));
        }
        assert!(ends.settle(&host, None).is_empty());
        end(
            &host,
            all[1],
            DomainState::Shutdown,
            ShutdownReason::PowerOff,
        );
        end(
            &host,
            all[2],
            DomainState::Crashed,
            ShutdownReason::TripleFault,
        );
        end(
            &host,
            all[3],
            DomainState::Crashed,
            ShutdownReason::BadMemory,
        );
        let ended = ends.settle(&host, None);
        let ids: Vec<_> = ended.iter().map(|ended| ended.info.domain).collect();
        assert_eq!(ids, [all[1].raw(), all[2].raw()]);
        assert!(host.domain_info(all[0]).is_ok());
        assert_eq!(host.domain_info(all[1]), Err(Status::NoDomain));
        assert!(host.domain_info(all[3]).is_ok());
        assert!(ends.settle(&host, None).is_empty());
    }

    #[test]
    fn a_domain_looked_at_is_destroyed_afterwards() {
        let host = FakeHypervisor::new();
        let mut ends = Ends::default();
        let domain = host.add_domain("a", 8);
        ends.watch(domain, EndActions::default());
        end(&host, domain, DomainState::Shutdown, ShutdownReason::Reboot);
        assert!(ends.settle(&host, Some(domain)).is_empty());
        assert!(host.domain_info(domain).is_ok());
        assert_eq!(ends.settle(&host, None).len(), 1);
        assert_eq!(host.domain_info(domain), Err(Status::NoDomain));
    }

    #[test]
    fn a_refusal_is_asked_again_and_a_destroyed_domain_is_forgotten() {
        let host = FakeHypervisor::new();
        let mut ends = Ends::default();
        let domain = host.add_domain("a", 8);
        ends.watch(domain, EndActions::default());
        end(
            &host,
            domain,
            DomainState::Crashed,
            ShutdownReason::EntryFailed,
        );
        host.fail_call(0, Status::Busy);
        assert!(ends.settle(&host, None).is_empty());
        host.domain_destroy(domain).unwrap();
        assert!(ends.settle(&host, None).is_empty());
        assert!(ends.watched.is_empty());
    }
}
