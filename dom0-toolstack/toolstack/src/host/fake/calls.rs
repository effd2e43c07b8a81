//! The calls of the fake.

use super::*;
use crate::host::Hypervisor;
use godwit_abi::{BLOB_BYTES_MAX, BLOBS_MAX, VcpuIndex, VcpuInfo, VcpuRunState};
use godwit_records::{CpuPolicyState, Record, VcpuState, XsaveState};

fn check_paused(domain: &FakeDomain) -> Result<(), Status> {
    match domain.info.pauses {
        0 => Err(Status::BadState),
        _paused => Ok(()),
    }
}

fn check_vcpu(domain: &FakeDomain, vcpu: VcpuIndex) -> Result<(), Status> {
    check_paused(domain)?;
    match u32::from(vcpu.0) < domain.info.vcpus {
        true => Ok(()),
        false => Err(Status::NoVcpu),
    }
}

fn copy_out(record: &[u8], out: &mut [u8]) -> Result<usize, Status> {
    let target = out.get_mut(..record.len()).ok_or(Status::BadArgument)?;
    target.copy_from_slice(record);
    Ok(record.len())
}

impl Hypervisor for FakeHypervisor {
    fn now_tsc(&self) -> u64 {
        self.state.borrow().now_tsc
    }

    fn host_info(&self) -> Result<HostInfo, Status> {
        self.count()?;
        let state = self.state.borrow();
        let mut host = state.host;
        host.domains = state.slots.iter().flatten().count() as u32;
        Ok(host)
    }

    fn cpu_info(&self, cpu: u32) -> Result<CpuInfo, Status> {
        self.count()?;
        let state = self.state.borrow();
        state
            .cpus
            .get(cpu as usize)
            .copied()
            .ok_or(Status::NotFound)
    }

