//! `port`: port reads and writes at each width, PIC, power management timer.

use crate::command_line::Arguments;
use crate::console::DEBUG_PORT;
use crate::cpu::{self, Host, cpuid, in8, in16, in32, out8};
use crate::exec::{self, Registers};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, code, fail, say};

/// A port nothing answers on.
pub(crate) const UNUSED_PORT: u16 = 0x0b00;
/// ACPI power management timer, its rate and its width.
pub(crate) const PM_TIMER: u16 = 0x608;
const PM_TIMER_HZ: u64 = 3_579_545;
const PM_TIMER_MASK: u32 = 0xff_ffff;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    widths()?;
    registers()?;
    pic()?;
    pm_timer()
}

/// Reads at three widths. Bytes of a wide access go to consecutive ports, as on a real bus.
fn widths() -> Verdict {
    let unused = (in8(UNUSED_PORT), in16(UNUSED_PORT), in32(UNUSED_PORT));
    check!(
        unused == (0xff, 0xffff, 0xffff_ffff),
        "an unused port reads {unused:x?}"
    );
    let debug = (in8(DEBUG_PORT), in16(DEBUG_PORT), in32(DEBUG_PORT));
    say!("debug port reads {debug:x?}");
    check!(debug.0 == 0xe9, "port 0xe9 reads {debug:x?}");
    // Emulated machines differ where an access is wider than the device; ours splits it, as a bus does.
    let split = debug == (0xe9, 0xffe9, 0xffff_ffe9);
    check!(
        split || cpu::host() != Host::Godwit,
        "port 0xe9 reads {debug:x?}"
    );
    cpu::out16(UNUSED_PORT, 0x1234);
    cpu::out32(UNUSED_PORT, 0x1234_5678);
    check!(
        in16(UNUSED_PORT) == 0xffff,
        "an unused port keeps what is written"
    );
    Ok(())
}

code!(in_al_dx, "in al, dx");
code!(in_ax_dx, "in ax, dx");
code!(in_eax_dx, "in eax, dx");
code!(in_al_imm, "in al, 0xe9");
code!(out_dx_al, "out dx, al");
code!(out_dx_eax, "out dx, eax");

/// An 8 or 16 bit IN keeps the rest of RAX, a 32 bit IN clears its upper half; nothing else changes.
fn registers() -> Verdict {
    let cases: [(&str, exec::Code, u16, u64); 7] = [
        ("in al, dx", in_al_dx, DEBUG_PORT, 0xa5a5_0001_dead_00e9),
        ("in al, 0xe9", in_al_imm, DEBUG_PORT, 0xa5a5_0001_dead_00e9),
        (
            "in al, dx (unused)",
            in_al_dx,
            UNUSED_PORT,
            0xa5a5_0001_dead_00ff,
        ),
        (
            "in ax, dx (unused)",
            in_ax_dx,
            UNUSED_PORT,
            0xa5a5_0001_dead_ffff,
        ),
        ("in eax, dx (unused)", in_eax_dx, UNUSED_PORT, 0xffff_ffff),
        (
            "out dx, al (unused)",
            out_dx_al,
            UNUSED_PORT,
            0xa5a5_0001_dead_0001,
        ),
        (
            "out dx, eax (unused)",
            out_dx_eax,
            UNUSED_PORT,
            0xa5a5_0001_dead_0001,
        ),
    ];
    for (name, code, port, rax) in cases {
        let before = Registers {
            rdx: 0xa5a5_0004_dead_0000 | u64::from(port),
            ..Registers::pattern()
        };
        let mut after = before;
        if let Some(caught) = exec::run(&mut after, code) {
            fail!("{name} gave exception {}", caught.vector);
        }
        check!(
            after == Registers { rax, ..before },
            "{name}: RAX should be {rax:#x}, all else kept: {after:x?}"
        );
    }
    Ok(())
}

