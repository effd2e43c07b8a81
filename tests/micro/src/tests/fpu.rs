//! `fpu`: all x87, XMM, YMM and (where offered) ZMM state survives whatever happens between two looks.
//!
//! Two domains with different seeds, run side by side, would see each other's registers if the hypervisor
//! mixed them up. Between filling and looking a round spins, exits or halts.

use crate::apic::{self, TimerMode};
use crate::command_line::Arguments;
use crate::cpu::{self, Random, cpuid};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, say, skip};
use core::arch::naked_asm;

/// Rounds unless `iters=` says otherwise; a line is printed every so many.
const ROUNDS_DEFAULT: u64 = 1000;
const ROUNDS_PER_LINE: u64 = 500;
/// How long a round waits, in time-stamp ticks.
const SPIN_TSC: u64 = 200_000;
const TIMER_VECTOR: u8 = 0x50;

/// What is loaded and stored, at the offsets the assembly uses.
#[repr(C, align(64))]
#[derive(Clone, PartialEq, Eq)]
struct State {
    /// 32 registers of 64 bytes; the upper parts and the upper 16 are used as far as the CPU goes.
    vectors: [[u64; 8]; 32],
    /// Opmask registers (offset 2048).
    masks: [u64; 8],
    /// x87 registers as integers, which they hold exactly (offset 2112).
    x87: [u64; 8],
    /// MXCSR (offset 2176) and x87 control word (offset 2180).
    mxcsr: u32,
    x87_control: u32,
}

macro_rules! vector_pair {
    ($load:ident, $store:ident, [$($load_line:literal),*], [$($store_line:literal),*]) => {
        /// Loads all registers of this width, then x87 and MXCSR.
        #[unsafe(naked)]
        unsafe extern "C" fn $load(state: *const State) {
            naked_asm!(
                $($load_line,)*
                "fninit", "fldcw [rdi + 2180]", "ldmxcsr [rdi + 2176]",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7", "fild qword ptr [rdi + 2112 + 8 * \\i]", ".endr",
                "ret",
            )
        }
        /// Stores what `load` loaded; empties the x87 stack.
        #[unsafe(naked)]
        unsafe extern "C" fn $store(state: *mut State) {
            naked_asm!(
                $($store_line,)*
                "fnstcw [rdi + 2180]", "stmxcsr [rdi + 2176]",
                ".irp i, 7, 6, 5, 4, 3, 2, 1, 0", "fistp qword ptr [rdi + 2112 + 8 * \\i]", ".endr",
                "ret",
            )
        }
    };
}
vector_pair!(
    load_xmm,
    store_xmm,
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movdqu xmm\\i, [rdi + 64 * \\i]",
        ".endr"
    ],
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movdqu [rdi + 64 * \\i], xmm\\i",
        ".endr"
    ]
);
vector_pair!(
    load_ymm,
    store_ymm,
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vmovdqu ymm\\i, [rdi + 64 * \\i]",
        ".endr"
    ],
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "vmovdqu [rdi + 64 * \\i], ymm\\i",
        ".endr"
    ]
);
vector_pair!(
    load_zmm,
    store_zmm,
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "vmovdqu64 zmm\\i, [rdi + 64 * \\i]",
        ".endr",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovw k\\i, [rdi + 2048 + 8 * \\i]",
        ".endr"
    ],
    [
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "vmovdqu64 [rdi + 64 * \\i], zmm\\i",
        ".endr",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7",
        "kmovw [rdi + 2048 + 8 * \\i], k\\i",
        ".endr"
    ]
);

/// How wide the vector registers are.
#[derive(Clone, Copy, Debug)]
enum Width {
    Xmm,
    Ymm,
    Zmm,
}

fn width() -> Width {
    let xcr0 = if cpu::cr4() & cpu::CR4_OSXSAVE != 0 {
        cpu::xcr0()
    } else {
        3
    };
    let avx = xcr0 & 4 != 0 && cpuid(1, 0).ecx & 1 << 28 != 0;
    let avx512 = xcr0 & 0xe0 == 0xe0 && cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 1 << 16 != 0;
    match (avx, avx512) {
        (true, true) => Width::Zmm,
        (true, false) => Width::Ymm,
        (false, _) => Width::Xmm,
    }
}

