//! What the link carries, what a page takes, how fast the guest writes.

/// An amount over time that follows changes: old seconds count less and less.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    amount: u64,
    time_us: u64,
}

impl Rate {
    /// Time after which what is older counts half.
    const HALF_US: u64 = 2_000_000;

    /// So much in so long.
    pub fn add(&mut self, amount: u64, took_us: u64) {
        self.amount += amount;
        self.time_us += took_us;
        while self.time_us > 2 * Self::HALF_US {
            self.amount /= 2;
            self.time_us /= 2;
        }
    }

    /// A second's amount; `None` before anything took time.
    pub fn per_s(&self) -> Option<u64> {
        let product = u128::from(self.amount) * 1_000_000;
        let rate = product.checked_div(u128::from(self.time_us))?;
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

/// What a page takes on average, bytes or time, newer ones counting more.
#[derive(Clone, Copy, Debug, Default)]
struct PerPage {
    pages: u64,
    amount: u64,
}

impl PerPage {
    const PAGES_MAX: u64 = 1 << 15;

    fn add(&mut self, pages: u64, amount: u64) {
        self.pages += pages;
        self.amount += amount;
        while self.pages > Self::PAGES_MAX {
            self.pages /= 2;
            self.amount /= 2;
        }
    }

    /// What so many pages take, rounded up.
    fn of(&self, pages: u64) -> Option<u64> {
        let amount = u128::from(self.amount) * u128::from(pages);
        let pages = (self.pages > 0).then_some(u128::from(self.pages))?;
        Some(u64::try_from(amount.div_ceil(pages)).unwrap_or(u64::MAX))
    }
}

/// Pages that took less than this on the wire say nothing about the link: finding out took longer.
const TELLING_BYTES_PER_PAGE: u64 = 64;

/// Estimates what is left. Bytes are always bytes on the wire: a page that is sent again as a
/// delta counts with what deltas have taken, not with 4096.
#[derive(Clone, Copy, Debug)]
pub struct Estimator {
    link: Rate,
    dirty: Rate,
    first: PerPage,
    again: PerPage,
    /// Time, processor's and link's, of pages that were sent again.
    again_us: PerPage,
    fixed_us: u64,
    /// Bytes a second that may be sent.
    limit: u64,
}

impl Estimator {
    /// `fixed_us`: what stopping costs besides the pages.
    pub fn new(fixed_us: u64) -> Estimator {
        Estimator {
            link: Rate::default(),
            dirty: Rate::default(),
            first: PerPage::default(),
            again: PerPage::default(),
            again_us: PerPage::default(),
            fixed_us,
            limit: u64::MAX,
        }
    }

    /// No more bytes a second may be sent.
    pub fn set_limit(&mut self, bytes_per_s: u64) {
        self.limit = bytes_per_s;
    }

    /// What stopping costs besides the pages.
    pub fn fixed_us(&self) -> u64 {
        self.fixed_us
    }

    /// Replaces it by what was measured.
    pub fn set_fixed_us(&mut self, fixed_us: u64) {
        self.fixed_us = fixed_us;
    }

    /// Pages were sent; `again`: pages that were sent before.
    pub fn sent(&mut self, again: bool, pages: u64, bytes: u64, took_us: u64) {
        if bytes >= pages * TELLING_BYTES_PER_PAGE {
            self.link.add(bytes, took_us);
        }
        match again {
            true => {
                self.again.add(pages, bytes);
                self.again_us.add(pages, took_us);
            }
            false => self.first.add(pages, bytes),
        }
    }

    /// A harvest found so many pages dirty after so long.
    pub fn harvested(&mut self, pages: u64, passed_us: u64) {
        self.dirty.add(pages, passed_us);
    }

    /// Bytes a second, as measured and as may be sent: the first batches go before the limit is felt.
    pub fn link_rate(&self) -> Option<u64> {
        self.link.per_s().map(|rate| rate.min(self.limit))
    }

    /// Pages a second.
    pub fn dirty_rate(&self) -> Option<u64> {
        self.dirty.per_s()
    }

    /// Downtime with so many pages left, microseconds; `None` before anything was measured.
    pub fn downtime_us(&self, pages: u64) -> Option<u64> {
        if pages == 0 {
            return Some(self.fixed_us);
        }
        // What is left at a stop was mostly sent before.
        let bytes = self.again.of(pages).or_else(|| self.first.of(pages))?;
        let on_link = self.link_rate().map(|rate| {
            let time_us = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
            u64::try_from(time_us).unwrap_or(u64::MAX)
        });
        // Where few bytes make many pages, it is the processor that takes the time.
        let time_us = on_link.max(self.again_us.of(pages))?;
        Some(time_us.saturating_add(self.fixed_us))
    }
}
