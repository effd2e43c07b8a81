//! 1 GiB leaves, budgets, refusals.

use std::vec;
use std::vec::Vec;

use super::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

fn tables<F: Format>(method: Method, largest: PageSize) -> (Arena, NestedTables<F>) {
    let mut memory = Arena::new(2000);
    let tables = NestedTables::new(&mut memory, largest, method).unwrap();
    (memory, tables)
}

fn sizes<F: Format>(memory: &Arena, tables: &NestedTables<F>) -> [usize; 3] {
    let mut counts = [0; 3];
    tables.leaves(memory, &mut Cursor::all(), usize::MAX, |mapping| {
        counts[mapping.size as usize - 1] += 1;
    });
    counts
}

fn a_life_with_huge_pages<F: Format>(method: Method) {
    let (mut memory, mut tables) = tables::<F>(method, PageSize::Huge1G);
    let map = |tables: &mut NestedTables<F>, memory: &mut Arena, guest: u64, length: u64| {
        let (guest, host) = (GuestPhysical(guest), HostPhysical(guest + 8 * GIB));
        let flush = tables.map(
            memory,
            guest,
            host,
            length,
            Access::ALL,
            MemoryType::WriteBack,
        );
        assert_eq!(flush, Ok(Flush::None));
    };
    map(&mut tables, &mut memory, 0, GIB + 2 * MIB + 4096);
    assert_eq!(sizes(&memory, &tables), [1, 1, 1]);
    // Root, one directory-pointer table, one directory, one table.
    assert_eq!(tables.table_count(), 4);

    let mut at = Cursor::over(GuestPhysical(0), GIB).unwrap();
    let mut steps = 0;
    while !at.is_done() {
        let _flush = tables.arm(&mut memory, &mut at, 4096).unwrap();
        steps += 1;
    }
    assert_eq!(steps, 1);
    assert_eq!(sizes(&memory, &tables), [1, 1, 1], "arming split");

    let _none = tables
        .mark_dirty(&mut memory, GuestPhysical(513 * MIB))
        .unwrap();
    assert_eq!(sizes(&memory, &tables), [512 + 1, 511 + 1, 0]);
    let mut words = vec![0; 4096];
    let mut bitmap = Bitmap::new(GuestPhysical(0), &mut words).unwrap();
    let mut at = Cursor::over(GuestPhysical(0), GIB).unwrap();
    while !at.is_done() {
        let _flush = tables
            .harvest(&mut memory, &mut at, &mut bitmap, 4096)
            .unwrap();
    }
    let set: Vec<u64> = (0..262_144)
        .filter(|n| words[(n / 64) as usize] >> (n % 64) & 1 == 1)
        .collect();
    assert_eq!(set, [513 * MIB / 4096]);

    let mut at = Cursor::all();
    while !at.is_done() {
        let _flush = tables.disarm(&mut memory, &mut at, 4096).unwrap();
        tables.release_retired(&mut memory);
    }
    assert_eq!(
        sizes(&memory, &tables),
        [1, 1, 1],
        "disarming did not merge"
    );
    assert_eq!(tables.table_count(), 4);

    let mut at = Cursor::over(GuestPhysical(4096), 4096).unwrap();
    let mut gone = Vec::new();
    while !at.is_done() {
        let _flush = tables
            .unmap(&mut memory, &mut at, 1, |mapping| gone.push(mapping))
            .unwrap();
    }
    assert_eq!(gone.len(), 1);
    assert_eq!(gone[0].leaf.address, HostPhysical(8 * GIB + 4096));
    assert_eq!(sizes(&memory, &tables), [511 + 1, 511 + 1, 0]);
}

#[test]
fn huge_pages_split_and_come_together_again() {
    a_life_with_huge_pages::<Ept>(Method::DirtyLog);
    a_life_with_huge_pages::<Npt>(Method::WriteProtect);
    a_life_with_huge_pages::<Fake>(Method::WriteProtect);
}

