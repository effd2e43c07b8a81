//! Hypercalls: the one instruction, and the toolstack's [`Hypervisor`] over it.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use godwit_abi::{
    BLOB_BYTES_MAX, Client, CpuInfo, DomainConfig, DomainId, DomainInfo, HostInfo, MAX_ARGUMENTS,
    PAGE_SIZE_BYTES, PowerAction, Status, Trap, VENDOR_AMD, VENDOR_INTEL, VcpuIndex, VcpuInfo,
    field,
};
use godwit_toolstack::host::Hypervisor;
use zerocopy::{FromBytes, IntoBytes};

/// Which instruction makes a hypercall; 0 before [`choose`].
static VENDOR: AtomicU32 = AtomicU32::new(0);

/// Chooses the instruction for a `StartInfo::vendor`. False: no such vendor.
pub(crate) fn choose(vendor: u32) -> bool {
    let known = vendor == VENDOR_INTEL || vendor == VENDOR_AMD;
    if known {
        VENDOR.store(vendor, Ordering::Relaxed);
    }
    known
}

/// VMCALL or VMMCALL, as chosen at the start.
#[derive(Clone, Copy)]
pub(crate) struct Instruction;

/// The typed hypercalls.
pub(crate) const HYPERCALLS: Client<Instruction> = Client(Instruction);

impl Trap for Instruction {
    #[inline]
    fn trap(&self, number: u64, arguments: [u64; MAX_ARGUMENTS]) -> (Status, u64) {
        let [a, b, c, d, e] = arguments;
        let (status, value): (u64, u64);
        if VENDOR.load(Ordering::Relaxed) == VENDOR_INTEL {
            // SAFETY: the hypervisor changes RAX and RDX only, and memory only where an argument
            // names a buffer, which the asm block may touch (no `nomem`).
            unsafe {
                core::arch::asm!("vmcall", inlateout("rax") number => status, in("rdi") a,
                    in("rsi") b, inlateout("rdx") c => value, in("r10") d, in("r8") e,
                    options(nostack));
            }
        } else {
            // SAFETY: as above.
            unsafe {
                core::arch::asm!("vmmcall", inlateout("rax") number => status, in("rdi") a,
                    in("rsi") b, inlateout("rdx") c => value, in("r10") d, in("r8") e,
                    options(nostack));
            }
        }
        (Status(status), value)
    }
}

/// Address and length of a buffer for a hypercall that reads it.
pub(crate) fn input(bytes: &[u8]) -> (u64, u64) {
    (bytes.as_ptr() as u64, bytes.len() as u64)
}

/// Address and length of a buffer for a hypercall that fills it.
pub(crate) fn output(bytes: &mut [u8]) -> (u64, u64) {
    (bytes.as_mut_ptr() as u64, bytes.len() as u64)
}

/// Has a hypercall fill in a structure.
pub(crate) fn filled<T: FromBytes + IntoBytes>(
    call: impl FnOnce(u64, u64) -> Result<(), Status>,
) -> Result<T, Status> {
    let mut value = T::new_zeroed();
    let (address, length) = output(value.as_mut_bytes());
    call(address, length)?;
    Ok(value)
}

/// The hypervisor, for the toolstack.
#[derive(Clone, Copy)]
pub(crate) struct Host;

/// Most vCPUs of a domain.
const VCPUS: usize = 64;

impl Hypervisor for Host {
    fn now_tsc(&self) -> u64 {
        crate::clock::tsc()
    }

    fn host_info(&self) -> Result<HostInfo, Status> {
        filled(|address, length| HYPERCALLS.host_info(address, length))
    }

    fn cpu_info(&self, cpu: u32) -> Result<CpuInfo, Status> {
        filled(|address, length| HYPERCALLS.cpu_info(cpu, address, length))
    }

    fn domain_at(&self, slot: u16) -> Result<DomainId, Status> {
        HYPERCALLS.domain_at(slot)
    }

    fn domain_info(&self, domain: DomainId) -> Result<DomainInfo, Status> {
        filled(|address, length| HYPERCALLS.domain_info(domain, address, length))
    }

    fn vcpu_info(&self, domain: DomainId, vcpu: VcpuIndex) -> Result<VcpuInfo, Status> {
        filled(|address, length| HYPERCALLS.vcpu_info(domain, vcpu, address, length))
    }

