use super::blocks::Blocks;
use super::cached::CachedDisk;
use super::error::StoreError;
use super::gpt::{GptError, Random, TableError};
use super::info::{Space, StoreOptions};
use super::store::Store;
use super::volume::Access;
use crate::disk::{Disk, DiskError};
use crate::fake::{Arena, RamDisk, finish};
use crate::memory::{Memory, Span};
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;

const MIB: u64 = 1 << 20;

/// 1, 2, 3, ...: never the same twice.
struct Counting(Cell<u8>);

impl Random for Counting {
    fn fill(&self, out: &mut [u8]) {
        self.0.set(self.0.get() + 1);
        out.fill(self.0.get());
    }
}

fn random() -> Rc<dyn Random> {
    Rc::new(Counting(Cell::new(0)))
}

fn options(label: Option<&str>) -> StoreOptions {
    StoreOptions {
        label: label.map(Into::into),
        files_bytes: MIB,
        journal_bytes: MIB,
        overwrite: false,
    }
}

struct Bench {
    memory: Rc<dyn Memory>,
    disk: Rc<RamDisk>,
    store: Store,
}

/// A store of 16 MiB: 12 of them for volumes.
fn bench() -> Bench {
    let memory: Rc<dyn Memory> = Arena::new(4 << 20);
    let bytes = vec![0xee; 16 << 20];
    let disk = Rc::new(RamDisk::with_contents(Rc::clone(&memory), bytes, 512));
    let options = options(None);
    let made = Store::create(disk.clone(), memory.clone(), "nvme0", random(), &options);
    let store = finish(made).unwrap();
    Bench {
        memory,
        disk,
        store,
    }
}

fn names(store: &Store) -> Vec<alloc::string::String> {
    store.volumes().into_iter().map(|one| one.name).collect()
}

#[test]
fn a_store_is_known_by_its_partition() {
    let bench = bench();
    assert_eq!(bench.store.name(), "nvme0");
    assert!(names(&bench.store).is_empty());
    let reopen = |disk: Rc<RamDisk>| Store::open(disk, Rc::clone(&bench.memory), "sda", random());
    let again = finish(reopen(bench.disk.clone())).unwrap();
    assert_eq!(again.name(), "sda");
    assert!(finish(again.findings()).is_empty());
    assert_eq!(again.free().bytes, 13 * MIB - 33 * 512);
    let files = again.open_files(Access::Write, "dom0").unwrap();
    assert_eq!(files.geometry().bytes(), MIB);
    let journal = again.open_journal(Access::Read, "dom0").unwrap();
    assert_eq!(journal.geometry().bytes(), MIB);

    let other = RamDisk::new(Rc::clone(&bench.memory), 32768, 512);
    let refused = finish(reopen(other.clone())).err();
    assert_eq!(refused, Some(StoreError::Gpt(GptError::NotGpt)));
    let memory = Rc::clone(&bench.memory);
    let options = options(Some("fast"));
    let made = Store::create(other, memory, "sdb", random(), &options);
    assert_eq!(finish(made).unwrap().name(), "fast");
}

#[test]
fn volumes_are_made_of_zeroes_and_looked_up() {
    let Bench {
        store,
        disk,
        memory,
    } = bench();
    finish(store.create_volume("root", 2 * MIB, Space::Sparse)).unwrap();
    finish(store.create_volume("data", MIB + 1, Space::Whole)).unwrap();
    assert_eq!(names(&store), ["root", "data"]);
    assert_eq!(store.lookup("data").unwrap().bytes, MIB + 512);
    let volume = store.open_volume("root", Access::Read, "test").unwrap();
    let mut found = vec![1; (2 * MIB) as usize];
    finish(Blocks::new(volume, memory.clone()).read(0, &mut found)).unwrap();
    assert!(found.iter().all(|byte| *byte == 0));
    let again = finish(Store::open(disk, memory, "x", random())).unwrap();
    assert_eq!(names(&again), ["root", "data"]);

    for name in [
        "",
        "GODWIT",
        "GODWIT-X",
        "a/b",
        " a",
        "a\n",
        &"x".repeat(37),
    ] {
        let refused = finish(store.create_volume(name, MIB, Space::Sparse));
        assert!(
            matches!(refused, Err(StoreError::BadName { .. })),
            "{name:?}"
        );
    }
    let exists = StoreError::Exists("root".into());
    let again = finish(store.create_volume("root", MIB, Space::Sparse));
    assert_eq!(again, Err(exists.clone()));
    assert_eq!(finish(store.rename_volume("data", "root")), Err(exists));
    finish(store.rename_volume("data", "swap")).unwrap();
    assert_eq!(names(&store), ["root", "swap"]);
    let gone = StoreError::NoSuchVolume("data".into());
    assert_eq!(store.lookup("data"), Err(gone));
    let too_large = finish(store.create_volume("big", 64 * MIB, Space::Sparse));
    let too_large = too_large.unwrap_err();
    let reason = StoreError::from(TableError::NoSpace {
        wanted: 64 * 2048,
        longest: store.free().largest_bytes / 512,
    });
    assert_eq!(too_large, reason);
}

