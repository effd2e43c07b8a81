//! The algorithm in all formats and both tracking methods against a map of pages, with a processor that translates through a
//! cache, sets accessed and dirty bits, and races with us. Exact encodings of EPT and NPT are in `encodings`.

extern crate std;

use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::fake::Fake;
use super::*;
use crate::frames::HostPhysical;

mod absent;
mod arena;
mod encodings;
mod large;
mod laws;
mod races;

use arena::Arena;
use laws::expand;

const PAGE: u64 = 4096;
/// The pages under test: 8 MiB around 1 GiB, so that tables of every level are crossed.
const BASE: u64 = (1 << 30) - (4 << 20);
const PAGES: u64 = 2048;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    host: u64,
    access: Access,
    memory_type: MemoryType,
    dirty: bool,
}

/// Tables, oracle, and the processor's cache of translations: page -> (host, may write without a walk).
struct Host<F> {
    memory: Arena,
    tables: NestedTables<F>,
    oracle: BTreeMap<u64, Page>,
    cache: BTreeMap<u64, (u64, bool)>,
    /// The page of the write that races.
    racing: Option<u64>,
    /// What the processor has logged.
    log: Vec<u64>,
}

#[derive(Clone, Debug)]
enum Op {
    Map(u64, u64, u64, Access, MemoryType),
    Unmap(u64, u64, usize),
    Protect(u64, u64, Access, usize),
    Split(u64),
    Merge(u64, u64, usize),
    Arm(u64, u64, usize),
    Disarm(u64, u64, usize),
    Write(u64),
    RacingWrite(u64),
    MarkDirty(u64),
    Harvest(u64, u64, usize),
    DrainLog,
    PutBack(u64, u64, u64),
    Limit(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let page = || 0..PAGES;
    // Aligned starts half of the time, so that large leaves come about.
    let start = || prop_oneof![0..PAGES, (0..PAGES / 512).prop_map(|n| n * 512)];
    let count = || prop_oneof![1u64..40, 1u64..1600, Just(512u64), Just(PAGES)];
    let access = || {
        (any::<bool>(), any::<bool>()).prop_map(|(write, execute)| Access {
            write: write || execute,
            execute,
        })
    };
    let memory_type = prop_oneof![
        6 => Just(MemoryType::WriteBack),
        1 => Just(MemoryType::Uncacheable),
        1 => Just(MemoryType::WriteCombining),
    ];
    let budget = || prop_oneof![1usize..600, Just(100_000usize)];
    prop_oneof![
        6 => (start(), prop_oneof![Just(0u64), Just(512u64), 0u64..1024], count(), access(), memory_type)
            .prop_map(|(s, h, n, a, t)| Op::Map(s, h, n, a, t)),
        3 => (start(), count(), budget()).prop_map(|(s, n, b)| Op::Unmap(s, n, b)),
        3 => (start(), count(), access(), budget()).prop_map(|(s, n, a, b)| Op::Protect(s, n, a, b)),
        1 => page().prop_map(Op::Split),
        2 => (start(), count(), budget()).prop_map(|(s, n, b)| Op::Merge(s, n, b)),
        3 => (start(), count(), budget()).prop_map(|(s, n, b)| Op::Arm(s, n, b)),
        1 => (start(), count(), budget()).prop_map(|(s, n, b)| Op::Disarm(s, n, b)),
        6 => page().prop_map(Op::Write),
        4 => page().prop_map(Op::RacingWrite),
        2 => page().prop_map(Op::MarkDirty),
        4 => (start(), count(), budget()).prop_map(|(s, n, b)| Op::Harvest(s, n, b)),
        1 => Just(Op::DrainLog),
        2 => (start(), count(), any::<u64>()).prop_map(|(s, n, m)| Op::PutBack(s, n, m)),
        1 => (4usize..14).prop_map(Op::Limit),
    ]
}

fn address(page: u64) -> GuestPhysical {
    GuestPhysical(BASE + page * PAGE)
}

fn cursor(start: u64, count: u64) -> Cursor {
    Cursor::over(address(start), count.min(PAGES - start) * PAGE).unwrap()
}

/// Pages a cursor has passed since.
fn passed(before: Cursor, after: Cursor) -> core::ops::Range<u64> {
    (before.next - BASE) / PAGE..(after.next - BASE) / PAGE
}

impl<F: Format> Host<F> {
    fn new(method: Method) -> Self {
        let mut memory = Arena::new(1000);
        let tables = NestedTables::new(&mut memory, PageSize::Huge1G, method).unwrap();
        Host {
            memory,
            tables,
            oracle: BTreeMap::new(),
            cache: BTreeMap::new(),
            racing: None,
            log: Vec::new(),
        }
    }

