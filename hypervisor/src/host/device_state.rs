//! Device and extended state of a domain that stands still, as records, on dom0's behalf.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use godwit_abi::{PLATFORM_STATE_BYTES_MAX, Status, VcpuIndex};
use godwit_records::{CpuPolicyState, Record, XsaveState};
use godwit_vmm::devices::ports::Platform;
use godwit_vmm::devices::state::{BadRecords, Saved};
use godwit_vmm::lifecycle::Stage;
use godwit_vmm::vcpu::{Message, Vcpu};

use super::domain::{Domain, tsc_rate};
use super::{Host, Hosted};
use crate::platform::clock;

/// A record's bytes.
pub(super) fn record_bytes<R: Record>(record: &R) -> Vec<u8> {
    let mut bytes = vec![0; R::MAX_BYTES];
    let length = record
        .encode(&mut bytes)
        .expect("the buffer takes every value of the type");
    bytes.truncate(length);
    bytes
}

fn bad(error: BadRecords) -> Status {
    log::warn!("refused: {error}");
    Status::BadRecord
}

impl<B: Hosted> Host<B> {
    /// Refuses a domain that may run, and waits until none of its vCPUs is on a CPU.
    fn stands_still(&self, domain: &Domain<B>) -> Result<(), Status> {
        if domain.life.lock().may_run() {
            return Err(Status::BadState);
        }
        self.wait_until_off(domain);
        Ok(())
    }

    /// The records of the devices.
    pub(super) fn platform_state(&self, domain: &Domain<B>) -> Result<Vec<u8>, Status> {
        self.stands_still(domain)?;
        let vcpus = domain
            .vcpus()
            .iter()
            .map(|vcpu| {
                let mut state = vcpu.state.lock();
                state.core.absorb(&vcpu.inbox);
                state.core.save(vcpu.index.0)
            })
            .collect();
        let saved = Saved {
            rate: tsc_rate(),
            platform_tsc: domain.platform_tsc(clock::tsc()),
            platform: domain.platform.lock().save(),
            vcpus,
        };
        Ok(saved.encode())
    }

    /// Sets the devices from records, or changes nothing.
    pub(super) fn set_platform_state(
        &self,
        domain: &Domain<B>,
        bytes: &[u8],
    ) -> Result<(), Status> {
        if bytes.len() as u64 > PLATFORM_STATE_BYTES_MAX {
            return Err(Status::BadRecord);
        }
        self.stands_still(domain)?;
        let rate = tsc_rate();
        let mut platform = domain.platform.lock();
        let saved = Saved::decode(bytes, &platform, domain.vcpus().len()).map_err(bad)?;
        let saved = saved
            .at_rate(rate)
            .map_err(BadRecords::State)
            .map_err(bad)?;
        let fresh = Platform::restore(&saved.platform, rate)
            .map_err(BadRecords::State)
            .map_err(bad)?;
        for vcpu in &saved.vcpus {
            Vcpu::check(vcpu, rate)
                .map_err(BadRecords::State)
                .map_err(bad)?;
        }
        *platform = fresh;
        drop(platform);
        let offset = saved.platform_tsc.wrapping_sub(clock::tsc());
        domain.tsc_offset.store(offset, Ordering::Release);
        for (vcpu, saved) in domain.vcpus().iter().zip(&saved.vcpus) {
            let mut state = vcpu.state.lock();
            let restored = state.core.restore(saved, rate, offset);
            assert!(restored.is_ok(), "it has been checked: {restored:?}");
            vcpu.apic_address
                .store(state.core.lapic.address().pack(), Ordering::Release);
            vcpu.exchange.withdraw();
            // Its next entry looks at what was saved as waiting.
            vcpu.inbox.forget();
            vcpu.inbox.post(Message::PlatformChanged);
        }
        Ok(())
    }

    /// A vCPU's extended state, as a record.
    pub(super) fn xsave_state(
        &self,
        domain: &Domain<B>,
        index: VcpuIndex,
    ) -> Result<Vec<u8>, Status> {
        let vcpu = domain
            .vcpus()
            .get(usize::from(index.0))
            .ok_or(Status::NoVcpu)?;
        self.stands_still(domain)?;
        let state = vcpu.state.lock();
        let record = Box::new(state.xstate.record(domain.policy()));
        Ok(record_bytes(&*record))
    }

    /// Lets a domain answer CPUID as a record says.
    pub(super) fn set_cpu_policy(&self, domain: &Domain<B>, bytes: &[u8]) -> Result<(), Status> {
        let record = CpuPolicyState::decode(bytes).map(Box::new);
        let record = record.map_err(|error| {
            log::warn!("refused: {error}");
            Status::BadRecord
        })?;
        let life = domain.life.lock();
        if life.stage() != Stage::Building {
            return Err(Status::BadState);
        }
        domain.replace_policy(&record)
    }

    /// Sets a vCPU's extended state, if its CPU could be in it.
    pub(super) fn set_xsave_state(
        &self,
        domain: &Arc<Domain<B>>,
        index: VcpuIndex,
        bytes: &[u8],
    ) -> Result<(), Status> {
        let vcpu = domain
            .vcpus()
            .get(usize::from(index.0))
            .ok_or(Status::NoVcpu)?;
        let record = XsaveState::decode(bytes).map(Box::new).map_err(|error| {
            log::warn!("refused: {error}");
            Status::BadRecord
        })?;
        if let Err(error) = domain.policy().xsave_fits(&record) {
            log::warn!("extended state refused: {error}");
            return Err(Status::BadRecord);
        }
        self.stands_still(domain)?;
        vcpu.state.lock().xstate.set_record(&record);
        Ok(())
    }
}
