//! Tests of the interval timer: modes by the data sheet's wave forms, how systems calibrate by it, and laws over random programs.

extern crate std;

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

/// A TSC with ten ticks to an input clock.
const RATE: TscRate = TscRate::from_hz(CLOCK_HZ * 10).unwrap();

/// The timer at input clock `clock`.
fn at(clock: u64) -> u64 {
    clock * 10
}

fn program(pit: &mut Pit, channel: u8, mode: u8, count: u16, clock: u64) {
    pit.write(0x43, channel << 6 | 0x30 | mode << 1, at(clock));
    for byte in count.to_le_bytes() {
        pit.write(0x40 + u16::from(channel), byte, at(clock));
    }
}

fn out2(pit: &mut Pit, clock: u64) -> bool {
    pit.read(SPEAKER_PORT, at(clock)) & SPEAKER_OUT != 0
}

fn wave(pit: &mut Pit, clocks: core::ops::Range<u64>) -> std::string::String {
    clocks
        .map(|clock| if out2(pit, clock) { '-' } else { '_' })
        .collect()
}

fn read16(pit: &mut Pit, port: u16, clock: u64) -> u16 {
    u16::from_le_bytes([pit.read(port, at(clock)), pit.read(port, at(clock))])
}

#[test]
fn wave_forms_of_all_modes() {
    for (mode, expected) in [
        (0, "______----------"),
        (2, "-----_----_----_"),
        (3, "----__---__---__"),
        (4, "------_---------"),
    ] {
        let mut pit = Pit::new(RATE);
        pit.write(SPEAKER_PORT, 1, 0);
        program(&mut pit, 2, mode, 5, 0);
        assert_eq!(wave(&mut pit, 0..16), expected, "mode {mode}");
    }
    for (mode, expected) in [(1, "--_____---"), (5, "-------_--")] {
        let mut pit = Pit::new(RATE);
        program(&mut pit, 2, mode, 5, 0);
        assert_eq!(wave(&mut pit, 0..2), "--");
        pit.write(SPEAKER_PORT, 1, at(2));
        let mut both = std::string::String::from("--");
        both.push_str(&wave(&mut pit, 2..10));
        assert_eq!(both, expected, "mode {mode}");
    }
}

#[test]
fn gate_holds_mode_0_and_restarts_mode_2() {
    let mut pit = Pit::new(RATE);
    program(&mut pit, 2, 0, 100, 0);
    assert_eq!(read16(&mut pit, 0x42, 50), 100);
    pit.write(SPEAKER_PORT, 1, at(50));
    assert_eq!(read16(&mut pit, 0x42, 80), 70);
    pit.write(SPEAKER_PORT, 0, at(90));
    assert_eq!(read16(&mut pit, 0x42, 500), 60);
    pit.write(SPEAKER_PORT, 1, at(500));
    assert!(!out2(&mut pit, 559));
    assert!(out2(&mut pit, 560));
    assert_eq!(read16(&mut pit, 0x42, 561), 0xFFFF);
    program(&mut pit, 2, 2, 100, 600);
    pit.write(SPEAKER_PORT, 0, at(650));
    pit.write(SPEAKER_PORT, 1, at(700));
    assert_eq!(read16(&mut pit, 0x42, 701), 100);
}

/// What Linux' `quick_pit_calibrate` and `pit_calibrate_tsc` do: gate on, speaker off, mode 0, count 0xFFFF, look at the high byte; or
/// wait for OUT2.
#[test]
fn counter_2_calibrates_a_clock() {
    let mut pit = Pit::new(RATE);
    pit.write(SPEAKER_PORT, 1, 0);
    pit.write(0x43, 0xB0, 0);
    pit.write(0x42, 0xFF, 0);
    pit.write(0x42, 0xFF, 0);
    assert_eq!(pit.read(0x42, at(10)), 0xF6);
    assert_eq!(pit.read(0x42, at(10)), 0xFF);
    pit.read(0x42, at(258));
    assert_eq!(pit.read(0x42, at(258)), 0xFE);
    assert!(!out2(&mut pit, 0xFFFF));
    assert!(out2(&mut pit, 0x1_0000));
}

