//! Names of domains, on dom0's behalf: each is another's, whatever dom0 asks for.

use alloc::string::String;

use godwit_abi::{DomainId, Status, text};

use super::caller::Caller;
use super::calls::Answer;
use super::{Host, Hosted};

/// Bytes of the field of a name, at least one of them zero.
const NAME_BYTES: usize = 64;

/// The name in a field of [`godwit_abi::DomainConfig`].
pub(super) fn name(field: &[u8; NAME_BYTES]) -> Result<String, Status> {
    let name = text(field);
    let named = !name.is_empty() && name.len() < field.len() && !name.chars().any(char::is_control);
    named.then(|| String::from(name)).ok_or(Status::BadArgument)
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn rename(&self, domain: DomainId, address: u64, length: u64) -> Answer<()> {
        let mut field = [0; NAME_BYTES];
        if length != field.len() as u64 {
            return Err(Status::BadArgument.into());
        }
        if !self.domain.memory.read(address, &mut field) {
            return Err(Status::BadAddress.into());
        }
        Ok(self.host.rename_domain(domain, name(&field)?)?)
    }
}

impl<B: Hosted> Host<B> {
    fn rename_domain(&self, id: DomainId, name: String) -> Result<(), Status> {
        // For writing, so that nobody else takes the name meanwhile.
        let domains = self.domains.write();
        let domain = domains.find(id).ok_or(Status::NoDomain)?;
        if domain.is_control() {
            return Err(Status::Denied);
        }
        let mut others = domains.iter().filter(|other| other.id != id);
        if others.any(|other| *other.shape.name.lock() == name) {
            return Err(Status::Exists);
        }
        *domain.shape.name.lock() = name;
        Ok(())
    }

    /// Lets two domains that stand still change names and uuids.
    pub(super) fn exchange_identity(&self, id: DomainId, other: DomainId) -> Result<(), Status> {
        if id == other {
            return Err(Status::BadArgument);
        }
        // For writing, so that nobody sees one of the names twice.
        let domains = self.domains.write();
        let one = domains.find(id).ok_or(Status::NoDomain)?;
        let other = domains.find(other).ok_or(Status::NoDomain)?;
        if one.is_control() || other.is_control() {
            return Err(Status::Denied);
        }
        if one.life.lock().may_run() || other.life.lock().may_run() {
            return Err(Status::BadState);
        }
        core::mem::swap(&mut *one.shape.name.lock(), &mut *other.shape.name.lock());
        core::mem::swap(&mut *one.shape.uuid.lock(), &mut *other.shape.uuid.lock());
        Ok(())
    }
}
