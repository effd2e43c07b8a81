//! `priority`: self-IPIs, the task priority (by register and CR8), order of delivery, EOI and nesting.

use crate::apic::{self, IRR, ISR, PPR, TPR};
use crate::command_line::Arguments;
use crate::cpu;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::trap;
use crate::{check, say};
use core::sync::atomic::Ordering;

const LOW: u8 = 0x41;
const MIDDLE: u8 = 0x51;
const HIGH: u8 = 0x61;
const HIGHEST: u8 = 0x81;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    let x2apic = apic::enable();
    order()?;
    coalescing()?;
    task_priority()?;
    nesting()?;
    if x2apic {
        trap::clear_log();
        apic::send_self_x2(LOW);
        expect("self-IPI register", &[LOW])?;
    }
    Ok(())
}

/// Opens the interrupt window; the log must then hold exactly these vectors, in this order.
fn expect(name: &str, vectors: &[u8]) -> Verdict {
    cpu::open_interrupt_window();
    for (index, &vector) in vectors.iter().enumerate() {
        let found = trap::logged(index);
        check!(
            found == Some(u64::from(vector)),
            "{name}: interrupt {index} is {found:x?}, expected {vector:#x}"
        );
    }
    check!(
        trap::log_len() == vectors.len(),
        "{name}: {} interrupts, expected {}",
        trap::log_len(),
        vectors.len()
    );
    say!("{name}: {vectors:x?}");
    Ok(())
}

/// Held together, delivered from the highest vector down.
fn order() -> Verdict {
    trap::clear_log();
    for vector in [LOW, HIGH, MIDDLE] {
        apic::send_self(vector);
        check!(
            apic::vector_bit(IRR, vector),
            "vector {vector:#x} is not requested after a self-IPI"
        );
    }
    expect("order", &[HIGH, MIDDLE, LOW])?;
    for vector in [LOW, HIGH, MIDDLE] {
        check!(
            !apic::vector_bit(IRR, vector) && !apic::vector_bit(ISR, vector),
            "vector {vector:#x} is left over"
        );
    }
    Ok(())
}

/// A vector requested again while still requested comes once.
fn coalescing() -> Verdict {
    trap::clear_log();
    for _ in 0..3 {
        apic::send_self(LOW);
    }
    expect("coalescing", &[LOW])
}

/// The task priority holds vectors of its class and below.
fn task_priority() -> Verdict {
    trap::clear_log();
    apic::write(TPR, 0x50);
    check!(cpu::cr8() == 5, "CR8 is {} with TPR 0x50", cpu::cr8());
    check!(
        apic::read(PPR) == 0x50,
        "PPR is {:#x} with TPR 0x50",
        apic::read(PPR)
    );
    for vector in [LOW, MIDDLE, HIGH] {
        apic::send_self(vector);
    }
    expect("tpr 0x50", &[HIGH])?;
    trap::clear_log();
    // SAFETY: CR8 is the task priority; the handlers serve any vector.
    unsafe { cpu::write_cr8(4) };
    check!(
        apic::read(TPR) == 0x40,
        "TPR is {:#x} with CR8 4",
        apic::read(TPR)
    );
    expect("cr8 4", &[MIDDLE])?;
    trap::clear_log();
    // SAFETY: as above.
    unsafe { cpu::write_cr8(0) };
    expect("cr8 0", &[LOW])
}

/// Without EOI a vector stays in service and holds back its class and below, not those above.
fn nesting() -> Verdict {
    trap::clear_log();
    trap::AUTO_EOI.store(false, Ordering::SeqCst);
    apic::send_self(HIGH);
    expect("in service", &[HIGH])?;
    check!(
        apic::vector_bit(ISR, HIGH),
        "no vector in service before EOI"
    );
    check!(
        apic::read(PPR) == 0x60,
        "PPR is {:#x} with {HIGH:#x} in service",
        apic::read(PPR)
    );
    apic::send_self(LOW);
    apic::send_self(HIGHEST);
    expect("nested", &[HIGH, HIGHEST])?;
    check!(
        apic::vector_bit(ISR, HIGH) && apic::vector_bit(ISR, HIGHEST),
        "two vectors should be in service"
    );
    apic::end_of_interrupt();
    check!(
        apic::vector_bit(ISR, HIGH) && !apic::vector_bit(ISR, HIGHEST),
        "EOI ends the highest vector in service"
    );
    expect("after one EOI", &[HIGH, HIGHEST])?;
    apic::end_of_interrupt();
    expect("after two EOIs", &[HIGH, HIGHEST, LOW])?;
    apic::end_of_interrupt();
    trap::AUTO_EOI.store(true, Ordering::SeqCst);
    check!(
        apic::read(PPR) == 0,
        "PPR is {:#x} with nothing in service",
        apic::read(PPR)
    );
    Ok(())
}
