//! `write-round`: what tracking its writes costs a guest. `ROUND <n> pages=N ticks=T`: T time-stamp ticks for one word written to
//! each of N pages, for ever; between two rounds there is time to harvest the log.
//!
//! Pages in blocks with untouched ones between them, nearly as the guest of `dirty` has them, and always the same number.

use crate::command_line::Arguments;
use crate::cpu;
use crate::report::Verdict;
use crate::start_info::StartInfo;
use crate::{check, say};

const PAGE_BYTES: u64 = 4096;
const BLOCK_PAGES: u64 = 16;
/// Untouched pages behind each block: so the area fits into what a micro-VM of 8 MiB has free.
const GAP_PAGES: u64 = 15;
/// Pages written to in a round.
const PAGES: u64 = 852;
/// Ticks between two rounds: several harvests, and the console between them.
const PAUSE_TSC: u64 = 1 << 25;

pub(crate) fn run(info: &StartInfo, _: &Arguments) -> Verdict {
    let largest = info
        .free_ram()
        .max_by_key(|region| region.end - region.start);
    let Some(area) = largest else {
        crate::fail!("no RAM above the image");
    };
    let pages = (area.end - area.start) / PAGE_BYTES;
    // The last block has no gap behind it.
    let needed = (PAGES - 1) / BLOCK_PAGES * GAP_PAGES + PAGES;
    check!(pages >= needed, "{pages} free pages, not {needed}");
    for round in 1_u64.. {
        let mut page = area.start;
        let mut left_in_block = BLOCK_PAGES;
        let begin = cpu::tsc();
        for _ in 0..PAGES {
            // SAFETY: by the check above the page lies in free RAM, which entry.rs maps to itself and where no Rust object is.
            unsafe { (page as *mut u64).write_volatile(round) };
            page += PAGE_BYTES;
            left_in_block -= 1;
            if left_in_block == 0 {
                page += GAP_PAGES * PAGE_BYTES;
                left_in_block = BLOCK_PAGES;
            }
        }
        let end = cpu::tsc();
        say!("ROUND {round} pages={PAGES} ticks={}", end - begin);
        while cpu::tsc() - end < PAUSE_TSC {
            core::hint::spin_loop();
        }
    }
    Ok(())
}