#[test]
fn one_writer_or_many_readers() {
    let Bench { store, .. } = bench();
    finish(store.create_volume("root", 2 * MIB, Space::Sparse)).unwrap();
    let writer = store.open_volume("root", Access::Write, "guest a").unwrap();
    let in_use = |result: Result<_, StoreError>| match result {
        Err(StoreError::InUse { by, .. }) => by.name,
        Ok(()) | Err(_) => "nobody".into(),
    };
    let open = |access, user| store.open_volume("root", access, user).map(|_| ());
    assert_eq!(in_use(open(Access::Write, "guest b")), "guest a");
    assert_eq!(in_use(open(Access::Read, "guest b")), "guest a");
    assert_eq!(in_use(finish(store.delete_volume("root"))), "guest a");
    assert_eq!(in_use(finish(store.resize_volume("root", MIB))), "guest a");
    // Growing is possible, and seen by who has it open.
    finish(store.resize_volume("root", 3 * MIB)).unwrap();
    assert_eq!(writer.geometry().bytes(), 3 * MIB);
    assert_eq!(store.lookup("root").unwrap().users[0].name, "guest a");
    drop(writer);
    let reader = store.open_volume("root", Access::Read, "a").unwrap();
    open(Access::Read, "b").unwrap();
    assert_eq!(in_use(open(Access::Write, "c")), "a");
    assert_eq!(finish(reader.write(0, &[])), Err(DiskError::ReadOnly));
    drop(reader);
    finish(store.resize_volume("root", MIB)).unwrap();
    finish(store.delete_volume("root")).unwrap();
    assert!(names(&store).is_empty());
}

#[test]
fn a_volume_ends_where_it_ends() {
    let Bench { store, memory, .. } = bench();
    finish(store.create_volume("a", MIB, Space::Sparse)).unwrap();
    finish(store.create_volume("b", MIB, Space::Sparse)).unwrap();
    let volume = store.open_volume("a", Access::Write, "test").unwrap();
    let address = memory.allocate(1024).unwrap();
    let span = |bytes| [Span { address, bytes }];
    let out = Err(DiskError::OutOfRange);
    assert_eq!(finish(volume.write(2046, &span(1024))), Ok(()));
    assert_eq!(finish(volume.write(2047, &span(1024))), out);
    assert_eq!(finish(volume.read(u64::MAX, &span(512))), out);
    assert_eq!(finish(volume.write(0, &span(100))), out);
    assert_eq!(finish(volume.discard(0, 2049)), out);
    assert_eq!(finish(volume.write_zeroes(1, u64::MAX, true)), out);
    let blocked = finish(store.resize_volume("a", MIB + 1)).unwrap_err();
    let reason = StoreError::from(TableError::NoRoomBehind {
        wanted: 2049,
        possible: 2048,
    });
    assert_eq!(blocked, reason);
}

