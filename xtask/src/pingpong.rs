//! `./x test pingpong`: a guest under load is moved back and forth between two hosts, many times. Its memory
//! and disk are checked in it and its one TCP connection by who holds it, all along.

use crate::task_check::Outcome;
use crate::{shell, task_image};
use anyhow::Result;
use godwit_harness::{Emulator, GuestLoad, MoveSite, Moved, SiteOptions};
use std::time::{Duration, Instant};

const OPTIONS: SiteOptions = SiteOptions {
    emulators: [Emulator::Qemu; 2],
    encrypted: true,
    stores: false,
    memory_mib: 96,
};
const LOAD: GuestLoad = GuestLoad {
    kind: "light",
    vcpus: 1,
};
/// Long, because what a stop takes on a busy machine is not what is looked at.
const MOVE: &str = "--max-downtime=9000";

/// A heading and what stands below it.
type Column = (&'static str, fn(&Moved) -> Duration);

/// Each move counts as a test. What follows one that failed is not tried.
pub(crate) fn run(moves: usize) -> Result<Outcome> {
    task_image::build_checked()?;
    let mut site = MoveSite::boot("pingpong", OPTIONS)?;
    site.create(&OPTIONS, LOAD)?;
    let mut done: Vec<Moved> = Vec::new();
    let mut failed = 0;
    for number in 1..=moves {
        let begun = Instant::now();
        match site.migrate(MOVE) {
            Ok(moved) => {
                shell::say(&format!(
                    "move {number} of {moves}: {:.1} s, downtime {} ms, inside {}, TCP {}, ping {}",
                    begun.elapsed().as_secs_f32(),
                    moved.downtime.as_millis(),
                    moved.inside.as_millis(),
                    moved.outside_tcp.as_millis(),
                    moved.outside_ping.as_millis()
                ));
                done.push(moved);
            }
            Err(error) => {
                println!("move {number} of {moves} FAILED\n{error:#}");
                failed = 1;
                break;
            }
        }
    }
    let columns: [Column; 4] = [
        ("downtime, as xl migrate says", |moved| moved.downtime),
        ("gap by the guest's clocks", |moved| moved.inside),
        ("gap on its TCP connection", |moved| moved.outside_tcp),
        ("gap of pings", |moved| moved.outside_ping),
    ];
    println!(
        "{:<32}{:>8}{:>8}{:>8}",
        "milliseconds", "least", "median", "most"
    );
    for (name, of) in columns {
        if let Some([least, median, most]) = spread(done.iter().map(of).collect()) {
            println!("{name:<32}{least:>8}{median:>8}{most:>8}");
        }
    }
    Ok(Outcome {
        passed: done.len() as u64,
        failed,
    })
}

/// Least, median and most, in milliseconds.
fn spread(mut all: Vec<Duration>) -> Option<[u128; 3]> {
    all.sort();
    let at = |index: usize| all.get(index).map(Duration::as_millis);
    Some([at(0)?, at(all.len() / 2)?, at(all.len() - 1)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_of_some_and_of_none() {
        let all = [30, 10, 20].map(Duration::from_millis).to_vec();
        assert_eq!(spread(all), Some([10, 20, 30]));
        assert_eq!(spread(Vec::new()), None);
    }
}
