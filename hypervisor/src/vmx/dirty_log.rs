//! Page-modification logging (SDM 3C 29.3.6): the processor writes down each guest page whose EPT dirty flag it sets, 512 in
//! a page, and exits with `Exit::DirtyLogFull` when there is no room.
//!
//! A guest's vCPUs have it on for life: the leaves of a domain that is not tracked are dirty, so nothing is written down.

use super::fields::Field;
use super::vcpu::Vcpu;
use crate::memory::{OutOfMemory, Page};

const ENTRIES: u16 = 512;

/// A vCPU's log.
pub(super) struct DirtyLog {
    page: Page,
    /// The entries used, from the first on; the processor goes downwards from the last of them.
    room: u16,
}

impl DirtyLog {
    pub(super) fn new() -> Result<DirtyLog, OutOfMemory> {
        Ok(DirtyLog {
            page: Page::zeroed()?,
            room: ENTRIES,
        })
    }

    /// What PML_ADDRESS holds.
    pub(super) fn address(&self) -> u64 {
        self.page.physical()
    }

    /// What PML_INDEX holds while the log is empty.
    pub(super) fn start(&self) -> u64 {
        u64::from(self.room - 1)
    }
}

impl Vcpu {
    /// Reports every guest-physical page address in the log, and leaves it empty with room for so many, 1 to 512.
    pub(super) fn drain_log(&mut self, room: u16, mut report: impl FnMut(u64)) {
        let Some(log) = &self.dirty_log else { return };
        let index = self.field(Field::PML_INDEX) as u16;
        // It wraps below 0 when the log is full.
        let first = if index < ENTRIES { index + 1 } else { 0 };
        let room = room.clamp(1, ENTRIES);
        if first >= log.room && room == log.room {
            return;
        }
        for entry in first..log.room {
            let place = log
                .page
                .pointer()
                .cast::<u64>()
                .wrapping_add(usize::from(entry));
            // SAFETY: within our page of 512 entries; the processor writes it only while the guest runs.
            report(unsafe { place.read_volatile() } & !0xfff);
        }
        if let Some(log) = &mut self.dirty_log {
            log.room = room;
        }
        self.set_field(Field::PML_INDEX, u64::from(room - 1));
    }
}