    /// Does the flush that is owed, and only that.
    fn flush(&mut self, flush: Flush) {
        if let Flush::Range { start, end } = flush {
            self.cache
                .retain(|&page, _| address(page) < start || address(page) >= end);
            self.tables.release_retired(&mut self.memory);
        }
    }

    /// The processor's view of a write: the entry with accessed and dirty set, if the tables allow it.
    fn written_entry(&self, page: u64) -> Option<(Frame, usize, u64)> {
        let slot = self.tables.find(&self.memory, address(page).0);
        let leaf = slot.leaf.filter(|leaf| leaf.access.write)?;
        let written = Leaf {
            accessed: true,
            dirty: true,
            ..leaf
        };
        Some((slot.table(), slot.index(), F::leaf(written, slot.size())))
    }

    /// A guest's write: through the cache, else by a walk, else by a fault that we handle.
    fn write(&mut self, page: u64) {
        if self.cache.get(&page).is_some_and(|&(_, write)| write) {
            return;
        }
        match self
            .tables
            .translate(&self.memory, address(page), Wanted::Write)
        {
            Ok(to) => {
                let (table, index, entry) = self.written_entry(page).unwrap();
                if !self.oracle[&page].dirty {
                    self.log.push(page);
                }
                self.memory.write(table, index, entry);
                self.cache.insert(page, (to.address.0, true));
                self.dirtied(page);
            }
            Err(NestedError::Withheld) => {
                assert!(
                    !self.oracle[&page].dirty,
                    "a dirty page's write is withheld"
                );
                let flush = self
                    .tables
                    .mark_dirty(&mut self.memory, address(page))
                    .unwrap();
                assert!(flush.is_none());
                self.dirtied(page);
                self.write(page);
            }
            Err(NestedError::Forbidden) => assert!(!self.oracle[&page].access.write),
            Err(NestedError::NotMapped) => assert!(!self.oracle.contains_key(&page)),
            Err(other) => panic!("{other:?}"),
        }
    }

    /// A page was written to, and with it all that shares its leaf.
    fn dirtied(&mut self, page: u64) {
        let slot = self.tables.find(&self.memory, address(page).0);
        let of = |address: u64| (address.max(BASE) - BASE) / PAGE;
        self.each(of(slot.start)..of(slot.end()), |page| page.dirty = true);
    }

    /// Tells the tables what the processor has logged.
    fn drain(&mut self) {
        for page in core::mem::take(&mut self.log) {
            self.tables.logged(&mut self.memory, address(page));
        }
    }

    fn is_large(&self, page: u64) -> bool {
        self.tables.find(&self.memory, address(page).0).level > 1
    }

    fn each(&mut self, pages: core::ops::Range<u64>, change: impl Fn(&mut Page)) {
        self.oracle
            .range_mut(pages)
            .for_each(|(_, page)| change(page));
    }

