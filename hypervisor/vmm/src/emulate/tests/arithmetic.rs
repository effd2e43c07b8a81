//! Results and flags against the definitions in wide integers.

use proptest::prelude::*;

use crate::emulate::flags::*;

/// Results and status flags by definition: sums are made in 128 bits and looked at.
pub(super) fn by_definition(
    arithmetic: Arithmetic,
    bytes: u8,
    a: u64,
    b: u64,
    rflags: u64,
) -> (u64, u64) {
    let bits = 8 * u32::from(bytes);
    let signed = |value: u64| {
        i128::from(value)
            - if value >> (bits - 1) & 1 != 0 {
                1 << bits
            } else {
                0
            }
    };
    let range = |value: i128| value >= -(1 << (bits - 1)) && value < 1 << (bits - 1);
    let carry_in = match arithmetic {
        Arithmetic::Adc | Arithmetic::Sbb => i128::from(rflags & 1),
        _ => 0,
    };
    let (wide, narrow, nibble) = match arithmetic {
        Arithmetic::Add | Arithmetic::Adc => (
            i128::from(a) + i128::from(b) + carry_in,
            signed(a) + signed(b) + carry_in,
            i128::from(a % 16) + i128::from(b % 16) + carry_in,
        ),
        Arithmetic::Sub | Arithmetic::Cmp | Arithmetic::Sbb => (
            i128::from(a) - i128::from(b) - carry_in,
            signed(a) - signed(b) - carry_in,
            i128::from(a % 16) - i128::from(b % 16) - carry_in,
        ),
        Arithmetic::And | Arithmetic::Test => (i128::from(a & b), 0, 0),
        Arithmetic::Or => (i128::from(a | b), 0, 0),
        Arithmetic::Xor => (i128::from(a ^ b), 0, 0),
    };
    let result = wide.rem_euclid(1 << bits) as u64;
    let mut flags = 0;
    for (flag, set) in [
        (1, wide < 0 || wide >= 1 << bits),
        (4, result.to_le_bytes()[0].count_ones() & 1 == 0),
        (16, !(0..16).contains(&nibble)),
        (64, result == 0),
        (128, signed(result) < 0),
        (2048, !range(narrow)),
    ] {
        if set {
            flags |= flag;
        }
    }
    (result, flags)
}

const ALL: [Arithmetic; 9] = [
    Arithmetic::Add,
    Arithmetic::Or,
    Arithmetic::Adc,
    Arithmetic::Sbb,
    Arithmetic::And,
    Arithmetic::Sub,
    Arithmetic::Xor,
    Arithmetic::Cmp,
    Arithmetic::Test,
];

/// Unary operations as what they are short for.
fn unary_by_definition(unary: Unary, bytes: u8, value: u64, rflags: u64) -> (u64, u64) {
    let (result, flags) = match unary {
        Unary::Increment => by_definition(Arithmetic::Add, bytes, value, 1, 0),
        Unary::Decrement => by_definition(Arithmetic::Sub, bytes, value, 1, 0),
        Unary::Negate => return by_definition(Arithmetic::Sub, bytes, 0, value, 0),
        Unary::Not => return (mask(bytes) - value, rflags & STATUS),
    };
    (result, flags & !1 | rflags & 1)
}

const UNARY: [Unary; 4] = [
    Unary::Increment,
    Unary::Decrement,
    Unary::Not,
    Unary::Negate,
];

#[test]
fn bytes_exhaustively() {
    for a in 0..256 {
        for b in 0..256 {
            for carry in 0..2 {
                for arithmetic in ALL {
                    assert_eq!(
                        arithmetic.apply(1, a, b, carry),
                        by_definition(arithmetic, 1, a, b, carry),
                        "{arithmetic:?} {a:#x} {b:#x} {carry}"
                    );
                }
            }
        }
        for rflags in [0, STATUS | 2, CARRY, STATUS & !CARRY] {
            for unary in UNARY {
                assert_eq!(
                    unary.apply(1, a, rflags),
                    unary_by_definition(unary, 1, a, rflags),
                    "{unary:?} {a:#x}"
                );
            }
        }
    }
}

/// Anything, and near the borders of each width.
fn operand() -> impl Strategy<Value = u64> {
    let near = (
        prop_oneof![
            Just(0u32),
            Just(4),
            Just(7),
            Just(8),
            Just(15),
            Just(16),
            Just(31),
            Just(32),
            Just(63)
        ],
        -2i64..3,
    )
        .prop_map(|(bit, by)| (1u64 << bit).wrapping_add_signed(by));
    prop_oneof![any::<u64>(), near]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn wider_operands(a in operand(), b in operand(), rflags: u64) {
        for bytes in [2, 4, 8] {
            let (a, b) = (a & mask(bytes), b & mask(bytes));
            for arithmetic in ALL {
                prop_assert_eq!(arithmetic.apply(bytes, a, b, rflags), by_definition(arithmetic, bytes, a, b, rflags), "{:?} {}", arithmetic, bytes);
            }
            for unary in UNARY {
                prop_assert_eq!(unary.apply(bytes, a, rflags), unary_by_definition(unary, bytes, a, rflags), "{:?} {}", unary, bytes);
            }
        }
    }
}

/// The sixteen conditions after comparing, by what they are called (SDM 1, table B-1).
#[test]
fn conditions_say_what_they_are_called() {
    for a in 0..256u64 {
        for b in 0..256u64 {
            let (difference, flags) = by_definition(Arithmetic::Cmp, 1, a, b, 0);
            let (signed_a, signed_b) = (a as u8 as i8, b as u8 as i8);
            for (code, expected) in [
                (0, signed_a.checked_sub(signed_b).is_none()),
                (2, a < b),
                (4, a == b),
                (6, a <= b),
                (8, (difference as i8) < 0),
                (10, difference.count_ones() % 2 == 0),
                (12, signed_a < signed_b),
                (14, signed_a <= signed_b),
            ] {
                assert_eq!(condition(code, flags), expected, "{code} {a:#x} {b:#x}");
                assert_eq!(
                    condition(code + 1, flags),
                    !expected,
                    "{code}+1 {a:#x} {b:#x}"
                );
            }
        }
    }
}
