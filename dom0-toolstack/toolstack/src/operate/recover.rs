//! After a restart of dom0: finding the domains again and serving their devices.

use super::{OperateError, Toolstack};
use crate::host::Hypervisor;
use crate::site::{DeviceHost, Site, yield_now};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainState, Status};

impl<S: Site> Toolstack<S> {
    /// Finds all domains again, takes apart what was interrupted half way, and serves the devices of
    /// the others. Returns what there is to tell, a sentence each; empty on a host just started.
    pub async fn recover(&self) -> Result<Vec<String>, OperateError> {
        let hypervisor = self.site.hypervisor();
        self.attempts.recover(hypervisor)?;
        let is_ours = |attempt| self.attempts.is_running(attempt);
        let recovered = self.registry.recover(hypervisor, is_ours)?;
        let mut told = self.recover_moves().await;
        told.extend(self.recall_moves().await);
        told.extend(self.recover_disk_moves().await);
        for domain in recovered.unfinished {
            // A move that had come to its end is among them.
            let busy = self.registry.reserve(domain);
            let _busy = busy.ok_or(OperateError::Busy(domain))?;
            told.push(match self.take_apart(domain).await {
                Ok(()) => format!("domain {domain} was half-made or half-destroyed: destroyed"),
                Err(status) => {
                    format!("domain {domain} is half-made and cannot be destroyed: {status}")
                }
            });
        }
        for (domain, error) in recovered.unknown {
            told.push(format!("domain {domain} is left as it is: {error}"));
        }
        for domain in recovered.found {
            // What one domain lacks is no reason to leave the others without their devices.
            if let Err(error) = self.find_again(domain, &mut told).await {
                told.push(format!("domain {domain} is not served whole: {error}"));
            }
        }
        Ok(told)
    }

    async fn find_again(
        &self,
        domain: DomainId,
        told: &mut Vec<String>,
    ) -> Result<(), OperateError> {
        self.recover_name(domain)?;
        if let Err(status) = self.forget_writes(domain).await {
            told.push(format!(
                "domain {domain}: its writes are still noted: {status}"
            ));
        }
        match self.move_of(domain)? {
            // Its devices may be served elsewhere: `settle_move` will know.
            Some(kept) if kept.is_committing => return Ok(()),
            Some(kept) => told.push(self.move_ended(domain, &kept)),
            None => {}
        }
        self.press_on(domain);
        self.serve_again(domain, told).await;
        self.start_arrived(domain)?;
        if let Some(line) = self.go_on_fetching(domain)? {
            told.push(line);
        }
        Ok(())
    }

    /// Ends what the dom0 before may have begun: the tracking of a domain's writes.
    async fn forget_writes(&self, domain: DomainId) -> Result<(), Status> {
        while self.site.hypervisor().dirty_disarm(domain)? > 0 {
            yield_now().await;
        }
        Ok(())
    }

    /// Starts a domain that had come from another host and was not started yet when dom0 died.
    fn start_arrived(&self, domain: DomainId) -> Result<(), Status> {
        let entry = self.registry.entry(domain);
        let arrival = entry.and_then(|entry| entry.arrival);
        let hypervisor = self.site.hypervisor();
        let state = hypervisor.domain_info(domain)?.state;
        if arrival.is_some_and(|it| it.runs) && state == DomainState::Building as u32 {
            hypervisor.domain_unpause(domain)?;
        }
        Ok(())
    }

    async fn serve_again(&self, domain: DomainId, told: &mut Vec<String>) {
        let Some(entry) = self.registry.entry(domain) else {
            return;
        };
        let name = &entry.config.name;
        let mut served = 0;
        for link in &entry.links {
            match self.site.devices().reattach(domain, link).await {
                Ok(()) => served += 1,
                Err(why) => told.push(format!(
                    "domain '{name}' (id {domain}): {} is not served again: {why}",
                    link.device
                )),
            }
        }
        told.push(format!(
            "domain '{name}' (id {domain}) found again, {served} devices"
        ));
    }

    /// What a domain has now, if the hypervisor knows it.
    pub(super) fn memory_mib(&self, domain: DomainId) -> Result<u64, OperateError> {
        let info = self.site.hypervisor().domain_info(domain)?;
        Ok(info.memory_pages / crate::build::PAGES_PER_MIB)
    }
}
