//! The heap: talc over blocks of 1 MiB that it takes from the frame table as it needs them. Memory
//! taken is not given back; what guests cost is bounded by what a domain may have.

use core::alloc::Layout;

use godwit_vmm::frames::Zone;
use talc::TalcLock;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use super::allocate;
use super::layout::direct_map;

/// Frames taken at a time: 2^8 pages, 1 MiB.
const GROWTH_ORDER: u8 = 8;

/// Grows the heap from the frame table.
#[derive(Debug)]
struct FromFrames;

// SAFETY: `acquire` claims memory that was just allocated for it alone and uses no other allocator.
unsafe impl Source for FromFrames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // Twice the size leaves room for alignment and the allocator's own words.
        let pages = (layout.size() * 2).div_ceil(4096).next_power_of_two();
        let least = pages.trailing_zeros() as u8;
        // When memory is scarce or in pieces, a smaller block will do.
        let (order, frame) = (least..=least.max(GROWTH_ORDER))
            .rev()
            .find_map(|order| Some((order, allocate(order, Zone::Any).ok()?)))
            .ok_or(())?;
        // SAFETY: the block is ours from now on and never freed; the direct map covers it.
        unsafe { talc.claim(direct_map(frame.address().0), 4096 << order) }.ok_or(())?;
        Ok(())
    }
}

#[global_allocator]
static HEAP: TalcLock<spin::Mutex<()>, FromFrames> = TalcLock::new(FromFrames);
