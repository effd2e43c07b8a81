//! A budget of CPU time per period: what a cap allows, or what the control domain is sure of.
//!
//! `left_ns` goes below zero when somebody ran longer than the budget had; the debt is paid by later periods, and what is not used
//! within a period is lost. So use of a cap over many periods is at most the quota, exactly.

use super::PERIOD_NS;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    quota_ns: i64,
    left_ns: i64,
    next_refill_ns: u64,
}

impl Budget {
    /// `percent` of one CPU, full now.
    pub(super) fn new(percent: u32, now_ns: u64) -> Budget {
        let quota_ns = (PERIOD_NS / 100) as i64 * i64::from(percent);
        Budget {
            quota_ns,
            left_ns: quota_ns,
            next_refill_ns: now_ns + PERIOD_NS,
        }
    }

    /// Adds the quotas of the periods that began up to now.
    #[inline]
    pub(super) fn refill(&mut self, now_ns: u64) {
        if now_ns < self.next_refill_ns {
            return;
        }
        let periods = (now_ns - self.next_refill_ns) / PERIOD_NS + 1;
        let refill = self
            .quota_ns
            .saturating_mul(i64::try_from(periods).unwrap_or(i64::MAX));
        self.left_ns = self.left_ns.saturating_add(refill).min(self.quota_ns);
        self.next_refill_ns += periods * PERIOD_NS;
    }

    /// Takes time that was used up to now.
    #[inline]
    pub(super) fn spend(&mut self, used_ns: u64, now_ns: u64) {
        self.left_ns = self
            .left_ns
            .saturating_sub(i64::try_from(used_ns).unwrap_or(i64::MAX));
        self.refill(now_ns);
    }

    /// As [`Budget::spend`], for a budget without debts: use beyond it is somebody else's business.
    pub(super) fn spend_without_debt(&mut self, used_ns: u64, now_ns: u64) {
        self.left_ns = self
            .left_ns
            .saturating_sub(i64::try_from(used_ns).unwrap_or(i64::MAX))
            .max(0);
        self.refill(now_ns);
    }

    /// What is left, 0 when in debt.
    pub(super) fn left_ns(&self) -> u64 {
        u64::try_from(self.left_ns).unwrap_or(0)
    }

    /// Is there something left, taking into account a refill that is due?
    #[inline]
    pub(super) fn has_left(&self, now_ns: u64) -> bool {
        let mut then = *self;
        then.refill(now_ns);
        then.left_ns > 0
    }

    /// When the budget will be out of debt again, or is refilled next.
    pub(super) fn available_ns(&self) -> u64 {
        if self.left_ns.saturating_add(self.quota_ns) > 0 {
            return self.next_refill_ns;
        }
        // Periods beyond the next that the debt takes.
        let more = (-self.left_ns / self.quota_ns) as u64;
        self.next_refill_ns
            .saturating_add(more.saturating_mul(PERIOD_NS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debt_is_paid_and_surplus_is_lost() {
        let mut budget = Budget::new(30, 0);
        budget.spend(7_000_000, 7_000_000);
        assert_eq!((budget.left_ns(), budget.has_left(7_000_000)), (0, false));
        // 4 ms owed; 3 ms come at 10 ms and 3 more at 20 ms.
        assert_eq!(budget.available_ns(), 20_000_000);
        assert!(!budget.has_left(19_999_999));
        assert!(budget.has_left(20_000_000));
        budget.refill(20_000_000);
        assert_eq!(budget.left_ns(), 2_000_000);
        budget.refill(990_000_000);
        assert_eq!(budget.left_ns(), 3_000_000);
        assert_eq!(budget.available_ns(), 1_000_000_000);
    }
}
