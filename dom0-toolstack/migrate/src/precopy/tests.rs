//! Pre-copy of guests that write in different ways, over links of different rates, in virtual time.

use super::*;

/// A guest that writes while its pages are sent.
struct World {
    now_us: u64,
    /// Bytes a second.
    link: u64,
    /// Pages a second, over `working_set` pages in turn.
    writes: u64,
    working_set: u64,
    /// Bytes of a page that is sent again.
    again_bytes: u64,
    quota: Option<u64>,
    dirty: PageSet,
    written: u64,
    carry: u64,
    /// What the destination has: the version of each page, and the guest's.
    there: Vec<u64>,
    here: Vec<u64>,
}

const PAGES: u64 = 16_384;
const FIXED_US: u64 = 5_000;

impl World {
    fn new(link: u64, writes: u64, working_set: u64, again_bytes: u64) -> World {
        World {
            now_us: 1_000,
            link,
            writes,
            working_set,
            again_bytes,
            quota: None,
            dirty: PageSet::new(PAGES),
            written: 0,
            carry: 0,
            there: vec![u64::MAX; PAGES as usize],
            here: vec![0; PAGES as usize],
        }
    }

    fn pass(&mut self, us: u64) {
        self.now_us += us;
        let rate = self.writes.min(self.quota.unwrap_or(u64::MAX));
        self.carry += rate * us;
        let writes = self.carry / 1_000_000;
        self.carry %= 1_000_000;
        for _ in 0..writes.min(4 * PAGES) {
            let page = self.written % self.working_set;
            self.written += 1;
            self.here[page as usize] += 1;
            self.dirty.insert(page);
        }
    }

    fn send(&mut self, pages: &[u64], again: bool) -> (u64, u64) {
        let each = if again { self.again_bytes } else { 4096 };
        let bytes = pages.len() as u64 * each;
        for page in pages {
            self.there[*page as usize] = self.here[*page as usize];
        }
        (bytes, bytes * 1_000_000 / self.link)
    }

    fn harvest(&mut self) -> Vec<u64> {
        let mut words = vec![0; PAGES.div_ceil(64) as usize];
        for page in self.dirty.iter() {
            words[(page / 64) as usize] |= 1 << (page % 64);
        }
        self.dirty = PageSet::new(PAGES);
        words
    }

    /// Runs to the end. The stop's true downtime in microseconds, or how else it ended.
    fn run(&mut self, goals: Goals) -> (Result<u64, Next>, Progress) {
        let mut all = PageSet::new(PAGES);
        (0..PAGES).for_each(|page| all.insert(page));
        let mut copy = PreCopy::new(all, goals, FIXED_US, self.now_us);
        let mut last = copy.progress();
        for _ in 0..100_000 {
            match copy.next(self.now_us) {
                Next::Send(pages) => {
                    let (bytes, took) = self.send(&pages, copy.round > 0);
                    self.pass(took);
                    copy.sent(pages.len(), bytes, took);
                }
                Next::Harvest => {
                    let dirty = self.harvest();
                    copy.harvested(&dirty, self.now_us);
                    self.pass(50);
                }
                Next::Wait { until_us } => {
                    assert!(until_us > self.now_us);
                    self.pass(until_us - self.now_us);
                }
                Next::Throttle { pages_per_s } => self.quota = Some(pages_per_s),
                Next::Stop { .. } => {
                    let dirty = self.harvest();
                    let rest: Vec<u64> = copy.rest(&dirty).iter().collect();
                    let (_, took) = self.send(&rest, true);
                    assert_eq!(self.there, self.here, "a page was forgotten");
                    return (Ok(took + FIXED_US), last);
                }
                other => return (Err(other), last),
            }
            let progress = copy.progress();
            assert!(progress.round >= last.round && progress.sent_bytes >= last.sent_bytes);
            last = progress;
        }
        panic!("it never ends: {last:?}");
    }
}

fn goals(on_miss: OnMiss) -> Goals {
    Goals {
        downtime_us: 300_000,
        deadline_us: None,
        on_miss,
    }
}

const GIGABIT: u64 = 125_000_000;

