//! Targets that fail at every operation: the guest goes on at the source as if nothing had been.

use super::bench::*;
use crate::disk::Disk;
use crate::fake::RamDisk;
use crate::storage::mirror::{MirrorError, Pace, Progress, SwitchDisk};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;

/// What a move came to.
struct End {
    moved: Result<(), MirrorError>,
    progress: Progress,
    calls: u64,
}

/// Moves a disk to a target with a fault, while a guest writes; then the guest writes on.
fn move_with(seed: u64, fault: Option<(u64, Fault)>) -> End {
    let (dice, memory, clock) = (Dice::new(seed), arena(), Clock::default());
    let first = contents(&dice);
    let oracle = Oracle::of(&first);
    let source = Rc::new(RamDisk::with_contents(memory.clone(), first, BLOCK));
    let bytes = (BLOCKS * u64::from(BLOCK)) as usize;
    let target = Rc::new(RamDisk::with_contents(
        memory.clone(),
        vec![0xee; bytes],
        BLOCK,
    ));
    let onto = Slow::new(target.clone(), &dice);
    onto.fault.set(fault);
    let disk = SwitchDisk::new(Slow::new(source.clone(), &dice), memory.clone(), false);
    let end = Rc::new(RefCell::new(None));
    let (ended, moving, to) = (end.clone(), disk.clone(), onto.clone());
    let mover = async move {
        let mirror = moving.begin(to.clone(), Rc::new(clock)).await.unwrap();
        let mut moved = mirror.converge(&ALWAYS).await;
        if moved.is_ok() {
            moved = moving.switch(async || Ok::<(), MirrorError>(())).await;
        }
        if let Err(error) = &moved {
            moving.end(error.clone()).await;
        }
        let (progress, calls) = (mirror.progress(), to.calls.get());
        *ended.borrow_mut() = Some(End {
            moved,
            progress,
            calls,
        });
    };
    let writer = guest(disk, memory, oracle.clone(), dice.clone(), (0, 1), 120);
    let mut tasks: Vec<Task<'_>> = vec![Box::pin(mover), Box::pin(writer)];
    assert!(run(&mut tasks, &dice, 3_000_000), "{fault:?} never ends");
    drop(tasks);
    let end = end.take().expect("it has ended");
    let used = match end.moved {
        Ok(()) => &target,
        Err(_) => {
            assert_eq!(onto.calls.get(), end.calls, "used after the end");
            &source
        }
    };
    assert_eq!(used.contents(), oracle.borrow().bytes, "{fault:?}");
    end
}

#[test]
fn a_target_may_fail_at_every_operation() {
    let calls = move_with(3, None).calls;
    assert!(calls > 30, "{calls}");
    for at in 0..calls {
        let end = move_with(3, Some((at, Fault::Fail)));
        match end.moved {
            Err(MirrorError::Target { .. }) => {}
            other => panic!("operation {at}: {other:?}"),
        }
    }
}

#[test]
fn a_target_that_hangs_is_given_up() {
    let calls = move_with(4, None).calls;
    for at in (0..calls).step_by(7) {
        let end = move_with(4, Some((at, Fault::Hang)));
        assert_eq!(end.moved, Err(MirrorError::TooSlow), "operation {at}");
    }
}

#[test]
fn a_write_that_is_lost_is_found_named_and_done_again() {
    let calls = move_with(5, None).calls;
    let mut named = 0;
    for at in 0..calls {
        let end = move_with(5, Some((at, Fault::Lose)));
        assert_eq!(end.moved, Ok(()), "operation {at}");
        named += end.progress.unequal.len();
    }
    // The others were reads, or wrote what was there.
    assert!(named > 10, "{named}");
}

#[test]
fn a_source_that_cannot_be_read_ends_it_and_whoever_asked_may_too() {
    let (dice, memory) = (Dice::new(9), arena());
    let bytes = vec![5; 1 << 20];
    let source = Rc::new(RamDisk::with_contents(memory.clone(), bytes.clone(), BLOCK));
    let slow = Slow::new(source, &dice);
    slow.fault.set(Some((3, Fault::Fail)));
    let target = Rc::new(RamDisk::with_contents(memory.clone(), bytes, BLOCK));
    let disk = SwitchDisk::new(slow, memory, true);
    let mut tasks: Vec<Task<'_>> = vec![Box::pin(async move {
        let clock = Rc::new(Clock::default());
        let mirror = disk.begin(target.clone(), clock.clone()).await.unwrap();
        let ended = mirror.converge(&ALWAYS).await;
        assert!(
            matches!(
                ended,
                Err(MirrorError::Source {
                    offset: 0x30000,
                    ..
                })
            ),
            "{ended:?}"
        );
        disk.end(ended.unwrap_err()).await;
        let mirror = disk.begin(target, clock).await.unwrap();
        let pace = Pace {
            bandwidth_bytes: None,
            go_on: &|| Err("it was called off".to_string()),
        };
        let ended = mirror.converge(&pace).await;
        assert_eq!(ended, Err(MirrorError::Stopped("it was called off".into())));
        assert_eq!(
            disk.write(0, &[]).await,
            Err(crate::disk::DiskError::ReadOnly)
        );
    })];
    assert!(run(&mut tasks, &dice, 100_000));
}
