//! `msr`: registers keep what they are given, refuse what they must, and the exit changes nothing else.

use crate::command_line::Arguments;
use crate::cpu::{self, Host, MSR_EFER, cpuid};
use crate::exec::{self, read_msr, write_msr};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{apic, check, fail, say};

const TSC: u32 = 0x10;
const TSC_ADJUST: u32 = 0x3b;
const PAT: u32 = 0x277;
const MTRR_CAPABILITY: u32 = 0xfe;
const MTRR_DEFAULT: u32 = 0x2ff;
const LSTAR: u32 = 0xc000_0082;
/// No CPU has it.
const NOWHERE: u32 = 0xdead;
const GENERAL_PROTECTION: u64 = 13;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    // TCG reads unknown MSRs as 0 and drops writes it does not like; everyone else answers with #GP.
    let exact = cpu::host() != Host::Tcg;
    if !exact {
        say!("skip: refusals are not checked, this emulator does not make them");
    }
    round_trips()?;
    apic_base(exact)?;
    time_stamp(exact)?;
    efer(exact)?;
    memory_types()?;
    if exact {
        refusals()?;
    }
    preserved()
}

/// Reads, or fails the test.
macro_rules! read {
    ($name:expr, $msr:expr) => {
        match read_msr($msr) {
            Ok(value) => value,
            Err(caught) => fail!("reading {} gave exception {}", $name, caught.vector),
        }
    };
}

/// The write must give #GP(0).
fn refused(name: &str, msr: u32, value: u64) -> Verdict {
    match write_msr(msr, value) {
        Err(caught) if caught.vector == GENERAL_PROTECTION && caught.error == 0 => Ok(()),
        Err(caught) => fail!(
            "writing {value:#x} to {name} gave exception {} error {:#x}",
            caught.vector,
            caught.error
        ),
        Ok(()) => fail!("writing {value:#x} to {name} was not refused"),
    }
}

/// System call, segment base and SYSENTER registers hold any valid value.
fn round_trips() -> Verdict {
    const REGISTERS: [(&str, u32, [u64; 2]); 9] = [
        (
            "STAR",
            0xc000_0081,
            [0x0013_0008_0000_0000, 0x0023_0010_0000_0000],
        ),
        (
            "LSTAR",
            LSTAR,
            [0xffff_8000_1234_5678, 0x0000_7fff_0000_1000],
        ),
        ("CSTAR", 0xc000_0083, [0xffff_8000_8765_4321, 0x1000]),
        ("FMASK", 0xc000_0084, [0x4_7700, 0x0004_0200]),
        (
            "FS_BASE",
            0xc000_0100,
            [0xffff_8800_0000_0000, 0x0000_7000_dead_0000],
        ),
        (
            "GS_BASE",
            0xc000_0101,
            [0xffff_8900_0000_0000, 0x0000_7001_dead_0000],
        ),
        (
            "KERNEL_GS_BASE",
            0xc000_0102,
            [0xffff_8a00_0000_0000, 0x0000_7002_dead_0000],
        ),
        ("SYSENTER_ESP", 0x175, [0xffff_8b00_0000_0008, 0x8000]),
        ("SYSENTER_EIP", 0x176, [0xffff_8c00_0000_0010, 0x9000]),
    ];
    // All first values, then all reads: a register that aliases another shows.
    for choice in 0..2 {
        for (name, msr, values) in REGISTERS {
            if let Err(caught) = write_msr(msr, values[choice]) {
                fail!(
                    "writing {:#x} to {name} gave exception {}",
                    values[choice],
                    caught.vector
                );
            }
        }
        for (name, msr, values) in REGISTERS {
            let found = read!(name, msr);
            check!(
                found == values[choice],
                "{name} holds {found:#x} after writing {:#x}",
                values[choice]
            );
        }
    }
    for value in [0x18, 0] {
        if write_msr(0x174, value).is_err() || read!("SYSENTER_CS", 0x174) != value {
            fail!("SYSENTER_CS does not hold {value:#x}");
        }
    }
    for (name, msr, _) in REGISTERS {
        if write_msr(msr, 0).is_err() {
            fail!("writing 0 to {name} is refused");
        }
    }
    say!("round trips: {} registers", REGISTERS.len() + 1);
    Ok(())
}

