//! `xl migrate` and its like: each job is a task of its own; here is what the operator sees of them.

use super::typed::interrupts;
use super::{Shell, domains};
use crate::console;
use crate::peers::{Over, carry_disks, depart, press_claims};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use embassy_futures::select::{Either3, select3};
use embassy_time::{Duration, Timer};
use godwit_abi::DomainId;
use godwit_toolstack::operate::block_migrate::BlockMove;
use godwit_toolstack::operate::migrate::{Direction, Evacuated, Job, MoveOptions, Stage};
use godwit_toolstack::show;
use godwit_toolstack::site::Site;

/// How often the jobs are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A job that is watched.
struct Watched {
    job: Rc<Job>,
    moved: Evacuated,
    /// Lines that were shown.
    shown: usize,
    /// What was shown of its progress.
    seen: (Stage, u32),
}

/// How jobs are shown.
#[derive(Clone, Copy)]
struct View {
    json: bool,
    /// Lines begin with the domain's name.
    named: bool,
}

impl Shell {
    /// Moves domains. False: not all of them.
    pub(super) async fn migrate(
        &mut self,
        moves: Vec<(DomainId, Evacuated)>,
        peer: &str,
        options: MoveOptions,
        json: bool,
        evacuates: bool,
    ) -> bool {
        let named = moves.len() > 1 || evacuates;
        let view = View { json, named };
        let over = Over::default();
        let mut all = Vec::new();
        for (domain, moved) in moves {
            let tools = self.tools;
            let now_us = tools.site.now_us();
            let job = tools.jobs.begin(Direction::Out, &moved.name, peer, now_us);
            depart(self.hosts, self.spawner, &job, domain, options, &over);
            let seen = (Stage::Queue, 0);
            all.push(Watched {
                job,
                moved,
                shown: 0,
                seen,
            });
        }
        if !self.watch(&mut all, &over, view).await {
            console::write(b"^C: they go on by themselves (xl migrate-status)\n");
            return false;
        }
        // A guest that has ended meanwhile was left alone.
        domains::look();
        let moved = |one: &&Watched| one.job.outcome().is_some_and(|outcome| outcome.is_ok());
        let moved: Vec<Evacuated> = all
            .iter()
            .filter(moved)
            .map(|one| one.moved.clone())
            .collect();
        let is_all = moved.len() == all.len();
        if named && !json {
            let (moved, all) = (moved.len(), all.len());
            console::write(format!("{moved} of {all} domains were moved to {peer}\n").as_bytes());
        }
        if evacuates && let Err(error) = self.tools.remember_evacuated(moved).await {
            console::write(format!("remembered for this boot only: {error}\n").as_bytes());
        }
        is_all
    }

    /// Moves disks of a domain. False: not all of them.
    pub(super) async fn move_disks(
        &mut self,
        domain: DomainId,
        name: &str,
        wanted: BlockMove,
        json: bool,
    ) -> bool {
        let over = Over::default();
        let now_us = self.tools.site.now_us();
        let peer = wanted.to();
        let job = self
            .tools
            .jobs
            .begin(Direction::Within, name, &peer, now_us);
        carry_disks(self.hosts, self.spawner, &job, domain, wanted, &over);
        let moved = Evacuated {
            peer,
            uuid: String::new(),
            name: name.into(),
        };
        let seen = (Stage::Queue, 0);
        let mut all = [Watched {
            job,
            moved,
            shown: 0,
            seen,
        }];
        let view = View { json, named: false };
        if !self.watch(&mut all, &over, view).await {
            console::write(b"^C: it goes on by itself (xl migrate-status)\n");
            return false;
        }
        domains::look();
        self.tools.look().await;
        let [one] = &all;
        one.job.outcome().is_some_and(|outcome| outcome.is_ok())
    }

    /// Shows jobs until all are over. False: the operator does not wait.
    async fn watch(&mut self, all: &mut [Watched], over: &Over, view: View) -> bool {
        loop {
            for one in all.iter_mut() {
                one.show(view);
            }
            console::flush().await;
            if all.iter().all(|one| one.job.stage() == Stage::Done) {
                return true;
            }
            let look = select3(
                over.wait(),
                Timer::after(LOOK),
                self.typed.until(interrupts),
            );
            match look.await {
                Either3::First(()) | Either3::Second(()) => {}
                Either3::Third(()) if all.iter().any(|one| one.job.is_open()) => {
                    console::write(b"^C: calling it off\n");
                    all.iter().for_each(|one| one.job.cancel());
                }
                Either3::Third(()) => return false,
            }
        }
    }

