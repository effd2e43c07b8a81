//! `xl migrate-status` and `xl migrate-history`, as tables and as JSON, an object a line.

use crate::operate::block_migrate::DiskProgress;
use crate::operate::migrate::{Direction, Job, Spread, Stage};
use crate::table::{Align, Table};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use serde_json::{Value, json};

fn way(job: &Job) -> &'static str {
    match job.direction {
        Direction::Out => "out",
        Direction::In => "in",
        Direction::Within => "disk",
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// How a job ended, or what it is at.
fn what(job: &Job) -> String {
    match job.outcome() {
        Some(Ok(_)) => "moved".into(),
        Some(Err(why)) => why.replace('\n', "; "),
        None if job.stage() == Stage::Fetch => fetching(job),
        None if !job.disks().is_empty() => disks(job),
        None => job
            .stuck()
            .unwrap_or_else(|| job.lines(0).pop().unwrap_or_default()),
    }
}

/// How far the disks are.
fn disks(job: &Job) -> String {
    let disks = job.disks();
    let disk = |disk: &DiskProgress| match disk.switched {
        true => format!("{} moved", disk.vdev),
        false => {
            let progress = &disk.progress;
            format!(
                "{} {} % of {} KiB copied, {} KiB mirrored, {} regions to compare",
                disk.vdev,
                disk.percent(),
                progress.bytes >> 10,
                progress.mirrored_bytes >> 10,
                progress.unproved,
            )
        }
    };
    let all: Vec<String> = disks.iter().map(disk).collect();
    all.join("; ")
}

/// `xl migrate-status` at a time of the host's clock: a line a job, with how it ended if it has.
pub fn moves(jobs: &[Rc<Job>], limit: u32, now_us: u64) -> String {
    if jobs.is_empty() {
        return "no domain has moved\n".into();
    }
    let mut table = Table::new(&[
        ("Job", Align::Right, 3),
        ("Name", Align::Left, 16),
        ("Way", Align::Left, 4),
        ("Host", Align::Left, 16),
        ("Stage", Align::Left, 9),
        ("Rounds", Align::Right, 6),
        ("Sent(KiB)", Align::Right, 9),
        ("Left", Align::Right, 7),
        ("Dirty/s", Align::Right, 7),
        ("KiB/s", Align::Right, 7),
        ("Ratio%", Align::Right, 6),
        ("Stop(ms)", Align::Right, 8),
        ("ETA(s)", Align::Right, 7),
        ("Seconds", Align::Right, 7),
        ("What", Align::Left, 0),
    ]);
    for job in jobs {
        let progress = job.progress();
        let number = |of: fn(godwit_migrate::precopy::Progress) -> Option<u64>| {
            or_dash(progress.and_then(of))
        };
        let seconds =
            (job.stage() != Stage::Done).then(|| now_us.saturating_sub(job.begun_us) / 1_000_000);
        table.row(alloc::vec![
            format!("{}", job.id),
            job.name.clone(),
            way(job).into(),
            job.peer.clone(),
            job.stage().to_string(),
            number(|progress| Some(progress.round.into())),
            number(|progress| Some(progress.sent_bytes >> 10)),
            number(|progress| Some(progress.pages_left)),
            number(|progress| progress.dirty_rate),
            number(|progress| progress.link_rate.map(|rate| rate >> 10)),
            or_dash(job.compression_percent()),
            number(|progress| progress.downtime_us.map(|us| us / 1000)),
            or_dash(job.eta_us().map(|eta| eta.in_units(1_000_000))),
            or_dash(seconds),
            what(job),
        ]);
    }
    let waiting = jobs
        .iter()
        .filter(|job| job.stage() == Stage::Queue)
        .count();
    let rest = format!("at most {limit} leave at a time (xl migrate-limit), {waiting} wait\n");
    table.render() + &rest
}

/// `xl migrate-history`: what those that are over were expected to take, and took.
pub fn history(jobs: &[Rc<Job>]) -> String {
    let mut table = Table::new(&[
        ("Job", Align::Right, 3),
        ("Name", Align::Left, 16),
        ("Way", Align::Left, 4),
        ("Host", Align::Left, 16),
        ("KiB", Align::Right, 20),
        ("Rounds", Align::Right, 8),
        ("Milliseconds", Align::Right, 18),
        ("Downtime(ms)", Align::Right, 14),
        ("End", Align::Left, 0),
    ]);
    let mut count = 0;
    for job in jobs.iter().filter(|job| job.stage() == Stage::Done) {
        let (foreseen, actual) = (job.foreseen(), job.actual());
        let both = |spread: Option<Spread>, unit: u64, value: Option<u64>| {
            let spread = or_dash(spread.map(|spread| spread.in_units(unit)));
            format!("{spread}/{}", or_dash(value.map(|value| value / unit)))
        };
        let end = match job.outcome() {
            Some(Ok(_)) => "moved".into(),
            Some(Err(why)) => why.replace('\n', "; "),
            None => String::new(),
        };
        table.row(alloc::vec![
            format!("{}", job.id),
            job.name.clone(),
            way(job).into(),
            job.peer.clone(),
            both(
                foreseen.map(|it| it.bytes),
                1 << 10,
                actual.map(|it| it.bytes)
            ),
            both(foreseen.map(|it| it.rounds), 1, actual.map(|it| it.rounds)),
            both(
                foreseen.map(|it| it.duration_us),
                1000,
                actual.map(|it| it.duration_us)
            ),
            both(
                foreseen.map(|it| it.downtime_us),
                1000,
                actual.and_then(|it| it.downtime_us)
            ),
            end,
        ]);
        count += 1;
    }
    match count {
        0 => "no move is over\n".into(),
        _ => table.render() + "predicted/actual\n",
    }
}

fn spread(spread: Spread) -> Value {
    json!([spread.least, spread.most])
}

/// A job as JSON, one line.
pub fn move_json(job: &Job, event: &str) -> String {
    let progress = job.progress();
    let (outcome, error) = match job.outcome() {
        None => (None, None),
        Some(Ok(_)) => (Some("moved"), None),
        Some(Err(why)) => (Some("failed"), Some(why)),
    };
    let foreseen = job.foreseen().map(|it| {
        json!({
            "bytes": spread(it.bytes), "rounds": spread(it.rounds),
            "duration_us": spread(it.duration_us), "downtime_us": spread(it.downtime_us),
        })
    });
    let actual = job.actual().map(|it| {
        json!({
            "bytes": it.bytes, "rounds": it.rounds,
            "duration_us": it.duration_us, "downtime_us": it.downtime_us,
        })
    });
    let disks: Vec<Value> = job
        .disks()
        .iter()
        .map(|disk| {
            json!({
                "disk": disk.vdev, "target": disk.target, "switched": disk.switched,
                "bytes": disk.progress.bytes, "done_bytes": disk.progress.done_bytes,
                "copied_bytes": disk.progress.copied_bytes, "zero_bytes": disk.progress.zero_bytes,
                "mirrored_bytes": disk.progress.mirrored_bytes,
                "mirrored_requests": disk.progress.mirrored_requests,
                "unequal": disk.progress.unequal,
            })
        })
        .collect();
    let value = json!({
        "disks": disks,
        "event": event,
        "job": job.id, "name": job.name, "host": job.peer, "way": way(job),
        "stage": job.stage().to_string(),
        "round": progress.map(|it| it.round),
        "sent_bytes": progress.map(|it| it.sent_bytes),
        "pages_left": progress.map(|it| it.pages_left),
        "dirty_pages_per_s": progress.and_then(|it| it.dirty_rate),
        "link_bytes_per_s": progress.and_then(|it| it.link_rate),
        "quota_pages_per_s": progress.and_then(|it| it.quota),
        "compression_percent": job.compression_percent(),
        "downtime_us": progress.and_then(|it| it.downtime_us),
        "eta_us": job.eta_us().map(spread),
        "stuck": job.stuck(),
        "outcome": outcome, "error": error,
        "predicted": foreseen, "actual": actual,
    });
    value.to_string() + "\n"
}

/// Something a job has to tell, as JSON, one line.
pub fn line_json(job: &Job, text: &str) -> String {
    json!({"event": "line", "job": job.id, "name": job.name, "text": text}).to_string() + "\n"
}

/// All jobs, or those that are over.
pub fn moves_json(jobs: &[Rc<Job>], over: bool) -> String {
    let wanted = jobs
        .iter()
        .filter(|job| !over || job.stage() == Stage::Done);
    let lines: Vec<String> = wanted.map(|job| move_json(job, "job")).collect();
    lines.concat()
}

/// How the fetching is going.
fn fetching(job: &Job) -> String {
    let fetched = job.fetched();
    let link = match job.is_linked() {
        true => "",
        false => match job.direction {
            Direction::In => {
                "link lost: the pages it lacks are on the other host only (xl migrate-resolve says what to do); "
            }
            Direction::Within => "",
            Direction::Out => "link lost, connecting (xl migrate-resolve if it is gone for ever); ",
        },
    };
    let mean_us = fetched.waited_us.checked_div(fetched.faults).unwrap_or(0);
    format!(
        "{link}{} pages missing, {} faults served, waited for {mean_us} us, at most {} us",
        fetched.missing, fetched.faults, fetched.waited_us_max
    )
}
