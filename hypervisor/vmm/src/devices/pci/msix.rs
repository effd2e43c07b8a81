//! MSI-X table and pending bits of one function (PCI 3.0, 6.8.2): one page of memory, the table at its start, the bits at
//! [`PENDING_OFFSET`].

use super::super::BadState;
use super::super::message::Message;
use super::super::ports::Width;
use alloc::vec;
use alloc::vec::Vec;

/// Vectors of a function at most.
pub const MSIX_VECTORS_MAX: usize = 64;
/// Where the pending bits begin.
pub(super) const PENDING_OFFSET: u64 = 0x800;

const ENTRY_BYTES: u64 = 16;
const ENTRY_MASKED: u32 = 1;

/// One entry of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixEntry {
    /// Message address.
    pub address: u64,
    /// Message data.
    pub data: u32,
    /// Nothing is sent, but the vector becomes pending.
    pub masked: bool,
}

/// Table and pending bits. Whether MSI-X is enabled and masked as a whole stands in configuration space and is mirrored here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Msix {
    entries: Vec<MsixEntry>,
    pending: u64,
    enabled: bool,
    masked: bool,
}

/// Saved state of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsixState {
    /// Entries.
    pub entries: Vec<MsixEntry>,
    /// Pending vectors.
    pub pending: u64,
}

const _: () = assert!(MSIX_VECTORS_MAX as u64 * ENTRY_BYTES <= PENDING_OFFSET);

impl Msix {
    /// After power-up: all masked.
    pub(super) fn new(vectors: u16) -> Msix {
        let masked = MsixEntry {
            address: 0,
            data: 0,
            masked: true,
        };
        Msix {
            entries: vec![masked; vectors.into()],
            pending: 0,
            enabled: false,
            masked: false,
        }
    }

    pub(super) fn vectors(&self) -> u16 {
        self.entries.len() as u16
    }

    pub(super) fn enabled(&self) -> bool {
        self.enabled
    }

    /// Message control of the capability changes.
    pub(super) fn control(&mut self, enabled: bool, masked: bool) {
        self.enabled = enabled;
        self.masked = masked;
    }

    /// Vectors that may be sent.
    fn open(&self) -> u64 {
        if !self.enabled || self.masked || self.pending == 0 {
            return 0;
        }
        let pending = self.pending;
        let entries = self.entries.iter().enumerate();
        entries
            .filter(|(index, entry)| pending & 1 << index != 0 && !entry.masked)
            .fold(0, |open, (index, _)| open | 1 << index)
    }

    pub(super) fn has_message(&self) -> bool {
        self.open() != 0
    }

    /// Takes a pending message that may be sent. An entry that holds no interrupt message sends nothing.
    pub(super) fn next_message(&mut self) -> Option<Message> {
        loop {
            let open = self.open();
            if open == 0 {
                return None;
            }
            let vector = open.trailing_zeros();
            self.pending &= !(1 << vector);
            let entry = self.entries[vector as usize];
            if let Some(message) = Message::from_msi(entry.address, entry.data) {
                return Some(message);
            }
        }
    }

    /// The function raises a vector.
    pub(super) fn signal(&mut self, vector: u16) -> Option<Message> {
        let entry = self.entries.get(usize::from(vector))?;
        if !self.enabled {
            return None;
        }
        if self.masked || entry.masked {
            self.pending |= 1 << vector;
            return None;
        }
        Message::from_msi(entry.address, entry.data)
    }

    fn dword(&self, offset: u64) -> u32 {
        if let Some(offset) = offset.checked_sub(PENDING_OFFSET) {
            return match offset {
                0 => self.pending as u32,
                4 => (self.pending >> 32) as u32,
                _reserved => 0,
            };
        }
        let Some(entry) = self.entries.get((offset / ENTRY_BYTES) as usize) else {
            return 0;
        };
        match offset % ENTRY_BYTES {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            8 => entry.data,
            _control => u32::from(entry.masked),
        }
    }

    pub(super) fn read(&self, offset: u64, width: Width) -> u32 {
        self.dword(offset & !3) >> (8 * (offset & 3)) & width.all_ones()
    }

    /// Writes the table; only aligned accesses of 32 bits are defined, others are ignored. The pending bits are read-only.
    pub(super) fn write(&mut self, offset: u64, width: Width, value: u32) {
        if width != Width::Dword || offset & 3 != 0 {
            return;
        }
        let Some(entry) = self.entries.get_mut((offset / ENTRY_BYTES) as usize) else {
            return;
        };
        match offset % ENTRY_BYTES {
            0 => entry.address = entry.address & !0xFFFF_FFFF | u64::from(value & !3),
            4 => entry.address = entry.address & 0xFFFF_FFFF | u64::from(value) << 32,
            8 => entry.data = value,
            _control => entry.masked = value & ENTRY_MASKED != 0,
        }
    }

    pub(super) fn save(&self) -> MsixState {
        let Msix {
            entries,
            pending,
            enabled: _,
            masked: _,
        } = self;
        MsixState {
            entries: entries.clone(),
            pending: *pending,
        }
    }

    /// The table with this state; the caller mirrors the control bits afterwards.
    pub(super) fn restore(state: &MsixState, vectors: u16) -> Result<Msix, BadState> {
        let MsixState { entries, pending } = state;
        BadState::unless(entries.len() == usize::from(vectors), "pci.msix.entries")?;
        let aligned = entries.iter().all(|entry| entry.address & 3 == 0);
        BadState::unless(aligned, "pci.msix.address")?;
        let beyond = pending.checked_shr(vectors.into()).unwrap_or(0);
        BadState::unless(beyond == 0, "pci.msix.pending")?;
        Ok(Msix {
            entries: entries.clone(),
            pending: *pending,
            enabled: false,
            masked: false,
        })
    }
}
