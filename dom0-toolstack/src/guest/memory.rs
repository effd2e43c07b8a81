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

/// Gives pages back to the host, all of which were taken out of `GuestMemory` before.
pub(super) fn release(domain: DomainId, memory: &Rc<HostMemory>, pages: &[(u64, u64)]) {
    let numbers: Vec<u64> = pages.iter().map(|(page, _)| *page).collect();
    for (_, address) in pages {
        memory.exclude(*address);
    }
    let (address, count) = (numbers.as_ptr() as u64, numbers.len() as u64);
    match HYPERCALLS.memory_release(domain, address, count) {
        Ok(_) | Err(Status::NoDomain) => {}
        Err(status) => log::warn!("release memory of domain {domain}: {status}"),
    }
}

/// Gives a guest a page again that it had released. `None`: the host has none.
pub(super) fn restore(
    domain: DomainId,
    memory: &Rc<HostMemory>,
    page: u64,
) -> Result<Option<Run>, Status> {
    match HYPERCALLS.memory_populate(domain, page, 1) {
        Ok(1) => {}
        Ok(_) | Err(Status::NoMemory) => return Ok(None),
        Err(status) => return Err(status),
    }
    let mut run = MemoryRun::new_zeroed();
    let address = run.as_mut_bytes().as_mut_ptr() as u64;
    match HYPERCALLS.memory_map(domain, page, 1, address, 1)? {
        1 => {}
        _none => return Err(Status::NotFound),
    }
    // SAFETY: as in `map`.
    unsafe { memory.admit(run.address, PAGE_BYTES) };
    Ok(Some(Run {
        page,
        pages: 1,
        address: run.address,
    }))
}

/// Unmaps a guest's memory. Nothing of dom0 and no device uses it any more.
pub(super) fn unmap(domain: DomainId, memory: &Rc<HostMemory>, guest: &GuestMemory) {
    unmap_runs(domain, memory, &guest.take_runs());
}

fn unmap_runs(domain: DomainId, memory: &Rc<HostMemory>, runs: &[Run]) {
    for run in runs {
        memory.withdraw(run.address, run.pages * PAGE_BYTES);
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
