//! Moves that succeed.

use super::bench::*;
use crate::disk::Disk;
use crate::fake::RamDisk;
use crate::memory::Buffer;
use crate::storage::mirror::{MirrorError, Pace, SwitchDisk};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

fn ram(memory: &Rc<dyn crate::memory::Memory>, bytes: Vec<u8>) -> Rc<RamDisk> {
    Rc::new(RamDisk::with_contents(Rc::clone(memory), bytes, BLOCK))
}

fn one_move(seed: u64) {
    let (dice, memory, clock) = (Dice::new(seed), arena(), Clock::default());
    let first = contents(&dice);
    let oracle = Oracle::of(&first);
    let source = ram(&memory, first);
    // What was on the target before must not shine through.
    let blocks = BLOCKS + dice.roll(3);
    let target = ram(&memory, vec![0xee; (blocks * u64::from(BLOCK)) as usize]);
    let mut geometry = source.geometry();
    geometry.can_discard = dice.roll(4) > 0;
    geometry.can_write_zeroes = dice.roll(4) > 0;
    // Not noted as zeroes then: the fake discards by zeroing.
    let ignores_discards = !geometry.can_discard;
    source.set_geometry(geometry);
    let disk = SwitchDisk::new(Slow::new(source.clone(), &dice), memory.clone(), false);
    let moved = Rc::new(Cell::new(false));
    let lanes = 3;
    let mut tasks: Vec<Task<'_>> = Vec::new();
    if !ignores_discards {
        for lane in 0..lanes {
            let parts = (disk.clone(), memory.clone(), oracle.clone(), dice.clone());
            let (disk, memory, oracle, dice) = parts;
            tasks.push(Box::pin(guest(
                disk,
                memory,
                oracle,
                dice,
                (lane, lanes),
                150,
            )));
        }
    }
    let (to, is_moved) = (Slow::new(target.clone(), &dice), moved.clone());
    let (from, onto, oracle_then) = (source.clone(), target.clone(), oracle.clone());
    let mover = async move {
        turns(5).await;
        let mirror = disk.begin(to, Rc::new(clock)).await.unwrap();
        mirror.converge(&ALWAYS).await.unwrap();
        let size = (BLOCKS * u64::from(BLOCK)) as usize;
        let switched = disk.switch(async || {
            assert_eq!(from.contents(), onto.contents()[..size], "seed {seed}");
            Ok::<(), MirrorError>(())
        });
        switched.await.unwrap();
        assert!(mirror.progress().unequal.is_empty(), "seed {seed}");
        assert_eq!(mirror.progress().done_bytes, mirror.progress().bytes);
        is_moved.set(true);
        drop(oracle_then);
    };
    tasks.push(Box::pin(mover));
    assert!(run(&mut tasks, &dice, 2_000_000), "seed {seed} never ends");
    assert!(moved.get());
    let size = (BLOCKS * u64::from(BLOCK)) as usize;
    assert_eq!(
        target.contents()[..size],
        oracle.borrow().bytes,
        "seed {seed}"
    );
    let rest = &target.contents()[size..];
    assert!(rest.iter().all(|byte| *byte == 0xee), "beyond the disk");
}

#[test]
fn the_guest_writes_while_its_disk_moves() {
    (1..=120).for_each(one_move);
}

#[test]
fn writes_to_one_place_reach_both_in_one_order() {
    for seed in 1..=60 {
        let (dice, memory, clock) = (Dice::new(seed), arena(), Clock::default());
        let source = ram(&memory, contents(&dice));
        let target = ram(&memory, contents(&dice));
        let disk = SwitchDisk::new(Slow::new(source.clone(), &dice), memory.clone(), false);
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for value in 1..=4u8 {
            let (disk, memory, dice) = (disk.clone(), memory.clone(), dice.clone());
            tasks.push(Box::pin(async move {
                let buffer = Buffer::new(&memory, 3 * BLOCK as usize).unwrap();
                buffer.write(0, &[value; 3 * BLOCK as usize]);
                for _ in 0..120 {
                    // All four write to the same few blocks, across a border of regions.
                    let at = 126 + dice.roll(4);
                    disk.write(at, &[buffer.span()]).await.unwrap();
                }
            }));
        }
        let to = Slow::new(target.clone(), &dice);
        let (from, onto) = (source.clone(), target.clone());
        tasks.push(Box::pin(async move {
            let mirror = disk.begin(to, Rc::new(clock)).await.unwrap();
            mirror.converge(&ALWAYS).await.unwrap();
            let switched = disk.switch(async || {
                assert_eq!(from.contents(), onto.contents(), "seed {seed}");
                assert!(mirror.progress().unequal.is_empty(), "seed {seed}");
                Ok::<(), MirrorError>(())
            });
            switched.await.unwrap();
        }));
        assert!(run(&mut tasks, &dice, 2_000_000), "seed {seed} never ends");
    }
}

#[test]
fn zeroes_are_not_sent_and_the_bandwidth_is_kept() {
    let (dice, memory, clock) = (Dice::new(1), arena(), Clock::default());
    let mut bytes = vec![0; 8 * (64 << 10)];
    bytes[..3 * (64 << 10)].fill(7);
    let source = ram(&memory, bytes.clone());
    let target = ram(&memory, vec![9; bytes.len()]);
    let disk = SwitchDisk::new(source, memory, false);
    let onto = target.clone();
    let mut tasks: Vec<Task<'_>> = vec![Box::pin(async move {
        let now = clock.0.clone();
        let mirror = disk.begin(onto, Rc::new(clock)).await.unwrap();
        let pace = Pace {
            bandwidth_bytes: Some(64 << 10),
            ..ALWAYS
        };
        mirror.converge(&pace).await.unwrap();
        // Three regions of data at one a second.
        assert!((3000..4000).contains(&now.get()), "{}", now.get());
        let progress = mirror.progress();
        assert_eq!(progress.copied_bytes, 3 * (64 << 10));
        assert_eq!(progress.zero_bytes, 5 * (64 << 10));
        let stopped = disk.switch(async || Err(MirrorError::Stopped("no".into())));
        assert_eq!(stopped.await, Err(MirrorError::Stopped("no".into())));
        disk.end(MirrorError::TooSlow).await;
    })];
    assert!(run(&mut tasks, &dice, 100_000));
    assert_eq!(target.contents(), bytes);
}

#[test]
fn a_target_that_does_not_fit_is_refused() {
    let (dice, memory) = (Dice::new(1), arena());
    let disk = SwitchDisk::new(ram(&memory, vec![0; 1 << 20]), memory.clone(), false);
    let smaller = ram(&memory, vec![0; (1 << 20) - 512]);
    let coarse = Rc::new(RamDisk::with_contents(
        memory.clone(),
        vec![0; 1 << 20],
        4096,
    ));
    let fixed = ram(&memory, vec![0; 1 << 20]);
    let mut geometry = fixed.geometry();
    geometry.read_only = true;
    fixed.set_geometry(geometry);
    let mut tasks: Vec<Task<'_>> = vec![Box::pin(async move {
        for (target, part) in [(smaller, "smaller"), (coarse, "blocks"), (fixed, "written")] {
            let refused = disk.begin(target, Rc::new(Clock::default())).await;
            let why = alloc::format!("{}", refused.err().expect(part));
            assert!(why.contains(part), "{why}");
        }
    })];
    assert!(run(&mut tasks, &dice, 1000));
}
