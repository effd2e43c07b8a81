//! The value that switches a machine off: the `_S5` package, found in a DSDT without an AML
//! interpreter (ACPI 6.5, 16.2.1 and 20.2.5).
//!
//! A definition block names the object as `NameOp "_S5_" PackageOp PkgLength NumElements
//! element...`, optionally with a root prefix; an element is a byte constant, zero, one or ones.
//! Firmware that computes the package in a method is not understood and yields `None`.

/// SLP_TYPa and SLP_TYPb of soft off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SleepType {
    /// For PM1a_CNT.
    pub a: u8,
    /// For PM1b_CNT.
    pub b: u8,
}

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const BYTE_PREFIX: u8 = 0x0a;
const SLEEP_TYPE_MAX: u8 = 7;

/// Finds the package in a definition block, header included.
pub fn sleep_type(aml: &[u8]) -> Option<SleepType> {
    let mut at = 0;
    while let Some(found) = aml
        .get(at..)
        .and_then(|rest| rest.windows(4).position(|window| window == b"_S5_"))
    {
        let name = at + found;
        if let Some(value) = package(aml, name) {
            return Some(value);
        }
        at = name + 4;
    }
    None
}

fn package(aml: &[u8], name: usize) -> Option<SleepType> {
    let before = aml.get(..name)?;
    let named = before.ends_with(&[NAME_OP]) || before.ends_with(&[NAME_OP, b'\\']);
    if !named || *aml.get(name + 4)? != PACKAGE_OP {
        return None;
    }
    // PkgLength: the two upper bits of its first byte say how many bytes follow.
    let lead = *aml.get(name + 5)?;
    let elements = name + 6 + usize::from(lead >> 6);
    let count = *aml.get(elements)?;
    let (a, next) = element(aml, elements + 1)?;
    let b = if count > 1 { element(aml, next)?.0 } else { a };
    (a <= SLEEP_TYPE_MAX && b <= SLEEP_TYPE_MAX).then_some(SleepType { a, b })
}

fn element(aml: &[u8], at: usize) -> Option<(u8, usize)> {
    match *aml.get(at)? {
        BYTE_PREFIX => Some((*aml.get(at + 1)?, at + 2)),
        constant @ (0 | 1) => Some((constant, at + 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_byte_constants_and_short_forms() {
        let qemu = b"..\x08_S5_\x12\x06\x04\x00\x00\x00\x00";
        assert_eq!(sleep_type(qemu), Some(SleepType { a: 0, b: 0 }));
        let board = b"\x08\\_S5_\x12\x0a\x04\x0a\x05\x0a\x07\x00\x00";
        assert_eq!(sleep_type(board), Some(SleepType { a: 5, b: 7 }));
    }

    #[test]
    fn long_package_length_is_skipped() {
        let aml = b"\x08_S5_\x12\x4a\x00\x02\x0a\x05\x01";
        assert_eq!(sleep_type(aml), Some(SleepType { a: 5, b: 1 }));
    }

    #[test]
    fn a_mention_is_not_the_object_and_damage_is_none() {
        assert_eq!(sleep_type(b"\x14_S5_\x12\x06\x04\x00\x00"), None);
        assert_eq!(sleep_type(b"\x08_S5_\x12"), None);
        assert_eq!(sleep_type(b"\x08_S5_\x12\x06\x02\x0a\xff\x00"), None);
    }
}
