//! Interrupt controllers as records and back.

use godwit_records::{ApicCountdown, IoApic, LocalApic, LocalApicMode, PicChip, PicPair, PicPhase};

use crate::devices::ioapic::IoapicState;
use crate::devices::lapic::{ApicMode, Countdown, LapicState};
use crate::devices::pic::{Chip, Phase, PicState};

pub(super) fn lapic_record(state: &LapicState) -> LocalApic {
    let &LapicState {
        id,
        bootstrap,
        mode,
        base,
        tpr,
        isr,
        irr,
        tmr,
        svr,
        ldr,
        dfr,
        esr,
        esr_gathering,
        icr,
        lvt,
        timer_initial,
        timer_divide,
        timer_countdown,
        tsc_deadline,
    } = state;
    LocalApic {
        id,
        bootstrap,
        mode: match mode {
            ApicMode::Disabled => LocalApicMode::Disabled,
            ApicMode::XApic => LocalApicMode::XApic,
            ApicMode::X2Apic => LocalApicMode::X2Apic,
        },
        base,
        tpr,
        isr,
        irr,
        tmr,
        svr,
        ldr,
        dfr,
        esr,
        esr_gathering,
        icr,
        lvt,
        timer_initial,
        timer_divide,
        timer_countdown: timer_countdown.map(|countdown| {
            let Countdown {
                start_tsc,
                first,
                expired,
            } = countdown;
            ApicCountdown {
                start_tsc,
                first,
                expired,
            }
        }),
        tsc_deadline,
    }
}

pub(super) fn lapic_state(record: &LocalApic) -> LapicState {
    let &LocalApic {
        id,
        bootstrap,
        mode,
        base,
        tpr,
        isr,
        irr,
        tmr,
        svr,
        ldr,
        dfr,
        esr,
        esr_gathering,
        icr,
        lvt,
        timer_initial,
        timer_divide,
        timer_countdown,
        tsc_deadline,
    } = record;
    LapicState {
        id,
        bootstrap,
        mode: match mode {
            LocalApicMode::Disabled => ApicMode::Disabled,
            LocalApicMode::XApic => ApicMode::XApic,
            LocalApicMode::X2Apic => ApicMode::X2Apic,
        },
        base,
        tpr,
        isr,
        irr,
        tmr,
        svr,
        ldr,
        dfr,
        esr,
        esr_gathering,
        icr,
        lvt,
        timer_initial,
        timer_divide,
        timer_countdown: timer_countdown.map(|countdown| {
            let ApicCountdown {
                start_tsc,
                first,
                expired,
            } = countdown;
            Countdown {
                start_tsc,
                first,
                expired,
            }
        }),
        tsc_deadline,
    }
}

fn chip_record(chip: &Chip) -> PicChip {
    let &Chip {
        phase,
        expects_icw4,
        single,
        lines,
        level_triggered,
        irr,
        isr,
        imr,
        vector_base,
        lowest,
        auto_eoi,
        rotate_on_auto_eoi,
        special_fully_nested,
        special_mask,
        reads_isr,
        polls,
    } = chip;
    PicChip {
        phase: match phase {
            Phase::Uninitialised => PicPhase::Uninitialised,
            Phase::Icw2 => PicPhase::Icw2,
            Phase::Icw3 => PicPhase::Icw3,
            Phase::Icw4 => PicPhase::Icw4,
            Phase::Ready => PicPhase::Ready,
        },
        expects_icw4,
        single,
        lines,
        level_triggered,
        irr,
        isr,
        imr,
        vector_base,
        lowest,
        auto_eoi,
        rotate_on_auto_eoi,
        special_fully_nested,
        special_mask,
        reads_isr,
        polls,
    }
}

fn chip_state(record: &PicChip) -> Chip {
    let &PicChip {
        phase,
        expects_icw4,
        single,
        lines,
        level_triggered,
        irr,
        isr,
        imr,
        vector_base,
        lowest,
        auto_eoi,
        rotate_on_auto_eoi,
        special_fully_nested,
        special_mask,
        reads_isr,
        polls,
    } = record;
    Chip {
        phase: match phase {
            PicPhase::Uninitialised => Phase::Uninitialised,
            PicPhase::Icw2 => Phase::Icw2,
            PicPhase::Icw3 => Phase::Icw3,
            PicPhase::Icw4 => Phase::Icw4,
            PicPhase::Ready => Phase::Ready,
        },
        expects_icw4,
        single,
        lines,
        level_triggered,
        irr,
        isr,
        imr,
        vector_base,
        lowest,
        auto_eoi,
        rotate_on_auto_eoi,
        special_fully_nested,
        special_mask,
        reads_isr,
        polls,
    }
}

pub(super) fn pic_record(state: &PicState) -> PicPair {
    let PicState { master, slave } = state;
    PicPair {
        master: chip_record(master),
        slave: chip_record(slave),
    }
}

pub(super) fn pic_state(record: &PicPair) -> PicState {
    let PicPair { master, slave } = record;
    PicState {
        master: chip_state(master),
        slave: chip_state(slave),
    }
}

pub(super) fn ioapic_record(state: &IoapicState) -> IoApic {
    let &IoapicState {
        id,
        select,
        entries,
        lines,
        requested,
    } = state;
    IoApic {
        id,
        select,
        entries,
        lines,
        requested,
    }
}

pub(super) fn ioapic_state(record: &IoApic) -> IoapicState {
    let &IoApic {
        id,
        select,
        entries,
        lines,
        requested,
    } = record;
    IoapicState {
        id,
        select,
        entries,
        lines,
        requested,
    }
}