#[test]
fn an_idle_guest_stops_after_one_round() {
    let (end, progress) = World::new(GIGABIT, 20, 100, 4096).run(goals(OnMiss::Abort));
    assert!(end.unwrap() < 10_000, "{progress:?}");
    assert_eq!(progress.round, 1);
}

#[test]
fn a_moderate_writer_stops_within_the_promise() {
    let (end, progress) = World::new(GIGABIT / 10, 1_000, 12_000, 4096).run(goals(OnMiss::Abort));
    assert!(end.unwrap() <= 330_000, "{progress:?}");
    assert!(progress.round < 10, "{progress:?}");
}

/// One byte in each of 12,000 pages without end: every page is dirty in every round, but 12,000
/// deltas are a small thing.
#[test]
fn a_writer_of_single_bytes_stops_by_deltas() {
    let (end, progress) = World::new(GIGABIT, 10_000_000, 12_000, 12).run(goals(OnMiss::Abort));
    assert!(end.unwrap() <= 300_000, "{progress:?}");
}

#[test]
fn a_writer_faster_than_the_link_ends_as_was_chosen() {
    let world = || World::new(GIGABIT / 10, 1_000_000, 12_000, 4096);
    let (end, _) = world().run(goals(OnMiss::Abort));
    assert!(matches!(end, Err(Next::Abort(Miss::NotConverging { best_us })) if best_us > 300_000));
    let (end, _) = world().run(goals(OnMiss::PostCopy));
    assert!(matches!(
        end,
        Err(Next::PostCopy(Miss::NotConverging { .. }))
    ));
    let (end, _) = world().run(goals(OnMiss::Pause));
    assert!(end.unwrap() > 300_000);
    let (end, progress) = world().run(goals(OnMiss::Throttle));
    assert!(end.unwrap() <= 330_000, "{progress:?}");
    assert!(progress.quota.is_some());
}

#[test]
fn a_stop_that_alone_takes_too_long_is_not_waited_for() {
    let short = |on_miss| Goals {
        downtime_us: FIXED_US - 1,
        ..goals(on_miss)
    };
    let idle = || World::new(GIGABIT, 20, 100, 4096);
    for on_miss in [OnMiss::Abort, OnMiss::Throttle] {
        let (end, progress) = idle().run(short(on_miss));
        let fixed_us = FIXED_US;
        assert_eq!(end, Err(Next::Abort(Miss::Fixed { fixed_us })));
        assert_eq!((progress.round, progress.quota), (1, None));
    }
    let (end, _) = idle().run(short(OnMiss::Pause));
    assert!(end.is_ok(), "{end:?}");
}

#[test]
fn a_deadline_ends_it() {
    let goals = Goals {
        deadline_us: Some(3_000_000),
        ..goals(OnMiss::Abort)
    };
    let mut world = World::new(GIGABIT / 100, 100_000, 12_000, 4096);
    let (end, _) = world.run(goals);
    assert_eq!(end, Err(Next::Abort(Miss::Deadline)));
}

#[test]
fn hot_pages_wait_for_the_end() {
    let mut world = World::new(GIGABIT / 10, 50_000, 600, 4096);
    let short = Goals {
        downtime_us: 100_000,
        ..goals(OnMiss::Abort)
    };
    let (end, progress) = world.run(short);
    assert!(end.is_err());
    assert_eq!(progress.pages_hot, 600, "{progress:?}");
    // Sent once, and again until they were known to be hot; not in every round.
    let most = (PAGES + 600 * u64::from(HOT_HARVESTS)) * 4096;
    assert!(progress.sent_bytes <= most, "{progress:?}");
}

#[test]
fn what_may_be_sent_counts_not_what_the_link_carries() {
    let mut estimator = Estimator::new(FIXED_US);
    // The first batches go before the limit is felt.
    estimator.sent(false, 100, 400_000, 10_000);
    estimator.sent(true, 100, 400_000, 10_000);
    let free_us = estimator.downtime_us(1_000).unwrap();
    assert_eq!(free_us, 100_000 + FIXED_US);
    estimator.set_limit(4_000_000);
    assert_eq!(estimator.downtime_us(1_000), Some(1_000_000 + FIXED_US));
    // A limit that the link does not reach is none.
    estimator.set_limit(400_000_000);
    assert_eq!(estimator.downtime_us(1_000), Some(free_us));
}
