//! From a DOMAIN argument to a domain: a number is an id, anything else a name.
//!
//! No domain's name is a number ([`crate::config`] refuses such names), so the two never meet.

use crate::host::Hypervisor;
use crate::suggest::nearest;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use godwit_abi::{DomainId, DomainInfo, Status, text};

/// Why a DOMAIN argument names no domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameError {
    /// Nothing is called so.
    Unknown {
        /// What was asked for.
        given: String,
        /// A domain whose name is close to it.
        suggestion: Option<String>,
    },
    /// The hypervisor refused to say.
    Refused(Status),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NameError::Unknown { given, suggestion } => {
                write!(f, "no domain '{given}'")?;
                match suggestion {
                    Some(name) => write!(f, ": did you mean '{name}'?"),
                    None => write!(f, " (xl list shows the domains)"),
                }
            }
            NameError::Refused(status) => write!(f, "cannot list domains: {status}"),
        }
    }
}

/// The id of a domain as described by the hypervisor.
pub fn id_of(info: &DomainInfo) -> DomainId {
    DomainId::from_raw(info.domain)
}

/// Every domain.
pub fn all(hypervisor: &impl Hypervisor) -> Result<Vec<DomainInfo>, Status> {
    hypervisor.domains().collect()
}

/// The domain that `given` names.
pub fn resolve(hypervisor: &impl Hypervisor, given: &str) -> Result<DomainInfo, NameError> {
    let domains = all(hypervisor).map_err(NameError::Refused)?;
    let found = match given.parse::<u64>() {
        Ok(number) => domains.iter().find(|info| number_of(id_of(info)) == number),
        Err(_) => domains.iter().find(|info| text(&info.name) == given),
    };
    found.copied().ok_or_else(|| NameError::Unknown {
        given: given.into(),
        suggestion: nearest(given, domains.iter().map(|info| text(&info.name))).map(String::from),
    })
}

/// The number operators see, as a number.
fn number_of(id: DomainId) -> u64 {
    let shown = alloc::format!("{id}");
    shown.parse().expect("a domain id is shown as a number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHypervisor;

    #[test]
    fn by_name_and_by_number() {
        let host = FakeHypervisor::new();
        let old = host.add_domain("web", 8);
        host.domain_destroy(old).unwrap();
        let new = host.add_domain("web", 8);
        assert_eq!(id_of(&resolve(&host, "web").unwrap()), new);
        assert_eq!(
            id_of(&resolve(&host, &alloc::format!("{new}")).unwrap()),
            new
        );
        assert_eq!(id_of(&resolve(&host, "0").unwrap()), DomainId::CONTROL);
        let gone = resolve(&host, &alloc::format!("{old}")).unwrap_err();
        assert_eq!(
            alloc::format!("{gone}"),
            "no domain '1' (xl list shows the domains)"
        );
        let slip = resolve(&host, "wbe").unwrap_err();
        assert_eq!(
            alloc::format!("{slip}"),
            "no domain 'wbe': did you mean 'web'?"
        );
        host.fail_call(0, Status::Denied);
        assert_eq!(
            resolve(&host, "web"),
            Err(NameError::Refused(Status::Denied))
        );
    }
}