fn apic_base(exact: bool) -> Verdict {
    let base = read!("APIC_BASE", apic::MSR_APIC_BASE);
    say!("APIC_BASE {base:#x}");
    check!(
        base & 0xf_ffff_f000 == 0xfee0_0000,
        "APIC base is {base:#x}"
    );
    check!(
        base & 1 << 8 != 0,
        "the only CPU is not the bootstrap processor: {base:#x}"
    );
    check!(base & 1 << 11 != 0, "the APIC is off: {base:#x}");
    let x2apic = apic::enable();
    let enabled = read!("APIC_BASE", apic::MSR_APIC_BASE);
    check!(
        (enabled & 1 << 10 != 0) == x2apic,
        "x2APIC enable reads back as {enabled:#x}"
    );
    if x2apic {
        let id = read!("x2APIC ID", apic::X2APIC_MSR_BASE + apic::ID);
        check!(
            id as u32 & 0xff == cpuid(1, 0).ebx >> 24,
            "x2APIC id {id:#x} is not CPUID's"
        );
        apic::write(apic::TPR, 0x50);
        let tpr = read!("x2APIC TPR", apic::X2APIC_MSR_BASE + apic::TPR);
        apic::write(apic::TPR, 0);
        check!(tpr == 0x50, "TPR reads {tpr:#x} after writing 0x50");
    }
    if exact {
        refused(
            "APIC_BASE (reserved bit 0)",
            apic::MSR_APIC_BASE,
            enabled | 1,
        )?;
        refused(
            "APIC_BASE (reserved bit 63)",
            apic::MSR_APIC_BASE,
            enabled | 1 << 63,
        )?;
        if x2apic {
            refused(
                "APIC_BASE (x2APIC to xAPIC)",
                apic::MSR_APIC_BASE,
                enabled & !(1 << 10),
            )?;
            refused("x2APIC ID (read only)", apic::X2APIC_MSR_BASE + apic::ID, 1)?;
            refused(
                "x2APIC TPR (reserved bits)",
                apic::X2APIC_MSR_BASE + apic::TPR,
                0x100,
            )?;
        }
    }
    Ok(())
}

/// RDMSR of the TSC is RDTSC; a write moves it, and TSC_ADJUST with it.
fn time_stamp(exact: bool) -> Verdict {
    /// Far more than the test takes.
    const JUMP: u64 = 1 << 40;
    if !exact {
        return Ok(());
    }
    let before = cpu::tsc();
    let by_msr = read!("TSC", TSC);
    let after = cpu::tsc();
    check!(
        (before..=after).contains(&by_msr),
        "TSC MSR {by_msr} is not between RDTSCs {before} and {after}"
    );
    let has_adjust = cpuid(0, 0).eax >= 7 && cpuid(7, 0).ebx & 2 != 0;
    let adjust = if has_adjust {
        read!("TSC_ADJUST", TSC_ADJUST)
    } else {
        0
    };
    if let Err(caught) = write_msr(TSC, cpu::tsc() + JUMP) {
        fail!("writing the TSC gave exception {}", caught.vector);
    }
    let jumped = cpu::tsc();
    check!(
        (after + JUMP..after + JUMP + JUMP / 2).contains(&jumped),
        "after a jump of {JUMP}: {after} then {jumped}"
    );
    if has_adjust {
        let moved = read!("TSC_ADJUST", TSC_ADJUST).wrapping_sub(adjust);
        say!("TSC_ADJUST {adjust:#x} moved by {moved:#x}");
        check!(
            (JUMP - (1 << 30)..JUMP + (1 << 30)).contains(&moved),
            "TSC_ADJUST moved by {moved:#x}, not {JUMP:#x}"
        );
        if let Err(caught) = write_msr(TSC_ADJUST, adjust) {
            fail!("writing TSC_ADJUST gave exception {}", caught.vector);
        }
    } else if write_msr(TSC, cpu::tsc() - JUMP).is_err() {
        fail!("setting the TSC back is refused");
    }
    let back = cpu::tsc();
    check!(
        (after..after + JUMP / 2).contains(&back),
        "set back: {after} then {back}"
    );
    Ok(())
}

