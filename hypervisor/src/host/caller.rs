//! Who makes a hypercall, and the buffers of one: everything is copied and checked here.

use godwit_abi::{DomainId, Refusal, Status, VcpuIndex};
use godwit_vmm::nested::{Format, Wanted};

use super::domain::Domain;
use super::memory::DomainMemory;
use super::world::Handing;
use super::{Host, Hosted};
use crate::console;

/// Bytes copied through the hypervisor's stack at a time.
pub(super) const PIECE: usize = 1024;
/// Most bytes of one `memory_write` or `memory_read`.
const COPY_MAX: u64 = 1 << 20;
/// Most pages of one `memory_populate`: 16 MiB, some milliseconds of zeroing.
const POPULATE_PAGES_MAX: u64 = 4096;

/// Who calls.
pub(super) struct Caller<'a, B: Hosted> {
    pub(super) host: &'static Host<B>,
    pub(super) domain: &'a Domain<B>,
    pub(super) wait_deadline: &'a mut u64,
    pub(super) handing: &'a mut Handing,
}

impl<B: Hosted> Caller<'_, B> {
    /// Copies a structure out to the caller.
    pub(super) fn put(&self, address: u64, length: u64, bytes: &[u8]) -> Result<(), Refusal> {
        if length < bytes.len() as u64 {
            return Err(Status::BadArgument.into());
        }
        self.domain
            .memory
            .write(address, bytes)
            .then_some(())
            .ok_or(Status::BadAddress.into())
    }

    /// Refuses a buffer that is not wholly the caller's memory.
    pub(super) fn check(
        &self,
        address: u64,
        length: u64,
        wanted: Wanted,
    ) -> Result<usize, Refusal> {
        let bytes = length.min(COPY_MAX) as usize;
        self.domain
            .memory
            .check(address, bytes, wanted)
            .then_some(bytes)
            .ok_or(Status::BadAddress.into())
    }

    /// Copies a record, or records, of the caller's; more than `most` bytes are none.
    pub(super) fn bytes(
        &self,
        address: u64,
        length: u64,
        most: u64,
    ) -> Result<alloc::vec::Vec<u8>, Refusal> {
        if length > most {
            return Err(Status::BadRecord.into());
        }
        let mut bytes = alloc::vec![0; length as usize];
        if !self.domain.memory.read(address, &mut bytes) {
            return Err(Status::BadAddress.into());
        }
        Ok(bytes)
    }

    /// Reads a stream into the caller's buffer piece by piece, as far as it gives.
    pub(super) fn stream(
        &self,
        address: u64,
        length: u64,
        mut next: impl FnMut(u64, &mut [u8]) -> Result<usize, Status>,
    ) -> Result<u64, Refusal> {
        let bytes = self.check(address, length, Wanted::Write)?;
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < bytes {
            let want = PIECE.min(bytes - done);
            let count = match next(done as u64, &mut piece[..want]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(status) if done == 0 => return Err(status.into()),
                Err(_) => break,
            };
            self.put(address + done as u64, count as u64, &piece[..count])?;
            done += count;
        }
        Ok(done as u64)
    }

    /// Copies from the caller into a domain.
    pub(super) fn copy_in(
        &self,
        domain: &Domain<B>,
        target: u64,
        address: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        if length > COPY_MAX {
            return Err(Status::BadArgument.into());
        }
        self.check(address, length, Wanted::Read)?;
        if !domain.memory.check(target, length as usize, Wanted::Write) {
            return Err(domain.memory.why_not(target, length).into());
        }
        copy(&self.domain.memory, address, &domain.memory, target, length)
    }

    /// Copies from a domain to the caller.
    pub(super) fn copy_out(
        &self,
        domain: &Domain<B>,
        source: u64,
        address: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        if length > COPY_MAX {
            return Err(Status::BadArgument.into());
        }
        self.check(address, length, Wanted::Write)?;
        if !domain.memory.check(source, length as usize, Wanted::Read) {
            return Err(domain.memory.why_not(source, length).into());
        }
        copy(&domain.memory, source, &self.domain.memory, address, length)
    }

    /// Sets a vCPU's registers to a record in dom0's memory.
    pub(super) fn take_vcpu_state(
        &self,
        domain: &alloc::sync::Arc<Domain<B>>,
        vcpu: VcpuIndex,
        address: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        let mut bytes = [0; PIECE];
        let bytes = bytes.get_mut(..length as usize).ok_or(Status::BadRecord)?;
        if !self.domain.memory.read(address, bytes) {
            return Err(Status::BadAddress.into());
        }
        Ok(self.host.set_vcpu_state(domain, vcpu, bytes)?)
    }

    /// Gives a guest pages of memory. Returns how many of them were done.
    pub(super) fn populate(
        &self,
        domain: &Domain<B>,
        page: u64,
        pages: u64,
    ) -> Result<u64, Refusal> {
        let done = domain
            .memory
            .populate(page, pages.min(POPULATE_PAGES_MAX))?;
        let bytes = domain.memory.pages() * 4096;
        domain.platform.lock().set_memory_size(bytes);
        Ok(done)
    }

    /// Writes to the host's console.
    pub(super) fn print(&self, address: u64, length: u64) -> Result<u64, Refusal> {
        let bytes = self.check(address, length, Wanted::Read)?;
        let mut piece = [0; PIECE];
        let mut done = 0;
        while done < bytes {
            let want = PIECE.min(bytes - done);
            if !self
                .domain
                .memory
                .read(address + done as u64, &mut piece[..want])
            {
                return Err(Status::BadAddress.into());
            }
            let taken = console::write(&piece[..want]);
            done += taken;
            if taken < want {
                break;
            }
        }
        Ok(done as u64)
    }

    pub(super) fn find(&self, id: DomainId) -> Result<alloc::sync::Arc<Domain<B>>, Refusal> {
        self.host
            .domains
            .read()
            .find(id)
            .ok_or(Status::NoDomain.into())
    }

    /// A domain other than dom0, which has no emulated devices worth the name.
    pub(super) fn find_guest(&self, id: DomainId) -> Result<alloc::sync::Arc<Domain<B>>, Refusal> {
        let domain = self.find(id)?;
        if domain.is_control() {
            return Err(Status::BadArgument.into());
        }
        Ok(domain)
    }
}

/// Copies between two domains' memories through a small buffer of our own.
fn copy<F: Format>(
    from: &DomainMemory<F>,
    mut source: u64,
    to: &DomainMemory<F>,
    mut target: u64,
    mut length: u64,
) -> Result<(), Refusal> {
    let mut piece = [0; PIECE];
    while length > 0 {
        let count = length.min(PIECE as u64);
        let part = &mut piece[..count as usize];
        // Both ranges were checked; they can only have shrunk if the domain died meanwhile.
        if !from.read(source, part) || !to.write(target, part) {
            return Err(Status::BadAddress.into());
        }
        source += count;
        target += count;
        length -= count;
    }
    Ok(())
}
