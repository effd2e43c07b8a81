use super::*;
use crate::disk::Disk;
use crate::fake::{Arena, RamDisk, finish};
use crate::storage::cached::CachedDisk;
use alloc::rc::Rc;
use std::process::Command;

const DISK_BYTES: usize = 8 << 20;

fn guid(number: u8) -> Guid {
    Guid([number; 16])
}

fn ram(bytes: Vec<u8>, block_bytes: u32) -> (Rc<RamDisk>, Blocks) {
    let arena = Arena::new(4 << 20);
    let disk = Rc::new(RamDisk::with_contents(arena.clone(), bytes, block_bytes));
    (disk.clone(), Blocks::new(disk, arena))
}

fn add(table: &mut Table, name: &str, count: u64, align: u64) -> u32 {
    let slot = table.free_slot().unwrap();
    let blocks = table.first_fit(count, align, &[]).unwrap();
    let partition = Partition {
        slot,
        kind: Guid::LINUX_DATA,
        guid: guid(slot as u8 + 10),
        blocks,
        attributes: 0,
        name: Name::new(name).unwrap(),
    };
    table.insert(partition).unwrap();
    slot
}

/// A disk with the partitions `one` and `two`.
fn made(block_bytes: u32) -> Vec<u8> {
    let (disk, blocks) = ram(vec![0; DISK_BYTES], block_bytes);
    let mut gpt = finish(Gpt::create(blocks, guid(1), false)).unwrap();
    let mut table = gpt.table().clone();
    let align = gpt.align();
    add(&mut table, "one", align, align);
    add(&mut table, "zwei \u{1f40e}", 3, align);
    finish(gpt.commit(table)).unwrap();
    disk.contents()
}

fn open(bytes: Vec<u8>, block_bytes: u32) -> Result<Gpt, GptError> {
    finish(Gpt::open(ram(bytes, block_bytes).1))
}

#[test]
fn reads_back_what_was_written() {
    for block_bytes in [512, 4096] {
        let gpt = open(made(block_bytes), block_bytes).unwrap();
        assert_eq!(gpt.health(), &Health::default());
        assert!(gpt.health().findings().is_empty());
        let names: Vec<_> = gpt
            .table()
            .partitions()
            .iter()
            .map(|p| p.name.text())
            .collect();
        assert_eq!(names, ["one", "zwei \u{1f40e}"]);
        let align = gpt.align();
        let second = &gpt.table().partitions()[1].blocks;
        assert_eq!((second.first, second.count), (2 * align, 3));
    }
}

/// `sgdisk -v` of the package gdisk, the reference reader.
#[test]
fn sgdisk_finds_no_problems() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), made(512)).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new("sgdisk")
            .args(arguments)
            .arg(file.path())
            .output();
        let output = output.expect("sgdisk, of the package gdisk");
        std::string::String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = run(&["-v"]);
    assert!(said.contains("No problems found"), "{said}");
    let said = run(&["-i", "2"]);
    assert!(
        said.contains("zwei") && said.contains("Linux filesystem"),
        "{said}"
    );
    // And the other way round: what sgdisk made, we read.
    run(&["-n", "3:0:+1M", "-c", "3:three"]);
    let gpt = open(std::fs::read(file.path()).unwrap(), 512).unwrap();
    assert_eq!(gpt.table().partition(2).unwrap().name.text(), "three");
    assert_eq!(gpt.health(), &Health::default());
}

#[test]
fn damage_is_named_and_repaired() {
    let last = DISK_BYTES - 512;
    // (byte to spoil, what is found)
    type Found = fn(&Health) -> bool;
    let cases: [(usize, Found); 6] = [
        (512, |h| h.primary == Some(Damage::NoSignature)),
        (512 + 60, |h| h.primary == Some(Damage::HeaderCrc)),
        (1024 + 7, |h| h.primary == Some(Damage::EntriesCrc)),
        (last + 16, |h| h.backup == Some(Damage::HeaderCrc)),
        (last - 32 * 512, |h| h.backup == Some(Damage::EntriesCrc)),
        (446 + 4, |h| h.no_protective_mbr),
    ];
    let whole = made(512);
    for (byte, finds) in cases {
        let mut bytes = whole.clone();
        bytes[byte] ^= 0xff;
        let (disk, blocks) = ram(bytes, 512);
        let mut gpt = finish(Gpt::open(blocks)).unwrap();
        assert!(finds(gpt.health()), "byte {byte}: {:?}", gpt.health());
        assert_eq!(finish(gpt.repair()).unwrap().len(), 1);
        assert_eq!(disk.contents(), whole, "byte {byte}");
        assert!(finish(gpt.repair()).unwrap().is_empty());
    }
    let mut bytes = whole;
    bytes[512 + 60] ^= 1;
    bytes[last + 60] ^= 1;
    let both = GptError::BothDamaged {
        primary: Damage::HeaderCrc,
        backup: Damage::HeaderCrc,
    };
    assert_eq!(open(bytes, 512).err(), Some(both));
    assert_eq!(open(vec![0; DISK_BYTES], 512).err(), Some(GptError::NotGpt));
}