#[test]
fn counter_0_ticks_keep_their_phase_and_do_not_burst() {
    let mut pit = Pit::new(RATE);
    program(&mut pit, 0, 2, 1000, 0);
    assert_eq!(pit.next_deadline(), Some(at(1001)));
    assert!(!pit.take_edge(at(1001) - 1));
    assert!(pit.take_edge(at(1001)));
    assert!(!pit.take_edge(at(2000)));
    assert!(pit.take_edge(at(4500)));
    assert_eq!(pit.missed(), 2);
    assert_eq!(pit.next_deadline(), Some(at(5001)));
    assert!(pit.take_edge(at(5001)));
    assert_eq!(pit.missed(), 2);
}

#[test]
fn new_count_waits_for_the_end_of_the_period() {
    let mut pit = Pit::new(RATE);
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(0x40, 0x64, at(500));
    pit.write(0x40, 0, at(500));
    assert!(pit.take_edge(at(1001)));
    assert_eq!(pit.next_deadline(), Some(at(1101)));
    assert_eq!(read16(&mut pit, 0x40, 1051), 50);
    // In mode 3 the end of the half period is enough.
    let mut pit = Pit::new(RATE);
    pit.write(SPEAKER_PORT, 1, 0);
    program(&mut pit, 2, 3, 8, 0);
    pit.write(0x42, 4, at(2));
    pit.write(0x42, 0, at(2));
    assert_eq!(wave(&mut pit, 2..13), "---__--__--");
}

#[test]
fn one_shot_modes_fire_once() {
    for (mode, due) in [(0, 501), (4, 502)] {
        let mut pit = Pit::new(RATE);
        program(&mut pit, 0, mode, 500, 0);
        assert_eq!(pit.next_deadline(), Some(at(due)));
        assert!(!pit.take_edge(at(due) - 1));
        assert!(pit.take_edge(at(due)));
        assert_eq!(pit.next_deadline(), None);
        assert!(!pit.take_edge(at(1_000_000)));
    }
}

#[test]
fn tiny_periods_do_not_make_the_host_chase() {
    for mode in [2, 3] {
        for count in [1, 2, 3, 59] {
            let mut pit = Pit::new(RATE);
            program(&mut pit, 0, mode, count, 0);
            let mut now = 0;
            for _ in 0..50 {
                let due = pit.next_deadline().unwrap();
                assert!(due >= now + at(EVENT_SPACING) - at(2), "{mode} {count}");
                assert!(pit.take_edge(due));
                now = due;
            }
        }
    }
}

#[test]
fn latches_hold_until_read() {
    let mut pit = Pit::new(RATE);
    program(&mut pit, 0, 2, 1000, 0);
    pit.write(0x43, 0x00, at(101));
    pit.write(0x43, 0x00, at(300));
    assert_eq!(read16(&mut pit, 0x40, 400), 900);
    assert_eq!(read16(&mut pit, 0x40, 401), 600);
    // Read-back of status and count: status comes first.
    pit.write(0x43, 0xC2, at(501));
    assert_eq!(pit.read(0x40, at(600)), 0xB4);
    assert_eq!(read16(&mut pit, 0x40, 600), 500);
    // Nothing loaded yet: null count.
    pit.write(0x43, 0x34, at(700));
    pit.write(0x43, 0xE2, at(700));
    assert_eq!(pit.read(0x40, at(700)), 0xF4);
}

#[test]
fn decimal_counts() {
    let mut pit = Pit::new(RATE);
    pit.write(0x43, 0x35, 0);
    pit.write(0x40, 0x00, 0);
    pit.write(0x40, 0x10, 0);
    assert_eq!(pit.next_deadline(), Some(at(1001)));
    assert_eq!(read16(&mut pit, 0x40, 2), 0x0999);
    pit.write(0x43, 0x31, 0);
    pit.write(0x40, 0, 0);
    pit.write(0x40, 0, 0);
    assert_eq!(pit.next_deadline(), Some(at(10_001)));
}

