//! Owned pages of host memory.

use godwit_vmm::frames::{Frame, Zone};

use super::layout::direct_map;
use super::{OutOfMemory, allocate, free};

/// 4 KiB of host memory that the hypervisor owns; freed on drop.
pub(crate) struct Page {
    frame: Frame,
}

impl Page {
    /// A page of zeroes.
    pub(crate) fn zeroed() -> Result<Page, OutOfMemory> {
        let frame = allocate(0, Zone::Any)?;
        let page = Page { frame };
        // SAFETY: the frame was just given to us and to nobody else; the direct map covers all RAM.
        unsafe { core::ptr::write_bytes(page.pointer(), 0, 4096) };
        Ok(page)
    }

    /// Host-physical address.
    pub(crate) fn physical(&self) -> u64 {
        self.frame.address().0
    }

    /// Its first byte in the direct map. Valid as long as the page is owned.
    pub(crate) fn pointer(&self) -> *mut u8 {
        direct_map(self.physical())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        free(self.frame, 0);
    }
}