/// A state derived from the random numbers; what this width does not reach is 0.
fn pattern(random: &mut Random, width: Width) -> State {
    let (registers, words, masks) = match width {
        Width::Xmm => (16, 2, 0),
        Width::Ymm => (16, 4, 0),
        Width::Zmm => (32, 8, 8),
    };
    let mut state = State {
        vectors: [[0; 8]; 32],
        masks: [0; 8],
        x87: [0; 8],
        mxcsr: 0,
        x87_control: 0,
    };
    for register in &mut state.vectors[..registers] {
        register[..words].fill_with(|| random.next());
    }
    state.masks[..masks].fill_with(|| random.next() & 0xffff);
    state.x87.fill_with(|| random.next());
    // All exceptions masked; rounding mode (and flush to zero) vary.
    let modes = random.next() as u32;
    state.mxcsr = 0x1f80 | (modes & 7) << 13;
    state.x87_control = 0x37f | (modes >> 3 & 3) << 10;
    state
}

pub(crate) fn run(_: &StartInfo, arguments: &Arguments) -> Verdict {
    if cpuid(1, 0).edx & 1 << 26 == 0 {
        skip!("no SSE2");
    }
    let (seed, rounds) = (
        arguments.seed.unwrap_or(1),
        arguments.iters.unwrap_or(ROUNDS_DEFAULT),
    );
    let width = width();
    say!("seed {seed} rounds {rounds} width {width:?}");
    let (load, store): (
        unsafe extern "C" fn(*const State),
        unsafe extern "C" fn(*mut State),
    ) = match width {
        Width::Xmm => (load_xmm, store_xmm),
        Width::Ymm => (load_ymm, store_ymm),
        Width::Zmm => (load_zmm, store_zmm),
    };
    apic::enable();
    let (timer_ticks, tsc_ticks) = apic::measure_timer(SPIN_TSC * 10);
    let halt_ticks = (SPIN_TSC * timer_ticks / tsc_ticks).max(1) as u32;
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let expected = pattern(&mut random, width);
        let mut found = State {
            vectors: [[0; 8]; 32],
            masks: [0; 8],
            x87: [0; 8],
            mxcsr: 0,
            x87_control: 0,
        };
        // SAFETY: `width` says these registers exist and are enabled; the soft-float program uses none of them,
        // and both states are as large as the offsets used.
        unsafe {
            load(&raw const expected);
            disturb(round, halt_ticks);
            store(&raw mut found);
        }
        compare(round, &expected, &found)?;
        if (round + 1) % ROUNDS_PER_LINE == 0 {
            say!("fpu seed {seed}: {} rounds", round + 1);
        }
    }
    Ok(())
}

/// Spins, exits or halts, in turn.
fn disturb(round: u64, halt_ticks: u32) {
    match round % 3 {
        0 => {
            let start = cpu::tsc();
            while cpu::tsc() - start < SPIN_TSC {
                core::hint::spin_loop();
            }
        }
        1 => {
            for _ in 0..4 {
                cpuid(0, 0);
                cpu::in8(0x21);
            }
        }
        _ => {
            apic::prepare_timer(TimerMode::OneShot, TIMER_VECTOR);
            apic::write(apic::TIMER_INITIAL, halt_ticks);
            cpu::halt_once();
        }
    }
}

fn compare(round: u64, expected: &State, found: &State) -> Verdict {
    for (register, (expected, found)) in expected.vectors.iter().zip(&found.vectors).enumerate() {
        check!(
            expected == found,
            "round {round}: vector register {register} is {found:x?}, not {expected:x?}"
        );
    }
    check!(
        expected.masks == found.masks,
        "round {round}: opmasks are {:x?}, not {:x?}",
        found.masks,
        expected.masks
    );
    check!(
        expected.x87 == found.x87,
        "round {round}: x87 registers are {:x?}, not {:x?}",
        found.x87,
        expected.x87
    );
    check!(
        expected.mxcsr == found.mxcsr,
        "round {round}: MXCSR is {:#x}, not {:#x}",
        found.mxcsr,
        expected.mxcsr
    );
    let control = (expected.x87_control, found.x87_control);
    check!(
        control.0 == control.1,
        "round {round}: x87 control word is {:#x}, not {:#x}",
        control.1,
        control.0
    );
    Ok(())
}
