//! Where the time of a stop went, for the report.

use core::fmt;

/// Moments by the host's clock, microseconds, and what was sent between the first two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timeline {
    /// It was paused.
    pub(super) paused_us: u64,
    /// The rest of its memory had been taken.
    pub(super) memory_us: u64,
    /// Bytes on the wire from the pause until its states were sent.
    pub(super) bytes: u64,
    /// Its states had been sent.
    pub(super) states_us: u64,
    /// Both sides had compared.
    pub(super) proven_us: u64,
    /// It was known to run there.
    pub(super) running_us: u64,
}

impl Timeline {
    /// Nothing has happened since the pause.
    pub(super) fn begin(paused_us: u64) -> Self {
        Self {
            paused_us,
            memory_us: paused_us,
            bytes: 0,
            states_us: paused_us,
            proven_us: paused_us,
            running_us: paused_us,
        }
    }

    /// From the pause until it was known to run there.
    pub(super) fn downtime_us(&self) -> u64 {
        self.running_us - self.paused_us
    }

    /// What the stop took besides the memory.
    pub(super) fn fixed_us(&self) -> u64 {
        self.running_us - self.memory_us
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |from: u64, to: u64| to.saturating_sub(from) / 1000;
        write!(
            f,
            "stop: {} KiB; memory {} ms, states {} ms, proof {} ms, hand-over {} ms; fixed cost {} ms",
            self.bytes.div_ceil(1024),
            ms(self.paused_us, self.memory_us),
            ms(self.memory_us, self.states_us),
            ms(self.states_us, self.proven_us),
            ms(self.proven_us, self.running_us),
            self.fixed_us() / 1000,
        )
    }
}
