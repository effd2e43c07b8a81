//! AML, as much as the DSDT needs (ACPI 6.5 section 20.2): terms as bytes.

use alloc::vec::Vec;

/// A name segment.
pub(super) type Segment = [u8; 4];

/// An integer, in the shortest form.
pub(super) fn integer(value: u64) -> Vec<u8> {
    let bytes = value.to_le_bytes();
    let (prefix, used): (u8, usize) = match value {
        0 | 1 => return alloc::vec![value as u8],
        2..=0xff => (0x0a, 1),
        0x100..=0xffff => (0x0b, 2),
        0x1_0000..=0xffff_ffff => (0x0c, 4),
        _ => (0x0e, 8),
    };
    let mut term = alloc::vec![prefix];
    term.extend(&bytes[..used]);
    term
}

/// A text without zero bytes.
pub(super) fn string(text: &str) -> Vec<u8> {
    let mut term = alloc::vec![0x0d];
    term.extend(text.as_bytes());
    term.push(0);
    term
}

/// A compressed EISA id (section 19.3.4), such as `PNP0501`: three letters, four hexadecimal digits.
pub(super) fn eisa_id(id: &[u8; 7]) -> Vec<u8> {
    let letter = |at: usize| u32::from(id[at] & 0x1f);
    let digit = |at: usize| {
        let digit = char::from(id[at]).to_digit(16);
        digit.expect("an EISA id ends in hexadecimal digits")
    };
    let letters = letter(0) << 10 | letter(1) << 5 | letter(2);
    let digits = digit(3) << 12 | digit(4) << 8 | digit(5) << 4 | digit(6);
    integer((letters << 16 | digits).swap_bytes().into())
}

/// `Name (segment, value)`.
pub(super) fn name(segment: &Segment, value: &[u8]) -> Vec<u8> {
    let mut term = alloc::vec![0x08];
    term.extend(segment);
    term.extend(value);
    term
}

/// `Package () { elements }`.
pub(super) fn package(elements: &[Vec<u8>]) -> Vec<u8> {
    let count = u8::try_from(elements.len()).expect("a package of up to 255 elements");
    let mut body = alloc::vec![count];
    body.extend(elements.concat());
    with_length(&[0x12], &body)
}

/// `Buffer () { bytes }`.
pub(super) fn buffer(bytes: &[u8]) -> Vec<u8> {
    let mut body = integer(bytes.len() as u64);
    body.extend(bytes);
    with_length(&[0x11], &body)
}

/// `Scope (\segment) { body }`.
pub(super) fn root_scope(segment: &Segment, body: &[u8]) -> Vec<u8> {
    with_length(&[0x10], &[b"\\", &segment[..], body].concat())
}

/// `Device (segment) { body }`.
pub(super) fn device(segment: &Segment, body: &[u8]) -> Vec<u8> {
    with_length(&[0x5b, 0x82], &[&segment[..], body].concat())
}

/// An operator, the length of itself and the body, the body (section 20.2.4).
fn with_length(operator: &[u8], body: &[u8]) -> Vec<u8> {
    let mut term = Vec::from(operator);
    let one = body.len() + 1;
    if one < 1 << 6 {
        term.push(one as u8);
    } else {
        let follow = (1..=3usize).find(|follow| body.len() + 1 + follow < 1 << (4 + 8 * follow));
        let follow = follow.expect("a term is shorter than 256 MiB");
        let length = one + follow;
        term.push((follow << 6 | length & 0xf) as u8);
        term.extend(&((length >> 4) as u32).to_le_bytes()[..follow]);
    }
    term.extend(body);
    term
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_take_one_to_four_bytes() {
        let head = |bytes: usize| with_length(&[0x11], &std::vec![0; bytes])[1..5].to_vec();
        assert_eq!(head(62)[0], 63);
        assert_eq!(head(63)[..2], [0x41, 4]);
        assert_eq!(head(4093)[..2], [0x4f, 0xff]);
        assert_eq!(head(4094)[..3], [0x81, 0x00, 0x01]);
        assert_eq!(head(0xf_fffd)[..], [0xc1, 0x00, 0x00, 0x01]);
    }

    #[test]
    fn terms_are_those_of_the_specification() {
        assert_eq!(eisa_id(b"PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
        assert_eq!(integer(1), [1]);
        assert_eq!(integer(2), [0x0a, 2]);
        assert_eq!(integer(0x1234), [0x0b, 0x34, 0x12]);
        assert_eq!(integer(1 << 32), [0x0e, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(string("A"), [0x0d, b'A', 0]);
        let package = package(&[integer(0), integer(5)]);
        assert_eq!(
            name(b"_S5_", &package),
            *b"\x08_S5_\x12\x05\x02\x00\x0a\x05"
        );
    }
}
