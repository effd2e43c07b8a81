//! Tests of the PIC pair: against the data sheet's modes, and laws over random programs.

extern crate std;

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn irq(number: u8) -> Irq {
    Irq::new(number).unwrap()
}

/// A pair initialised as operating systems do: vectors 0x30 and 0x38, nothing masked; `icw4` for both.
fn ready(icw4: u8) -> Pic {
    let mut pic = Pic::new();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x30),
        (0x21, 4),
        (0x21, icw4),
        (0xA0, 0x11),
        (0xA1, 0x38),
        (0xA1, 2),
        (0xA1, icw4),
    ] {
        assert!(pic.write(port, value));
    }
    pic
}

fn eoi(pic: &mut Pic, number: u8) {
    if number >= 8 {
        pic.write(0xA0, 0x60 | number & 7);
        pic.write(0x20, 0x62);
    } else {
        pic.write(0x20, 0x60 | number);
    }
}

#[test]
fn uninitialised_pair_is_silent() {
    let mut pic = Pic::new();
    pic.raise(irq(0));
    pic.raise(irq(9));
    assert!(!pic.pending());
}

#[test]
fn fixed_priority_nests() {
    let mut pic = ready(1);
    for number in [4, 12, 0, 8] {
        pic.raise(irq(number));
    }
    // Master order with the slave's eight at input 2.
    assert_eq!(pic.acknowledge(), 0x30);
    assert!(!pic.pending());
    eoi(&mut pic, 0);
    assert_eq!(pic.acknowledge(), 0x38);
    pic.raise(irq(1));
    assert_eq!(
        pic.acknowledge(),
        0x31,
        "IRQ 1 interrupts the slave's handler"
    );
    eoi(&mut pic, 1);
    assert!(!pic.pending());
    eoi(&mut pic, 8);
    assert_eq!(pic.acknowledge(), 0x3C);
    eoi(&mut pic, 12);
    assert_eq!(pic.acknowledge(), 0x34);
    eoi(&mut pic, 4);
    assert!(!pic.pending());
}

#[test]
fn edge_requests_once_and_level_while_asserted() {
    let mut pic = ready(1);
    pic.raise(irq(5));
    assert_eq!(pic.acknowledge(), 0x35);
    pic.raise(irq(5));
    eoi(&mut pic, 5);
    assert!(!pic.pending(), "an edge that stays high is one request");
    pic.lower(irq(5));
    pic.raise(irq(5));
    assert!(pic.pending());
    assert_eq!(pic.acknowledge(), 0x35);
    eoi(&mut pic, 5);
    pic.write(0x4D0, 0x20);
    assert_eq!(
        pic.acknowledge(),
        0x35,
        "a level input requests while it is high"
    );
    eoi(&mut pic, 5);
    assert!(pic.pending());
    pic.lower(irq(5));
    assert!(!pic.pending());
    pic.write(0x4D0, 0xFF);
    pic.write(0x4D1, 0xFF);
    assert_eq!((pic.read(0x4D0), pic.read(0x4D1)), (Some(0xF8), Some(0xDE)));
}

#[test]
fn vanished_request_is_spurious() {
    let mut pic = ready(1);
    pic.write(0x4D0, 0x20);
    pic.raise(irq(5));
    pic.lower(irq(5));
    assert_eq!(pic.acknowledge(), 0x37);
    pic.write(0x20, 0x0B);
    assert_eq!(
        pic.read(0x20),
        Some(0),
        "a spurious interrupt is not in service"
    );
}

#[test]
fn masks_hold_requests_back() {
    let mut pic = ready(1);
    pic.write(0x21, 0x10);
    pic.raise(irq(4));
    assert!(!pic.pending());
    assert_eq!((pic.read(0x20), pic.read(0x21)), (Some(0x10), Some(0x10)));
    pic.write(0x21, 0);
    assert_eq!(pic.acknowledge(), 0x34);
    pic.write(0x20, 0x0B);
    assert_eq!(pic.read(0x20), Some(0x10));
    pic.write(0x20, 0x0A);
    assert_eq!(pic.read(0x20), Some(0));
}

#[test]
fn automatic_end_leaves_nothing_in_service_and_the_cascade_works() {
    let mut pic = ready(3);
    pic.raise(irq(8));
    pic.raise(irq(9));
    assert_eq!(pic.acknowledge(), 0x38);
    assert_eq!(
        pic.acknowledge(),
        0x39,
        "the slave's second request follows without an edge"
    );
    assert!(!pic.pending());
}

#[test]
fn rotation_makes_the_served_input_lowest() {
    let mut pic = ready(1);
    pic.raise(irq(3));
    assert_eq!(pic.acknowledge(), 0x33);
    pic.write(0x20, 0xA0);
    pic.raise(irq(1));
    pic.raise(irq(5));
    assert_eq!(pic.acknowledge(), 0x35, "4 is highest now, so 5 before 1");
    pic.write(0x20, 0xE0 | 5);
    assert_eq!(pic.acknowledge(), 0x31);
    pic.write(0x20, 0x20);
    pic.write(0x20, 0xC0 | 7);
    pic.raise(irq(0));
    pic.lower(irq(1));
    pic.raise(irq(1));
    assert_eq!(
        pic.acknowledge(),
        0x30,
        "set priority back to the default order"
    );

    let mut pic = ready(3);
    pic.write(0x20, 0x80);
    pic.raise(irq(0));
    pic.raise(irq(1));
    assert_eq!(pic.acknowledge(), 0x30);
    pic.lower(irq(0));
    pic.raise(irq(0));
    assert_eq!(pic.acknowledge(), 0x31, "rotation in automatic mode");
}

