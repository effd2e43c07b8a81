//! `hlt`: the APIC timer in its three modes, HLT woken by it, and the interrupt window (IF, STI's shadow).

use crate::apic::{self, TimerMode};
use crate::command_line::Arguments;
use crate::cpu::{self, Host, cpuid};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::trap::{self, INTERRUPTS_SEEN};
use crate::{check, fail, say};
use core::arch::asm;
use core::sync::atomic::AtomicUsize;

/// Vector of the timer, and of the self-IPIs.
const TIMER_VECTOR: u8 = 0x50;
const IPI_VECTOR: u8 = 0x60;
/// Time-stamp ticks over which the timer's rate is measured.
const MEASURE_TSC: u64 = 20_000_000;
/// Wakes of a HLT that waits for nothing but a pending interrupt.
const PENDING_WAKES: usize = 500;
/// Deadlines that are disarmed until one was in time.
const DISARM_TRIES: u32 = 20;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    let x2apic = apic::enable();
    let deadline_offered = cpuid(1, 0).ecx & 1 << 24 != 0;
    if cpu::host() == Host::Godwit {
        check!(
            x2apic && deadline_offered,
            "x2APIC {x2apic}, TSC deadline {deadline_offered}: both are promised"
        );
    }
    say!("x2apic {x2apic} tsc deadline {deadline_offered}");
    window()?;
    pending_wakes()?;
    let (timer_ticks, tsc_ticks) = apic::measure_timer(MEASURE_TSC);
    say!("apic timer: {timer_ticks} ticks in {tsc_ticks} tsc ticks");
    check!(timer_ticks > 0, "the timer does not count");
    // Timer ticks that take about 10 million time-stamp ticks.
    let period = (10_000_000 * u128::from(timer_ticks) / u128::from(tsc_ticks))
        .clamp(1, u128::from(u32::MAX)) as u32;
    let period_tsc = u64::from(period) * tsc_ticks / timer_ticks;
    one_shot(period, period_tsc)?;
    periodic(period, period_tsc)?;
    masked(period, period_tsc)?;
    if deadline_offered {
        deadline()
    } else {
        say!("skip: no TSC-deadline timer");
        Ok(())
    }
}

fn wait(span_tsc: u64) {
    let start = cpu::tsc();
    while cpu::tsc() - start < span_tsc {
        cpu::open_interrupt_window();
    }
}

/// Halts until `count` interrupts have been logged.
fn halt_until(count: usize) {
    while trap::log_len() < count {
        cpu::halt_once();
    }
}

fn all_logged_are(vector: u8) -> bool {
    (0..trap::log_len())
        .all(|index| trap::logged(index).is_none_or(|logged| logged == u64::from(vector)))
}

/// One interrupt, not early, and no other.
fn one_shot(count: u32, span_tsc: u64) -> Verdict {
    for round in 0..5 {
        trap::clear_log();
        apic::prepare_timer(TimerMode::OneShot, TIMER_VECTOR);
        let start = cpu::tsc();
        apic::write(apic::TIMER_INITIAL, count);
        halt_until(1);
        let elapsed = cpu::tsc() - start;
        say!("one-shot: due after {span_tsc}, woken after {elapsed}");
        check!(
            elapsed >= span_tsc - span_tsc / 5,
            "round {round}: woken after {elapsed}, due after {span_tsc}"
        );
        check!(
            apic::read(apic::TIMER_CURRENT) == 0,
            "the expired timer still counts"
        );
        wait(span_tsc * 2);
        check!(
            trap::log_len() == 1 && all_logged_are(TIMER_VECTOR),
            "{} interrupts from a one-shot timer",
            trap::log_len()
        );
    }
    Ok(())
}

/// Ten interrupts take ten periods; when stopped, no more come.
fn periodic(count: u32, span_tsc: u64) -> Verdict {
    const PERIODS: usize = 10;
    trap::clear_log();
    apic::prepare_timer(TimerMode::Periodic, TIMER_VECTOR);
    let start = cpu::tsc();
    apic::write(apic::TIMER_INITIAL, count);
    halt_until(PERIODS);
    let elapsed = cpu::tsc() - start;
    apic::stop_timer();
    let due = span_tsc * PERIODS as u64;
    say!("periodic: {PERIODS} periods due in {due}, took {elapsed}");
    check!(
        elapsed >= due - due / 5,
        "{PERIODS} periods of {span_tsc} in {elapsed}: too many interrupts"
    );
    // One may have been on its way when the timer was stopped.
    cpu::open_interrupt_window();
    let seen = trap::log_len();
    wait(span_tsc * 3);
    check!(trap::log_len() == seen, "a stopped timer still fires");
    check!(all_logged_are(TIMER_VECTOR), "another vector came");
    Ok(())
}

/// A timer that expires while IF is 0 is held, once, and delivered when IF is set.
fn masked(count: u32, span_tsc: u64) -> Verdict {
    trap::clear_log();
    apic::prepare_timer(TimerMode::OneShot, TIMER_VECTOR);
    apic::write(apic::TIMER_INITIAL, count);
    let start = cpu::tsc();
    while cpu::tsc() - start < span_tsc * 2 {
        // Exits with the interrupt pending: none may inject it.
        cpuid(0, 0);
    }
    check!(trap::log_len() == 0, "an interrupt came with IF = 0");
    check!(
        apic::vector_bit(apic::IRR, TIMER_VECTOR),
        "the expired timer is not in the request register"
    );
    cpu::open_interrupt_window();
    check!(
        trap::log_len() == 1,
        "{} interrupts when IF was set, not 1",
        trap::log_len()
    );
    Ok(())
}

