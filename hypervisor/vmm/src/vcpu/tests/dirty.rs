//! Writes that dirty tracking stops, the processor's log, and the write quota.

use super::*;
use crate::exit::NestedFault;
use crate::vcpu::{Inbox, Message, Quota};
use godwit_records::Activity;

fn write_to(gpa: u64) -> Exit {
    Exit::Nested(NestedFault {
        gpa,
        read: false,
        write: true,
        fetch: false,
        mapped: true,
    })
}

#[test]
fn a_withheld_write_is_noted_and_repeated() {
    let mut machine = machine();
    machine.world.withheld.insert(0x42);
    assert_eq!(machine.exit(write_to(0x42_080)), Next::Enter);
    assert_eq!(machine.world.dirtied, [0x42]);
    assert_eq!(machine.hardware.rip(), 0x1000);
    assert_eq!(machine.world.platform_locks, 0);
}

#[test]
fn a_full_log_is_handed_over_and_so_is_a_log_before_a_flush() {
    let mut machine = machine();
    // Once for each stretch of 2 MiB in a row.
    machine.hardware.dirty_log = [0x5000, 0x9000, 0x20_0000, 0x3f_f000, 0xa000].to_vec();
    assert_eq!(machine.exit(Exit::DirtyLogFull), Next::Enter);
    assert_eq!(machine.world.dirtied, [5, 0x200, 0xa]);
    machine.hardware.dirty_log.push(0x7000);
    let inbox = Inbox::new();
    inbox.post(Message::FlushTranslations);
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = &mut machine;
    assert_eq!(vcpu.attend(hardware, world, &inbox), None);
    assert_eq!(machine.world.dirtied, [5, 0x200, 0xa, 7]);
    assert_eq!(machine.hardware.flushes, 1);
}

#[test]
fn a_quota_lets_a_vcpu_dirty_so_many_pages_a_second() {
    const HZ: u64 = 1_000_000_000;
    let mut machine = machine();
    machine.world.quota = Quota::new(1000, HZ);
    let begin = 1 << 40;
    machine.world.host_tsc.set(begin);
    let mut pages = 0;
    while machine.world.host_tsc.get() < begin + HZ {
        machine.world.withheld.insert(pages);
        let next = machine.exit(write_to(pages * 4096));
        pages += 1;
        let now = machine.world.host_tsc.get();
        match next {
            Next::Enter => machine.world.host_tsc.set(now + 100),
            Next::Wait => {
                assert!(!machine.vcpu.has_work(&mut machine.world));
                assert_eq!(machine.vcpu.activity(true), Activity::Running);
                let wakes = machine.vcpu.sleep_deadline();
                assert!(wakes > now && wakes <= now + HZ / 1000);
                machine.world.host_tsc.set(wakes);
                assert!(machine.vcpu.has_work(&mut machine.world));
                let Machine {
                    vcpu,
                    hardware,
                    world,
                    ..
                } = &mut machine;
                vcpu.before_entry(hardware, world);
            }
            other => panic!("{other:?}"),
        }
    }
    // Two milliseconds' worth ahead.
    assert!((1000..=1003).contains(&pages), "{pages}");
}

#[test]
fn a_log_is_as_short_as_the_quota_and_what_is_in_it_is_paid() {
    let mut machine = machine();
    machine.hardware.dirty_log = [0x5000, 0x9000].to_vec();
    assert_eq!(machine.exit(Exit::DirtyLogFull), Next::Enter);
    assert_eq!(machine.hardware.dirty_log_room, 512);
    machine.world.host_tsc.set(1 << 40);
    machine.world.quota = Quota::new(1000, 1_000_000_000);
    machine.hardware.dirty_log = [0x5000, 0x9000, 0xa000].to_vec();
    let inbox = Inbox::new();
    inbox.post(Message::FlushTranslations);
    let Machine {
        vcpu,
        hardware,
        world,
        ..
    } = &mut machine;
    assert_eq!(vcpu.attend(hardware, world, &inbox), None);
    // Two milliseconds' worth; three pages are one too many already.
    assert_eq!(machine.hardware.dirty_log_room, 2);
    machine.hardware.dirty_log.push(0xb000);
    assert_eq!(machine.exit(Exit::DirtyLogFull), Next::Wait);
    assert_eq!(machine.vcpu.sleep_deadline(), (1 << 40) + 2_000_000);
}

#[test]
fn a_quota_that_is_lifted_lets_go_at_once_and_interrupts_do_not_count() {
    let mut machine = machine();
    machine.world.quota = Quota::new(1, 1_000_000_000);
    machine.world.withheld.insert(1);
    assert_eq!(machine.exit(write_to(0x1000)), Next::Wait);
    machine.vcpu.raise_nmi();
    assert!(!machine.vcpu.has_work(&mut machine.world));
    machine.world.quota = None;
    assert!(machine.vcpu.has_work(&mut machine.world));
    assert_eq!(Quota::new(0, 1_000_000_000), None);
}