    /// Says what moving domains would take. False: one of them cannot move.
    pub(super) async fn plan_move(
        &mut self,
        moves: &[(DomainId, Evacuated)],
        peer: &str,
        options: &MoveOptions,
    ) -> bool {
        let mut can = true;
        for (domain, one) in moves {
            let planned = self
                .tools
                .plan_move(&self.hosts, peer, *domain, options)
                .await;
            let text = match planned {
                Ok(text) => text,
                Err(why) => {
                    can = false;
                    format!("{why}\ndomain '{}' cannot move to {peer}\n", one.name)
                }
            };
            console::write(text.as_bytes());
            console::flush().await;
        }
        can
    }

    /// Gives configurations to a host. False: not all of them.
    pub(super) async fn move_offline(&mut self, configs: &[String], peer: &str) -> bool {
        let mut all = true;
        for path in configs {
            let moved = self.tools.migrate_offline(&self.hosts, peer, path).await;
            all &= moved.is_ok();
            let text = moved.unwrap_or_else(|why| format!("{why}\n{path} was not moved"));
            console::write(format!("{text}\n").as_bytes());
        }
        self.tools.look().await;
        all
    }

    /// Decides whose a domain is, once the operator has typed its name.
    pub(super) async fn resolve_move(&mut self, domain: &str, text: &str, yes: bool) -> bool {
        console::write(text.as_bytes());
        if !yes {
            console::write(b"Type the name of the domain to decide, anything else to leave it: ");
            console::flush().await;
            if self.typed_line().await != domain {
                console::write(b"nothing was decided\n");
                return false;
            }
        }
        let resolved = self.tools.resolve_move(&self.hosts, domain).await;
        press_claims(self.hosts, self.spawner);
        let decided = resolved.is_ok();
        let text = resolved.unwrap_or_else(|why| format!("{why}\nnothing was decided"));
        console::write(format!("{text}\n").as_bytes());
        decided
    }

    /// A line that is typed, as far as it is plain text.
    async fn typed_line(&mut self) -> String {
        let mut line = String::new();
        loop {
            match self.typed.next().await {
                b'\r' | b'\n' => break,
                3 => {
                    line.clear();
                    break;
                }
                8 | 127 => {
                    if line.pop().is_some() {
                        console::write(b"\x08 \x08");
                    }
                }
                byte if (b' '..127).contains(&byte) => {
                    line.push(char::from(byte));
                    console::write(&[byte]);
                }
                _control => {}
            }
            console::flush().await;
        }
        console::write(b"\n");
        line
    }

    /// Asks a host for what was moved there.
    pub(super) async fn recall(&mut self, peer: &str) -> bool {
        match self.tools.recall(&self.hosts, peer).await {
            Ok(told) => {
                let more = "xl migrate-status shows those that come\n";
                console::write(format!("{told}{more}").as_bytes());
                true
            }
            Err(why) => {
                console::write(format!("{why}\n").as_bytes());
                false
            }
        }
    }
}

impl Watched {
    /// Writes what is new.
    fn show(&mut self, view: View) {
        let name = match view.named {
            true => format!("{}: ", self.job.name),
            false => String::new(),
        };
        for line in self.job.lines(self.shown) {
            self.shown += 1;
            let text = match view.json {
                true => show::line_json(&self.job, &line),
                false => format!("{name}{line}\n"),
            };
            console::write(text.as_bytes());
        }
        let round = self.job.progress().map_or(0, |progress| progress.round);
        let now = (self.job.stage(), round);
        if core::mem::replace(&mut self.seen, now) == now {
            return;
        }
        let event = match now.0 == Stage::Done {
            true => "end",
            false => "progress",
        };
        if view.json {
            return console::write(show::move_json(&self.job, event).as_bytes());
        }
        match self.job.outcome() {
            Some(Ok(told)) => console::write(format!("{told}\n").as_bytes()),
            Some(Err(why)) => {
                let name = &self.job.name;
                let what = match self.job.direction {
                    Direction::Out | Direction::In => "was not moved",
                    Direction::Within => "goes on with the disks it has",
                };
                console::write(format!("{why}\ndomain '{name}' {what}\n").as_bytes());
            }
            None => {}
        }
    }
}
