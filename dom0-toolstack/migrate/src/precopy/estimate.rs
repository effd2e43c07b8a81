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

/// Average bytes of a page, newer ones counting more.
#[derive(Clone, Copy, Debug, Default)]
struct PageBytes {
    pages: u64,
    bytes: u64,
}

impl PageBytes {
    const PAGES_MAX: u64 = 1 << 15;

    fn add(&mut self, pages: u64, bytes: u64) {
        self.pages += pages;
        self.bytes += bytes;
        while self.pages > Self::PAGES_MAX {
            self.pages /= 2;
            self.bytes /= 2;
        }
    }

    /// Bytes of so many pages, rounded up.
    fn of(&self, pages: u64) -> Option<u64> {
        let bytes = u128::from(self.bytes) * u128::from(pages);
        let pages = (self.pages > 0).then_some(u128::from(self.pages))?;
        Some(u64::try_from(bytes.div_ceil(pages)).unwrap_or(u64::MAX))
    }
}

/// Estimates what is left. Bytes are always bytes on the wire: a page that is sent again as a
/// delta counts with what deltas have taken, not with 4096.
#[derive(Clone, Copy, Debug)]
pub struct Estimator {
    link: Rate,
    dirty: Rate,
    first: PageBytes,
    again: PageBytes,
    fixed_us: u64,
}

impl Estimator {
    /// `fixed_us`: what stopping costs besides the pages.
    pub fn new(fixed_us: u64) -> Estimator {
        Estimator {
            link: Rate::default(),
            dirty: Rate::default(),
            first: PageBytes::default(),
            again: PageBytes::default(),
            fixed_us,
        }
    }

    /// The fixed cost was measured.
    pub fn set_fixed_us(&mut self, fixed_us: u64) {
        self.fixed_us = fixed_us;
    }

    /// Pages were sent; `again`: pages that were sent before.
    pub fn sent(&mut self, again: bool, pages: u64, bytes: u64, took_us: u64) {
        self.link.add(bytes, took_us);
        let kind = if again {
            &mut self.again
        } else {
            &mut self.first
        };
        kind.add(pages, bytes);
    }

    /// A harvest found so many pages dirty after so long.
    pub fn harvested(&mut self, pages: u64, passed_us: u64) {
        self.dirty.add(pages, passed_us);
    }

    /// Bytes a second.
    pub fn link_rate(&self) -> Option<u64> {
        self.link.per_s()
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
        let rate = self.link_rate()?.max(1);
        let time = u128::from(bytes) * 1_000_000 / u128::from(rate);
        Some(
            u64::try_from(time)
                .unwrap_or(u64::MAX)
                .saturating_add(self.fixed_us),
        )
    }
}
