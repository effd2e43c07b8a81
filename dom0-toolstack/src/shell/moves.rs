//! `xl migrate`: the job is a task of its own; here is what the operator sees of it.

use super::typed::interrupts;
use super::{Shell, domains};
use crate::console;
use crate::peers::{Over, depart, too_many};
use alloc::format;
use alloc::rc::Rc;
use embassy_futures::select::{Either3, select3};
use embassy_time::{Duration, Timer};
use godwit_abi::DomainId;
use godwit_toolstack::operate::migrate::{Direction, Job, MoveOptions};
use godwit_toolstack::site::Site;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(100);

impl Shell {
    /// Moves a domain. False: it is still here.
    pub(super) async fn migrate(
        &mut self,
        domain: DomainId,
        name: &str,
        peer: &str,
        options: MoveOptions,
    ) -> bool {
        let tools = self.tools;
        let now_us = tools.site.now_us();
        let job = tools.jobs.begin(Direction::Out, name, peer, now_us);
        let over = Over::default();
        let task = depart(
            self.hosts,
            Rc::clone(&job),
            domain,
            options,
            Rc::clone(&over),
        );
        match task {
            Ok(task) => self.spawner.spawn(task),
            Err(_) => {
                job.give_up(too_many());
                console::write(format!("{}\n", too_many()).as_bytes());
                return false;
            }
        }
        let mut shown = 0;
        let moved = loop {
            let look = select3(
                over.wait(),
                Timer::after(LOOK),
                self.typed.until(interrupts),
            );
            let heard = look.await;
            show(&job, &mut shown);
            console::flush().await;
            match heard {
                Either3::First(()) => break job.outcome(),
                Either3::Second(()) => {}
                Either3::Third(()) if job.is_open() => {
                    console::write(b"^C: calling it off\n");
                    job.cancel();
                }
                Either3::Third(()) => {
                    console::write(b"^C: it goes on by itself (xl migrate-status)\n");
                    return false;
                }
            }
        };
        // A guest that has ended meanwhile was left alone.
        domains::look();
        match moved {
            Some(Ok(told)) => {
                console::write(format!("{told}\n").as_bytes());
                true
            }
            Some(Err(why)) => {
                console::write(format!("{why}\ndomain '{name}' was not moved\n").as_bytes());
                false
            }
            None => false,
        }
    }
}

/// Writes what is new.
fn show(job: &Job, shown: &mut usize) {
    for line in job.lines(*shown) {
        *shown += 1;
        console::write(format!("{line}\n").as_bytes());
    }
}
