//! A guest's memory in dom0: mapped whole, at its host-physical addresses, as long as dom0 serves a
//! device of the guest.

use crate::hypercall::HYPERCALLS;
use crate::memory::HostMemory;
use alloc::rc::Rc;
use alloc::vec::Vec;
use godwit_abi::{DomainId, MemoryRun, Status};
use godwit_backends::memory::{GuestMemory, PAGE_BYTES, Run};
use zerocopy::{FromZeros, IntoBytes};

/// Runs that one call gives at most.
const RUNS: usize = 64;
/// Guest pages looked at: 1 TiB, more than any guest may have.
const PAGES_END: u64 = 1 << 28;

/// Maps all of a guest's memory.
pub(super) fn map(domain: DomainId, memory: &Rc<HostMemory>) -> Result<Vec<Run>, Status> {
    let mut batch = [MemoryRun::new_zeroed(); RUNS];
    let (mut runs, mut page) = (Vec::<Run>::new(), 0);
    while page < PAGES_END {
        let address = batch.as_mut_bytes().as_mut_ptr() as u64;
        let mapped = HYPERCALLS.memory_map(domain, page, PAGES_END - page, address, RUNS as u64);
        let count = match mapped {
            Ok(count) => (count as usize).min(RUNS),
            Err(status) => {
                unmap_runs(domain, memory, &runs);
                return Err(status);
            }
        };
        let Some(last) = batch[..count].last() else {
            break;
        };
        page = last.page + last.pages;
        for run in &batch[..count] {
            // SAFETY: the hypervisor has just mapped these frames, which are the guest's and so not
            // dom0's; they stay mapped until `unmap_runs`, which withdraws them first.
            unsafe { memory.admit(run.address, run.pages * PAGE_BYTES) };
            runs.push(Run {
                page: run.page,
                pages: run.pages,
                address: run.address,
            });
        }
    }
    Ok(runs)
}

/// Unmaps a guest's memory. Nothing of dom0 and no device uses it any more.
pub(super) fn unmap(domain: DomainId, memory: &Rc<HostMemory>, guest: &GuestMemory) {
    unmap_runs(domain, memory, &guest.take_runs());
}

fn unmap_runs(domain: DomainId, memory: &Rc<HostMemory>, runs: &[Run]) {
    for run in runs {
        memory.withdraw(run.address);
        let (mut page, end) = (run.page, run.page + run.pages);
        while page < end {
            match HYPERCALLS.memory_unmap(domain, page, end - page) {
                Ok(0) | Err(Status::NoDomain) => break,
                Ok(pages) => page += pages,
                Err(status) => {
                    log::warn!("unmap memory of domain {domain}: {status}");
                    break;
                }
            }
        }
    }
}
