//! `cpuid`: leaves are consistent with each other and with the machine, and the exit changes nothing else.

use crate::command_line::Arguments;
use crate::cpu::{self, Host, cpuid};
use crate::exec::{self, Registers};
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{apic, check, code, fail, say};

code!(cpuid_code, "cpuid");

/// How often results must repeat.
const REPEATS: u32 = 1000;
/// No CPU has more leaves than this in a range.
const LEAVES_MAX: u32 = 0x40;

pub(crate) fn run(_: &StartInfo, _: &Arguments) -> Verdict {
    ranges()?;
    features()?;
    registers()?;
    stable()?;
    apic_id()?;
    xsave()?;
    topology()
}

/// Walks the three ranges.
fn ranges() -> Verdict {
    for base in [0, 0x4000_0000, 0x8000_0000u32] {
        let last = cpuid(base, 0).eax;
        if base == 0x4000_0000 && cpuid(1, 0).ecx & 1 << 31 == 0 {
            continue;
        }
        // A hypervisor with only its signature leaf may give 0 as the last leaf.
        let bounded =
            (base..base + LEAVES_MAX).contains(&last) || (base == 0x4000_0000 && last == 0);
        check!(bounded, "range {base:#x} ends at leaf {last:#x}");
        for leaf in base..=last.max(base) {
            let found = cpuid(leaf, 0);
            say!(
                "leaf {leaf:#010x} {:08x} {:08x} {:08x} {:08x}",
                found.eax,
                found.ebx,
                found.ecx,
                found.edx
            );
        }
    }
    check!(cpuid(0, 0).eax >= 1, "no leaf 1");
    Ok(())
}

/// Hypervisor bit and signature; no virtualization extension is offered to a guest; OSXSAVE follows CR4.
fn features() -> Verdict {
    let host = cpu::host();
    let (leaf1, extended) = (cpuid(1, 0), cpuid(0x8000_0001, 0));
    let (vmx, svm) = (leaf1.ecx >> 5 & 1, extended.ecx >> 2 & 1);
    say!(
        "host {host:?} hypervisor bit {} vmx {vmx} svm {svm}",
        leaf1.ecx >> 31
    );
    if host == Host::Godwit {
        check!(
            vmx == 0 && svm == 0,
            "virtualization is offered to a guest: vmx {vmx} svm {svm}"
        );
        check!(
            cpuid(0x4000_0000, 0).eax >= 0x4000_0000,
            "hypervisor leaf does not give its range"
        );
        check!(
            leaf1.ecx & 1 << 21 != 0,
            "no x2APIC, which the platform promises"
        );
        check!(
            leaf1.ecx & 1 << 24 != 0,
            "no TSC-deadline timer, which the platform promises"
        );
    }
    check!(
        extended.edx & 1 << 29 != 0,
        "no long mode, while running in it"
    );
    if leaf1.ecx & 1 << 26 == 0 {
        return Ok(());
    }
    // SAFETY: nothing uses XSAVE or AVX state in between.
    unsafe { cpu::write_cr4(cpu::cr4() & !cpu::CR4_OSXSAVE) };
    let without = cpuid(1, 0).ecx >> 27 & 1;
    // SAFETY: as `enable_features` had set it; XCR0 keeps its value.
    unsafe { cpu::write_cr4(cpu::cr4() | cpu::CR4_OSXSAVE) };
    let with = cpuid(1, 0).ecx >> 27 & 1;
    check!(
        without == 0 && with == 1,
        "OSXSAVE does not follow CR4: {without} without, {with} with"
    );
    Ok(())
}

/// The exit writes EAX to EDX, clears their upper halves, and leaves every other register and flag.
fn registers() -> Verdict {
    for leaf in [
        0,
        1,
        7,
        0xd,
        0x4000_0000,
        0x8000_0000,
        0x8000_0008,
        0x1234_5678u32,
    ] {
        let before = Registers {
            rax: 0xffff_ffff_0000_0000 | u64::from(leaf),
            rcx: 0xffff_ffff_0000_0000,
            ..Registers::pattern()
        };
        let mut after = before;
        if let Some(caught) = exec::run(&mut after, cpuid_code) {
            fail!("leaf {leaf:#x} gave exception {}", caught.vector);
        }
        let direct = cpuid(leaf, 0);
        let Registers {
            rax, rbx, rcx, rdx, ..
        } = after;
        check!(
            rax == u64::from(direct.eax)
                && rcx == u64::from(direct.ecx)
                && rdx == u64::from(direct.edx),
            "leaf {leaf:#x} differs: {after:x?}"
        );
        check!(
            rbx >> 32 == 0,
            "leaf {leaf:#x} leaves RBX's upper half: {rbx:#x}"
        );
        // Leaf 1 has no changing bits in EBX on one CPU.
        check!(rbx == u64::from(direct.ebx), "leaf {leaf:#x} EBX {rbx:#x}");
        let kept = Registers {
            rax,
            rbx,
            rcx,
            rdx,
            ..before
        };
        check!(
            after == kept,
            "leaf {leaf:#x} changed another register: {after:x?}"
        );
    }
    Ok(())
}

