//! Tests of the real-time clock: reading and setting as systems do it, flags and interrupts, memory, saved state.

extern crate std;

use super::*;
use proptest::prelude::*;

/// A TSC of one tick a nanosecond.
const RATE: TscRate = TscRate::from_hz(SECOND_NS).unwrap();
/// 2026-11-22 07:49:22.25.
const NOW_NS: u64 = 1_795_333_762_250_000_000;

fn clock() -> Rtc {
    let mut rtc = Rtc::new(RATE);
    rtc.set_time(NOW_NS, 0);
    rtc
}

fn read(rtc: &mut Rtc, register: u8, now: u64) -> u8 {
    rtc.write(INDEX_PORT, register, now);
    rtc.read(DATA_PORT, now)
}

fn write(rtc: &mut Rtc, register: u8, value: u8, now: u64) {
    rtc.write(INDEX_PORT, register, now);
    rtc.write(DATA_PORT, value, now);
}

fn time(rtc: &mut Rtc, now: u64) -> [u8; 8] {
    [0x32, 9, 8, 7, 6, 4, 2, 0].map(|register| read(rtc, register, now))
}

#[test]
fn time_is_read_in_every_format() {
    let mut rtc = clock();
    assert_eq!(
        time(&mut rtc, 0),
        [0x20, 0x26, 0x11, 0x22, 1, 0x07, 0x49, 0x22]
    );
    assert_eq!(read(&mut rtc, 0, 750_000_000), 0x23);
    assert_eq!(read(&mut rtc, 0, 749_999_999), 0x22);
    let mut rtc = clock();
    write(&mut rtc, 0xB, 0x86, 0);
    rtc.set_time(NOW_NS + 12 * 3600 * SECOND_NS, 0);
    write(&mut rtc, 0xB, 0x06, 0);
    assert_eq!(time(&mut rtc, 0), [0x20, 26, 11, 22, 1, 19, 49, 22]);
    write(&mut rtc, 0xB, 0x80, 0);
    rtc.set_time(NOW_NS + 12 * 3600 * SECOND_NS, 0);
    assert_eq!(read(&mut rtc, 4, 0), 0x87);
}

/// As Linux' `mc146818_set_time` does it: SET, divider in reset, registers, divider back, SET off.
#[test]
fn guest_sets_the_time_and_the_first_second_is_half() {
    let mut rtc = clock();
    let at = 5 * SECOND_NS + 123;
    write(&mut rtc, 0xB, 0x82, at);
    write(&mut rtc, 0xA, 0x76, at);
    for (register, value) in [
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x59),
        (0x32, 0x19),
    ] {
        write(&mut rtc, register, value, at);
    }
    assert_eq!(read(&mut rtc, 0, at + 9 * SECOND_NS), 0x59, "halted");
    write(&mut rtc, 0xB, 0x02, at + 1000);
    assert_eq!(
        read(&mut rtc, 0, at + 9 * SECOND_NS),
        0x59,
        "the divider is held"
    );
    let start = at + 10 * SECOND_NS;
    write(&mut rtc, 0xA, 0x26, start);
    assert_eq!(
        time(&mut rtc, start + HALF_SECOND_NS - 1),
        [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]
    );
    assert_eq!(
        time(&mut rtc, start + HALF_SECOND_NS),
        [0x20, 0, 1, 1, 7, 0, 0, 0]
    );
}

#[test]
fn single_field_written_while_running_keeps_the_rest() {
    let mut rtc = clock();
    write(&mut rtc, 2, 0x10, 0);
    assert_eq!(
        time(&mut rtc, 0),
        [0x20, 0x26, 0x11, 0x22, 1, 0x07, 0x10, 0x22]
    );
    assert_eq!(read(&mut rtc, 0, 750_000_000), 0x23);
}

#[test]
fn update_in_progress_precedes_the_update() {
    let mut rtc = clock();
    let update = 750_000_000;
    for (now, expected) in [
        (0, 0x26),
        (update - 245_000, 0x26),
        (update - 244_000, 0xA6),
        (update - 1, 0xA6),
        (update, 0x26),
    ] {
        assert_eq!(read(&mut rtc, 0xA, now), expected);
    }
    write(&mut rtc, 0xB, 0x82, 0);
    assert_eq!(read(&mut rtc, 0xA, update - 1), 0x26);
}

#[test]
fn update_interrupt_is_held_until_register_c_is_read() {
    let mut rtc = clock();
    write(&mut rtc, 0xB, 0x12, 0);
    let due = rtc.next_deadline().unwrap();
    assert_eq!(due, 750_000_000);
    rtc.advance(due - 1);
    assert!(!rtc.irq());
    rtc.advance(due);
    assert!(rtc.irq());
    assert_eq!(rtc.next_deadline(), None);
    assert_eq!(read(&mut rtc, 0xC, due) & 0xB0, 0x90);
    assert!(!rtc.irq());
    assert_eq!(rtc.next_deadline(), Some(due + SECOND_NS));
    assert_eq!(read(&mut rtc, 0xC, due), 0);
}

#[test]
fn periodic_rates() {
    for (rate, hz) in [(1, 256), (2, 128), (3, 8192), (6, 1024), (15, 2)] {
        let mut rtc = clock();
        write(&mut rtc, 0xA, 0x20 | rate, 0);
        write(&mut rtc, 0xB, 0x42, 0);
        let (mut now, mut count) = (0, 0);
        while let Some(due) = rtc.next_deadline().filter(|&due| due <= SECOND_NS) {
            assert!(due > now);
            now = due;
            rtc.advance(now);
            assert_eq!(read(&mut rtc, 0xC, now) & 0xC0, 0xC0);
            count += 1;
        }
        assert_eq!(count, hz, "rate {rate}");
    }
    let mut rtc = clock();
    write(&mut rtc, 0xA, 0x20, 0);
    write(&mut rtc, 0xB, 0x42, 0);
    assert_eq!(rtc.next_deadline(), None);
}

