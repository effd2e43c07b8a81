//! Absent pages against a set of them, in all formats and both methods, while tracking goes on around them.

use super::*;
use std::collections::BTreeSet;

const HOST: u64 = 1 << 30;

#[derive(Clone, Debug)]
enum Step {
    MakeAbsent(u64),
    MakePresent(u64),
    Unmap(u64),
    MarkDirty(u64),
    Arm,
    Harvest,
    Disarm,
}

fn step() -> impl Strategy<Value = Step> {
    // Few pages, so that the same one is meant again.
    let page = || prop_oneof![0u64..8, 508u64..516, 1020u64..1030];
    prop_oneof![
        6 => page().prop_map(Step::MakeAbsent),
        6 => page().prop_map(Step::MakePresent),
        1 => page().prop_map(Step::Unmap),
        2 => page().prop_map(Step::MarkDirty),
        1 => Just(Step::Arm),
        1 => Just(Step::Harvest),
        1 => Just(Step::Disarm),
    ]
}

struct World<F> {
    memory: Arena,
    tables: NestedTables<F>,
    gone: BTreeSet<u64>,
    absent: BTreeSet<u64>,
}

impl<F: Format> World<F> {
    fn new(method: Method) -> Self {
        let mut memory = Arena::new(1000);
        let mut tables = NestedTables::new(&mut memory, PageSize::Large2M, method).unwrap();
        let (kind, all) = (MemoryType::WriteBack, PAGES * PAGE);
        let host = HostPhysical(HOST);
        let mapped = tables.map(&mut memory, address(0), host, all, Access::ALL, kind);
        assert_eq!(mapped, Ok(Flush::None));
        Self {
            memory,
            tables,
            gone: BTreeSet::new(),
            absent: BTreeSet::new(),
        }
    }

    fn take(&mut self, step: Step) {
        let (tables, memory) = (&mut self.tables, &mut self.memory);
        match step {
            Step::MakeAbsent(page) => {
                let made = tables.make_absent(memory, address(page));
                assert_eq!(made.is_ok(), !self.gone.contains(&page));
                if let Ok(flush) = made {
                    let Flush::Range { start, end } = flush else {
                        panic!("a right was taken away");
                    };
                    assert!((start..end).contains(&address(page)));
                    self.absent.insert(page);
                }
            }
            Step::MakePresent(page) => {
                let was = self.absent.remove(&page);
                assert_eq!(tables.make_present(memory, address(page)).is_ok(), was);
                if was {
                    let written = tables.translate(memory, address(page), Wanted::Write);
                    assert!(written.is_ok(), "contents that came were written");
                }
            }
            Step::Unmap(page) => {
                let mut at = cursor(page, 1);
                while !at.is_done() {
                    let _flush = tables.unmap(memory, &mut at, 600, |_| {}).unwrap();
                }
                self.gone.insert(page);
                self.absent.remove(&page);
            }
            Step::MarkDirty(page) => {
                let marked = tables.mark_dirty(memory, address(page));
                assert_eq!(marked.is_ok(), !self.gone.contains(&page));
            }
            Step::Arm => self.sweep(|tables, memory, at| tables.arm(memory, at, 100_000)),
            Step::Disarm => self.sweep(|tables, memory, at| tables.disarm(memory, at, 100_000)),
            Step::Harvest => self.sweep(|tables, memory, at| {
                let mut words = [0; (PAGES / 64) as usize];
                let mut bitmap = Bitmap::new(address(0), &mut words).unwrap();
                match tables.harvest(memory, at, &mut bitmap, 100_000) {
                    Err(NestedError::NotTracking) => {
                        *at = Cursor::none();
                        Ok(Flush::None)
                    }
                    other => other,
                }
            }),
        }
        self.tables.release_retired(&mut self.memory);
    }

    fn sweep(
        &mut self,
        step: impl Fn(&mut NestedTables<F>, &mut Arena, &mut Cursor) -> Result<Flush, NestedError>,
    ) {
        let mut at = cursor(0, PAGES);
        while !at.is_done() {
            let _flush = step(&mut self.tables, &mut self.memory, &mut at).unwrap();
        }
    }

    fn check(&self) {
        for page in 0..PAGES {
            let host = HostPhysical(HOST + page * PAGE);
            let found = self
                .tables
                .translate(&self.memory, address(page), Wanted::Read)
                .map(|to| to.address);
            let frame = self.tables.absent_frame(&self.memory, address(page));
            let expected = match (self.gone.contains(&page), self.absent.contains(&page)) {
                (true, _) => (Err(NestedError::NotMapped), None),
                (false, true) => (Err(NestedError::Absent), Some(host)),
                (false, false) => (Ok(host), None),
            };
            assert_eq!((found, frame), expected, "page {page}");
        }
    }
}

fn run<F: Format>(steps: &[Step], method: Method) {
    let mut world = World::<F>::new(method);
    let tables = world.tables.table_count();
    for step in steps {
        world.take(step.clone());
        world.check();
    }
    for page in world.absent.clone() {
        world.take(Step::MakePresent(page));
    }
    world.take(Step::Disarm);
    world.check();
    if world.gone.is_empty() {
        assert_eq!(world.tables.table_count(), tables, "large pages come back");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn absent_pages_are_those_made_so(steps in proptest::collection::vec(step(), 1..40)) {
        run::<Ept>(&steps, Method::DirtyLog);
        run::<Npt>(&steps, Method::WriteProtect);
        run::<Fake>(&steps, Method::WriteProtect);
    }
}
