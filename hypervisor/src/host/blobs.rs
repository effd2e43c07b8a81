//! Bytes kept for dom0 beside a domain, so that they outlive dom0: what a restarted one needs to go on. A
//! domain's go with it; dom0's own stay over its restarts, because its domain does.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use godwit_abi::{BLOB_BYTES_MAX, BLOBS_MAX, Refusal, Status};
use godwit_vmm::nested::Wanted;
use spin::mutex::TicketMutex;

use super::Hosted;
use super::caller::Caller;
use crate::memory::{RESERVE_BYTES, free_bytes};

/// The blobs of one domain, by key.
pub(super) struct Blobs(TicketMutex<BTreeMap<u32, Vec<u8>>>);

impl Blobs {
    pub(super) const fn new() -> Self {
        Self(TicketMutex::new(BTreeMap::new()))
    }

    fn put(&self, key: u32, bytes: Vec<u8>) -> Result<(), Status> {
        let mut blobs = self.0.lock();
        if bytes.is_empty() {
            return blobs.remove(&key).map(drop).ok_or(Status::NotFound);
        }
        if blobs.len() >= BLOBS_MAX && !blobs.contains_key(&key) {
            return Err(Status::Full);
        }
        blobs.insert(key, bytes);
        Ok(())
    }

    /// Bytes of hypervisor memory used.
    pub(super) fn bytes(&self) -> u64 {
        let blobs = self.0.lock();
        blobs.values().map(|blob| blob.capacity() as u64).sum()
    }
}

impl<B: Hosted> Caller<'_, B> {
    pub(super) fn write_blob(
        &self,
        blobs: &Blobs,
        key: u32,
        address: u64,
        length: u64,
    ) -> Result<(), Refusal> {
        if length > BLOB_BYTES_MAX {
            return Err(Status::BadArgument.into());
        }
        // The heap's last bytes are for what must not fail.
        if length != 0 && free_bytes() < RESERVE_BYTES / 2 {
            return Err(Status::NoMemory.into());
        }
        let count = self.check(address, length, Wanted::Read)?;
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(count)
            .map_err(|_| Status::NoMemory)?;
        bytes.resize(count, 0);
        if !self.domain.memory.read(address, &mut bytes) {
            return Err(Status::BadAddress.into());
        }
        Ok(blobs.put(key, bytes)?)
    }

    pub(super) fn read_blob(
        &self,
        blobs: &Blobs,
        key: u32,
        address: u64,
        length: u64,
    ) -> Result<u64, Refusal> {
        let blobs = blobs.0.lock();
        let blob = blobs.get(&key).ok_or(Status::NotFound)?;
        let count = blob.len().min(length as usize);
        self.put(address, count as u64, &blob[..count])?;
        Ok(blob.len() as u64)
    }
}
