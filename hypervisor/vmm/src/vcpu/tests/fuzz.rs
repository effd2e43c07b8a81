//! Whatever the hardware reports and whatever is in the registers: no panic, and the invariants of
//! what comes of it.

use super::*;
use crate::devices::ports::Width;
use crate::exit::{ControlAccess, NestedFault, PortAccess};
use crate::hardware::{Control, SegmentName, SwitchedMsr};
use crate::walk::GuestMemory;
use alloc::vec;
use alloc::vec::Vec;
use godwit_records::{Segment, Shadow};
use proptest::prelude::*;

fn lengths() -> impl Strategy<Value = Length> {
    (0..16u8).prop_map(NonZeroU8::new)
}

fn accesses() -> impl Strategy<Value = ControlAccess> {
    let register = 0..16u8;
    prop_oneof![
        register.clone().prop_map(ControlAccess::WriteCr0),
        register.clone().prop_map(ControlAccess::WriteCr4),
        register.clone().prop_map(ControlAccess::WriteCr8),
        register.prop_map(ControlAccess::ReadCr8),
        Just(ControlAccess::WriteUndecoded),
        Just(ControlAccess::Clts),
        any::<u16>().prop_map(ControlAccess::Lmsw),
    ]
}

fn ports() -> impl Strategy<Value = PortAccess> {
    let port = prop_oneof![
        4 => prop::sample::select(vec![0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0xe9, 0x64, 0xcf9, 0x600, 0x602, 0x604, 0x608]),
        1 => any::<u16>()
    ];
    let width = prop::sample::select(vec![Width::Byte, Width::Word, Width::Dword]);
    (
        port,
        width,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        lengths(),
    )
        .prop_map(|(port, width, input, string, repeat, length)| PortAccess {
            port,
            width,
            input,
            string,
            repeat,
            length,
        })
}

/// All but the two that only a bug of ours can cause.
fn exits() -> impl Strategy<Value = Exit> {
    prop_oneof![
        1 => lengths().prop_map(Exit::Cpuid),
        3 => lengths().prop_map(Exit::Rdmsr),
        6 => lengths().prop_map(Exit::Wrmsr),
        1 => lengths().prop_map(Exit::Hlt),
        1 => lengths().prop_map(Exit::Hypercall),
        6 => ports().prop_map(Exit::Port),
        1 => (any::<u64>(), any::<[bool; 4]>()).prop_map(|(gpa, [read, write, fetch, mapped])| {
            Exit::Nested(NestedFault { gpa, read, write, fetch, mapped })
        }),
        1 => Just(Exit::HostInterrupt),
        1 => Just(Exit::HostNmi),
        1 => Just(Exit::Deadline),
        1 => Just(Exit::InterruptWindow),
        1 => Just(Exit::NmiWindow),
        4 => (accesses(), lengths()).prop_map(|(access, length)| Exit::Control(access, length)),
        1 => lengths().prop_map(Exit::Xsetbv),
        1 => lengths().prop_map(Exit::CacheFlush),
        1 => lengths().prop_map(Exit::Pause),
        1 => Just(Exit::Forbidden),
        // A machine check is the host's end.
        1 => any::<(u8, Option<u32>)>().prop_map(|(vector, code)| Exit::Exception(if vector == 18 { 17 } else { vector }, code)),
        1 => Just(Exit::TripleFault),
        1 => Just(Exit::Startup),
        1 => Just(Exit::TaskSwitch),
        1 => any::<(u64, u64)>().prop_map(|(code, detail)| Exit::EntryFailed { code, detail }),
        1 => any::<(u64, u64)>().prop_map(|(code, detail)| Exit::Unknown { code, detail }),
    ]
}

/// Values that mean something, and any.
fn values() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0..0x1_0000u64,
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..64u32).prop_map(|bits| u64::MAX >> bits),
        prop::sample::select(vec![
            0x10,
            0x1b,
            0x3b,
            0x6e0,
            0x808,
            0x80b,
            0x80f,
            0x830,
            0x832,
            0x835,
            0x838,
            0x83e,
            0x83f,
            0xc000_0080,
            0xc000_0103,
            0x277
        ]),
    ]
}

#[derive(Debug, Clone)]
struct Step {
    exit: Exit,
    gprs: [u64; 16],
    word: u64,
    what: u8,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let gprs = prop::collection::vec(values(), 16)
        .prop_map(|values| <[u64; 16]>::try_from(values).expect("sixteen"));
    let step = (exits(), gprs, values(), any::<u8>()).prop_map(|(exit, gprs, word, what)| Step {
        exit,
        gprs,
        word,
        what,
    });
    prop::collection::vec(step, 1..30)
}

/// Changes something that the guest can change without an exit.
fn disturb(machine: &mut Machine, step: &Step) {
    let hardware = &mut machine.hardware;
    match step.what % 16 {
        0 => hardware.set_rip(step.word),
        1 => hardware.set_rflags(step.word | 2),
        2 => hardware.set_control(Control::Cr3, step.word),
        3 => hardware.set_control(Control::Cr0, step.word),
        4 => hardware.set_control(Control::Cr4, step.word),
        5 => hardware.set_msr(SwitchedMsr::Efer, step.word & 0xd01),
        6 => hardware.set_segment(
            SegmentName::Cs,
            Segment::new(0, step.word, u32::MAX, step.word as u16),
        ),
        7 => hardware.set_segment(
            SegmentName::Ss,
            Segment::new(0, step.word, u32::MAX, step.word as u16),
        ),
        8 => hardware.set_segment(
            SegmentName::Es,
            Segment::new(0, step.word, 0, step.word as u16),
        ),
        9 => hardware.set_shadow(Shadow::Sti),
        10 => machine.vcpu.raise_nmi(),
        11 => machine
            .world
            .host_tsc
            .set(machine.world.host_tsc.get().wrapping_add(step.word)),
        12 => drop(
            machine
                .world
                .write(step.word & 0xff_ffff, &step.gprs[0].to_le_bytes()),
        ),
        13 => hardware.iret(),
        14 => hardware.set_rsp(step.word),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_panics(steps in steps(), keeps_tpr: bool, control: bool) {
        let mut machine = Machine::new(if control { Access::Control } else { Access::Any }, keeps_tpr);
        for step in steps {
            disturb(&mut machine, &step);
            *machine.hardware.gprs_mut() = step.gprs;
            match machine.exit(step.exit) {
                Next::End(_) => break,
                Next::Wait if !machine.vcpu.has_work(&mut machine.world) => {
                    // An NMI or a kick would come; the run loop enters only with work.
                    machine.vcpu.raise_nmi();
                    prop_assert!(machine.vcpu.has_work(&mut machine.world), "no NMI ends this wait");
                }
                Next::Wait | Next::Enter | Next::Interrupted | Next::Yield => {}
            }
            machine.vcpu.before_entry(&mut machine.hardware, &mut machine.world);
            // An event is pending, or a window is asked for, or nothing is deliverable.
            let allowed = machine.hardware.interrupt_allowed();
            prop_assert!(!allowed || machine.vcpu.lapic.pending().is_none());
            prop_assert!(machine.vcpu.lapic.pending().is_none() || machine.hardware.interrupt_window());
            let _delivered = machine.hardware.take_event();
        }
    }
}
