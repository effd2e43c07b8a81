//! Saved state of a local APIC. Timers are kept as values of the guest's TSC, so they move with it.

use super::access::{BASE_ADDRESS, LVT_WRITABLE, SVR_WRITABLE};
use super::timer::Timer;
use super::{ApicMode, Countdown, LVT_MASKED, Lapic, SVR_ENABLE, TimerMode, VectorSet};
use crate::devices::{BadState, TscRate};

/// Everything of a local APIC that outlives a move. Register formats are the architecture's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LapicState {
    /// APIC ID.
    pub id: u32,
    /// Bootstrap processor?
    pub bootstrap: bool,
    /// Mode in IA32_APIC_BASE.
    pub mode: ApicMode,
    /// Base address, page-aligned.
    pub base: u64,
    /// Task priority.
    pub tpr: u32,
    /// In service, by 64-bit words.
    pub isr: [u64; 4],
    /// Requested.
    pub irr: [u64; 4],
    /// Triggered by level.
    pub tmr: [u64; 4],
    /// Spurious-interrupt vector register.
    pub svr: u32,
    /// Logical destination (xAPIC).
    pub ldr: u32,
    /// Destination format (xAPIC).
    pub dfr: u32,
    /// Error status, as last latched.
    pub esr: u32,
    /// Errors since.
    pub esr_gathering: u32,
    /// Interrupt command.
    pub icr: u64,
    /// Timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; 6],
    /// Initial count.
    pub timer_initial: u32,
    /// Divide configuration.
    pub timer_divide: u32,
    /// Countdown under way.
    pub timer_countdown: Option<Countdown>,
    /// IA32_TSC_DEADLINE.
    pub tsc_deadline: u64,
}

impl Lapic {
    /// The state to move.
    pub fn save(&self) -> LapicState {
        // `rate` belongs to the domain; `isr_highest`, the timer's mode and due time follow from other fields.
        let &Lapic {
            rate: _,
            id,
            bootstrap,
            mode,
            base,
            tpr,
            isr_highest: _,
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
            timer:
                Timer {
                    mode: _,
                    initial,
                    divide,
                    countdown,
                    tsc_deadline,
                    due_tsc: _,
                },
        } = self;
        LapicState {
            id,
            bootstrap,
            mode,
            base,
            tpr,
            isr: isr.words(),
            irr: irr.words(),
            tmr: tmr.words(),
            svr,
            ldr,
            dfr,
            esr,
            esr_gathering,
            icr,
            lvt,
            timer_initial: initial,
            timer_divide: divide,
            timer_countdown: countdown,
            tsc_deadline,
        }
    }

    /// The APIC with this state, in a domain whose TSC has this rate. Refuses what no APIC can be in.
    pub fn restore(state: &LapicState, rate: TscRate) -> Result<Lapic, BadState> {
        let mode = TimerMode::of_lvt(state.lvt[0]).ok_or(BadState { field: "lapic.lvt" })?;
        let s = state;
        let no_low = |words: [u64; 4]| words[0] & 0xFFFF == 0;
        let enabled = s.svr & SVR_ENABLE != 0;
        let lvt_valid = |(entry, writable): (&u32, &u32)| {
            entry & !writable == 0 && (enabled || entry & LVT_MASKED != 0)
        };
        BadState::unless(s.base & !BASE_ADDRESS == 0, "lapic.base")?;
        BadState::unless(s.tpr & !0xFF == 0, "lapic.tpr")?;
        BadState::unless(no_low(s.isr), "lapic.isr")?;
        BadState::unless(no_low(s.irr), "lapic.irr")?;
        BadState::unless(no_low(s.tmr), "lapic.tmr")?;
        BadState::unless(s.svr & !SVR_WRITABLE == 0, "lapic.svr")?;
        BadState::unless(s.ldr & 0x00FF_FFFF == 0, "lapic.ldr")?;
        BadState::unless(s.dfr | 0xF000_0000 == u32::MAX, "lapic.dfr")?;
        BadState::unless((s.esr | s.esr_gathering) & !0xFF == 0, "lapic.esr")?;
        BadState::unless(s.icr & !super::ipi::ICR_WRITABLE == 0, "lapic.icr")?;
        BadState::unless(s.lvt.iter().zip(&LVT_WRITABLE).all(lvt_valid), "lapic.lvt")?;
        BadState::unless(s.timer_divide & !0b1011 == 0, "lapic.timer_divide")?;
        BadState::unless(
            s.tsc_deadline == 0 || mode == TimerMode::TscDeadline,
            "lapic.tsc_deadline",
        )?;
        if let Some(countdown) = s.timer_countdown {
            let counts =
                mode != TimerMode::TscDeadline && countdown.first != 0 && s.timer_initial != 0;
            BadState::unless(
                counts && (mode == TimerMode::Periodic || countdown.expired == 0),
                "lapic.timer_countdown",
            )?;
        }
        let isr = VectorSet::from_words(s.isr);
        Ok(Lapic {
            rate,
            id: s.id,
            bootstrap: s.bootstrap,
            mode: s.mode,
            base: s.base,
            tpr: s.tpr,
            isr_highest: isr.highest().unwrap_or(0),
            isr,
            irr: VectorSet::from_words(s.irr),
            tmr: VectorSet::from_words(s.tmr),
            svr: s.svr,
            ldr: s.ldr,
            dfr: s.dfr,
            esr: s.esr,
            esr_gathering: s.esr_gathering,
            icr: s.icr,
            lvt: s.lvt,
            timer: Timer::restored(
                mode,
                s.timer_initial,
                s.timer_divide,
                s.timer_countdown,
                s.tsc_deadline,
                rate,
            ),
        })
    }
}