#[test]
fn special_mask_mode_lets_lower_inputs_through() {
    let mut pic = ready(1);
    pic.raise(irq(3));
    assert_eq!(pic.acknowledge(), 0x33);
    pic.raise(irq(6));
    assert!(!pic.pending());
    pic.write(0x21, 0x08);
    assert!(!pic.pending());
    pic.write(0x20, 0x68);
    assert_eq!(pic.acknowledge(), 0x36);
    pic.write(0x20, 0x20);
    pic.write(0x20, 0x0B);
    assert_eq!(
        pic.read(0x20),
        Some(0x08),
        "non-specific end passes over the masked one"
    );
}

#[test]
fn special_fully_nested_mode_lets_the_slave_interrupt_itself() {
    for (icw4, nests) in [(0x01, false), (0x11, true)] {
        let mut pic = ready(icw4);
        pic.raise(irq(12));
        assert_eq!(pic.acknowledge(), 0x3C);
        pic.raise(irq(8));
        assert_eq!(pic.pending(), nests);
    }
}

#[test]
fn poll_acknowledges() {
    let mut pic = ready(1);
    pic.write(0x20, 0x0C);
    assert_eq!(pic.read(0x20), Some(0));
    pic.raise(irq(6));
    pic.write(0x20, 0x0C);
    assert_eq!(pic.read(0x20), Some(0x86));
    assert_eq!(pic.read(0x20), Some(0));
    assert!(!pic.pending());
    pic.write(0x20, 0x0B);
    assert_eq!(pic.read(0x20), Some(0x40));
}

#[test]
fn initialisation_wants_a_new_edge() {
    let mut pic = ready(1);
    pic.raise(irq(4));
    for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1)] {
        pic.write(port, value);
    }
    assert!(!pic.pending());
    pic.raise(irq(4));
    assert!(!pic.pending());
    pic.lower(irq(4));
    pic.raise(irq(4));
    assert_eq!(pic.acknowledge(), 0x34);
    // A single chip without ICW4 is ready after ICW2.
    pic.write(0x20, 0x12);
    pic.write(0x21, 0x40);
    pic.raise(irq(0));
    assert_eq!(pic.acknowledge(), 0x40);
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Line(u8, bool),
    Write(u16, u8),
    Read(u16),
    Acknowledge,
}

fn op() -> impl Strategy<Value = Op> {
    let port = prop::sample::select(std::vec![0x20u16, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1]);
    prop_oneof![
        (0u8..16, any::<bool>()).prop_map(|(n, high)| Op::Line(n, high)),
        (port.clone(), any::<u8>()).prop_map(|(p, v)| Op::Write(p, v)),
        port.prop_map(Op::Read),
        Just(Op::Acknowledge),
    ]
}

fn apply(pic: &mut Pic, op: Op) -> (Option<u8>, bool) {
    let answer = match op {
        Op::Line(number, high) => {
            if let Some(irq) = Irq::new(number) {
                pic.set_line(irq, high);
            }
            None
        }
        Op::Write(port, value) => {
            pic.write(port, value);
            None
        }
        Op::Read(port) => pic.read(port),
        Op::Acknowledge => Some(pic.acknowledge()),
    };
    (answer, pic.pending())
}

proptest! {
    /// No program panics it; a restored pair has the same future; and an acknowledged request is of an unmasked input.
    #[test]
    fn restored_pair_has_the_same_future(before in prop::collection::vec(op(), 0..80), after in prop::collection::vec(op(), 0..40)) {
        let mut pic = ready(1);
        for op in before {
            let masks = (pic.master.imr, pic.slave.imr);
            let was_pending = pic.pending();
            let (answer, _) = apply(&mut pic, op);
            if let (Op::Acknowledge, Some(vector), true) = (op, answer, was_pending) {
                let input = vector & 7;
                let of_master = vector & 0xF8 == pic.master.vector_base && masks.0 & 1 << input == 0;
                let of_slave = vector & 0xF8 == pic.slave.vector_base && masks.1 & 1 << input == 0;
                prop_assert!(of_master || of_slave);
            }
        }
        let mut twin = Pic::restore(&pic.save()).unwrap();
        let answers: Vec<_> = after.iter().map(|&op| (apply(&mut pic, op), apply(&mut twin, op))).collect();
        prop_assert!(answers.iter().all(|(a, b)| a == b));
    }
}

#[test]
fn impossible_state_is_refused() {
    let good = ready(1).save();
    assert!(Pic::restore(&good).is_ok());
    for spoil in [
        |s: &mut PicState| s.master.level_triggered = 1,
        |s: &mut PicState| s.slave.vector_base = 0x39,
        |s: &mut PicState| s.slave.lowest = 8,
        |s: &mut PicState| s.master.irr = 1 << CASCADE,
    ] {
        let mut state = good;
        spoil(&mut state);
        assert!(Pic::restore(&state).is_err());
    }
}
