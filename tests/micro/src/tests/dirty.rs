//! `dirty`: writes to pages with round numbers, endlessly, for who watches its memory from outside.
//!
//! Every second block of [`BLOCK_PAGES`] pages of the area is written to, each of its pages in about one round in eight; the
//! others are never touched. First and last word of a page hold the round in which it was written last; a page is checked
//! before it is written again. It speaks when it begins and seldom afterwards, with the number and cost of writes that did not go
//! by themselves: the first ones to a page while its writes are tracked.

use crate::command_line::Arguments;
use crate::cpu;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, say};

const PAGE_BYTES: u64 = 4096;
const BLOCK_PAGES: u64 = 16;
/// Ticks between two rounds.
const PAUSE_TSC: u64 = 1 << 17;
/// When it says that it has begun in earnest, and how often that it still lives.
const FIRST_LINE: u64 = 16;
const ROUNDS_PER_LINE: u64 = 4096;

/// Whether a page is written in a round: the same answer whenever it is asked.
fn chosen(page: u64, round: u64) -> bool {
    let mut x = page.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round.rotate_left(32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ (x >> 27)).is_multiple_of(8)
}

/// Writes that took so long that the hypervisor had to do with them, but not so long that somebody else ran meanwhile.
#[derive(Default)]
struct Cost {
    first: u64,
    ticks: u64,
}

impl Cost {
    fn add(&mut self, ticks: u64) {
        if (200..20_000).contains(&ticks) {
            self.first += 1;
            self.ticks += ticks;
        }
    }
}

fn words(page: u64) -> [*mut u64; 2] {
    let address = page * PAGE_BYTES;
    [address as *mut u64, (address + PAGE_BYTES - 8) as *mut u64]
}

pub(crate) fn run(info: &StartInfo, arguments: &Arguments) -> Verdict {
    let largest = info
        .free_ram()
        .max_by_key(|region| region.end - region.start);
    let Some(area) = largest else {
        crate::fail!("no RAM above the image");
    };
    let (first, end) = (area.start / PAGE_BYTES, area.end / PAGE_BYTES);
    let image_end = crate::machine::image_end().div_ceil(PAGE_BYTES);
    say!("DIRTY area={first}-{end} block={BLOCK_PAGES} image={image_end}");
    let (mut round, mut cost) = (1, Cost::default());
    while arguments.iters != Some(round) {
        for page in (first..end).filter(|page| ((page - first) / BLOCK_PAGES).is_multiple_of(2)) {
            if !chosen(page, round) {
                continue;
            }
            let [start, last] = words(page);
            // SAFETY: the page lies in free RAM, which entry.rs maps to itself and where no Rust object is.
            let (is, twin) = unsafe { (start.read_volatile(), last.read_volatile()) };
            check!(
                is == twin && is < round,
                "page {page} holds {is} and {twin} in round {round}"
            );
            let begin = cpu::tsc();
            // SAFETY: as above.
            unsafe { start.write_volatile(round) };
            cost.add(cpu::tsc() - begin);
            // SAFETY: as above.
            unsafe { last.write_volatile(round) };
        }
        let begin = cpu::tsc();
        while cpu::tsc() - begin < PAUSE_TSC {
            core::hint::spin_loop();
        }
        if round == FIRST_LINE || round.is_multiple_of(ROUNDS_PER_LINE) {
            let Cost { first, ticks } = core::mem::take(&mut cost);
            say!("DIRTY round={round} first={first} ticks={ticks}");
        }
        round += 1;
    }
    Ok(())
}
