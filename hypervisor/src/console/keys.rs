//! Who gets the keyboard: dom0, or the hypervisor's debug keys. Ctrl-A three times switches, as in
//! Xen; a single Ctrl-A reaches dom0 (it is "begin of line" there).

use core::sync::atomic::{AtomicU8, Ordering};

const SWITCH: u8 = 1;
const SWITCH_COUNT: u8 = 3;

/// Receiver of typed bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Focus {
    Dom0,
    Hypervisor,
}

/// A debug key that waits to be carried out, 0 for none. Keys are typed by people: a second one
/// before the first is served replaces it.
static PENDING: AtomicU8 = AtomicU8::new(0);

/// Takes the debug key that waits.
pub(crate) fn take_debug_key() -> Option<u8> {
    match PENDING.swap(0, Ordering::Relaxed) {
        0 => None,
        key => Some(key),
    }
}

pub(super) struct Keys {
    focus: Focus,
    switches: u8,
    announce: bool,
}

impl Keys {
    pub(super) const fn new() -> Self {
        Self {
            focus: Focus::Dom0,
            switches: 0,
            announce: false,
        }
    }

    /// Notes a typed byte and says whose it is.
    pub(super) fn typed(&mut self, byte: u8) -> Focus {
        if byte != SWITCH {
            self.switches = 0;
            if self.focus == Focus::Hypervisor {
                PENDING.store(byte, Ordering::Relaxed);
            }
            return self.focus;
        }
        self.switches += 1;
        if self.switches < SWITCH_COUNT {
            return self.focus;
        }
        self.switches = 0;
        self.announce = true;
        self.focus = match self.focus {
            Focus::Dom0 => Focus::Hypervisor,
            Focus::Hypervisor => Focus::Dom0,
        };
        Focus::Hypervisor
    }

    /// What to tell the person at the keyboard after a switch.
    pub(super) fn announcement(&mut self) -> Option<&'static str> {
        if !core::mem::take(&mut self.announce) {
            return None;
        }
        Some(match self.focus {
            Focus::Dom0 => "\r\n(godwit) input goes to dom0\r\n",
            Focus::Hypervisor => {
                "\r\n(godwit) input goes to the hypervisor: 'h' for its keys, Ctrl-A three times for dom0\r\n"
            }
        })
    }
}
