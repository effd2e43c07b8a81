//! `xl migrate-status`.

use crate::operate::migrate::{Direction, Job, Stage};
use crate::table::{Align, Table};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};

/// What it prints at a time of the host's clock: a line a job, with how it ended if it has.
pub fn moves(jobs: &[Rc<Job>], now_us: u64) -> String {
    if jobs.is_empty() {
        return "no domain has moved\n".into();
    }
    let mut table = Table::new(&[
        ("Job", Align::Right, 3),
        ("Name", Align::Left, 16),
        ("Way", Align::Left, 3),
        ("Host", Align::Left, 16),
        ("Stage", Align::Left, 9),
        ("Rounds", Align::Right, 6),
        ("Sent(KiB)", Align::Right, 9),
        ("Left", Align::Right, 7),
        ("Seconds", Align::Right, 7),
        ("What", Align::Left, 0),
    ]);
    for job in jobs {
        let progress = job.progress();
        let number = |of: fn(godwit_migrate::precopy::Progress) -> u64| {
            progress.map_or_else(|| "-".into(), |progress| format!("{}", of(progress)))
        };
        let way = match job.direction {
            Direction::Out => "out",
            Direction::In => "in",
        };
        let what = match job.outcome() {
            Some(Ok(_)) => "moved".into(),
            Some(Err(why)) => why.replace('\n', "; "),
            None => job.lines(0).pop().unwrap_or_default(),
        };
        let seconds = match job.stage() {
            Stage::Done => "-".into(),
            Stage::Check
            | Stage::Copy
            | Stage::Stop
            | Stage::Prove
            | Stage::HandOver
            | Stage::Clean => format!("{}", now_us.saturating_sub(job.begun_us) / 1_000_000),
        };
        table.row(alloc::vec![
            format!("{}", job.id),
            job.name.clone(),
            way.into(),
            job.peer.clone(),
            job.stage().to_string(),
            number(|progress| progress.round.into()),
            number(|progress| progress.sent_bytes >> 10),
            number(|progress| progress.pages_left),
            seconds,
            what,
        ]);
    }
    table.render()
}
