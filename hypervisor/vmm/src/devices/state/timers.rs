//! Timers and clocks as records and back.

use godwit_records::{
    AcpiFixed, IntervalTimer, ParavirtualClock, PitAccess, PitChannel, PitCounting, RealTimeClock,
};

use crate::devices::BadState;
use crate::devices::acpi_pm::AcpiPmState;
use crate::devices::kvmclock::{KvmclockState, VCPUS_MAX};
use crate::devices::pit::{Access, Channel, Count, PitState};
use crate::devices::rtc::RtcState;

pub(super) fn pm_record(state: &AcpiPmState) -> AcpiFixed {
    let &AcpiPmState {
        status,
        enable,
        control,
        timer_carries_seen,
    } = state;
    AcpiFixed {
        status,
        enable,
        control,
        timer_carries_seen,
    }
}

pub(super) fn pm_state(record: &AcpiFixed) -> AcpiPmState {
    let &AcpiFixed {
        status,
        enable,
        control,
        timer_carries_seen,
    } = record;
    AcpiPmState {
        status,
        enable,
        control,
        timer_carries_seen,
    }
}

fn channel_record(channel: &Channel) -> PitChannel {
    let &Channel {
        mode,
        access,
        bcd,
        period,
        next_period,
        low_byte,
        count,
        gate,
        latch,
        status_latch,
        reads_high,
        seen,
        edges,
    } = channel;
    let (counting, at, phase) = match count {
        Count::Empty => (PitCounting::Empty, 0, 0),
        Count::Running { origin, phase } => (PitCounting::Running, origin, phase),
        Count::Held { elapsed } => (PitCounting::Held, 0, elapsed),
    };
    PitChannel {
        mode,
        access: match access {
            Access::Low => PitAccess::Low,
            Access::High => PitAccess::High,
            Access::Both => PitAccess::Both,
        },
        bcd,
        period,
        next_period,
        low_byte,
        counting,
        at,
        phase,
        gate,
        latch,
        status_latch,
        reads_high,
        seen,
        edges,
    }
}

fn channel_state(record: &PitChannel) -> Result<Channel, BadState> {
    let &PitChannel {
        mode,
        access,
        bcd,
        period,
        next_period,
        low_byte,
        counting,
        at,
        phase,
        gate,
        latch,
        status_latch,
        reads_high,
        seen,
        edges,
    } = record;
    Ok(Channel {
        mode,
        access: match access {
            PitAccess::Low => Access::Low,
            PitAccess::High => Access::High,
            PitAccess::Both => Access::Both,
        },
        bcd,
        period,
        next_period,
        low_byte,
        count: match (counting, at, phase) {
            (PitCounting::Empty, 0, 0) => Count::Empty,
            (PitCounting::Running, origin, phase) => Count::Running { origin, phase },
            (PitCounting::Held, 0, elapsed) => Count::Held { elapsed },
            (PitCounting::Empty | PitCounting::Held, _, _) => {
                return Err(BadState { field: "pit.at" });
            }
        },
        gate,
        latch,
        status_latch,
        reads_high,
        seen,
        edges,
    })
}

pub(super) fn pit_record(state: &PitState) -> IntervalTimer {
    let PitState {
        channels: [channel_0, channel_1, channel_2],
        speaker,
        missed,
    } = state;
    IntervalTimer {
        channel_0: channel_record(channel_0),
        channel_1: channel_record(channel_1),
        channel_2: channel_record(channel_2),
        speaker: *speaker,
        missed: *missed,
    }
}

pub(super) fn pit_state(record: &IntervalTimer) -> Result<PitState, BadState> {
    let IntervalTimer {
        channel_0,
        channel_1,
        channel_2,
        speaker,
        missed,
    } = record;
    Ok(PitState {
        channels: [
            channel_state(channel_0)?,
            channel_state(channel_1)?,
            channel_state(channel_2)?,
        ],
        speaker: *speaker,
        missed: *missed,
    })
}

pub(super) fn rtc_record(state: &RtcState) -> RealTimeClock {
    let &RtcState {
        index,
        cmos,
        base_seconds,
        base_ns,
        seen_tsc,
    } = state;
    RealTimeClock {
        index,
        cmos,
        base_seconds: base_seconds as u64,
        base_ns,
        seen_tsc,
    }
}

pub(super) fn rtc_state(record: &RealTimeClock) -> RtcState {
    let &RealTimeClock {
        index,
        cmos,
        base_seconds,
        base_ns,
        seen_tsc,
    } = record;
    RtcState {
        index,
        cmos,
        base_seconds: base_seconds as i64,
        base_ns,
        seen_tsc,
    }
}

/// What each vCPU's TSC is ahead of platform time stands in that vCPU's record.
pub(super) fn kvmclock_record(state: &KvmclockState) -> ParavirtualClock {
    let &KvmclockState {
        reference_tsc,
        reference_ns,
        epoch_ns,
        pages,
        adjusts: _,
        wall_clock,
    } = state;
    ParavirtualClock {
        reference_tsc,
        reference_ns,
        epoch_ns,
        pages,
        wall_clock,
    }
}

pub(super) fn kvmclock_state(
    record: &ParavirtualClock,
    adjusts: [u64; VCPUS_MAX],
) -> KvmclockState {
    let &ParavirtualClock {
        reference_tsc,
        reference_ns,
        epoch_ns,
        pages,
        wall_clock,
    } = record;
    KvmclockState {
        reference_tsc,
        reference_ns,
        epoch_ns,
        pages,
        adjusts,
        wall_clock,
    }
}
