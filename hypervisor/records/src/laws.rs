//! What holds for every record, as functions that panic when it does not. Tests run them over
//! arbitrary values, the fuzz targets over arbitrary bytes.

use crate::{EncodeError, Fault, Field, HEADER_BYTES, Reader, Record};
use std::vec;
use std::vec::Vec;

/// For longer records [`hold_for`] makes every single-bit change, not every single-byte change.
const EXHAUSTIVE_BYTES_MAX: usize = 64;

/// The encoding of `value` in `version`, or `None` if that version cannot express it.
pub fn encoded<R: Record>(value: &R, version: u16) -> Option<Vec<u8>> {
    let mut buffer = vec![0xa5; R::MAX_BYTES];
    match value.encode_as(version, &mut buffer) {
        Ok(length) => {
            buffer.truncate(length);
            Some(buffer)
        }
        Err(EncodeError::NotExpressible { .. }) => None,
        Err(error) => panic!("{} version {version}: {error}", R::NAME),
    }
}

/// All laws, for one value in every version that can express it.
pub fn hold_for<R: Record>(value: &R) {
    assert!(
        encoded(value, R::NEWEST).is_some(),
        "the newest version expresses all"
    );
    for version in 1..=R::NEWEST {
        let Some(bytes) = encoded(value, version) else {
            continue;
        };
        assert_eq!(R::decode(&bytes).as_ref(), Ok(value), "version {version}");
        needs_its_space(value, version, bytes.len());
        truncations_fail::<R>(&bytes);
        trailing_bytes_fail::<R>(&bytes);
        changes_are_canonical::<R>(&bytes);
    }
    for unknown in [0, R::NEWEST + 1, u16::MAX] {
        let refused = value.encode_as(unknown, &mut [0; HEADER_BYTES]);
        assert_eq!(
            refused,
            Err(EncodeError::UnknownVersion { version: unknown })
        );
    }
}

/// A buffer one byte too small is refused with the size that works.
fn needs_its_space<R: Record>(value: &R, version: u16, needed: usize) {
    let mut small = vec![0; needed - 1];
    let refused = value.encode_as(version, &mut small);
    assert_eq!(refused, Err(EncodeError::NoSpace { needed }));
}

/// No proper prefix is a record, whether the header admits to it or not.
fn truncations_fail<R: Record>(bytes: &[u8]) {
    for length in 0..bytes.len() {
        let prefix = &bytes[..length];
        let error = R::decode(prefix).expect_err("a prefix is no record");
        assert_eq!(
            (error.record, error.fault),
            (R::NAME, Fault::Truncated),
            "{length}"
        );
        if length >= HEADER_BYTES {
            assert_faulty::<R>(&with_true_length(prefix), Fault::Truncated);
        }
    }
}

/// Nothing may follow, whether the header admits to it or not.
fn trailing_bytes_fail<R: Record>(bytes: &[u8]) {
    for extra in [0, 1, 0xff] {
        let mut longer = bytes.to_vec();
        longer.push(extra);
        assert_faulty::<R>(&longer, Fault::TrailingBytes);
        assert_faulty::<R>(&with_true_length(&longer), Fault::TrailingBytes);
    }
}

fn assert_faulty<R: Record>(bytes: &[u8], fault: Fault) {
    let error = R::decode(bytes).expect_err("malformed");
    assert_eq!(error.fault, fault, "{error}");
    assert!(error.offset <= bytes.len(), "{error}");
}

fn with_true_length(bytes: &[u8]) -> Vec<u8> {
    let mut patched = bytes.to_vec();
    let length = (bytes.len() - HEADER_BYTES) as u32;
    patched[4..HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
    patched
}

/// A record with one byte changed is refused, or it is the one encoding of another value.
fn changes_are_canonical<R: Record>(bytes: &[u8]) {
    if bytes.len() <= EXHAUSTIVE_BYTES_MAX {
        return every_change_is_canonical::<R>(bytes);
    }
    changed_by::<R>(bytes, (0..u8::BITS).map(|bit| 1 << bit));
}

/// The same for all 255 changes of each byte, however long the record is.
pub fn every_change_is_canonical<R: Record>(bytes: &[u8]) {
    changed_by::<R>(bytes, 1..=u8::MAX);
}

fn changed_by<R: Record>(bytes: &[u8], flips: impl Iterator<Item = u8> + Clone) {
    let mut changed = bytes.to_vec();
    for offset in 0..bytes.len() {
        for flip in flips.clone() {
            changed[offset] = bytes[offset] ^ flip;
            decodes_canonically::<R>(&changed);
        }
        changed[offset] = bytes[offset];
    }
}

/// Whatever the bytes are: they are refused, or they are the one encoding of what they decode to.
pub fn decodes_canonically<R: Record>(bytes: &[u8]) -> Option<R> {
    match R::decode(bytes) {
        Ok(value) => {
            let version = u16::from_le_bytes([bytes[2], bytes[3]]);
            assert_eq!(
                encoded(&value, version).as_deref(),
                Some(bytes),
                "{value:?}"
            );
            Some(value)
        }
        Err(error) => {
            assert_eq!(error.record, R::NAME);
            assert!(error.offset <= bytes.len(), "{error}");
            None
        }
    }
}

/// A version that has shipped still has its fields, and its golden bytes still decode and are
/// still what is written. `golden` is hexadecimal with white space anywhere.
pub fn version_is_as_shipped<R: Record>(version: u16, fingerprint: u64, golden: &str) -> R {
    let schema = R::SCHEMA.versions[usize::from(version) - 1];
    assert_eq!(schema.number, version);
    let found = schema.fingerprint();
    assert_eq!(
        found,
        fingerprint,
        "{} version {version} was edited (its fingerprint is {found:#018x}): a shipped version is \
         never changed, add a new one",
        R::NAME
    );
    let digits: Vec<u8> = golden
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| {
            let pair = core::str::from_utf8(pair).expect("hexadecimal");
            u8::from_str_radix(pair, 16).expect("hexadecimal")
        })
        .collect();
    let value = R::decode(&bytes).unwrap_or_else(|error| panic!("golden bytes: {error}"));
    assert_eq!(encoded(&value, version), Some(bytes), "{}", R::NAME);
    value
}

/// A source of arbitrary values from a seed (SplitMix64), with small numbers and single bits
/// among them.
pub fn bits_from(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        match seed >> 61 {
            0 => mixed & 0xf,
            1 => 1 << (mixed & 63),
            _anything_else => mixed,
        }
    }
}

/// Bounds the types against each other: no value is longer than its type says.
pub fn field_fits<F: Field>(value: &F) {
    let mut buffer = vec![0; HEADER_BYTES + F::MAX_BYTES];
    let mut writer = crate::Writer::begin(&mut buffer, crate::Kind::TEST, 1);
    value.put(&mut writer);
    let length = writer.finish().expect("within its bound");
    let (_, mut reader) =
        Reader::open("field", &buffer[..length], crate::Kind::TEST, 1).expect("just written");
    assert_eq!(reader.field::<F>("value").as_ref(), Ok(value));
    reader.close().expect("nothing left");
}
