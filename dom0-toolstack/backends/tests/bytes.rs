//! dom0's own copying, moving, filling and comparing (`dom0-toolstack/src/bytes.s`), assembled on the build machine and checked
//! against the standard library: every short length, lengths about every threshold, all alignments, every overlap that matters.

use std::cmp::Ordering;

core::arch::global_asm!(include_str!("../../src/bytes.s"));

unsafe extern "C" {
    fn godwit_copy(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
    fn godwit_move(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
    fn godwit_fill(to: *mut u8, byte: i32, count: usize) -> *mut u8;
    fn godwit_compare(a: *const u8, b: *const u8, count: usize) -> i32;
}

/// Room before and after, to see what is written beside the range.
const MARGIN: usize = 96;

fn lengths() -> impl Iterator<Item = usize> + Clone {
    (0..=200)
        .chain(505..=530)
        .chain([1000, 1023, 4095, 4096, 4097])
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|at| (at * 151 + at / 256 * 7) as u8)
        .collect()
}

#[test]
fn copies_are_whole_and_touch_nothing_beside() {
    let source = pattern(8192);
    for count in lengths() {
        for alignment in 0..16 {
            let mut expected = vec![0xaa; count + 2 * MARGIN];
            let mut found = expected.clone();
            expected[MARGIN..MARGIN + count].copy_from_slice(&source[alignment..alignment + count]);
            let to = found[MARGIN..].as_mut_ptr();
            // SAFETY: both ranges lie in vectors, which are two.
            let answer = unsafe { godwit_copy(to, source[alignment..].as_ptr(), count) };
            assert_eq!(
                (answer, &found),
                (to, &expected),
                "{count} from {alignment}"
            );
        }
    }
}

#[test]
fn moves_over_each_other_are_as_if_by_a_third_place() {
    for count in lengths() {
        for (from, to) in (0..=MARGIN).flat_map(|at| [(at, MARGIN), (MARGIN, at)]) {
            let mut found = pattern(count + 2 * MARGIN);
            let mut expected = found.clone();
            expected.copy_within(from..from + count, to);
            let base = found.as_mut_ptr();
            // SAFETY: both ranges lie in the vector.
            let answer = unsafe { godwit_move(base.add(to), base.add(from), count) };
            assert_eq!(answer, base.wrapping_add(to));
            assert!(found == expected, "{count} bytes from {from} to {to}");
        }
    }
}

#[test]
fn fills_are_whole_and_touch_nothing_beside() {
    for count in lengths() {
        for (alignment, byte) in (0..16).zip([0, 0x5a, 0xff, 0x80].into_iter().cycle()) {
            let at = MARGIN - alignment;
            let mut expected = vec![0x33; count + 2 * MARGIN];
            let mut found = expected.clone();
            expected[at..at + count].fill(byte);
            let to = found[at..].as_mut_ptr();
            // Only the lowest octet counts.
            // SAFETY: the range lies in the vector.
            let answer = unsafe { godwit_fill(to, i32::from(byte) | 0x1200, count) };
            assert_eq!((answer, &found), (to, &expected), "{count} at {at}");
        }
    }
}

#[test]
fn comparisons_order_by_the_first_difference() {
    for count in lengths() {
        for alignment in [0, 1, 7, 15] {
            let a = pattern(count + alignment);
            let a = &a[alignment..];
            let mut b = vec![0; MARGIN];
            b.extend_from_slice(a);
            // Beyond the end they differ, which must not matter.
            b.push(a.last().copied().unwrap_or(0) ^ 0xff);
            let found = |b: &[u8]| -> Ordering {
                // SAFETY: both ranges lie in vectors.
                unsafe { godwit_compare(a.as_ptr(), b[MARGIN..].as_ptr(), count) }.cmp(&0)
            };
            assert_eq!(found(&b), Ordering::Equal, "{count}");
            for at in (0..count).filter(|at| count < 40 || at % 7 == 0 || at + 20 > count) {
                let kept = b[MARGIN + at];
                for other in [kept.wrapping_add(1), kept.wrapping_sub(1), kept ^ 0x80] {
                    b[MARGIN + at] = other;
                    let expected = a.cmp(&b[MARGIN..MARGIN + count]);
                    assert_eq!(found(&b), expected, "{count}, octet {at}: {kept}, {other}");
                }
                b[MARGIN + at] = kept;
            }
        }
    }
}
