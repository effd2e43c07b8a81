//! What is moved: load, size, rate of the link, options; with the goals and the peer's figures.

use super::report::Moved;
use godwit_harness::Emulator;

/// Bits a second.
const GIGABIT: u64 = 1_000_000_000;
const HUNDRED_MEGABIT: u64 = 100_000_000;
/// Of the peer's bytes on the wire, what an idle guest of 256 MiB may take.
const WIRE_SHARE: f64 = 0.6;
/// What `--max-downtime` is.
const DOWNTIME_MS: f64 = 300.0;

/// How a case ended.
pub(super) enum Outcome {
    /// It runs on the other host.
    Moved(Moved),
    /// It stays, as was asked for.
    Refused {
        /// From the command to the refusal.
        seconds: f64,
    },
}

/// One move.
pub(super) struct Case {
    /// The `kind=` of `guest load`.
    pub load: &'static str,
    pub memory_mib: u32,
    pub rate_bps: u64,
    /// `--on-miss`.
    pub on_miss: &'static str,
    /// Whether the other host must have it in the end; else it may stay.
    pub moves: bool,
}

/// QEMU's and KVM's figures for the same guest between two QEMU machines, the better ends of their
/// ranges; its link was as fast as the machine allowed, 60 to 150 Mbit/s.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub total_s: f64,
    pub wire_mb: f64,
    pub rounds: f64,
    pub downtime_ms: f64,
    pub gap_ms: f64,
}

const fn case(load: &'static str, on_miss: &'static str) -> Case {
    Case {
        load,
        memory_mib: 256,
        rate_bps: GIGABIT,
        on_miss,
        moves: true,
    }
}

/// An idle guest at the full rate.
pub(super) const fn idle(memory_mib: u32) -> Case {
    Case {
        memory_mib,
        ..case("idle", "throttle")
    }
}

/// The sizes of guests that are tried, in MiB.
pub(super) fn sizes(emulator: Emulator) -> &'static [u32] {
    match emulator {
        Emulator::Qemu | Emulator::Kvm => &[256, 1024],
        // Too slow there to be told from the machine's own noise (its card takes a frame a millisecond of a clock that runs
        // with what its host does): only what counts instructions.
        Emulator::Bochs => &[],
    }
}

/// All cases of guests of a size.
pub(super) fn of(memory_mib: u32) -> Vec<Case> {
    let mut cases = Vec::new();
    for rate_bps in [GIGABIT, HUNDRED_MEGABIT] {
        for load in ["idle", "moderate", "heavy"] {
            cases.push(Case {
                rate_bps,
                ..case(load, "throttle")
            });
        }
    }
    cases.push(case("delta", "abort"));
    for on_miss in ["throttle", "pause", "abort", "postcopy"] {
        cases.push(Case {
            moves: on_miss != "abort",
            rate_bps: HUNDRED_MEGABIT,
            ..case("random", on_miss)
        });
    }
    cases
        .iter_mut()
        .for_each(|case| case.memory_mib = memory_mib);
    cases
}

impl Case {
    pub(super) fn name(&self) -> String {
        let size = match self.memory_mib {
            1024 => "1 GiB".to_owned(),
            mib => format!("{mib} MiB"),
        };
        let rate = match self.rate_bps {
            GIGABIT => "1 Gbit/s".to_owned(),
            bps => format!("{} Mbit/s", bps / 1_000_000),
        };
        let miss = match self.on_miss {
            "throttle" if self.load != "random" => String::new(),
            on_miss => format!(", --on-miss={on_miss}"),
        };
        format!("migrate {}, {size}, {rate}{miss}", self.load)
    }

    /// The peer's figures, where they were measured.
    pub(super) fn peer(&self) -> Option<Peer> {
        let peer = |total_s, wire_mb, rounds, downtime_ms, gap_ms| Peer {
            total_s,
            wire_mb,
            rounds,
            downtime_ms,
            gap_ms,
        };
        match (self.load, self.memory_mib, self.rate_bps) {
            ("idle", 256, HUNDRED_MEGABIT) => Some(peer(10.0, 138.0, 3.0, 93.0, 199.0)),
            ("moderate", 256, HUNDRED_MEGABIT) => Some(peer(16.0, 149.0, 4.0, 57.0, 229.0)),
            ("heavy", 256, HUNDRED_MEGABIT) => Some(peer(34.0, 400.0, 6.0, 115.0, 492.0)),
            _ => None,
        }
    }

    pub(super) fn wire_goal_mb(&self) -> Option<f64> {
        let peer = self.peer().filter(|_| self.load == "idle")?;
        Some(peer.wire_mb * WIRE_SHARE)
    }

    /// Whether the peer's gap is what we want to stay under.
    pub(super) fn gap_is_goal(&self) -> bool {
        matches!(self.load, "idle" | "moderate")
    }

    pub(super) fn downtime_goal_ms(&self) -> Option<f64> {
        (self.load == "delta").then_some(DOWNTIME_MS)
    }
}