/// The 8259 pair: initialisation, masks, and the registers behind OCW3. Interrupts are off all the time.
fn pic() -> Verdict {
    // ICW1 (edge, cascade, ICW4), ICW2 (vectors 0x20 and 0x28), ICW3 (slave on line 2), ICW4 (8086 mode).
    for (command, data, words) in [
        (0x20, 0x21, [0x20, 0x04, 0x01]),
        (0xa0, 0xa1, [0x28, 0x02, 0x01]),
    ] {
        out8(command, 0x11);
        for word in words {
            out8(data, word);
        }
        check!(
            in8(data) == 0,
            "mask register {data:#x} is {:#x} after initialisation, not 0",
            in8(data)
        );
    }
    for pattern in [0xff, 0x00, 0xa5, 0x5a, 0xff] {
        out8(0x21, pattern);
        out8(0xa1, !pattern);
        let masks = (in8(0x21), in8(0xa1));
        check!(
            masks == (pattern, !pattern),
            "masks read {masks:x?} after writing {pattern:#x} and its complement"
        );
    }
    out8(0xa1, 0xff);
    for command in [0x20, 0xa0] {
        out8(command, 0x0b);
        let in_service = in8(command);
        out8(command, 0x0a);
        say!(
            "pic {command:#x} requests {:#x} in service {in_service:#x}",
            in8(command)
        );
        check!(
            in_service == 0,
            "pic {command:#x} has {in_service:#x} in service, nothing was delivered"
        );
    }
    Ok(())
}

/// The TSC's rate where CPUID gives it: leaf 0x15, or the hypervisor's timing leaf (kHz).
fn tsc_hz() -> Option<u64> {
    if cpuid(1, 0).ecx & 1 << 31 != 0 && cpuid(0x4000_0000, 0).eax >= 0x4000_0010 {
        return Some(u64::from(cpuid(0x4000_0010, 0).eax) * 1000).filter(|&hz| hz != 0);
    }
    let leaf = (cpuid(0, 0).eax >= 0x15).then(|| cpuid(0x15, 0))?;
    (leaf.eax != 0)
        .then(|| u64::from(leaf.ecx) * u64::from(leaf.ebx) / u64::from(leaf.eax))
        .filter(|&hz| hz != 0)
}

/// The timer runs forwards, within 24 bits, at its rate.
fn pm_timer() -> Verdict {
    /// About 50 ms.
    const SPAN_TICKS: u32 = PM_TIMER_HZ as u32 / 20;
    /// Steps after which a timer that stands still is found out.
    const READS_MAX: u32 = 100_000_000;
    if in32(PM_TIMER) == u32::MAX && cpu::host() == Host::Hardware {
        say!("skip: no timer at {PM_TIMER:#x} on this machine");
        return Ok(());
    }
    let (start, tsc_start) = (in32(PM_TIMER), cpu::tsc());
    let (mut last, mut elapsed, mut reads) = (start, 0u32, 0u32);
    while elapsed < SPAN_TICKS {
        let now = in32(PM_TIMER);
        check!(
            now & !PM_TIMER_MASK == 0,
            "the timer has more than 24 bits: {now:#x}"
        );
        let step = now.wrapping_sub(last) & PM_TIMER_MASK;
        check!(
            step < PM_TIMER_MASK / 2,
            "the timer ran backwards: {last:#x} then {now:#x}"
        );
        elapsed += step;
        last = now;
        reads += 1;
        check!(reads < READS_MAX, "the timer stands still at {now:#x}");
    }
    let tsc_elapsed = cpu::tsc() - tsc_start;
    let measured_hz = tsc_elapsed as u128 * u128::from(PM_TIMER_HZ) / u128::from(elapsed);
    say!(
        "pm timer: {elapsed} ticks in {reads} reads, {tsc_elapsed} tsc ticks: tsc {measured_hz} Hz"
    );
    if let Some(hz) = tsc_hz() {
        let error_percent = measured_hz.abs_diff(u128::from(hz)) * 100 / u128::from(hz);
        say!("cpuid says tsc {hz} Hz: {error_percent} % off");
        check!(
            error_percent <= 3,
            "the timer is {error_percent} % off the TSC rate CPUID gives ({hz} Hz)"
        );
    } else {
        say!("skip: cpuid does not give the tsc's rate");
    }
    Ok(())
}