fn efer(exact: bool) -> Verdict {
    const LME_LMA: u64 = 1 << 8 | 1 << 10;
    let efer = read!("EFER", MSR_EFER);
    check!(
        efer & LME_LMA == LME_LMA,
        "EFER {efer:#x} lacks LME or LMA in long mode"
    );
    for value in [efer ^ 1, efer] {
        if write_msr(MSR_EFER, value).is_err() {
            fail!("EFER refuses {value:#x}");
        }
        let found = read!("EFER", MSR_EFER);
        check!(
            found == value,
            "EFER holds {found:#x} after writing {value:#x}"
        );
    }
    if exact {
        refused("EFER (reserved bit 1)", MSR_EFER, efer | 2)?;
        refused("EFER (reserved bit 63)", MSR_EFER, efer | 1 << 63)?;
        refused("EFER (LME while paging)", MSR_EFER, efer & !(1 << 8))?;
        if cpu::host() == Host::Godwit {
            refused("EFER (SVME, not offered)", MSR_EFER, efer | 1 << 12)?;
        }
        check!(
            read!("EFER", MSR_EFER) == efer,
            "a refused write has changed EFER"
        );
    }
    Ok(())
}

/// PAT and, where offered, the MTRR registers.
fn memory_types() -> Verdict {
    let pat = read!("PAT", PAT);
    say!("PAT {pat:#018x}");
    for value in [0x0001_0406_0005_0406, pat] {
        if write_msr(PAT, value).is_err() || read!("PAT", PAT) != value {
            fail!("PAT does not hold {value:#x}");
        }
    }
    if cpu::is_cpu_exact() {
        refused("PAT (type 2)", PAT, pat & !0xff | 2)?;
        check!(read!("PAT", PAT) == pat, "a refused write has changed PAT");
    }
    if cpuid(1, 0).edx & 1 << 12 != 0 {
        say!(
            "MTRR capability {:#x} default {:#x}",
            read!("MTRR capability", MTRR_CAPABILITY),
            read!("MTRR default", MTRR_DEFAULT)
        );
    }
    Ok(())
}

/// Registers that do not exist, or not for a guest; addresses that are none.
fn refusals() -> Verdict {
    let mut absent = [("NOWHERE", NOWHERE); 3];
    // Bare CPUs may keep registers of an extension they do not announce; a guest has none of either.
    let is_guest = cpu::host() == Host::Godwit;
    if is_guest && cpuid(1, 0).ecx & 1 << 5 == 0 {
        absent[1] = ("VMX_BASIC", 0x480);
    }
    if is_guest && cpuid(0x8000_0001, 0).ecx & 1 << 2 == 0 {
        absent[2] = ("VM_HSAVE_PA", 0xc001_0117);
    }
    for (name, msr) in absent {
        match read_msr(msr) {
            Ok(value) => fail!("{name} ({msr:#x}) reads {value:#x}, should not exist"),
            Err(caught) => check!(
                caught.vector == GENERAL_PROTECTION && caught.error == 0,
                "reading {name} gave exception {} error {:#x}",
                caught.vector,
                caught.error
            ),
        }
        refused(name, msr, 0)?;
    }
    if !cpu::is_cpu_exact() {
        return Ok(());
    }
    refused("LSTAR (not canonical)", LSTAR, 0x8000_0000_0000_0000)?;
    refused(
        "KERNEL_GS_BASE (not canonical)",
        0xc000_0102,
        0x0000_8000_0000_0000,
    )?;
    // AMD CPUs keep 32 bits of the SYSENTER registers and do not look at the rest (APM 2 6.1.2).
    if cpu::vendor() == cpu::Vendor::Intel {
        refused("SYSENTER_EIP (not canonical)", 0x176, 0x0000_8000_0000_0000)?;
    }
    Ok(())
}

/// RDMSR writes EAX and EDX with upper halves cleared; WRMSR changes no register.
fn preserved() -> Verdict {
    crate::code!(rdmsr_code, "rdmsr");
    crate::code!(wrmsr_code, "wrmsr");
    let before = exec::Registers {
        rcx: 0xffff_ffff_0000_0000 | u64::from(PAT),
        ..exec::Registers::pattern()
    };
    let mut read = before;
    if exec::run(&mut read, rdmsr_code).is_some() {
        fail!("RDMSR of the PAT faulted");
    }
    check!(
        read.rax >> 32 == 0 && read.rdx >> 32 == 0,
        "RDMSR left upper halves: {read:x?}"
    );
    check!(
        read == exec::Registers {
            rax: read.rax,
            rdx: read.rdx,
            ..before
        },
        "RDMSR changed another register: {read:x?}"
    );
    let mut written = exec::Registers {
        rax: read.rax | 0xffff_ffff << 32,
        rdx: read.rdx | 0xffff_ffff << 32,
        ..before
    };
    let expected = written;
    if exec::run(&mut written, wrmsr_code).is_some() {
        fail!("WRMSR of the PAT faulted");
    }
    check!(
        written == expected,
        "WRMSR changed a register: {written:x?}"
    );
    Ok(())
}