#[test]
fn alarm_matches_with_and_without_wildcards() {
    // It is 07:49:22.25.
    for (alarm, seconds) in [
        ([0x30, 0x49, 0x07], 8),
        ([0x22, 0x49, 0x07], 86_400),
        ([0x00, 0xFF, 0xFF], 38),
        ([0xC0, 0xFF, 0xFF], 1),
        ([0xFF, 0x00, 0x00], 58_238),
        ([0xFF, 0x48, 0xFF], 3518),
    ] {
        let mut rtc = clock();
        for (register, value) in [1, 3, 5].into_iter().zip(alarm) {
            write(&mut rtc, register, value, 0);
        }
        write(&mut rtc, 0xB, 0x22, 0);
        let due = rtc.next_deadline().unwrap();
        assert_eq!(due, seconds * SECOND_NS - 250_000_000, "{alarm:x?}");
        rtc.advance(due - 1);
        assert!(!rtc.irq());
        rtc.advance(due);
        assert_eq!(read(&mut rtc, 0xC, due) & 0xA0, 0xA0);
    }
    let mut rtc = clock();
    write(&mut rtc, 5, 0x24, 0);
    write(&mut rtc, 0xB, 0x22, 0);
    assert_eq!(rtc.next_deadline(), None, "no such hour");
}

#[test]
fn reset_keeps_time_and_memory() {
    let mut rtc = clock();
    write(&mut rtc, 0x40, 0xA5, 0);
    write(&mut rtc, 0xB, 0x72, 0);
    rtc.advance(SECOND_NS);
    rtc.reset();
    assert!(!rtc.irq());
    assert_eq!(rtc.next_deadline(), None);
    assert_eq!(read(&mut rtc, 0xB, SECOND_NS), 0x02);
    assert_eq!(read(&mut rtc, 0xC0, SECOND_NS), 0xA5);
    assert_eq!(read(&mut rtc, 0, SECOND_NS), 0x23);
    assert_eq!(read(&mut rtc, 0xD, 0), 0x80);
    assert_eq!(rtc.read(INDEX_PORT, 0), 0xFF);
}

#[test]
fn memory_size_is_as_a_pc_has_it() {
    let mut rtc = clock();
    rtc.set_memory_size(3 << 30, 5 << 30);
    let cmos = rtc.save().cmos;
    let word = |at: usize| u16::from_le_bytes([cmos[at], cmos[at + 1]]);
    assert_eq!((word(0x15), word(0x17), word(0x30)), (640, 0xFFFF, 0xFFFF));
    assert_eq!(u64::from(word(0x34)) << 16, (3 << 30) - (16 << 20));
    assert_eq!(cmos[0x5B..0x5E], [0x00, 0x40, 0x01]);
    let sum: u16 = cmos[0x10..0x2E].iter().map(|&byte| u16::from(byte)).sum();
    assert_eq!(u16::from_be_bytes([cmos[0x2E], cmos[0x2F]]), sum);
    rtc.set_memory_size(17 << 20, 0);
    let cmos = rtc.save().cmos;
    assert_eq!(u16::from_le_bytes([cmos[0x30], cmos[0x31]]), 16 << 10);
    assert_eq!(cmos[0x34..0x36], [16, 0]);
}

proptest! {
    /// Whatever a guest writes: nothing breaks, saved state has the same future, and looking more often changes nothing.
    #[test]
    fn looking_and_moving_change_nothing(
        ops in prop::collection::vec((0u8..3, prop_oneof![0u8..14, any::<u8>()], any::<u8>(), 0u64..100_000_000_000), 1..60),
    ) {
        let mut rtc = clock();
        let mut watched = rtc.clone();
        let mut now = 0;
        for (kind, register, value, pause) in ops {
            for part in 1..4 {
                watched.advance(now + pause * part / 4);
            }
            now += pause;
            if kind == 0 {
                write(&mut rtc, register, value, now);
                write(&mut watched, register, value, now);
            } else {
                prop_assert_eq!(read(&mut rtc, register, now), read(&mut watched, register, now));
            }
            rtc.advance(now);
            watched.advance(now);
            prop_assert_eq!(rtc.irq(), watched.irq());
            prop_assert_eq!(rtc.next_deadline(), watched.next_deadline());
            prop_assert!(rtc.next_deadline().is_none_or(|due| due > now));
            watched = Rtc::restore(&watched.save(), RATE).unwrap();
        }
    }
}

#[test]
fn impossible_states_are_refused() {
    let good = clock().save();
    let with = |register: usize, value: u8| {
        let mut state = good;
        state.cmos[register] = value;
        Rtc::restore(&state, RATE).is_err()
    };
    assert!(Rtc::restore(&good, RATE).is_ok());
    assert!(with(0xA, 0x80) && with(0xC, 0x80) && with(0xD, 1));
    assert!(
        Rtc::restore(
            &RtcState {
                base_ns: 1_000_000_000,
                ..good
            },
            RATE
        )
        .is_err()
    );
    assert!(
        Rtc::restore(
            &RtcState {
                base_seconds: i64::MAX,
                ..good
            },
            RATE
        )
        .is_err()
    );
}