#[test]
fn import_and_export_carry_every_byte() {
    let Bench { store, memory, .. } = bench();
    let bytes: Vec<u8> = (0..3 * MIB + 1024).map(|at| (at % 251) as u8).collect();
    let source = RamDisk::with_contents(memory.clone(), bytes.clone(), 512);
    let source = Blocks::new(Rc::new(source), memory.clone());
    let done = Cell::new(0);
    finish(store.import("image", &source, &done)).unwrap();
    assert_eq!(done.get(), bytes.len() as u64);
    // To a disk of other blocks: the last one is filled up.
    let target = RamDisk::new(memory.clone(), 1000, 4096);
    let to = Blocks::new(target.clone(), memory.clone());
    finish(store.export("image", &to, &done)).unwrap();
    assert_eq!(target.contents()[..bytes.len()], bytes);
    let small = Blocks::new(RamDisk::new(memory.clone(), 10, 4096), memory);
    let refused = finish(store.export("image", &small, &done)).unwrap_err();
    assert!(matches!(refused, StoreError::TargetTooSmall { .. }));
    assert!(store.lookup("image").unwrap().users.is_empty());
}

/// A cut anywhere in creating, growing and deleting: the volume is there, whole, or it is not.
#[test]
fn nothing_is_left_half_made() {
    let start = bench().disk.contents();
    for cut in (0..).step_by(13) {
        let memory: Rc<dyn Memory> = Arena::new(4 << 20);
        let disk = CachedDisk::new(memory.clone(), start.clone(), 512);
        let store = finish(Store::open(disk.clone(), memory.clone(), "x", random())).unwrap();
        disk.cut_after(cut);
        let mut acknowledged = 0;
        let steps = async {
            store.create_volume("v", 100 << 10, Space::Whole).await?;
            acknowledged = 1;
            store.resize_volume("v", 150 << 10).await?;
            acknowledged = 2;
            store.delete_volume("v").await?;
            acknowledged = 3;
            Ok::<(), StoreError>(())
        };
        let ended = finish(steps).is_ok();
        disk.losses(1, |bytes| {
            let disk = Rc::new(RamDisk::with_contents(memory.clone(), bytes, 512));
            let store = finish(Store::open(disk, memory.clone(), "x", random())).unwrap();
            let size = store.lookup("v").map_or(0, |volume| volume.bytes >> 10);
            let possible: &[u64] = match acknowledged {
                0 => &[0, 100],
                1 => &[100, 150],
                2 => &[150, 0],
                _ => &[0],
            };
            assert!(possible.contains(&size), "cut {cut}: {size} KiB");
            if size > 0 {
                let volume = store.open_volume("v", Access::Read, "test").unwrap();
                let mut found = vec![1; (size << 10) as usize];
                finish(Blocks::new(volume, memory.clone()).read(0, &mut found)).unwrap();
                assert!(found.iter().all(|byte| *byte == 0), "cut {cut}");
            }
        });
        if ended {
            break;
        }
    }
}

#[test]
fn a_volume_in_the_making_is_in_no_table() {
    let arena = Arena::new(4 << 20);
    let disk = RamDisk::new(arena.clone(), 16 * MIB / 512, 512);
    let open = |disk: &Rc<RamDisk>| {
        let opened = Store::open(disk.clone(), arena.clone(), "d", random());
        Rc::new(finish(opened).unwrap())
    };
    let options = options(None);
    let made = Store::create(disk.clone(), arena.clone(), "d", random(), &options);
    finish(made).unwrap();
    let store = open(&disk);
    let free = store.free().bytes;
    let new = store.prepare_volume("web", 2 * MIB, "a move").unwrap();
    assert_eq!(store.free().bytes, free - 2 * MIB);
    let clash = store.prepare_volume("web", MIB, "another").err();
    assert_eq!(clash, Some(StoreError::Exists("web".into())));
    // Whoever looks after a power cut finds nothing of it.
    assert!(open(&disk).volumes().is_empty());
    drop(new);
    assert_eq!((store.free().bytes, store.volumes().len()), (free, 0));
    let new = store.prepare_volume("web", 2 * MIB, "a move").unwrap();
    let volume = new.volume();
    finish(new.enter()).unwrap();
    drop(new);
    assert_eq!(store.lookup("web").unwrap().users[0].name, "a move");
    assert!(store.open_volume("web", Access::Read, "x").is_err());
    drop(volume);
    assert!(store.open_volume("web", Access::Write, "x").is_ok());
    assert_eq!(open(&disk).lookup("web").unwrap().bytes, 2 * MIB);
}