    fn domain_create(&self, config: &DomainConfig) -> Result<DomainId, Status> {
        let (address, length) = input(config.as_bytes());
        HYPERCALLS.domain_create(address, length)
    }

    fn domain_rename(&self, domain: DomainId, name: &str) -> Result<(), Status> {
        let name: [u8; 64] = field(name);
        let (address, length) = input(&name);
        HYPERCALLS.domain_rename(domain, address, length)
    }

    fn domain_exchange_identity(&self, domain: DomainId, other: DomainId) -> Result<(), Status> {
        HYPERCALLS.domain_exchange_identity(domain, other)
    }

    fn domain_destroy(&self, domain: DomainId) -> Result<(), Status> {
        HYPERCALLS.domain_destroy(domain)
    }

    fn domain_pause(&self, domain: DomainId) -> Result<(), Status> {
        HYPERCALLS.domain_pause(domain)
    }

    fn domain_unpause(&self, domain: DomainId) -> Result<(), Status> {
        HYPERCALLS.domain_unpause(domain)
    }

    fn memory_populate(&self, domain: DomainId, page: u64, pages: u64) -> Result<u64, Status> {
        HYPERCALLS.memory_populate(domain, page, pages)
    }

    fn memory_write(&self, domain: DomainId, target: u64, bytes: &[u8]) -> Result<(), Status> {
        let (address, length) = input(bytes);
        HYPERCALLS.memory_write(domain, target, address, length)
    }

    fn memory_release(&self, domain: DomainId, pages: &[u64]) -> Result<u64, Status> {
        let (address, count) = (pages.as_ptr() as u64, pages.len() as u64);
        HYPERCALLS.memory_release(domain, address, count)
    }

    fn memory_read(&self, domain: DomainId, source: u64, out: &mut [u8]) -> Result<(), Status> {
        let (address, length) = output(out);
        HYPERCALLS.memory_read(domain, source, address, length)
    }

    fn vcpu_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status> {
        let (address, length) = input(record);
        HYPERCALLS.vcpu_state_set(domain, vcpu, address, length)
    }

