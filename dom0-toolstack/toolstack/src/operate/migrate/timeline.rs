//! Where the time of a stop went, for the report.

use core::fmt;

/// What the destination says of its part of the proof, microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ProofThere {
    /// Memory was compared and completed.
    pub(super) memory_us: u64,
    /// The devices were attached.
    pub(super) devices_us: u64,
    /// The states were set.
    pub(super) states_us: u64,
}

impl ProofThere {
    /// The text behind the reply *ready*.
    pub(super) fn encode(self) -> alloc::string::String {
        alloc::format!(
            "memory_us {}\ndevices_us {}\nstates_us {}\n",
            self.memory_us,
            self.devices_us,
            self.states_us
        )
    }

    /// From that text. `None`: an earlier version says nothing.
    pub(super) fn decode(text: &str) -> Option<Self> {
        Some(Self {
            memory_us: number(text, "memory_us")?,
            devices_us: number(text, "devices_us")?,
            states_us: number(text, "states_us")?,
        })
    }
}

/// The number in the line `KEY NUMBER` of a text.
pub(super) fn number(text: &str, key: &str) -> Option<u64> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(' '));
    let (_, value) = pairs.find(|(name, _)| *name == key)?;
    value.parse().ok()
}

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
    /// What the other side took to prove it.
    pub(super) there: Option<ProofThere>,
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
            there: None,
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
        )?;
        let Some(there) = self.there else {
            return Ok(());
        };
        write!(
            f,
            "\nproof there: memory {} us, devices {} us, states {} us",
            there.memory_us, there.devices_us, there.states_us
        )
    }
}