#[test]
fn the_processors_limit_is_kept() {
    let (mut memory, mut tables) = tables::<Ept>(Method::DirtyLog, PageSize::Large2M);
    let (guest, host) = (GuestPhysical(GIB), HostPhysical(GIB));
    let flush = tables.map(
        &mut memory,
        guest,
        host,
        GIB,
        Access::ALL,
        MemoryType::WriteBack,
    );
    assert_eq!(flush, Ok(Flush::None));
    assert_eq!(sizes(&memory, &tables), [0, 512, 0]);
    let mut at = Cursor::all();
    let _flush = tables.merge(&mut memory, &mut at, usize::MAX).unwrap();
    assert_eq!(sizes(&memory, &tables), [0, 512, 0]);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let (mut memory, mut tables) = tables::<Npt>(Method::WriteProtect, PageSize::Huge1G);
    let mut map = |guest: u64, host: u64, length: u64| {
        let (guest, host) = (GuestPhysical(guest), HostPhysical(host));
        tables.map(
            &mut memory,
            guest,
            host,
            length,
            Access::ALL,
            MemoryType::WriteBack,
        )
    };
    assert_eq!(map(1, 0, 4096), Err(NestedError::Misaligned));
    assert_eq!(map(0, 0, 12), Err(NestedError::Misaligned));
    assert_eq!(
        map(GUEST_PHYSICAL_END, 0, 4096),
        Err(NestedError::OutOfRange)
    );
    assert_eq!(map(0, 1 << 52, 4096), Err(NestedError::OutOfRange));
    assert_eq!(map(u64::MAX - 4095, 0, 4096), Err(NestedError::OutOfRange));
    assert_eq!(
        map(GUEST_PHYSICAL_END - 4096, (1 << 52) - 4096, 4096),
        Ok(Flush::None)
    );
    let end = GuestPhysical(GUEST_PHYSICAL_END);
    assert_eq!(
        tables.translate(&memory, end, Wanted::Read),
        Err(NestedError::OutOfRange)
    );
    assert_eq!(
        tables.mark_dirty(&mut memory, end),
        Err(NestedError::OutOfRange)
    );
    assert_eq!(
        tables.split(&mut memory, GuestPhysical(GUEST_PHYSICAL_END - 4096)),
        Err(NestedError::NotLarge)
    );
    let mut at = Cursor::all();
    let mut words = [0; 1];
    let mut small = Bitmap::new(GuestPhysical(0), &mut words).unwrap();
    assert_eq!(
        tables.harvest(&mut memory, &mut at, &mut small, 1),
        Err(NestedError::NotTracking)
    );
    let _flush = tables.arm(&mut memory, &mut at, 1).unwrap();
    assert_eq!(
        tables.harvest(&mut memory, &mut at, &mut small, 1),
        Err(NestedError::OutOfRange)
    );
    assert_eq!(
        tables.merge(&mut memory, &mut at, 1),
        Err(NestedError::Tracking)
    );
}

#[test]
fn pages_not_yet_disarmed_are_not_merged() {
    let (mut memory, mut tables) = tables::<Ept>(Method::WriteProtect, PageSize::Huge1G);
    let (guest, host) = (GuestPhysical(0), HostPhysical(GIB));
    let flush = tables.map(
        &mut memory,
        guest,
        host,
        4 * MIB,
        Access::ALL,
        MemoryType::WriteBack,
    );
    assert_eq!(flush, Ok(Flush::None));
    let _flush = tables
        .arm(&mut memory, &mut Cursor::all(), usize::MAX)
        .unwrap();
    for page in [guest, GuestPhysical(2 * MIB)] {
        let _none = tables.mark_dirty(&mut memory, page).unwrap();
    }
    assert_eq!(sizes(&memory, &tables), [1024, 0, 0]);
    let mut first = Cursor::over(guest, 2 * MIB).unwrap();
    let _flush = tables.disarm(&mut memory, &mut first, usize::MAX).unwrap();
    let _flush = tables
        .merge(&mut memory, &mut Cursor::all(), usize::MAX)
        .unwrap();
    assert_eq!(sizes(&memory, &tables), [512, 1, 0]);
    let last = GuestPhysical(4 * MIB - 1);
    assert_eq!(
        tables.translate(&memory, last, Wanted::Write),
        Err(NestedError::Withheld)
    );
}
