//! A disk with any partition table: opening is total, and what is accepted keeps the promises of
//! a table and can be repaired.

use super::patches;
use godwit_backends::fake::{Arena, RamDisk, finish};
use godwit_backends::storage::blocks::Blocks;
use godwit_backends::storage::gpt::{Gpt, GptError, Guid, Name, Partition};
use std::rc::Rc;
use std::sync::OnceLock;

const BYTES: usize = 4 << 20;

fn blocks(bytes: Vec<u8>) -> (Rc<RamDisk>, Blocks) {
    let arena = Arena::new(1 << 20);
    let disk = Rc::new(RamDisk::with_contents(arena.clone(), bytes, 512));
    (disk.clone(), Blocks::new(disk, arena))
}

/// A disk with two partitions.
fn good() -> Vec<u8> {
    static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let (disk, blocks) = blocks(vec![0; BYTES]);
        let mut gpt = finish(Gpt::create(blocks, Guid([1; 16]), false)).expect("a table");
        let mut table = gpt.table().clone();
        for slot in 0..2 {
            let blocks = table.first_fit(100, 2048, &[]).expect("room");
            let partition = Partition {
                slot,
                kind: Guid::LINUX_DATA,
                guid: Guid([slot as u8 + 2; 16]),
                blocks,
                attributes: 0,
                name: Name::new("volume").expect("a name"),
            };
            table.insert(partition).expect("a free slot");
        }
        finish(gpt.commit(table)).expect("a write");
        disk.contents()
    };
    GOOD.get_or_init(make).clone()
}

/// One input: patches to a good disk. Returns whether it still has a table.
pub(crate) fn judge(input: &[u8]) -> bool {
    let mut bytes = good();
    patches::apply(&mut bytes, input);
    let (disk, blocks) = blocks(bytes);
    let mut gpt = match finish(Gpt::open(blocks)) {
        Ok(gpt) => gpt,
        Err(error) => {
            assert!(!matches!(error, GptError::Disk(_)), "{error}");
            return false;
        }
    };
    let table = gpt.table().clone();
    let end = disk.contents().len() as u64 / 512;
    for one in table.partitions() {
        assert!(one.blocks.first >= 2 && one.blocks.end() < end && one.blocks.count > 0);
        let others = table
            .partitions()
            .iter()
            .filter(|other| other.slot != one.slot);
        assert!(
            others
                .into_iter()
                .all(|other| !other.blocks.overlaps(&one.blocks))
        );
    }
    finish(gpt.repair()).expect("a repair");
    let (_, again) = self::blocks(disk.contents());
    let again = finish(Gpt::open(again)).expect("a repaired table");
    assert!(again.health().findings().is_empty(), "{:?}", again.health());
    assert_eq!(again.table().partitions(), table.partitions());
    true
}