    fn domain_at(&self, slot: u16) -> Result<DomainId, Status> {
        self.count()?;
        let state = self.state.borrow();
        let rest = state.slots.get(usize::from(slot)..).unwrap_or(&[]);
        let first = rest.iter().flatten().next();
        first.map(|domain| domain.id).ok_or(Status::NotFound)
    }

    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.info.console_end = domain.console.len() as u64;
            domain.info
        })
    }

    fn vcpu_info(&self, domain: DomainId, vcpu: VcpuIndex) -> Result<VcpuInfo, Status> {
        self.count()?;
        self.with(domain, |domain| {
            if u32::from(vcpu.0) >= domain.info.vcpus {
                return Err(Status::NoVcpu);
            }
            let mut info = VcpuInfo::new_zeroed();
            info.state = VcpuRunState::Blocked as u32;
            info.cpu = u32::from(vcpu.0) % 2;
            info.affinity = domain.affinity.get(&vcpu.0).copied().unwrap_or(0b11);
            info.cpu_ns = domain.info.cpu_ns / u64::from(domain.info.vcpus);
            Ok(info)
        })?
    }

    fn domain_create(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        self.count()?;
        self.insert(config)
    }

    fn domain_rename(&self, domain: DomainId, name: &str) -> Result<(), Status> {
        self.count()?;
        self.take_name(domain, name)
    }

    fn domain_exchange_identity(&self, domain: DomainId, other: DomainId) -> Result<(), Status> {
        self.count()?;
        self.exchange(domain, other)
    }

    fn domain_destroy(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.remove(domain)
    }

    fn domain_pause(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.with(domain, FakeDomain::pause)
    }

    fn domain_unpause(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.with(domain, FakeDomain::unpause)?
    }

    fn memory_populate(&self, domain: DomainId, page: u64, pages: u64) -> Result<u64, Status> {
        self.count()?;
        let free = self.state.borrow().host.free_bytes / PAGE_SIZE_BYTES;
        let done = self.with(domain, |domain| {
            let room = domain.info.memory_pages_max - domain.info.memory_pages;
            let done = pages.min(POPULATE_STEP_PAGES).min(room).min(free);
            if done == 0 && pages > 0 {
                return Err(Status::NoMemory);
            }
            for page in page..page + done {
                let zeroes = std::vec![0; PAGE_SIZE_BYTES as usize];
                if domain.pages.insert(page, zeroes).is_some() {
                    return Err(Status::Exists);
                }
            }
            domain.info.memory_pages += done;
            Ok(done)
        })??;
        self.state.borrow_mut().host.free_bytes -= done * PAGE_SIZE_BYTES;
        Ok(done)
    }

    fn memory_release(&self, domain: DomainId, pages: &[u64]) -> Result<u64, Status> {
        self.count()?;
        let done = self.with(domain, |domain| {
            let had = |page: &&u64| {
                domain.absent.remove(*page);
                domain.pages.remove(*page).is_some()
            };
            let done = pages.iter().filter(had).count() as u64;
            domain.info.memory_pages -= done;
            done
        })?;
        self.state.borrow_mut().host.free_bytes += done * PAGE_SIZE_BYTES;
        Ok(done)
    }

    fn memory_write(&self, domain: DomainId, target: u64, bytes: &[u8]) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            if let (Some(dirty), false) = (&mut domain.dirty, bytes.is_empty()) {
                let last = target.saturating_add(bytes.len() as u64 - 1);
                dirty.extend(target / 4096..=last / 4096);
            }
            visit(domain, target, bytes.len(), |page, range| {
                page.copy_from_slice(&bytes[range]);
            })
        })?
    }

    fn memory_read(&self, domain: DomainId, source: u64, out: &mut [u8]) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            visit(domain, source, out.len(), |page, range| {
                out[range].copy_from_slice(page);
            })
        })?
    }

    fn vcpu_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_vcpu(domain, vcpu)?;
            domain.vcpu_states.insert(vcpu.0, record.to_vec());
            Ok(())
        })?
    }

    fn vcpu_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_vcpu(domain, vcpu)?;
            match domain.vcpu_states.get(&vcpu.0) {
                Some(record) => copy_out(record, out),
                None => VcpuState::reset()
                    .encode(out)
                    .map_err(|_| Status::BadArgument),
            }
        })?
    }

    fn xsave_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_vcpu(domain, vcpu)?;
            domain.xsave_states.insert(vcpu.0, record.to_vec());
            Ok(())
        })?
    }

    fn xsave_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_vcpu(domain, vcpu)?;
            match domain.xsave_states.get(&vcpu.0) {
                Some(record) => copy_out(record, out),
                None => XsaveState::reset()
                    .encode(out)
                    .map_err(|_| Status::BadArgument),
            }
        })?
    }

    fn platform_state_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_paused(domain)?;
            copy_out(&domain.platform, out)
        })?
    }

    fn platform_state_set(&self, domain: DomainId, records: &[u8]) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            check_paused(domain)?;
            if records.is_empty() {
                return Err(Status::BadRecord);
            }
            domain.platform = records.to_vec();
            Ok(())
        })?
    }

    fn cpu_policy_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            let length = domain.cpu_policy.encode(out);
            length.map_err(|_| Status::BadArgument)
        })?
    }

    fn cpu_policy_set(&self, domain: DomainId, record: &[u8]) -> Result<(), Status> {
        self.count()?;
        let record = CpuPolicyState::decode(record).map_err(|_| Status::BadRecord)?;
        record.check().map_err(|_| Status::BadRecord)?;
        self.with(domain, |domain| {
            let mut lacks = false;
            record.compare(&domain.cpu_policy, |_| lacks = true);
            if lacks {
                return Err(Status::BadRecord);
            }
            domain.cpu_policy = record;
            Ok(())
        })?
    }

    fn guest_input(&self, domain: DomainId, bytes: &[u8]) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| {
            let room = INPUT_BYTES_MAX - domain.input.len();
            let taken = &bytes[..bytes.len().min(room)];
            domain.input.extend(taken);
            taken.len()
        })
    }

    fn power_button(&self, domain: DomainId) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| domain.buttons += 1)
    }

    fn domain_clock_set(&self, domain: DomainId, unix_ns: u64) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| domain.clock_ns = Some(unix_ns))
    }

    fn vcpu_affinity_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        cpus: u64,
    ) -> Result<(), Status> {
        self.count()?;
        let there = (1u64 << self.state.borrow().cpus.len()) - 1;
        self.with(domain, |domain| {
            if u32::from(vcpu.0) >= domain.info.vcpus {
                return Err(Status::NoVcpu);
            }
            if cpus & there == 0 {
                return Err(Status::BadArgument);
            }
            domain.affinity.insert(vcpu.0, cpus);
            Ok(())
        })?
    }

    fn wall_clock(&self) -> Result<u64, Status> {
        self.count()?;
        self.state.borrow().wall_clock
    }

    fn dirty_arm(&self, domain: DomainId) -> Result<u64, Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.dirty.get_or_insert_default();
            0
        })
    }

    fn dirty_harvest(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status> {
        self.count()?;
        let lost = self.state.borrow().forgotten_writes;
        self.with(domain, |domain| {
            let dirty = domain.dirty.as_mut().ok_or(Status::BadState)?;
            words.fill(0);
            for page in 0..pages {
                let is_lost = lost.is_some_and(|by| (first_page + page).is_multiple_of(by));
                if dirty.remove(&(first_page + page)) && !is_lost {
                    words[(page / 64) as usize] |= 1 << (page % 64);
                }
            }
            Ok(pages)
        })?
    }

    fn dirty_put_back(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status> {
        self.count()?;
        self.with(domain, |domain| {
            let set = |page: &u64| words[(*page / 64) as usize] >> (*page % 64) & 1 == 1;
            if let Some(dirty) = &mut domain.dirty {
                dirty.extend((0..pages).filter(set).map(|page| first_page + page));
            }
            pages
        })
    }

    fn absent_arm(&self, id: DomainId, first: u64, count: u64, set: &[u64]) -> Result<u64, Status> {
        self.count()?;
        self.with(id, |domain| domain.arm_absent(first, count, set))?
    }

    fn absent_read(
        &self,
        id: DomainId,
        first: u64,
        count: u64,
        out: &mut [u64],
    ) -> Result<u64, Status> {
        self.count()?;
        self.with(id, |domain| domain.read_absent(first, count, out))
    }

    fn absent_wanted(&self, id: DomainId) -> Result<Vec<u64>, Status> {
        self.count()?;
        self.with(id, |domain| domain.wanted.iter().copied().collect())
    }

    fn absent_fill(&self, id: DomainId, first: u64, contents: &[u8]) -> Result<u64, Status> {
        self.count()?;
        self.with(id, |domain| domain.fill_absent(first, contents))
    }

    fn dirty_disarm(&self, domain: DomainId) -> Result<u64, Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.dirty = None;
            0
        })
    }

    fn dirty_quota(&self, domain: DomainId, pages_per_s: u64) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| domain.write_quota = pages_per_s)
    }

    fn blob_write(&self, domain: DomainId, key: u32, bytes: &[u8]) -> Result<(), Status> {
        self.count()?;
        if bytes.len() as u64 > BLOB_BYTES_MAX {
            return Err(Status::BadArgument);
        }
        if self.state.borrow().ignored_blob == Some(key) {
            return Ok(());
        }
        self.with(domain, |domain| {
            if bytes.is_empty() {
                domain.blobs.remove(&key);
                return Ok(());
            }
            if domain.blobs.len() == BLOBS_MAX && !domain.blobs.contains_key(&key) {
                return Err(Status::Full);
            }
            domain.blobs.insert(key, bytes.to_vec());
            Ok(())
        })?
    }

    fn blob_read(&self, domain: DomainId, key: u32) -> Result<Vec<u8>, Status> {
        self.count()?;
        self.with(domain, |domain| {
            domain.blobs.get(&key).cloned().ok_or(Status::NotFound)
        })?
    }

    fn guest_console_read(
        &self,
        domain: DomainId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        self.count()?;
        self.with(domain, |domain| read_stream(&domain.console, offset, out))?
    }

    fn guest_console_start(&self, domain: DomainId) -> Result<u64, Status> {
        self.count()?;
        self.with(domain, |_| 0)
    }

    fn log_read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Status> {
        self.count()?;
        read_stream(&self.state.borrow().log, offset, out)
    }

    fn log_start(&self) -> Result<u64, Status> {
        self.count()?;
        Ok(0)
    }

    fn scheduler_set(&self, domain: DomainId, weight: u32, cap_percent: u32) -> Result<(), Status> {
        self.count()?;
        self.with(domain, |domain| {
            if weight == 0 || weight > 65535 {
                return Err(Status::BadArgument);
            }
            (domain.info.weight, domain.info.cap_percent) = (weight, cap_percent);
            Ok(())
        })?
    }

    fn debug_key(&self, key: u8) -> Result<(), Status> {
        self.count()?;
        self.state.borrow_mut().keys.push(key);
        Ok(())
    }

    fn power(&self, action: PowerAction) -> Result<(), Status> {
        self.count()?;
        self.state.borrow_mut().power.push(action);
        Ok(())
    }
}
