//! What each step of encoding a page costs on this host, for `xl migrate-costs` and the benchmark.

use super::choice::{Costs, Encoder};
use super::{PAGE_BYTES, Page, delta, is_zero};
use crate::channel::Sealer;
use crate::stream::MemoryDigest;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::hint::black_box;

/// Pages of a measurement: many, because clocks count microseconds.
const PAGES: u64 = 1024;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StepCost {
    /// What it is.
    pub name: &'static str,
    /// Nanoseconds a page.
    pub ns_per_page: u64,
}

fn noise(seed: u64) -> Box<Page> {
    let mut state = seed | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let mut page = Box::new([0; PAGE_BYTES]);
    page.iter_mut().for_each(|byte| *byte = next());
    page
}

/// A page that LZ4 makes about half as long: short runs of noise that come twice.
fn structured() -> Box<Page> {
    let mut page = noise(7);
    for piece in page.chunks_exact_mut(64) {
        let (first, second) = piece.split_at_mut(32);
        second.copy_from_slice(first);
    }
    page
}

/// Measures every step with a clock of nanoseconds.
pub fn measure(now_ns: impl Fn() -> u64) -> Vec<StepCost> {
    let mut costs = Vec::new();
    let mut step = |name, act: &mut dyn FnMut(u64)| {
        let begun_ns = now_ns();
        (0..PAGES).for_each(&mut *act);
        let ns_per_page = (now_ns() - begun_ns) / PAGES;
        costs.push(StepCost { name, ns_per_page });
    };
    let (zero, noisy, packs) = (Box::new([0; PAGE_BYTES]), noise(3), structured());
    let mut late = zero.clone();
    late[PAGE_BYTES - 1] = 1;
    let mut changed = noisy.clone();
    changed[100] ^= 1;
    let mut out = Vec::with_capacity(2 * PAGE_BYTES);
    step("scan", &mut |_| {
        black_box(is_zero(black_box(&late)));
    });
    step("hash", &mut |page| {
        black_box(MemoryDigest::of_blocks(page, black_box(&noisy)));
    });
    step("copy", &mut |_| *changed = black_box(**black_box(&noisy)));
    changed[100] ^= 1;
    step("delta alone", &mut |_| {
        out.clear();
        black_box(delta::encode(&noisy, black_box(&changed), 100, &mut out));
    });
    for (name, contents, lz4) in [
        ("zero", &zero, 0),
        ("raw", &noisy, u64::MAX),
        ("lz4", &packs, 0),
    ] {
        let model = Costs {
            lz4,
            delta: 0,
            byte: 1,
        };
        let mut encoder = Encoder::new(0, model);
        step(name, &mut |page| {
            out.clear();
            encoder.encode(page, black_box(contents), None, &mut out);
        });
    }
    let model = Costs {
        lz4: 0,
        delta: 0,
        byte: 1,
    };
    let mut encoder = Encoder::new(1, model);
    let (_, mut hash) = encoder.encode(0, &noisy, Some(0), &mut out);
    let pages = [changed, noisy.clone()];
    step("delta", &mut |page| {
        out.clear();
        let contents = &pages[(page % 2) as usize];
        (_, hash) = encoder.encode(0, black_box(contents), Some(hash), &mut out);
    });
    let mut sealer = Sealer::new();
    let mut sealed = alloc::vec![0; PAGE_BYTES + Sealer::TAG_BYTES];
    step("encrypt", &mut |page| {
        sealer.seal(page, black_box(&noisy[..]), &mut sealed);
    });
    costs
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn every_step_is_named_once_and_takes_time() {
        let start = Instant::now();
        let costs = measure(|| start.elapsed().as_nanos() as u64);
        let mut names: Vec<_> = costs.iter().map(|cost| cost.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), costs.len());
        let of = |name| costs.iter().find(|cost| cost.name == name).unwrap();
        assert!(of("lz4").ns_per_page > of("scan").ns_per_page, "{costs:?}");
    }

    #[test]
    fn structured_pages_are_worth_compressing() {
        let packed = lz4_flex::block::compress(&structured()[..]);
        assert!((1000..3000).contains(&packed.len()), "{}", packed.len());
    }
}
