//! What the operator types, in order, whether a command or the line editor reads it.

use crate::console::Keyboard;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// What is kept of what is typed while a command runs; more is dropped.
const AHEAD_BYTES_MAX: usize = 4096;
const CTRL_C: u8 = 3;

/// Whether a byte interrupts a command: Ctrl-C.
pub(super) fn interrupts(byte: u8) -> bool {
    byte == CTRL_C
}

/// The keyboard and what has been typed ahead.
pub(super) struct Typed {
    keyboard: Keyboard,
    ahead: VecDeque<u8>,
}

impl Typed {
    /// Nothing typed yet.
    pub(super) fn new(keyboard: Keyboard) -> Self {
        Self {
            keyboard,
            ahead: VecDeque::new(),
        }
    }

    /// The next byte.
    pub(super) async fn next(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.ahead.pop_front() {
                return byte;
            }
            self.fill().await;
        }
    }

    /// Waits for a byte that `ends` and drops it with what was typed before it. Everything else
    /// stays for [`Self::next`]. May be dropped half way without losing anything.
    pub(super) async fn until(&mut self, ends: fn(u8) -> bool) {
        loop {
            if let Some(at) = self.ahead.iter().position(|byte| ends(*byte)) {
                self.ahead.drain(..=at);
                return;
            }
            self.fill().await;
        }
    }

    /// What has been typed, at least a byte of it. A byte that `ends` is dropped; what follows it
    /// stays for [`Self::next`]. True: there was one.
    pub(super) async fn take_until(&mut self, ends: fn(u8) -> bool) -> (Vec<u8>, bool) {
        while self.ahead.is_empty() {
            self.fill().await;
        }
        match self.ahead.iter().position(|byte| ends(*byte)) {
            Some(at) => {
                let bytes = self.ahead.drain(..at).collect();
                self.ahead.pop_front();
                (bytes, true)
            }
            None => (self.ahead.drain(..).collect(), false),
        }
    }

    async fn fill(&mut self) {
        let mut bytes = [0; 256];
        let count = self.keyboard.read(&mut bytes).await;
        let room = AHEAD_BYTES_MAX - self.ahead.len();
        // Ctrl-C is heard however much was typed before it.
        let kept = &bytes[..count.min(room)];
        self.ahead.extend(kept);
        if kept.len() < count && bytes[kept.len()..count].contains(&CTRL_C) {
            self.ahead.clear();
            self.ahead.push_back(CTRL_C);
        }
    }
}