/// TSC deadlines: not early, once, zero afterwards; in the past fires at once; zero disarms.
fn deadline() -> Verdict {
    const AHEAD: u64 = 5_000_000;
    apic::prepare_timer(TimerMode::TscDeadline, TIMER_VECTOR);
    for round in 0..20 {
        trap::clear_log();
        let due = cpu::tsc() + AHEAD;
        apic::write_deadline(due);
        let armed = cpu::read_msr(apic::MSR_TSC_DEADLINE);
        check!(
            armed == due || armed == 0 && cpu::tsc() >= due,
            "deadline {due} reads back as {armed}"
        );
        halt_until(1);
        let now = cpu::tsc();
        check!(
            now >= due,
            "round {round}: woken at {now}, {} before the deadline",
            due - now
        );
        let left = cpu::read_msr(apic::MSR_TSC_DEADLINE);
        // Bochs leaves the old deadline there, against SDM 3A 11.5.4.1.
        let is_clear = left == 0 || cpu::host() == Host::Hardware;
        check!(is_clear, "the deadline is {left} after it has fired");
        if round == 0 {
            say!("deadline: woken {} ticks late", now - due);
        }
        cpu::open_interrupt_window();
        check!(
            trap::log_len() == 1 && all_logged_are(TIMER_VECTOR),
            "{} interrupts for one deadline",
            trap::log_len()
        );
    }
    trap::clear_log();
    apic::write_deadline(1);
    halt_until(1);
    disarmed(AHEAD)?;
    apic::stop_timer();
    say!("deadline: past and disarmed deadlines done");
    Ok(())
}

/// A deadline that is disarmed in time does not fire. On a busy machine one passes before that now and then, and fires rightly.
fn disarmed(ahead_tsc: u64) -> Verdict {
    for _ in 0..DISARM_TRIES {
        trap::clear_log();
        let due = cpu::tsc() + ahead_tsc;
        apic::write_deadline(due);
        apic::write_deadline(0);
        let in_time = cpu::tsc() < due;
        wait(ahead_tsc * 2);
        if in_time {
            check!(trap::log_len() == 0, "a disarmed deadline has fired");
            return Ok(());
        }
    }
    fail!("no deadline was disarmed in time, of {DISARM_TRIES}");
}

/// How many interrupts have come when an instruction under STI's shadow has run, and when CLI has.
macro_rules! shadow {
    ($name:literal, $instruction:literal) => {{
        trap::clear_log();
        apic::send_self(IPI_VECTOR);
        let (during, after): (u64, usize);
        // SAFETY: the handler keeps all registers; the instructions write what is declared.
        unsafe {
            asm!(
                "push rbx",
                "sti",
                $instruction,
                "cli",
                "pop rbx",
                seen = in(reg) core::ptr::from_ref::<AtomicUsize>(INTERRUPTS_SEEN),
                inout("rax") 0u64 => during,
                out("rcx") _,
                out("rdx") _,
            );
        }
        after = trap::log_len();
        say!("sti, {}, cli: {after} interrupts", $name);
        (during, after)
    }};
}

/// STI holds interrupts off for one instruction more, also when that instruction exits to a hypervisor.
fn window() -> Verdict {
    let (during, after) = shadow!("load", "mov rax, [{seen}]");
    check!(
        during == 0,
        "the interrupt came before the instruction after STI"
    );
    check!(after == 1, "{after} interrupts after STI, load, CLI");
    // With CLI as the shadowed instruction no interrupt can come; it stays pending.
    let (_, after) = shadow!("nothing", "/* {seen} */");
    check!(after == 0, "STI, CLI let {after} interrupts in");
    check!(
        apic::vector_bit(apic::IRR, IPI_VECTOR),
        "the held interrupt is not pending"
    );
    cpu::open_interrupt_window();
    check!(
        trap::log_len() == 1,
        "the held interrupt came {} times",
        trap::log_len()
    );
    let (_, after) = shadow!("cpuid", "cpuid /* {seen} */");
    check!(
        after == 1,
        "{after} interrupts after STI, CPUID, CLI: the exit lost the shadow's end"
    );
    let (_, after) = shadow!("in", "in al, 0x21 /* {seen} */");
    check!(
        after == 1,
        "{after} interrupts after STI, IN, CLI: the exit lost the shadow's end"
    );
    Ok(())
}

/// STI, HLT with an interrupt pending already: HLT must not sleep over it.
fn pending_wakes() -> Verdict {
    for round in 0..PENDING_WAKES {
        trap::clear_log();
        apic::send_self(IPI_VECTOR);
        cpu::halt_once();
        check!(
            trap::log_len() == 1,
            "round {round}: {} interrupts",
            trap::log_len()
        );
    }
    say!("{PENDING_WAKES} halts with an interrupt pending");
    Ok(())
}
