//! The debug console: port 0xE9 takes text a byte at a time and reads as 0xE9.

use crate::cpu;
use core::fmt::{self, Write};

/// Output port; reading it gives this same value.
pub(crate) const DEBUG_PORT: u16 = 0xe9;

/// Formats to the debug console.
pub(crate) struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            cpu::out8(DEBUG_PORT, byte);
        }
        Ok(())
    }
}

/// Prints one line to the debug console.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // Console::write_str cannot fail.
        let _ = writeln!($crate::console::Console, $($argument)*);
    }};
}
