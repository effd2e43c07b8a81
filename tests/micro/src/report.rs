//! How a test ends: nothing to say (it passed), or a reason to fail or to skip.

use core::fmt::{self, Write};

/// Longest reason kept; the rest is cut off.
const REASON_BYTES_MAX: usize = 200;

/// A short formatted text without a heap.
pub(crate) struct Reason {
    bytes: [u8; REASON_BYTES_MAX],
    len: usize,
}

impl Reason {
    /// Formats `arguments`, cutting at [`REASON_BYTES_MAX`].
    pub(crate) fn of(arguments: fmt::Arguments<'_>) -> Self {
        let mut reason = Self {
            bytes: [0; REASON_BYTES_MAX],
            len: 0,
        };
        // An error only says that the text was cut.
        let _ = reason.write_fmt(arguments);
        reason
    }
}

impl Write for Reason {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            let slot = self.bytes.get_mut(self.len).ok_or(fmt::Error)?;
            *slot = if byte.is_ascii() { byte } else { b'?' };
            self.len += 1;
        }
        Ok(())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(core::str::from_utf8(&self.bytes[..self.len]).unwrap_or("?"))
    }
}

/// Why a test did not pass.
pub(crate) enum Ending {
    /// The machine behaved wrongly.
    Fail(Reason),
    /// The machine lacks what the test is about.
    Skip(Reason),
}

/// What every test returns.
pub(crate) type Verdict = Result<(), Ending>;

/// Ends the test with a failure.
#[macro_export]
macro_rules! fail {
    ($($argument:tt)*) => {
        return Err($crate::report::Ending::Fail($crate::report::Reason::of(format_args!($($argument)*))))
    };
}

/// Ends the test as not applicable here.
#[macro_export]
macro_rules! skip {
    ($($argument:tt)*) => {
        return Err($crate::report::Ending::Skip($crate::report::Reason::of(format_args!($($argument)*))))
    };
}

/// Fails the test with the given reason unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($argument:tt)*) => {
        if !$condition {
            $crate::fail!($($argument)*);
        }
    };
}