    fn apply(&mut self, op: Op) {
        let write_back = |page: &Page| page.memory_type == MemoryType::WriteBack;
        let free_before = self.memory.limit > self.memory.live() + 4;
        match op {
            Op::Map(start, host, count, access, memory_type) => {
                self.map(start, host, count.min(PAGES - start), access, memory_type);
            }
            Op::Unmap(start, count, budget) => {
                let mut at = cursor(start, count);
                let before = at;
                let mut gone = Vec::new();
                let result = self
                    .tables
                    .unmap(&mut self.memory, &mut at, budget, |mapping| {
                        gone.push(mapping)
                    });
                let Some(flush) = self.unless_no_memory(result, free_before) else {
                    return;
                };
                self.absorb_race();
                let mut expected = self.oracle.clone();
                expected.retain(|page, _| passed(before, at).contains(page));
                self.oracle
                    .retain(|page, _| !passed(before, at).contains(page));
                self.flush(flush);
                assert_eq!(expand::<F>(&gone, &self.tables), expected);
            }
            Op::Protect(start, count, access, budget) => {
                let mut at = cursor(start, count);
                let before = at;
                let result = self
                    .tables
                    .protect(&mut self.memory, &mut at, access, budget);
                let Some(flush) = self.unless_no_memory(result, free_before) else {
                    return;
                };
                self.absorb_race();
                let by_writing =
                    !self.tables.is_tracking() && self.tables.method == Method::WriteProtect;
                self.each(passed(before, at), |page| {
                    page.dirty |= access.write && access != page.access && by_writing;
                    page.access = access;
                });
                self.flush(flush);
            }
            Op::Split(page) => {
                let result = self.tables.split(&mut self.memory, address(page));
                match result {
                    Ok(flush) => self.flush(flush),
                    Err(NestedError::NotMapped) => assert!(!self.oracle.contains_key(&page)),
                    Err(NestedError::NotLarge) => assert!(!self.is_large(page)),
                    Err(error) => assert_eq!(error, NestedError::NoMemory),
                }
            }
            Op::Merge(start, count, budget) => {
                let mut at = cursor(start, count);
                match self.tables.merge(&mut self.memory, &mut at, budget) {
                    Ok(flush) => self.flush(flush),
                    Err(error) => {
                        assert!(error == NestedError::Tracking && self.tables.is_tracking())
                    }
                }
                self.large_are_dirty();
            }
            Op::Arm(start, count, budget) => {
                let mut at = cursor(start, count);
                let before = at;
                let result = self.tables.arm(&mut self.memory, &mut at, budget);
                let Some(flush) = self.unless_no_memory(result, free_before) else {
                    return;
                };
                self.absorb_race();
                self.each(passed(before, at), |page| page.dirty &= !write_back(page));
                self.flush(flush);
            }
            Op::Disarm(start, count, budget) => {
                let mut at = cursor(start, count);
                let before = at;
                let flush = self
                    .tables
                    .disarm(&mut self.memory, &mut at, budget)
                    .unwrap();
                self.absorb_race();
                self.each(passed(before, at), |page| page.dirty = true);
                self.flush(flush);
                self.large_are_dirty();
            }
            Op::Write(page) => self.write(page),
            Op::RacingWrite(page) => {
                self.memory.race = self.written_entry(page);
                self.racing = self.memory.race.map(|_| page);
            }
            Op::MarkDirty(page) => {
                let known = self.oracle.contains_key(&page);
                let result = self.tables.mark_dirty(&mut self.memory, address(page));
                assert_eq!(
                    result,
                    if known {
                        Ok(Flush::None)
                    } else {
                        Err(NestedError::NotMapped)
                    }
                );
                self.dirtied(page);
            }
            Op::Harvest(start, count, budget) => self.harvest(start, count, budget),
            Op::DrainLog => self.drain(),
            Op::PutBack(start, count, mask) => {
                let mut words = [mask; (PAGES / 64) as usize];
                let bitmap = Bitmap::new(address(0), &mut words).unwrap();
                let mut at = cursor(start, count);
                let pages = passed(at, Cursor { next: at.end, ..at });
                while !at.is_done() {
                    assert_eq!(
                        self.tables.put_back(&mut self.memory, &mut at, &bitmap, 7),
                        Ok(Flush::None)
                    );
                }
                for page in pages.filter(|page| mask >> (page % 64) & 1 == 1) {
                    self.dirtied(page);
                }
            }
            Op::Limit(limit) => self.memory.limit = limit,
        }
    }

    /// A race that the operation did not meet is dropped: the write never happened. One that it met came before it: its page is dirty,
    /// unless the operation says otherwise afterwards.
    fn absorb_race(&mut self) {
        let unmet = self.memory.race.take();
        if let Some(page) = self.racing.take().filter(|_| unmet.is_none()) {
            self.dirtied(page);
            self.log.push(page);
        }
    }

