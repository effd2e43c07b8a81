//! Programmable interval timer: an 8254 with its three counters, and port 0x61, which gates counter 2 and shows its output.
//!
//! Counter 0 drives IRQ 0: each rise of its output is an edge. Edges that nobody took in time are counted as missed and not made up for
//! in a burst; the phase stays. Counter 1 is free, counter 2 is the speaker's, by which systems calibrate their clocks.

mod channel;
#[cfg(test)]
mod tests;

use channel::CLOCK_MAX;
pub use channel::{Access, Channel, Count, EVENT_SPACING};

use super::{BadState, TscRate};

/// Data port of the first counter; the others follow.
pub const PORT_FIRST: u16 = 0x40;
/// Data port of the second counter. Reading it and those behind does not concern the first.
pub const PORT_SECOND: u16 = 0x41;
/// Port of the control word.
pub const PORT_LAST: u16 = 0x43;
/// Speaker and gate of counter 2 ("system control port B").
pub const SPEAKER_PORT: u16 = 0x61;
/// Input clock.
pub const CLOCK_HZ: u64 = 1_193_182;

/// Bits of [`SPEAKER_PORT`]: gate of counter 2, speaker data and two check enables, kept as written; refresh toggle; output of counter 2.
const SPEAKER_GATE: u8 = 1 << 0;
const SPEAKER_WRITABLE: u8 = 0x0F;
const REFRESH_TOGGLE: u8 = 1 << 4;
const SPEAKER_OUT: u8 = 1 << 5;
/// Input clocks between two toggles of the refresh bit (15.1 microseconds).
const REFRESH_CLOCKS: u64 = 18;

/// The timer of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pit {
    rate: TscRate,
    channels: [Channel; 3],
    speaker: u8,
    missed: u64,
    /// Guest TSC of counter 0's next edge, `u64::MAX` for none. Follows from the fields above.
    due_tsc: u64,
}

/// Saved state of [`Pit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PitState {
    /// Counters.
    pub channels: [Channel; 3],
    /// Port 0x61, bits 3:0.
    pub speaker: u8,
    /// Edges of counter 0 that came while one was due already.
    pub missed: u64,
}

impl Pit {
    /// The timer after power-up: nothing counts, the gate of counter 2 is low.
    pub const fn new(rate: TscRate) -> Pit {
        Pit {
            rate,
            channels: [
                Channel::power_up(true),
                Channel::power_up(true),
                Channel::power_up(false),
            ],
            speaker: 0,
            missed: 0,
            due_tsc: u64::MAX,
        }
    }

    fn clock(&self, now_tsc: u64) -> u64 {
        self.rate.clock_ticks(now_tsc, CLOCK_HZ).min(CLOCK_MAX)
    }

    fn schedule(&mut self) {
        self.due_tsc = self.channels[0].next_event().map_or(u64::MAX, |clock| {
            self.rate.tsc_until(clock.into(), CLOCK_HZ)
        });
    }

    /// Guest TSC at which [`Pit::take_edge`] may have something; `None` while counter 0 is idle.
    #[inline]
    pub fn next_deadline(&self) -> Option<u64> {
        (self.due_tsc != u64::MAX).then_some(self.due_tsc)
    }

    /// Has the output of counter 0 risen since the last call?
    pub fn take_edge(&mut self, now_tsc: u64) -> bool {
        let clock = self.clock(now_tsc);
        self.channels[0].advance(clock);
        let edges = core::mem::take(&mut self.channels[0].edges);
        self.missed = self.missed.saturating_add(edges.saturating_sub(1));
        self.schedule();
        edges != 0
    }

    /// Has an access found an edge that is still to be taken?
    pub fn has_edge(&self) -> bool {
        self.channels[0].edges != 0
    }

    /// Edges that came while another waited to be taken.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Reads a byte from one of its ports or from [`SPEAKER_PORT`]. The control word's port reads as all ones.
    pub fn read(&mut self, port: u16, now_tsc: u64) -> u8 {
        let clock = self.clock(now_tsc);
        match port {
            0x40..=0x42 => {
                let channel = &mut self.channels[usize::from(port - 0x40)];
                channel.advance(clock);
                let value = channel.read(clock);
                if port == PORT_FIRST {
                    self.schedule();
                }
                value
            }
            SPEAKER_PORT => {
                self.channels[2].advance(clock);
                let mut value = self.speaker;
                if (clock / REFRESH_CLOCKS) & 1 != 0 {
                    value |= REFRESH_TOGGLE;
                }
                if self.channels[2].out(clock) {
                    value |= SPEAKER_OUT;
                }
                value
            }
            _write_only => 0xFF,
        }
    }

    /// Writes a byte to one of its ports or to [`SPEAKER_PORT`].
    pub fn write(&mut self, port: u16, value: u8, now_tsc: u64) {
        let clock = self.clock(now_tsc);
        for channel in &mut self.channels {
            channel.advance(clock);
        }
        match port {
            0x40..=0x42 => self.channels[usize::from(port - 0x40)].write(value, clock),
            0x43 => self.control(value, clock),
            SPEAKER_PORT => {
                self.speaker = value & SPEAKER_WRITABLE;
                self.channels[2].set_gate(value & SPEAKER_GATE != 0, clock);
            }
            _not_ours => {}
        }
        self.schedule();
    }

    fn control(&mut self, word: u8, clock: u64) {
        let select = usize::from(word >> 6);
        let Some(channel) = self.channels.get_mut(select) else {
            return self.read_back(word, clock);
        };
        let access = match word >> 4 & 3 {
            0 => return channel.latch_count(clock),
            1 => Access::Low,
            2 => Access::High,
            _three => Access::Both,
        };
        let mode = match word >> 1 & 7 {
            mode @ 0..=5 => mode,
            // Bit 2 does not count in modes 2 and 3.
            mode => mode & 3,
        };
        channel.program(mode, access, word & 1 != 0, clock);
    }

    /// Read-back command: latches count (bit 5 clear) and status (bit 4 clear) of the counters chosen by bits 3:1.
    fn read_back(&mut self, word: u8, clock: u64) {
        for (index, channel) in self.channels.iter_mut().enumerate() {
            if word & 2 << index == 0 {
                continue;
            }
            if word & 1 << 5 == 0 {
                channel.latch_count(clock);
            }
            if word & 1 << 4 == 0 {
                channel.latch_status(clock);
            }
        }
    }

    /// The state to move.
    pub fn save(&self) -> PitState {
        let &Pit {
            rate: _,
            channels,
            speaker,
            missed,
            due_tsc: _,
        } = self;
        PitState {
            channels,
            speaker,
            missed,
        }
    }

    /// The timer with this state, in a domain whose TSC has this rate.
    pub fn restore(state: &PitState, rate: TscRate) -> Result<Pit, BadState> {
        let &PitState {
            channels,
            speaker,
            missed,
        } = state;
        channels.iter().try_for_each(Channel::validate)?;
        BadState::unless(speaker & !SPEAKER_WRITABLE == 0, "pit.speaker")?;
        let gates = [true, true, speaker & SPEAKER_GATE != 0];
        BadState::unless(channels.map(|channel| channel.gate) == gates, "pit.gate")?;
        let mut pit = Pit {
            rate,
            channels,
            speaker,
            missed,
            due_tsc: u64::MAX,
        };
        pit.schedule();
        Ok(pit)
    }
}
