//! The frame table against a page-by-page oracle, and its laws: no overlap, conservation, full coalescing.

extern crate std;

use std::vec;
use std::vec::Vec;

use godwit_abi::DomainId;
use proptest::prelude::*;

use super::*;

const D1: Owner = Owner::Domain(DomainId::new(1, 0));
const D2: Owner = Owner::Domain(DomainId::new(2, 7));
const OWNERS: [Owner; 3] = [Owner::Hypervisor, D1, D2];
const TABLE_FRAMES: u64 = 1100;
/// Regions with odd ends and holes, on both sides of 1 MiB.
const REGIONS: [(u64, u64); 4] = [(1, 160), (170, 256), (256, 777), (800, 1090)];

#[derive(Clone, Copy, Debug, PartialEq)]
struct Page {
    owner: Owner,
    maps: u32,
    /// Start and order of the allocated block it is in.
    block: (u64, u8),
}

/// The same state, one record a page, every operation a loop over pages.
struct Oracle(Vec<Page>);

impl Oracle {
    fn pages(&self, start: u64, count: u64) -> &[Page] {
        &self.0[start as usize..(start + count) as usize]
    }

    fn give(&mut self, start: u64, order: u8, owner: Owner) {
        for at in start..start + (1 << order) {
            let page = &mut self.0[at as usize];
            assert_eq!(page.owner, Owner::Free, "overlap at {at}");
            *page = Page {
                owner,
                maps: 0,
                block: (start, order),
            };
        }
    }

    fn held(&self, start: u64, order: u8, owner: Owner) -> bool {
        let end = start + (1 << order);
        end <= TABLE_FRAMES
            && self
                .pages(start, 1 << order)
                .iter()
                .all(|page| page.owner == owner)
    }

    fn cut(&mut self, start: u64, order: u8) {
        let (mut head, mut found) = self.0[start as usize].block;
        while found > order {
            found -= 1;
            let upper = head + (1 << found);
            for at in head..upper {
                self.0[at as usize].block = (head, found);
                self.0[(at + (1 << found)) as usize].block = (upper, found);
            }
            head = if start >= upper { upper } else { head };
        }
    }

    fn blocks(&self, start: u64, order: u8) -> Vec<(u64, u8)> {
        let mut blocks: Vec<_> = self
            .pages(start, 1 << order)
            .iter()
            .map(|page| page.block)
            .collect();
        blocks.dedup();
        blocks
    }

