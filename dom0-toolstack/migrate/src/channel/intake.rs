//! Bytes as they come, in pieces of any length, until there are as many as the next step needs.

use alloc::vec::Vec;

/// What has come of what is wanted.
pub(super) struct Intake {
    come: Vec<u8>,
    wanted: usize,
}

impl Intake {
    /// Wants `wanted` octets, at least one.
    pub(super) fn new(wanted: usize) -> Self {
        Self {
            come: Vec::new(),
            wanted,
        }
    }

    /// Wants `wanted` octets in all, those that have come since the last [`Self::clear`] among them.
    pub(super) fn want(&mut self, wanted: usize) {
        self.wanted = wanted;
    }

    /// How many are missing.
    pub(super) fn missing(&self) -> usize {
        self.wanted - self.come.len()
    }

    /// Takes some, at most [`Self::missing`]; whether all are there now.
    pub(super) fn take(&mut self, bytes: &[u8]) -> bool {
        assert!(bytes.len() <= self.missing(), "more than was asked for");
        self.come.extend(bytes);
        self.missing() == 0
    }

    /// What has come.
    pub(super) fn octets(&self) -> &[u8] {
        &self.come
    }

    /// Forgets what has come and wants `wanted` more.
    pub(super) fn clear(&mut self, wanted: usize) {
        self.come.clear();
        self.wanted = wanted;
    }
}
