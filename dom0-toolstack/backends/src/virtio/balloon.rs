//! A balloon (virtio 1.2, 5.5): the guest gives pages to the host and takes them back.
//!
//! What happens to pages is the [`BalloonHost`]'s: it gives them back to the host and updates the
//! runs of [`crate::memory::GuestMemory`]. Pages that a device of the guest may be accessing are
//! passed over: they stay where they are, which only costs memory. A deflate is completed when the
//! host says that the pages are there, whether the driver has promised to wait or not.
//!
//! Not offered: free page reporting and hinting, because a guest uses reported pages again without
//! telling, and the hypervisor does not fill them in on demand.

mod statistics;
#[cfg(test)]
mod tests;

pub use statistics::Statistic;

use crate::virtio::queue::Chain;
use crate::virtio::{CONFIG_BYTES_MAX, Device, Identity, Serving, VirtioFunction, append_record};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use godwit_records::{DecodeError, Record, VirtioBalloonState};

const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const STATISTICS: usize = 2;
const QUEUE_SIZES: &[u16] = &[128, 128, 16];
/// What has no class of its own; drivers go by the device id.
const PCI_CLASS: u32 = 0xff_00_00;
const DEVICE_ID: u16 = 5;

const MUST_TELL_HOST: u64 = 1 << 0;
const STATS_VQ: u64 = 1 << 1;
const DEFLATE_ON_OOM: u64 = 1 << 2;

/// Where `actual` is in the configuration.
const ACTUAL_OFFSET: usize = 4;
/// Pages given to the host at once.
const PAGES_MAX: usize = 256;

/// Moving pages, in its own time.
pub type Moving<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// What a balloon does to the host.
pub trait BalloonHost {
    /// The guest gives these pages away: numbers of guest pages, any numbers at all.
    fn release<'a>(&'a self, pages: &'a [u64]) -> Moving<'a>;
    /// The guest wants these pages again; some may never have been released. Ends when all that
    /// are the guest's are there.
    fn populate<'a>(&'a self, pages: &'a [u64]) -> Moving<'a>;
    /// What the guest says of its memory.
    fn statistics(&self, statistics: &[Statistic]);
}

/// The device.
pub struct Balloon {
    host: Rc<dyn BalloonHost>,
    state: RefCell<VirtioBalloonState>,
    statistics: statistics::Watch,
    /// Whether the host offers to the guest to deflate when it needs the memory.
    deflates_on_oom: Cell<bool>,
}

impl Balloon {
    /// A balloon of no pages.
    pub fn new(host: Rc<dyn BalloonHost>, deflates_on_oom: bool) -> Rc<Balloon> {
        Rc::new(Balloon {
            host,
            state: RefCell::new(VirtioBalloonState::reset()),
            statistics: statistics::Watch::default(),
            deflates_on_oom: Cell::new(deflates_on_oom),
        })
    }

    /// Sets how many pages the guest should give away; then tell it
    /// ([`VirtioFunction::config_changed`]).
    pub fn set_target(&self, pages: u32) {
        self.state.borrow_mut().target_pages = pages;
    }

    /// How many pages the guest should give away.
    pub fn target_pages(&self) -> u32 {
        self.state.borrow().target_pages
    }

    /// How many pages the driver says it has given away.
    pub fn actual_pages(&self) -> u32 {
        self.state.borrow().actual_pages
    }

    /// Asks the guest for statistics; the host gets them when they come. Then wake the function:
    /// [`VirtioFunction::doorbell`] of all bits.
    pub fn ask_for_statistics(&self) {
        self.statistics.ask();
    }

    /// Pages of a chain, a 32-bit number each, to the host.
    async fn pages(&self, function: &VirtioFunction, chain: &Chain, release: bool) -> u32 {
        let mut at = 0;
        loop {
            let mut raw = [0; PAGES_MAX * 4];
            let length = chain.read(at, &mut raw);
            at += length as u64;
            let (numbers, _) = raw[..length].as_chunks::<4>();
            let mut pages: Vec<u64> = numbers
                .iter()
                .map(|number| u64::from(u32::from_le_bytes(*number)))
                .collect();
            if pages.is_empty() {
                return 0;
            }
            if release {
                pages.retain(|page| !function.memory().is_held(*page));
                self.host.release(&pages).await;
            } else {
                self.host.populate(&pages).await;
            }
        }
    }
}

impl Device for Balloon {
    fn identity(&self) -> Identity {
        Identity {
            device_id: DEVICE_ID,
            pci_class: PCI_CLASS,
        }
    }

    fn features(&self) -> u64 {
        let mut features = MUST_TELL_HOST | STATS_VQ;
        if self.deflates_on_oom.get() {
            features |= DEFLATE_ON_OOM;
        }
        features
    }

    fn consistent(&self, _features: u64) -> bool {
        true
    }

    fn queue_sizes(&self) -> &'static [u16] {
        QUEUE_SIZES
    }

    fn read_config(&self, _features: u64, out: &mut [u8; CONFIG_BYTES_MAX]) {
        let VirtioBalloonState {
            target_pages,
            actual_pages,
        } = *self.state.borrow();
        out[..4].copy_from_slice(&target_pages.to_le_bytes());
        out[4..8].copy_from_slice(&actual_pages.to_le_bytes());
    }

    fn write_config(&self, _features: u64, offset: usize, bytes: &[u8]) {
        if let (ACTUAL_OFFSET, Some(actual)) = (offset, bytes.first_chunk::<4>()) {
            self.state.borrow_mut().actual_pages = u32::from_le_bytes(*actual);
        }
    }

    /// The pages that were given away stay away until the driver, or the host when the guest
    /// starts anew, takes them back.
    fn reset(&self) {
        self.state.borrow_mut().actual_pages = 0;
        self.statistics.reset();
    }

    fn save(&self, out: &mut Vec<u8>) {
        append_record(&*self.state.borrow(), out);
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        *self.state.borrow_mut() = VirtioBalloonState::decode(bytes)?;
        self.statistics.reset();
        Ok(())
    }

    fn serve<'a>(&'a self, function: &'a VirtioFunction) -> Serving<'a> {
        let inflate = async |chain: &Chain| self.pages(function, chain, true).await;
        let deflate = async |chain: &Chain| self.pages(function, chain, false).await;
        // One chain of each at a time; a driver does not move a page both ways at once.
        let mut inflating = Box::pin(async move { function.serve(INFLATE, 1, inflate).await });
        let mut deflating = Box::pin(async move { function.serve(DEFLATE, 1, deflate).await });
        Box::pin(poll_fn(move |context| {
            let _: Poll<()> = inflating.as_mut().poll(context);
            let _: Poll<()> = deflating.as_mut().poll(context);
            self.statistics
                .poll(function, &*self.host, STATISTICS, context);
            Poll::Pending
        }))
    }
}
