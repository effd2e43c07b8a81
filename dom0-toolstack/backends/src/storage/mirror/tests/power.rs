//! The power goes at any moment: the disk that is noted holds everything that was flushed.

use super::bench::*;
use crate::storage::cached::CachedDisk;
use crate::storage::mirror::{MirrorError, SwitchDisk};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

#[test]
fn what_was_flushed_is_on_the_disk_that_is_noted() {
    let (mut before, mut after) = (0, 0);
    for seed in 1..=150 {
        let (dice, memory, clock) = (Dice::new(seed), arena(), Clock::default());
        let first = contents(&dice);
        let oracle = Oracle::of(&first);
        let source = CachedDisk::new(memory.clone(), first, BLOCK as usize);
        let bytes = (BLOCKS * u64::from(BLOCK)) as usize;
        let target = CachedDisk::new(memory.clone(), vec![0xee; bytes], BLOCK as usize);
        let disk = SwitchDisk::new(Slow::new(source.clone(), &dice), memory.clone(), false);
        let noted = Rc::new(Cell::new(false));
        let (moving, note) = (disk.clone(), noted.clone());
        let to = Slow::new(target.clone(), &dice);
        let mover = async move {
            let mirror = moving.begin(to, Rc::new(clock)).await.unwrap();
            mirror.converge(&ALWAYS).await.unwrap();
            let switched = moving.switch(async || {
                turns(2).await;
                note.set(true);
                Ok::<(), MirrorError>(())
            });
            switched.await.unwrap();
        };
        let writer = guest(disk, memory, oracle.clone(), dice.clone(), (0, 1), 400);
        let mut tasks: Vec<Task<'_>> = vec![Box::pin(mover), Box::pin(writer)];
        let polls = dice.roll(1200);
        run(&mut tasks, &dice, polls);
        let used = match noted.get() {
            true => &target,
            false => &source,
        };
        *(if noted.get() { &mut after } else { &mut before }) += 1;
        let oracle = oracle.borrow();
        used.losses(4, |left| {
            for (at, block) in left.chunks(BLOCK as usize).enumerate() {
                let is_possible = oracle.possible[at].contains(&block[0]);
                assert!(is_possible, "seed {seed}, block {at}: {}", block[0]);
                assert!(block.iter().all(|byte| *byte == block[0]));
            }
        });
    }
    assert!(before > 20 && after > 20, "{before} before, {after} after");
}