    fn sweep(&mut self, (head, order): (u64, u8), owner: Owner) -> Freed {
        let range = head as usize..(head + (1 << order)) as usize;
        let mapped = self.0[range.clone()].iter().any(|page| page.maps > 0);
        let next = match (mapped, owner) {
            (false, _) => Owner::Free,
            (true, Owner::Domain(id)) => Owner::Dying(id),
            (true, _) => Owner::DyingHypervisor,
        };
        self.0[range].iter_mut().for_each(|page| page.owner = next);
        let count = 1 << order;
        if mapped {
            Freed {
                now: 0,
                deferred: count,
            }
        } else {
            Freed {
                now: count,
                deferred: 0,
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Allocate(u8, usize, bool),
    AllocateAt(u64, u64, usize),
    AllocateRun(u64, u8, u64, usize),
    Free(usize, u8, usize),
    Transfer(usize, u8, usize, usize),
    Map(usize, u64, usize),
    Unmap(usize, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let order = 0u8..=8;
    let owner = 0usize..3;
    let pick = any::<usize>();
    prop_oneof![
        4 => (order.clone(), owner.clone(), any::<bool>()).prop_map(|(o, w, low)| Op::Allocate(o, w, low)),
        1 => (0..TABLE_FRAMES, 1u64..200, owner.clone()).prop_map(|(s, n, w)| Op::AllocateAt(s, n, w)),
        1 => (1u64..200, 0u8..6, 0..TABLE_FRAMES, owner.clone()).prop_map(|(n, a, b, w)| Op::AllocateRun(n, a, b, w)),
        4 => (pick, order.clone(), owner.clone()).prop_map(|(p, o, w)| Op::Free(p, o, w)),
        1 => (pick, order, owner.clone(), 0usize..3).prop_map(|(p, o, w, t)| Op::Transfer(p, o, w, t)),
        3 => (pick, 0u64..256, owner).prop_map(|(p, n, w)| Op::Map(p, n, w)),
        2 => (pick, 0u64..256).prop_map(|(p, n)| Op::Unmap(p, n)),
    ]
}

fn fresh() -> (Frames<Vec<FrameInfo>>, Oracle) {
    let mut frames = Frames::new(vec![FrameInfo::RESERVED; TABLE_FRAMES as usize]);
    let reserved = Page {
        owner: Owner::Reserved,
        maps: 0,
        block: (0, 0),
    };
    let mut oracle = Oracle(vec![reserved; TABLE_FRAMES as usize]);
    for (start, end) in REGIONS {
        frames.add_region(Frame(start), Frame(end)).unwrap();
        oracle.0[start as usize..end as usize]
            .iter_mut()
            .for_each(|page| page.owner = Owner::Free);
    }
    (frames, oracle)
}

/// A page that is most often in use, so that operations meet their object.
fn aim(oracle: &Oracle, pick: usize, order: u8) -> u64 {
    let used: Vec<u64> = (0..TABLE_FRAMES)
        .filter(|&at| !matches!(oracle.0[at as usize].owner, Owner::Free | Owner::Reserved))
        .collect();
    let at = if used.is_empty() || pick.is_multiple_of(13) {
        pick as u64 % 1024
    } else {
        used[pick % used.len()]
    };
    at >> order << order
}

fn owner_of(oracle: &Oracle, at: u64, choice: usize) -> Owner {
    match oracle.0[at as usize].owner {
        owner @ (Owner::Hypervisor | Owner::Domain(_)) if choice != 0 => owner,
        _ => OWNERS[choice],
    }
}

fn apply(frames: &mut Frames<Vec<FrameInfo>>, oracle: &mut Oracle, op: Op) {
    match op {
        Op::Allocate(order, owner, low) => {
            let zone = if low { Zone::Below1M } else { Zone::Any };
            if let Ok(frame) = frames.allocate(order, OWNERS[owner], zone) {
                assert!(frame.is_aligned(order) && (!low || frame.0 < 256));
                oracle.give(frame.0, order, OWNERS[owner]);
            } else {
                let end = if low { 256 } else { TABLE_FRAMES };
                let free = |at: u64| oracle.held(at, order, Owner::Free);
                let size = 1 << order;
                assert!(
                    !(0..end / size).any(|n| free(n * size)),
                    "refused although there is room"
                );
            }
        }
        Op::AllocateAt(start, count, owner) => {
            let end = (start + count).min(TABLE_FRAMES);
            let free = oracle
                .pages(start, end - start)
                .iter()
                .all(|p| p.owner == Owner::Free);
            let result = frames.allocate_at(Frame(start), Frame(end), OWNERS[owner]);
            assert_eq!(
                result,
                if free {
                    Ok(())
                } else {
                    Err(FrameError::NotFree)
                }
            );
            if free {
                give_run(oracle, start, end, OWNERS[owner]);
            }
        }
        Op::AllocateRun(count, align, below, owner) => {
            let best = (0..=below.saturating_sub(count) >> align)
                .map(|n| n << align)
                .filter(|&at| at + count <= below)
                .rfind(|&at| {
                    oracle
                        .pages(at, count)
                        .iter()
                        .all(|p| p.owner == Owner::Free)
                });
            let result = frames.allocate_run(count, align, Frame(below), OWNERS[owner]);
            assert_eq!(result.ok(), best.map(Frame));
            if let Some(start) = best {
                give_run(oracle, start, start + count, OWNERS[owner]);
            }
        }
        Op::Free(pick, order, choice) => {
            let at = aim(oracle, pick, order);
            let owner = owner_of(oracle, at, choice);
            let result = frames.free(Frame(at), order, owner);
            assert_eq!(result.is_ok(), oracle.held(at, order, owner), "{result:?}");
            if let Ok(freed) = result {
                oracle.cut(at, order);
                let mut expected = Freed::default();
                for block in oracle.blocks(at, order) {
                    let part = oracle.sweep(block, owner);
                    expected.now += part.now;
                    expected.deferred += part.deferred;
                }
                assert_eq!(freed, expected);
            }
        }
        Op::Transfer(pick, order, choice, to) => {
            let at = aim(oracle, pick, order);
            let owner = owner_of(oracle, at, choice);
            let fits = oracle.held(at, order, owner)
                && oracle.pages(at, 1 << order).iter().all(|p| p.maps == 0);
            let result = frames.transfer(Frame(at), order, owner, OWNERS[to]);
            assert_eq!(result.is_ok(), fits, "{result:?}");
            if result.is_ok() {
                oracle.cut(at, order);
                (at..at + (1 << order)).for_each(|page| oracle.0[page as usize].owner = OWNERS[to]);
            }
        }
        Op::Map(pick, offset, choice) => {
            let at = (aim(oracle, pick, 0) + offset).min(TABLE_FRAMES - 1);
            let owner = owner_of(oracle, at, choice);
            let result = frames.map(Frame(at), owner);
            assert_eq!(
                result.is_ok(),
                oracle.0[at as usize].owner == owner,
                "{result:?}"
            );
            oracle.0[at as usize].maps += u32::from(result.is_ok());
        }
        Op::Unmap(pick, offset) => {
            let at = (aim(oracle, pick, 0) + offset).min(TABLE_FRAMES - 1);
            unmap(frames, oracle, at);
        }
    }
}

fn give_run(oracle: &mut Oracle, start: u64, end: u64, owner: Owner) {
    for (head, order) in buddy::aligned_blocks(start, end) {
        oracle.give(head, order, owner);
    }
}

fn unmap(frames: &mut Frames<Vec<FrameInfo>>, oracle: &mut Oracle, at: u64) {
    let page = oracle.0[at as usize];
    let result = frames.unmap(Frame(at));
    assert_eq!(result.is_ok(), page.maps > 0, "{result:?}");
    let Ok(outcome) = result else { return };
    oracle.0[at as usize].maps -= 1;
    let expected = match page.owner {
        Owner::Dying(_) | Owner::DyingHypervisor => oracle.sweep(page.block, Owner::Hypervisor).now,
        _ => 0,
    };
    if expected == 0 {
        assert_eq!(outcome, Unmapped::Kept);
        // A block that stays dying was renamed by the sweep; put its name back.
        let range = page.block.0..page.block.0 + (1 << page.block.1);
        range.for_each(|at| oracle.0[at as usize].owner = page.owner);
    } else {
        assert_eq!(outcome, Unmapped::Freed(expected));
    }
}

fn check(frames: &Frames<Vec<FrameInfo>>, oracle: &Oracle) {
    let mut counts = Counts::default();
    for (at, page) in oracle.0.iter().enumerate() {
        assert_eq!(frames.owner(Frame(at as u64)), page.owner, "owner of {at}");
        assert_eq!(
            frames.mappings(Frame(at as u64)),
            page.maps,
            "mappings of {at}"
        );
        counts.total += u64::from(page.owner != Owner::Reserved);
        match page.owner {
            Owner::Reserved => {}
            Owner::Free => counts.free += 1,
            Owner::Hypervisor => counts.hypervisor += 1,
            Owner::Domain(_) => counts.domains += 1,
            Owner::Dying(_) | Owner::DyingHypervisor => counts.dying += 1,
        }
    }
    assert_eq!(frames.counts(), counts);
    for owner in OWNERS {
        let expected = oracle.0.iter().filter(|page| page.owner == owner).count();
        assert_eq!(frames.count_owned(owner), expected as u64);
    }
}

/// The free blocks; fails if two of them should have been one.
fn free_blocks(frames: &Frames<Vec<FrameInfo>>) -> Vec<(u64, u8)> {
    let mut blocks = Vec::new();
    let mut at = Frame(0);
    loop {
        match frames.scan(at) {
            Scan::Found(block) => {
                at = block.start.plus(1 << block.order);
                if block.owner == Owner::Free {
                    blocks.push((block.start.0, block.order));
                }
            }
            Scan::More(next) => at = next,
            Scan::End => break,
        }
    }
    for pair in blocks.windows(2) {
        let ((a, order), (b, other)) = (pair[0], pair[1]);
        let buddies = order == other && a ^ (1 << order) == b;
        assert!(
            !buddies || b == 256,
            "buddies {a} and {b} of order {order} not joined"
        );
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_oracle_and_coalesces_to_the_start(ops in proptest::collection::vec(op(), 1..80)) {
        let (mut frames, mut oracle) = fresh();
        let initial = free_blocks(&frames);
        for op in ops {
            apply(&mut frames, &mut oracle, op);
            check(&frames, &oracle);
            free_blocks(&frames);
        }
        for at in 0..TABLE_FRAMES {
            while oracle.0[at as usize].maps > 0 {
                unmap(&mut frames, &mut oracle, at);
            }
        }
        for at in 0..TABLE_FRAMES {
            let owner = frames.owner(Frame(at));
            if OWNERS.contains(&owner) {
                prop_assert_eq!(frames.free(Frame(at), 0, owner), Ok(Freed { now: 1, deferred: 0 }));
            }
        }
        prop_assert_eq!(free_blocks(&frames), initial);
        prop_assert_eq!(frames.counts().free, frames.counts().total);
        let heads = frames.table.iter().filter(|info| **info != FrameInfo::RESERVED).count();
        prop_assert_eq!(heads, free_blocks(&frames).len(), "stale entries inside free blocks");
    }
}

#[test]
fn a_big_region_touches_only_its_heads_and_zones_are_kept() {
    let end = (1 << 20) + (1 << 19);
    let mut frames = Frames::new(vec![FrameInfo::RESERVED; end]);
    frames
        .add_region(Frame(1 << 20), Frame(end as u64))
        .unwrap();
    frames.add_region(Frame(16), Frame(0x9f)).unwrap();
    frames.add_region(Frame(0x100), Frame(0xc0000)).unwrap();
    let touched = frames
        .table
        .iter()
        .filter(|info| **info != FrameInfo::RESERVED)
        .count();
    assert!(touched < 32, "{touched} entries touched");
    assert!(frames.allocate(ORDER_1G, D1, Zone::Any).unwrap().0 >= 1 << 20);
    let below_4g = frames.allocate(ORDER_1G, D1, Zone::Below4G).unwrap();
    assert!(below_4g.0 + (1 << ORDER_1G) <= 1 << 20);
    assert!(
        frames
            .allocate(ORDER_4K, Owner::Hypervisor, Zone::Below1M)
            .unwrap()
            .0
            < 0x9f
    );
    assert_eq!(
        frames.allocate(8, D1, Zone::Below1M),
        Err(FrameError::OutOfMemory)
    );
}

#[test]
fn misuse_is_refused_by_name() {
    let (mut frames, _) = fresh();
    let page = frames.allocate(ORDER_4K, D1, Zone::Any).unwrap();
    assert_eq!(
        frames.allocate(ORDER_MAX + 1, D1, Zone::Any),
        Err(FrameError::BadSize)
    );
    assert_eq!(
        frames.allocate(0, Owner::Reserved, Zone::Any),
        Err(FrameError::BadOwner)
    );
    assert_eq!(frames.free(page, 0, D2), Err(FrameError::NotOwner(D1)));
    assert_eq!(frames.map(page, D2), Err(FrameError::NotOwner(D1)));
    assert_eq!(frames.unmap(page), Err(FrameError::NotMapped));
    assert_eq!(frames.free(Frame(0), 0, D1), Err(FrameError::NotAllocated));
    assert_eq!(
        frames.map(Frame(TABLE_FRAMES), D1),
        Err(FrameError::OutOfTable)
    );
    assert_eq!(frames.free(Frame(3), 1, D1), Err(FrameError::Misaligned));
    frames.map(page, D1).unwrap();
    assert_eq!(frames.transfer(page, 0, D1, D2), Err(FrameError::Mapped));
    assert_eq!(
        frames.free(page, 0, D1),
        Ok(Freed {
            now: 0,
            deferred: 1
        })
    );
    assert_eq!(frames.owner(page), Owner::Dying(DomainId::new(1, 0)));
    assert_eq!(frames.free(page, 0, D1), Err(FrameError::Dying));
    assert_eq!(frames.map(page, D1), Err(FrameError::Dying));
    assert_eq!(frames.unmap(page), Ok(Unmapped::Freed(1)));
    assert_eq!(frames.free(page, 0, D1), Err(FrameError::NotAllocated));
    assert_eq!(frames.unmap(page), Err(FrameError::NotAllocated));
}

#[test]
fn regions_are_limited_and_disjoint() {
    let mut frames = Frames::new(vec![FrameInfo::RESERVED; 4 * REGIONS_MAX]);
    for n in 0..REGIONS_MAX as u64 {
        frames.add_region(Frame(3 * n), Frame(3 * n + 2)).unwrap();
    }
    assert_eq!(
        frames.add_region(Frame(1), Frame(3)),
        Err(FrameError::Overlap)
    );
    assert_eq!(
        frames.add_region(Frame(3 * 64), Frame(3 * 64 + 1)),
        Err(FrameError::TooManyRegions)
    );
    assert_eq!(
        frames.add_region(Frame(9), Frame(9)),
        Err(FrameError::BadSize)
    );
    assert_eq!(
        frames.add_region(Frame(250), Frame(257)),
        Err(FrameError::OutOfTable)
    );
    frames.add_region(Frame(2), Frame(3)).unwrap();
    assert_eq!(frames.regions().next(), Some((Frame(0), Frame(5))));
}

#[test]
fn a_run_is_mapped_whole_or_not_at_all() {
    let mut frames = Frames::new(vec![FrameInfo::RESERVED; 64]);
    frames.add_region(Frame(1), Frame(64)).unwrap();
    let owner = Owner::Domain(DomainId::new(3, 0));
    let other = Owner::Domain(DomainId::new(4, 0));
    frames.allocate_at(Frame(8), Frame(24), owner).unwrap();
    frames.allocate_at(Frame(24), Frame(25), other).unwrap();
    frames.map_run(Frame(9), 15, owner).unwrap();
    assert_eq!(
        frames.map_run(Frame(16), 9, owner),
        Err(FrameError::NotOwner(other))
    );
    let counts: Vec<u32> = (8..25).map(|frame| frames.mappings(Frame(frame))).collect();
    assert_eq!(counts, [&[0][..], &[1; 15], &[0]].concat());
}