    /// Merging makes leaves dirty, and all pages of one share its dirty bit.
    fn large_are_dirty(&mut self) {
        let large = |page: &u64| {
            let slot = self.tables.find(&self.memory, address(*page).0);
            slot.level > 1 && slot.leaf.is_some_and(|leaf| leaf.dirty)
        };
        let large: Vec<u64> = (0..PAGES).filter(large).collect();
        for page in large {
            self.each(page..page + 1, |page| page.dirty = true);
        }
    }

    fn unless_no_memory(
        &self,
        result: Result<Flush, NestedError>,
        had_memory: bool,
    ) -> Option<Flush> {
        match result {
            Ok(flush) => Some(flush),
            Err(error) => {
                assert_eq!(error, NestedError::NoMemory);
                assert!(!had_memory, "refused although there is memory");
                None
            }
        }
    }

    fn map(&mut self, start: u64, host: u64, count: u64, access: Access, memory_type: MemoryType) {
        let host = (1 << 32) + (start + host) * PAGE;
        let live = self.memory.live();
        let had_memory = self.memory.limit > live + 12;
        let overlap = self.oracle.range(start..start + count).next().is_some();
        let to = HostPhysical(host);
        match self.tables.map(
            &mut self.memory,
            address(start),
            to,
            count * PAGE,
            access,
            memory_type,
        ) {
            Ok(flush) => {
                assert!(!overlap && flush.is_none());
                for n in 0..count {
                    let page = Page {
                        host: host + n * PAGE,
                        access,
                        memory_type,
                        dirty: true,
                    };
                    self.oracle.insert(start + n, page);
                }
            }
            Err(error) => {
                assert_eq!(error == NestedError::Overlap, overlap, "{error:?}");
                assert!(overlap || !had_memory);
                assert_eq!(self.memory.live(), live, "a refused map kept tables");
            }
        }
    }

    fn harvest(&mut self, start: u64, count: u64, budget: usize) {
        let mut words = [0; (PAGES / 64) as usize];
        let mut bitmap = Bitmap::new(address(0), &mut words).unwrap();
        let mut at = cursor(start, count);
        let before = at;
        self.drain();
        let result = self
            .tables
            .harvest(&mut self.memory, &mut at, &mut bitmap, budget);
        let Ok(flush) = result else {
            assert_eq!(result, Err(NestedError::NotTracking));
            assert!(!self.tables.is_tracking());
            return;
        };
        self.absorb_race();
        for page in 0..PAGES {
            let reported = words[(page / 64) as usize] >> (page % 64) & 1 == 1;
            let expected = passed(before, at).contains(&page)
                && self
                    .oracle
                    .get(&page)
                    .is_some_and(|p| p.dirty && p.memory_type == MemoryType::WriteBack);
            assert_eq!(reported, expected, "page {page}");
            let slot = self.tables.find(&self.memory, address(page).0);
            let whole = Cursor {
                next: before.next,
                end: at.next,
            };
            if expected && slot.is_inside(&whole) {
                self.each(page..page + 1, |page| page.dirty = false);
            }
        }
        self.flush(flush);
    }

    fn finish(mut self) {
        self.memory.limit = 1000;
        let mut at = Cursor::all();
        while !at.is_done() {
            let flush = self
                .tables
                .unmap(&mut self.memory, &mut at, 1000, |_| {})
                .unwrap();
            self.flush(flush);
        }
        self.oracle.clear();
        self.check();
        self.tables.destroy(&mut self.memory);
        assert_eq!(self.memory.live(), 0, "leaked tables");
    }
}

fn run<F: Format>(method: Method, ops: &[Op]) {
    let mut host = Host::<F>::new(method);
    for op in ops {
        let racing = matches!(op, Op::RacingWrite(_));
        host.apply(op.clone());
        if !racing {
            host.absorb_race();
            host.check();
        }
    }
    host.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map_of_pages(ops in proptest::collection::vec(op(), 1..60)) {
        for method in [Method::WriteProtect, Method::DirtyLog] {
            run::<Ept>(method, &ops);
            run::<Npt>(method, &ops);
            run::<Fake>(method, &ops);
        }
    }
}