    fn vcpu_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        let (address, length) = output(out);
        bounded(
            HYPERCALLS.vcpu_state_read(domain, vcpu, address, length),
            out,
        )
    }

    fn guest_console_read(
        &self,
        domain: DomainId,
        offset: u64,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        let (address, length) = output(out);
        let read = HYPERCALLS.guest_console_read(domain, offset, address, length);
        bounded(read, out)
    }

    fn guest_console_start(&self, domain: DomainId) -> Result<u64, Status> {
        HYPERCALLS.guest_console_start(domain)
    }

    fn log_read(&self, offset: u64, out: &mut [u8]) -> Result<usize, Status> {
        let (address, length) = output(out);
        bounded(HYPERCALLS.log_read(offset, address, length), out)
    }

    fn log_start(&self) -> Result<u64, Status> {
        HYPERCALLS.log_start()
    }

    fn scheduler_set(&self, domain: DomainId, weight: u32, cap_percent: u32) -> Result<(), Status> {
        HYPERCALLS.scheduler_set(domain, weight, cap_percent)
    }

    fn guest_input(&self, domain: DomainId, bytes: &[u8]) -> Result<usize, Status> {
        let (address, length) = input(bytes);
        bounded(HYPERCALLS.guest_input(domain, address, length), bytes)
    }

    fn power_button(&self, domain: DomainId) -> Result<(), Status> {
        HYPERCALLS.power_button(domain)
    }

    fn domain_clock_set(&self, domain: DomainId, unix_ns: u64) -> Result<(), Status> {
        HYPERCALLS.domain_clock_set(domain, unix_ns)
    }

    fn vcpu_affinity_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        cpus: u64,
    ) -> Result<(), Status> {
        HYPERCALLS.vcpu_affinity_set(domain, vcpu, cpus)
    }

    fn wall_clock(&self) -> Result<u64, Status> {
        HYPERCALLS.wall_clock()
    }

    fn platform_state_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status> {
        let (address, length) = output(out);
        bounded(HYPERCALLS.platform_state_read(domain, address, length), out)
    }

    fn platform_state_set(&self, domain: DomainId, records: &[u8]) -> Result<(), Status> {
        let (address, length) = input(records);
        HYPERCALLS.platform_state_set(domain, address, length)
    }

    fn cpu_policy_read(&self, domain: DomainId, out: &mut [u8]) -> Result<usize, Status> {
        let (address, length) = output(out);
        bounded(HYPERCALLS.cpu_policy_read(domain, address, length), out)
    }

    fn cpu_policy_set(&self, domain: DomainId, record: &[u8]) -> Result<(), Status> {
        let (address, length) = input(record);
        HYPERCALLS.cpu_policy_set(domain, address, length)
    }

    fn xsave_state_read(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        out: &mut [u8],
    ) -> Result<usize, Status> {
        let (address, length) = output(out);
        let read = HYPERCALLS.xsave_state_read(domain, vcpu, address, length);
        bounded(read, out)
    }

    fn xsave_state_set(
        &self,
        domain: DomainId,
        vcpu: VcpuIndex,
        record: &[u8],
    ) -> Result<(), Status> {
        let (address, length) = input(record);
        HYPERCALLS.xsave_state_set(domain, vcpu, address, length)
    }

    fn dirty_arm(&self, domain: DomainId) -> Result<u64, Status> {
        HYPERCALLS.dirty_arm(domain)
    }

    fn dirty_harvest(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status> {
        let pages = pages.min(words.len() as u64 * 64);
        let (address, _) = output(words.as_mut_bytes());
        HYPERCALLS.dirty_harvest(domain, first_page, pages, address)
    }

    fn dirty_put_back(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status> {
        let pages = pages.min(words.len() as u64 * 64);
        let (address, _) = input(words.as_bytes());
        HYPERCALLS.dirty_put_back(domain, first_page, pages, address)
    }

    fn absent_arm(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &[u64],
    ) -> Result<u64, Status> {
        let pages = pages.min(words.len() as u64 * 64);
        let (address, _) = input(words.as_bytes());
        HYPERCALLS.absent_arm(domain, first_page, pages, address)
    }

    fn absent_read(
        &self,
        domain: DomainId,
        first_page: u64,
        pages: u64,
        words: &mut [u64],
    ) -> Result<u64, Status> {
        let pages = pages.min(words.len() as u64 * 64);
        let (address, _) = output(words.as_mut_bytes());
        HYPERCALLS.absent_read(domain, first_page, pages, address)
    }

    fn absent_wanted(&self, domain: DomainId) -> Result<Vec<u64>, Status> {
        let mut pages = [0u64; VCPUS];
        let (address, _) = output(pages.as_mut_bytes());
        let count = HYPERCALLS.absent_wanted(domain, address, VCPUS as u64)?;
        Ok(pages[..(count as usize).min(VCPUS)].into())
    }

    fn absent_fill(
        &self,
        domain: DomainId,
        first_page: u64,
        contents: &[u8],
    ) -> Result<u64, Status> {
        let (address, length) = input(contents);
        HYPERCALLS.absent_fill(domain, first_page, length / PAGE_SIZE_BYTES, address)
    }

    fn dirty_disarm(&self, domain: DomainId) -> Result<u64, Status> {
        HYPERCALLS.dirty_disarm(domain)
    }

    fn dirty_quota(&self, domain: DomainId, pages_per_s: u64) -> Result<(), Status> {
        HYPERCALLS.dirty_quota(domain, pages_per_s)
    }

    fn blob_write(&self, domain: DomainId, key: u32, bytes: &[u8]) -> Result<(), Status> {
        let (address, length) = input(bytes);
        HYPERCALLS.blob_write(domain, key, address, length)
    }

    fn blob_read(&self, domain: DomainId, key: u32) -> Result<Vec<u8>, Status> {
        let mut bytes = alloc::vec![0; BLOB_BYTES_MAX as usize];
        let (address, length) = output(&mut bytes);
        let length = HYPERCALLS.blob_read(domain, key, address, length)?;
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    fn debug_key(&self, key: u8) -> Result<(), Status> {
        HYPERCALLS.debug_key(key)
    }

    fn power(&self, action: PowerAction) -> Result<(), Status> {
        HYPERCALLS.host_power(action)
    }
}

/// A count of bytes written to `out`, never more than fit there.
pub(crate) fn bounded(count: Result<u64, Status>, out: &[u8]) -> Result<usize, Status> {
    count.map(|count| (count as usize).min(out.len()))
}
