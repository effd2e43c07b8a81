//! Laws of the local APIC over random programs: it never panics, and a restored APIC has the same future.

extern crate std;

use super::*;
use crate::devices::GuestFault;
use proptest::prelude::*;

const RATE: TscRate = TscRate::from_hz(2_500_000_000).unwrap();

#[derive(Clone, Copy, Debug)]
enum Op {
    Msr(u32, u64),
    Mmio(u32, u32),
    Accept(u8, bool),
    Acknowledge,
    Signal(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let value = prop_oneof![
        any::<u64>(),
        0u64..0x10_0000,
        Just(0u64),
        (0u32..20, 0u64..256).prop_map(|(s, v)| v | 1 << s)
    ];
    prop_oneof![
        6 => (0x800u32..0x840, value.clone()).prop_map(|(m, v)| Op::Msr(m, v)),
        2 => (prop::sample::select(std::vec![0x832, 0x838, 0x83E, IA32_TSC_DEADLINE]), value).prop_map(|(m, v)| Op::Msr(m, v)),
        1 => (0u64..4).prop_map(|mode| Op::Msr(IA32_APIC_BASE, APIC_BASE_DEFAULT | mode << 10)),
        3 => (0u32..0x40, any::<u32>()).prop_map(|(r, v)| Op::Mmio(r << 4, v)),
        3 => (any::<u8>(), any::<bool>()).prop_map(|(v, level)| Op::Accept(v, level)),
        2 => Just(Op::Msr(0x80B, 0)),
        4 => Just(Op::Acknowledge),
        1 => (0u8..6).prop_map(Op::Signal),
    ]
}

type Answer = (
    Option<Result<Effect, GuestFault>>,
    Option<Delivery>,
    Option<u8>,
    Option<u8>,
    Option<u64>,
    std::vec::Vec<Result<u64, GuestFault>>,
);

fn apply(lapic: &mut Lapic, op: Op, now: u64) -> Answer {
    lapic.expire(now);
    let (mut effect, mut delivery, mut vector) = (None, None, None);
    match op {
        Op::Msr(msr, value) => effect = Some(lapic.write_msr(msr, value, now)),
        Op::Mmio(offset, value) => effect = Some(Ok(lapic.mmio_write(offset, value, now))),
        Op::Accept(v, level) => {
            delivery = Some(lapic.accept(v, if level { Trigger::Level } else { Trigger::Edge }))
        }
        Op::Acknowledge => vector = Some(lapic.acknowledge()),
        Op::Signal(n) => {
            use LocalSource::*;
            delivery = Some(
                lapic.signal([Timer, Thermal, Performance, Lint0, Lint1, Error][usize::from(n)]),
            );
        }
    }
    let registers = (0x800..0x840).map(|msr| lapic.read_msr(msr, now)).collect();
    (
        effect,
        delivery,
        vector,
        lapic.pending(),
        lapic.next_deadline(),
        registers,
    )
}

proptest! {
    /// No guest program panics it, its state is always one that can be restored, and the restored APIC has the same future.
    #[test]
    fn restored_apic_has_the_same_future(
        x2 in any::<bool>(),
        before in prop::collection::vec((op(), 0u64..100_000), 0..60),
        after in prop::collection::vec((op(), 0u64..100_000), 0..30),
    ) {
        let mut lapic = Lapic::after_firmware(5, true, if x2 { ApicMode::X2Apic } else { ApicMode::XApic }, RATE);
        let mut now = 0;
        for (op, pause) in before {
            now += pause;
            let (.., pending, deadline, _) = apply(&mut lapic, op, now);
            prop_assert!(pending.is_none_or(|v| v >= 16));
            prop_assert!(deadline.is_none_or(|d| d > now || lapic.save().tsc_deadline != 0));
            prop_assert_eq!(lapic.isr_highest, lapic.isr.highest().unwrap_or(0));
        }
        let mut twin = Lapic::restore(&lapic.save(), RATE).unwrap();
        prop_assert_eq!(&twin, &lapic);
        for (op, pause) in after {
            now += pause;
            prop_assert_eq!(apply(&mut twin, op, now), apply(&mut lapic, op, now));
        }
    }
}

#[test]
fn impossible_state_is_refused() {
    let good = Lapic::after_firmware(0, true, ApicMode::X2Apic, RATE).save();
    assert!(Lapic::restore(&good, RATE).is_ok());
    for spoil in [
        |s: &mut LapicState| s.tpr = 0x100,
        |s: &mut LapicState| s.irr[0] = 1,
        |s: &mut LapicState| s.lvt[0] = 3 << 17,
        |s: &mut LapicState| s.svr = 0xFF,
        |s: &mut LapicState| s.tsc_deadline = 1,
        |s: &mut LapicState| s.base = 1,
        |s: &mut LapicState| {
            s.timer_countdown = Some(Countdown {
                start_tsc: 0,
                first: 0,
                expired: 0,
            })
        },
    ] {
        let mut state = good.clone();
        spoil(&mut state);
        assert!(Lapic::restore(&state, RATE).is_err());
    }
}