#[test]
fn refresh_bit_toggles_and_speaker_bits_are_kept() {
    let mut pit = Pit::new(RATE);
    pit.write(SPEAKER_PORT, 0xFE, 0);
    let toggles = (0..360)
        .map(|clock| pit.read(SPEAKER_PORT, at(clock)) & REFRESH_TOGGLE != 0)
        .collect::<Vec<_>>()
        .windows(2)
        .filter(|pair| pair[0] != pair[1])
        .count();
    assert_eq!(toggles, 19);
    assert_eq!(pit.read(SPEAKER_PORT, 0) & 0xCF, 0x0E);
}

fn step(pit: &mut Pit, kind: u8, value: u8, now: u64) -> (u8, bool, Option<u64>) {
    let port = [0x40, 0x41, 0x42, 0x43, SPEAKER_PORT][usize::from(kind % 5)];
    match kind / 5 {
        0 | 1 => {
            pit.write(port, value, now);
            (0, false, pit.next_deadline())
        }
        2 => (pit.read(port, now), false, pit.next_deadline()),
        _three => (0, pit.take_edge(now), pit.next_deadline()),
    }
}

proptest! {
    /// Saved and restored at any moment the timer has the same future, and looking more often changes neither levels nor edges.
    #[test]
    fn looking_and_moving_change_nothing(
        ops in prop::collection::vec((0u8..20, any::<u8>(), prop_oneof![0u64..100, 0u64..3_000_000]), 1..60),
    ) {
        let mut pit = Pit::new(RATE);
        let mut watched = pit.clone();
        let (mut now, mut edges, mut watched_edges) = (0, 0u64, 0u64);
        for (kind, value, pause) in ops {
            for part in 1..8 {
                watched_edges += u64::from(watched.take_edge(now + pause * part / 8));
            }
            now += pause;
            let (a, b) = (step(&mut pit, kind, value, now), step(&mut watched, kind, value, now));
            edges += u64::from(a.1);
            watched_edges += u64::from(b.1);
            prop_assert_eq!(a.0, b.0);
            watched = Pit::restore(&watched.save(), RATE).unwrap();
            prop_assert_eq!(Pit::restore(&pit.save(), RATE).unwrap(), pit.clone());
        }
        edges += u64::from(pit.take_edge(now));
        watched_edges += u64::from(watched.take_edge(now));
        prop_assert_eq!(edges + pit.missed(), watched_edges + watched.missed());
        prop_assert_eq!(pit.next_deadline(), watched.next_deadline());
    }

    /// A deadline always leads somewhere: at it there is an edge, or a later deadline.
    #[test]
    fn deadlines_lie_ahead(mode in 0u8..6, count in any::<u16>(), again in any::<u16>(), pause in 0u64..200_000) {
        let mut pit = Pit::new(RATE);
        program(&mut pit, 0, mode, count, 0);
        pit.take_edge(at(pause));
        for byte in again.to_le_bytes() {
            pit.write(0x40, byte, at(pause));
        }
        let mut now = at(pause);
        for _ in 0..5 {
            let Some(due) = pit.next_deadline() else { break };
            prop_assert!(due > now);
            pit.take_edge(due - 1);
            let edge = pit.take_edge(due);
            prop_assert!(edge || pit.next_deadline().is_some_and(|next| next > due));
            now = due;
        }
    }
}

#[test]
fn impossible_states_are_refused() {
    let good = Pit::new(RATE).save();
    let with = |change: fn(&mut Channel)| {
        let mut state = good;
        change(&mut state.channels[0]);
        Pit::restore(&state, RATE)
    };
    assert!(with(|_| {}).is_ok());
    assert!(with(|channel| channel.mode = 6).is_err());
    assert!(with(|channel| channel.gate = false).is_err());
    assert!(with(|channel| channel.period = 0x1_0001).is_err());
    assert!(with(|channel| channel.next_period = Some(0)).is_err());
    assert!(with(|channel| channel.count = Count::Held { elapsed: 0 }).is_err());
    assert!(with(|channel| channel.seen = u64::MAX).is_err());
    assert!(
        Pit::restore(
            &PitState {
                speaker: 0x10,
                ..good
            },
            RATE
        )
        .is_err()
    );
}