fn stable() -> Verdict {
    for leaf in [0, 1, 7, 0xb, 0x4000_0000, 0x8000_0001u32] {
        let first = cpuid(leaf, 0);
        for round in 1..REPEATS {
            check!(
                cpuid(leaf, 0) == first,
                "leaf {leaf:#x} changed in round {round}"
            );
        }
    }
    say!("stable over {REPEATS} calls");
    Ok(())
}

/// Leaf 1's initial APIC id is the APIC's.
fn apic_id() -> Verdict {
    let initial = cpuid(1, 0).ebx >> 24;
    let x2apic = apic::enable();
    let id = if x2apic {
        apic::read(apic::ID) & 0xff
    } else {
        apic::read(apic::ID) >> 24
    };
    say!("apic id {id} x2apic {x2apic}");
    check!(
        initial == id,
        "leaf 1 gives APIC id {initial}, the APIC {id}"
    );
    Ok(())
}

/// Leaf 0xD: the area's size follows from the components enabled in XCR0.
fn xsave() -> Verdict {
    if cpuid(1, 0).ecx & 1 << 26 == 0 {
        say!("no XSAVE");
        return Ok(());
    }
    let main = cpuid(0xd, 0);
    let offered = u64::from(main.edx) << 32 | u64::from(main.eax);
    let enabled = cpu::xcr0();
    check!(offered & 3 == 3, "XSAVE without x87 and SSE: {offered:#x}");
    check!(
        enabled & !offered == 0,
        "XCR0 {enabled:#x} has bits leaf 0xD does not offer ({offered:#x})"
    );
    let size_of = |components: u64| {
        (2..63)
            .filter(|bit| components & 1 << bit != 0)
            .fold(576, |size, bit| {
                let component = cpuid(0xd, bit);
                size.max(component.eax + component.ebx)
            })
    };
    let (now, most) = (size_of(enabled), size_of(offered));
    say!(
        "xcr0 {enabled:#x} of {offered:#x}, area {} of {}",
        main.ebx,
        main.ecx
    );
    check!(
        main.ebx == now,
        "leaf 0xD EBX {} but XCR0's components need {now}",
        main.ebx
    );
    check!(
        main.ecx == most,
        "leaf 0xD ECX {} but all components need {most}",
        main.ecx
    );
    Ok(())
}

/// Leaf 0xB: levels 1, 2, then none; the same x2APIC id everywhere.
fn topology() -> Verdict {
    if cpuid(0, 0).eax < 0xb || cpuid(0xb, 0).ebx == 0 {
        say!("no topology leaf");
        return Ok(());
    }
    let id = cpuid(0xb, 0).edx;
    check!(
        id & 0xff == cpuid(1, 0).ebx >> 24,
        "leaf 0xB id {id} is not leaf 1's"
    );
    for (subleaf, kind) in [(0, 1), (1, 2), (2, 0)] {
        let level = cpuid(0xb, subleaf);
        say!(
            "topology level {subleaf}: shift {} cpus {} type {}",
            level.eax,
            level.ebx,
            level.ecx >> 8 & 0xff
        );
        check!(
            level.ecx & 0xff == subleaf,
            "subleaf {subleaf} does not return its number: {:#x}",
            level.ecx
        );
        check!(
            // Bochs with one CPU says that it has no levels.
            level.ecx >> 8 & 0xff == kind || cpu::host() == Host::Hardware,
            "subleaf {subleaf} has type {:#x}, not {kind}",
            level.ecx >> 8
        );
        check!(level.edx == id, "subleaf {subleaf} has id {}", level.edx);
    }
    Ok(())
}
