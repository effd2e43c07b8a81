use super::blocks::Blocks;
use super::cached::CachedDisk;
use super::journal::*;
use crate::fake::{Arena, RamDisk, finish};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;

const BYTES: usize = PARTITION_BYTES_MIN as usize;

fn blocks(bytes: Vec<u8>) -> (Rc<RamDisk>, Blocks) {
    let arena = Arena::new(1 << 20);
    let disk = Rc::new(RamDisk::with_contents(arena.clone(), bytes, 512));
    (disk.clone(), Blocks::new(disk, arena))
}

fn records(bytes: Vec<u8>) -> Vec<Record> {
    finish(Journal::open(blocks(bytes).1)).unwrap().1
}

/// The `number`th record: its length varies from nothing to several blocks.
fn body(number: u64) -> Vec<u8> {
    vec![number as u8; (number * 331 % 1900) as usize]
}

#[test]
fn what_was_appended_is_read() {
    let (disk, partition) = blocks(vec![0x5a; BYTES]);
    assert_eq!(
        finish(Journal::open(partition.clone())).err(),
        Some(JournalError::NotFormatted)
    );
    let journal = finish(Journal::format(partition)).unwrap();
    for number in 1..=20 {
        let sequence = finish(journal.append(number as u32 + 100, &body(number)));
        assert_eq!(sequence, Ok(number));
    }
    let found = records(disk.contents());
    assert_eq!(found.len(), 20);
    for (record, number) in found.iter().zip(1..) {
        assert_eq!(
            (record.sequence, record.kind),
            (number, number as u32 + 100)
        );
        assert_eq!(record.bytes, body(number));
    }
    let long = finish(journal.append(1, &vec![0; RECORD_BYTES_MAX + 1]));
    let bytes = RECORD_BYTES_MAX + 1;
    assert_eq!(long, Err(JournalError::TooLong { bytes }));
}

#[test]
fn a_blank_partition_becomes_a_journal_and_no_other_does() {
    let (disk, partition) = blocks(vec![0; BYTES]);
    let (journal, found) = finish(Journal::open_or_format(partition.clone())).unwrap();
    assert_eq!(found.len(), 0);
    finish(journal.append(9, b"kept")).unwrap();
    let (_, found) = finish(Journal::open_or_format(partition)).unwrap();
    assert_eq!((found.len(), found[0].kind), (1, 9));
    assert_eq!(records(disk.contents()).len(), 1);
    // One byte, however far back, is somebody's.
    let mut bytes = vec![0; BYTES];
    bytes[BYTES - 1] = 1;
    let (disk, partition) = blocks(bytes.clone());
    let refused = finish(Journal::open_or_format(partition)).err();
    assert_eq!(refused, Some(JournalError::NotFormatted));
    assert_eq!(disk.contents(), bytes);
}

#[test]
fn a_full_journal_goes_on_after_a_checkpoint() {
    let (disk, partition) = blocks(vec![0; BYTES]);
    let journal = finish(Journal::format(partition)).unwrap();
    let mut last = 0;
    for round in 0..3u8 {
        loop {
            match finish(journal.append(7, &[round; 5000])) {
                Ok(sequence) => last = sequence,
                Err(error) => {
                    assert_eq!(error, JournalError::Full);
                    break;
                }
            }
        }
        assert!(finish(journal.free_bytes()) < 5632);
        finish(journal.checkpoint(&[(8, b"kept"), (9, &[round])])).unwrap();
        let found = records(disk.contents());
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].sequence, found[1].kind), (last + 1, 9));
    }
}

/// Every cut, with every kind of loss of what was not flushed.
#[test]
fn a_cut_leaves_a_prefix_with_all_that_was_acknowledged() {
    let (disk, partition) = blocks(vec![0; BYTES]);
    let journal = finish(Journal::format(partition)).unwrap();
    finish(journal.append(1, &body(1))).unwrap();
    let start = disk.contents();
    // Two appends, a checkpoint that keeps the first two, one more append.
    let region = BYTES / 2 / 512;
    let cuts = (0..12)
        .chain((12..region).step_by(37))
        .chain(region..region + 24);
    let mut completed = false;
    for cut in cuts {
        let arena = Arena::new(1 << 20);
        let disk = CachedDisk::new(arena.clone(), start.clone(), 512);
        let (journal, _) = finish(Journal::open(Blocks::new(disk.clone(), arena))).unwrap();
        disk.cut_after(cut);
        let mut steps = 0;
        let work = async {
            journal.append(2, &body(2)).await?;
            steps = 1;
            journal.append(3, &body(5)).await?;
            steps = 2;
            journal.checkpoint(&[(1, &body(1)), (2, &body(2))]).await?;
            steps = 3;
            journal.append(4, &body(4)).await?;
            steps = 4;
            Ok::<(), JournalError>(())
        };
        completed |= finish(work).is_ok();
        disk.losses(3, |bytes| {
            let found: Vec<_> = records(bytes).iter().map(|one| one.kind).collect();
            let states: [&[u32]; 5] = [&[1], &[1, 2], &[1, 2, 3], &[1, 2], &[1, 2, 4]];
            let possible = &states[steps..states.len().min(steps + 2)];
            assert!(possible.contains(&&found[..]), "cut {cut}: {found:?}");
        });
    }
    assert!(completed, "the cuts end before the work does");
}

/// What a torn record leaves behind is never taken for a record, whatever is appended next.
#[test]
fn remains_are_cleared() {
    let (disk, partition) = blocks(vec![0; BYTES]);
    let journal = finish(Journal::format(partition)).unwrap();
    // A record whose second block looks like the record that will follow.
    let trap = encode(1, 2, 66, b"trap", 512);
    let mut bytes = vec![0; 512 - RECORD_HEAD_BYTES];
    bytes.extend(&trap);
    finish(journal.append(1, &bytes)).unwrap();
    let mut torn = disk.contents();
    torn[512] ^= 1;
    let (disk, partition) = blocks(torn);
    let (journal, found) = finish(Journal::open(partition)).unwrap();
    assert!(found.is_empty());
    assert_eq!(finish(journal.append(2, b"short")), Ok(1));
    let kinds: Vec<_> = records(disk.contents())
        .iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(kinds, [2]);
}
