//! What a domain's CPUs answer to CPUID, on its way to another host: that host has it all, or says what it lacks.

use super::{OperateError, Toolstack};
use crate::host::Hypervisor;
use crate::site::Site;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::DomainId;
use godwit_records::{CpuPolicyState, Record};

impl<S: Site> Toolstack<S> {
    /// The record of a domain's CPU.
    pub(super) fn cpu_record(&self, domain: DomainId) -> Result<Vec<u8>, OperateError> {
        let mut record = alloc::vec![0; CpuPolicyState::MAX_BYTES];
        let length = self
            .site
            .hypervisor()
            .cpu_policy_read(domain, &mut record)?;
        record.truncate(length);
        Ok(record)
    }

    /// Whether a domain that was just made here can have the CPU it had elsewhere. Everything that this host
    /// lacks of it is named.
    pub(super) fn compare_cpu(&self, domain: DomainId, record: &[u8]) -> Result<(), OperateError> {
        let wrong = |why: String| OperateError::Other(format!("the domain's CPU: {why}"));
        let wanted = CpuPolicyState::decode(record).map_err(|error| wrong(error.to_string()))?;
        wanted.check().map_err(|error| wrong(error.to_string()))?;
        let offered = self.cpu_record(domain)?;
        let offered = CpuPolicyState::decode(&offered).map_err(|error| wrong(error.to_string()))?;
        let mut lacks = Vec::new();
        wanted.compare(&offered, |lack| lacks.push(lack.to_string()));
        if !lacks.is_empty() {
            let lacks = lacks.join(", ");
            let advice =
                "a domain made with cpu_policy=\"portable\" on the lesser host runs on both";
            return Err(wrong(format!("this host lacks {lacks} ({advice})")));
        }
        Ok(())
    }

    /// Gives it that CPU.
    pub(super) fn take_cpu(&self, domain: DomainId, record: &[u8]) -> Result<(), OperateError> {
        self.compare_cpu(domain, record)?;
        let set = self.site.hypervisor().cpu_policy_set(domain, record);
        set.map_err(|status| OperateError::Other(format!("the domain's CPU: {status}")))
    }
}
