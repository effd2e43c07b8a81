//! Integer arithmetic with the status flags it leaves (SDM 1, 3.4.3.1), at any operand width.
//!
//! Widths are in bytes: 1, 2, 4 or 8. Operands above their width must be masked by the caller
//! ([`mask`]); results are.

/// CF.
pub(super) const CARRY: u64 = 1;
/// PF.
pub(super) const PARITY: u64 = 1 << 2;
/// AF.
pub(super) const ADJUST: u64 = 1 << 4;
/// ZF.
pub(super) const ZERO: u64 = 1 << 6;
/// SF.
pub(super) const SIGN: u64 = 1 << 7;
/// OF.
pub(super) const OVERFLOW: u64 = 1 << 11;
/// All six.
pub(super) const STATUS: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// An operation of two operands that sets all status flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(super) enum Arithmetic {
    Add,
    Or,
    Adc,
    Sbb,
    And,
    Sub,
    Xor,
    Cmp,
    Test,
}

impl Arithmetic {
    /// By bits 5:3 of a one-byte opcode, or of the ModRM byte of group 1.
    pub(super) const BY_NUMBER: [Arithmetic; 8] = [
        Arithmetic::Add,
        Arithmetic::Or,
        Arithmetic::Adc,
        Arithmetic::Sbb,
        Arithmetic::And,
        Arithmetic::Sub,
        Arithmetic::Xor,
        Arithmetic::Cmp,
    ];

    /// Whether the result goes to the first operand.
    pub(super) fn writes(self) -> bool {
        !matches!(self, Arithmetic::Cmp | Arithmetic::Test)
    }

    /// The result, and the status flags after it, given RFLAGS before.
    pub(super) fn apply(self, bytes: u8, first: u64, second: u64, rflags: u64) -> (u64, u64) {
        let carry = rflags & CARRY;
        match self {
            Arithmetic::Add => add(bytes, first, second, 0),
            Arithmetic::Adc => add(bytes, first, second, carry),
            Arithmetic::Sub | Arithmetic::Cmp => subtract(bytes, first, second, 0),
            Arithmetic::Sbb => subtract(bytes, first, second, carry),
            Arithmetic::And | Arithmetic::Test => logic(bytes, first & second),
            Arithmetic::Or => logic(bytes, first | second),
            Arithmetic::Xor => logic(bytes, first ^ second),
        }
    }
}

/// All bits of a width.
pub(super) const fn mask(bytes: u8) -> u64 {
    u64::MAX >> (64 - 8 * bytes as u32)
}

/// The top bit of a width.
const fn sign_bit(bytes: u8) -> u64 {
    1 << (8 * bytes as u32 - 1)
}

/// The value of `bytes` bytes as a signed number.
pub(super) const fn sign_extend(bytes: u8, value: u64) -> u64 {
    let unused = 64 - 8 * bytes as u32;
    ((value << unused) as i64 >> unused) as u64
}

fn add(bytes: u8, first: u64, second: u64, carry: u64) -> (u64, u64) {
    let result = first.wrapping_add(second).wrapping_add(carry) & mask(bytes);
    let carries = first & second | (first | second) & !result;
    let overflows = (first ^ result) & (second ^ result);
    (
        result,
        status(bytes, first ^ second ^ result, carries, overflows, result),
    )
}

/// `first - second - borrow`.
fn subtract(bytes: u8, first: u64, second: u64, borrow: u64) -> (u64, u64) {
    let result = first.wrapping_sub(second).wrapping_sub(borrow) & mask(bytes);
    let borrows = !first & second | (!first | second) & result;
    let overflows = (first ^ second) & (first ^ result);
    (
        result,
        status(bytes, first ^ second ^ result, borrows, overflows, result),
    )
}

/// AND, OR, XOR and TEST clear CF and OF. AF is undefined by the manuals; the CPUs clear it.
fn logic(bytes: u8, result: u64) -> (u64, u64) {
    (result, status(bytes, 0, 0, 0, result))
}

/// `adjusts`, `carries` and `overflows` have a bit for every bit position.
fn status(bytes: u8, adjusts: u64, carries: u64, overflows: u64, result: u64) -> u64 {
    let top = sign_bit(bytes);
    let when = |condition: bool, flag: u64| if condition { flag } else { 0 };
    when(carries & top != 0, CARRY)
        | when((result as u8).count_ones().is_multiple_of(2), PARITY)
        | adjusts & ADJUST
        | when(result == 0, ZERO)
        | when(result & top != 0, SIGN)
        | when(overflows & top != 0, OVERFLOW)
}

/// An operation of one operand, read and written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub(super) enum Unary {
    Increment,
    Decrement,
    Not,
    Negate,
}

impl Unary {
    /// The result, and the status flags after it, given RFLAGS before.
    pub(super) fn apply(self, bytes: u8, value: u64, rflags: u64) -> (u64, u64) {
        let keep_carry = |(result, status): (u64, u64)| (result, status & !CARRY | rflags & CARRY);
        match self {
            Unary::Increment => keep_carry(add(bytes, value, 1, 0)),
            Unary::Decrement => keep_carry(subtract(bytes, value, 1, 0)),
            Unary::Not => (!value & mask(bytes), rflags & STATUS),
            Unary::Negate => subtract(bytes, 0, value, 0),
        }
    }
}

/// Whether condition code `code` (the low four bits of a Jcc, SETcc or CMOVcc opcode) holds.
pub(super) fn condition(code: u8, rflags: u64) -> bool {
    let set = |flag| rflags & flag != 0;
    let less = set(SIGN) != set(OVERFLOW);
    let holds = match code >> 1 & 7 {
        0 => set(OVERFLOW),
        1 => set(CARRY),
        2 => set(ZERO),
        3 => set(CARRY) || set(ZERO),
        4 => set(SIGN),
        5 => set(PARITY),
        6 => less,
        _ => less || set(ZERO),
    };
    holds != (code & 1 != 0)
}
