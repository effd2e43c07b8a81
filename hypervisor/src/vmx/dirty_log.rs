//! Page-modification logging (SDM 3C 29.3.6): the processor writes down each guest page whose EPT dirty flag it sets, 512 in
//! a page, and exits with `Exit::DirtyLogFull` when there is no room.

#![allow(
    dead_code,
    reason = "switched on by dirty tracking, where HostFeatures::PML is set"
)]

use super::capability::SECONDARY_PML;
use super::fields::Field;
use super::vcpu::Vcpu;
use crate::memory::{OutOfMemory, Page};

const ENTRIES: u16 = 512;

impl Vcpu {
    /// Switches the log on or off. What it holds when it is switched off is lost: drain it before.
    pub(crate) fn set_dirty_log(&mut self, on: bool) -> Result<(), OutOfMemory> {
        assert!(self.capability.dirty_log, "the CPU has no PML");
        if on == self.dirty_log.is_some() {
            return Ok(());
        }
        let page = if on { Some(Page::zeroed()?) } else { None };
        let mut controls = self.capability.secondary;
        if let Some(page) = &page {
            self.set_field(Field::PML_ADDRESS, page.physical());
            self.set_field(Field::PML_INDEX, u64::from(ENTRIES - 1));
            controls |= SECONDARY_PML;
        }
        self.set_field(Field::SECONDARY_CONTROLS, u64::from(controls));
        self.dirty_log = page;
        Ok(())
    }

    /// Reports every guest-physical page address in the log, and empties it.
    pub(super) fn drain_log(&mut self, mut report: impl FnMut(u64)) {
        let Some(page) = &self.dirty_log else { return };
        // The index counts down from 511 and wraps below 0 when the log is full.
        let index = self.field(Field::PML_INDEX) as u16;
        let first = if index < ENTRIES { index + 1 } else { 0 };
        for entry in first..ENTRIES {
            let place = page
                .pointer()
                .cast::<u64>()
                .wrapping_add(usize::from(entry));
            // SAFETY: within our page of 512 entries; the processor writes it only while the guest runs.
            report(unsafe { place.read_volatile() } & !0xfff);
        }
        self.set_field(Field::PML_INDEX, u64::from(ENTRIES - 1));
    }
}