/// Every cut, with every kind of loss of what was not flushed, from every state of the copies.
#[test]
fn a_cut_leaves_the_old_table_or_the_new_one() {
    let whole = made(512);
    let mut no_primary = whole.clone();
    no_primary[512..1024].fill(0);
    let mut no_backup = whole.clone();
    no_backup[DISK_BYTES - 512..].fill(0xff);
    for start in [whole, no_primary, no_backup] {
        let old = open(start.clone(), 512).unwrap().table().clone();
        let mut new = old.clone();
        new.delete(0).unwrap();
        add(&mut new, "three", 7, 2048);
        let mut cut = 0;
        loop {
            let arena = Arena::new(1 << 20);
            let disk = CachedDisk::new(arena.clone(), start.clone(), 512);
            let mut gpt = finish(Gpt::open(Blocks::new(disk.clone(), arena))).unwrap();
            disk.cut_after(cut);
            let done = finish(gpt.commit(new.clone())).is_ok();
            disk.losses(2, |bytes| {
                let gpt = open(bytes, 512).unwrap();
                let is_new = gpt.table() == &new;
                assert!(is_new || (!done && gpt.table() == &old), "cut after {cut}");
            });
            if done {
                break;
            }
            cut += 1;
        }
        assert_eq!(
            cut, 67,
            "2 * (32 entry blocks + header), and the flush behind the last"
        );
    }
}

#[test]
fn existing_tables_are_not_overwritten_unasked() {
    let (_, blocks) = ram(made(512), 512);
    let refused = finish(Gpt::create(blocks.clone(), guid(2), false)).err();
    assert_eq!(refused, Some(GptError::HasTable));
    let gpt = finish(Gpt::create(blocks, guid(2), true)).unwrap();
    assert!(gpt.table().partitions().is_empty());
    let (_, small) = ram(vec![0; 1 << 20], 512);
    let refused = finish(Gpt::create(small, guid(2), false)).err();
    assert_eq!(refused, Some(GptError::TooSmall { bytes: 1 << 20 }));
}

#[test]
fn a_grown_disk_is_noticed_and_used() {
    let mut bytes = made(512);
    bytes.resize(DISK_BYTES + (4 << 20), 0);
    let (disk, blocks) = ram(bytes, 512);
    let mut gpt = finish(Gpt::open(blocks)).unwrap();
    assert!(gpt.health().backup_not_last);
    finish(gpt.repair()).unwrap();
    assert_eq!(gpt.table().last_usable, disk.geometry().blocks - 34);
    let again = open(disk.contents(), 512).unwrap();
    assert_eq!(
        (again.health(), again.table()),
        (&Health::default(), gpt.table())
    );
}

#[test]
fn partitions_are_resized_and_fitted() {
    let mut table = Table::new(guid(1), 3, 34, 10_000);
    let one = add(&mut table, "one", 100, 2048);
    let two = add(&mut table, "two", 2048, 2048);
    assert_eq!(table.partition(two).unwrap().blocks.first, 4096);
    table.resize(one, 2048, &[]).unwrap();
    let refused = TableError::NoRoomBehind {
        wanted: 2049,
        possible: 2048,
    };
    assert_eq!(table.resize(one, 2049, &[]), Err(refused));
    let reserved = [BlockRange {
        first: 6144,
        count: 1,
    }];
    assert!(table.resize(two, 2049, &reserved).is_err());
    let refused = TableError::NoSpace {
        wanted: 2048,
        longest: 1809,
    };
    assert_eq!(table.first_fit(2048, 2048, &reserved), Err(refused));
    table.delete(one).unwrap();
    assert_eq!(table.first_fit(1, 2048, &[]).unwrap().first, 2048);
    add(&mut table, "a", 1, 2048);
    add(&mut table, "b", 1, 2048);
    assert_eq!(table.free_slot(), Err(TableError::NoSlot { slots: 3 }));
    assert_eq!(Name::new(&"x".repeat(37)), Err(NameTooLong { units: 37 }));
}
