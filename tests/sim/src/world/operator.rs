//! What operators and guests do.

use super::World;
use crate::check::{OFFLINE, OFFLINE_MOVING};
use crate::guest::Fate;
use crate::host::{Host, runs};
use godwit_abi::{DomainId, ShutdownReason};
use godwit_toolstack::command::parse_line;
use godwit_toolstack::names::id_of;
use godwit_toolstack::operate::migrate::{Direction, Job, MoveOptions, Stage, unwatched};
use godwit_toolstack::run::{Effect, run};
use std::rc::Rc;

impl World {
    /// Where the operator finds a guest, if any host lists it.
    fn find(&self, guest: usize) -> Option<(Rc<Host>, DomainId)> {
        let guest = &self.guests[guest];
        self.hosts.iter().find_map(|host| {
            let parts = host.tools()?.site.parts.clone();
            let all = parts.hypervisor.state.borrow();
            let mut domains = all.slots.iter().flatten();
            let domain = domains.find(|domain| guest.is(domain))?;
            Some((Rc::clone(host), id_of(&domain.info)))
        })
    }

    /// To the other host, unless one is named.
    pub(super) fn migrate(&mut self, guest: usize, peer: Option<&str>, options: MoveOptions) {
        let Some((host, domain)) = self.find(guest) else {
            return;
        };
        self.stats.begun += 1;
        let tools = host.tools().expect("it was found by it");
        let peer = peer.map_or_else(|| host.peer_name(), String::from);
        let name = &self.guests[guest].name;
        let now_us = self.executor.now_us();
        let job = tools.jobs.begin(Direction::Out, name, &peer, now_us);
        self.watch.begun(guest, host.index, &job, options);
        host.migrate(job, domain, options);
    }

    /// `xl host-evacuate`.
    pub(super) fn evacuate(&mut self, index: usize) {
        let host = Rc::clone(&self.hosts[index]);
        let Some(tools) = host.tools() else {
            return;
        };
        let (peer, now_us) = (host.peer_name(), self.executor.now_us());
        let mut moves = Vec::new();
        for (domain, it) in tools.to_evacuate(&peer) {
            let job = tools.jobs.begin(Direction::Out, &it.name, &peer, now_us);
            if let Some(guest) = self.guests.iter().position(|guest| guest.name == it.name) {
                self.stats.begun += 1;
                self.watch.begun(guest, index, &job, unwatched());
            }
            moves.push((domain, it, job));
        }
        host.evacuate(moves);
    }

    /// A configuration goes from where it is, in service or not.
    pub(super) fn offline(&self) {
        let is_there = |path| self.hosts.iter().find(|host| host.has_file(path));
        if let Some(host) = is_there(OFFLINE_MOVING).or_else(|| is_there(OFFLINE)) {
            host.migrate_offline(OFFLINE);
        }
    }

    /// What was begun and not finished is asked for again, and a guest is given up whose memory was lost with its source.
    pub(super) fn tidy_up(&mut self) {
        if self.hosts.iter().any(|host| host.has_file(OFFLINE_MOVING)) {
            self.offline();
        }
        for guest in 0..self.guests.len() {
            self.decide(guest);
            let it = &self.guests[guest];
            let lacks =
                |host: &Rc<Host>| host.guests(|domain| it.is(domain) && !domain.absent.is_empty());
            let there = |host: &Rc<Host>| host.guests(|domain| it.is(domain)).contains(&true);
            let stranded = (0..2)
                .any(|at| lacks(&self.hosts[at]).contains(&true) && !there(&self.hosts[1 - at]));
            if stranded && it.fate != Fate::Alive {
                self.command("destroy", guest);
            }
        }
    }

    /// What the other host cannot know since it lost its power without a journal, the operator says: who was there knows
    /// whether the guest ran.
    fn decide(&mut self, guest: usize) {
        let name = self.guests[guest].name.clone();
        for host in self.hosts.clone() {
            let Some(tools) = host.tools() else {
                continue;
            };
            let unsure = |job: &Rc<Job>| job.name == name && job.is_unsure();
            let all = tools.jobs.all();
            let Some(job) = all
                .iter()
                .find(|job| unsure(job) && job.stage() != Stage::Done)
            else {
                continue;
            };
            let Some(domain) = job.domain() else {
                continue;
            };
            // Where it ran last; if it has ended with its host, nowhere.
            if self.guests[guest].home != Some((host.index, domain)) {
                self.command("destroy", guest);
                continue;
            }
            let (peers, name) = (host.peers(), name.clone());
            let log = Rc::clone(&self.log);
            host.spawn(async move {
                let told = tools.resolve_move(&peers, &name).await;
                let (Ok(told) | Err(told)) = told.map_err(|error| error.to_string());
                log.borrow_mut()
                    .push(format!("            resolved: {told}"));
            });
        }
    }

    pub(super) fn cancel(&self, guest: usize) {
        let name = &self.guests[guest].name;
        for tools in self.hosts.iter().filter_map(|host| host.tools()) {
            let jobs = tools.jobs.all();
            let open = |job: &&Rc<Job>| job.name == *name && job.stage() != Stage::Done;
            jobs.iter().filter(open).for_each(|job| job.cancel());
        }
    }

    pub(super) fn command(&mut self, verb: &str, guest: usize) {
        let Some((host, domain)) = self.find(guest) else {
            return;
        };
        let tools = host.tools().expect("it was found by it");
        let line = format!("xl {verb} {domain}");
        if verb == "destroy" {
            // Who is to do without the rest of its memory may be destroyed.
            let job = tools.jobs.of(domain);
            match job.filter(|job| job.stage() != Stage::Fetch) {
                Some(_) => {}
                None => self.guests[guest].fate = Fate::MayBeGone("the operator destroyed it"),
            }
        }
        let log = Rc::clone(&self.log);
        host.spawn(async move {
            let commands = parse_line(&line).expect("it is a command");
            for command in commands {
                let effect = run(&tools, "host", command).await;
                if let Effect::Fail(why) = effect {
                    log.borrow_mut()
                        .push(format!("            {line}: {}", why.trim()));
                }
            }
        });
    }

    pub(super) fn end(&mut self, guest: usize, again: bool) {
        let guest = &mut self.guests[guest];
        let Some((index, id)) = guest.home else {
            return;
        };
        let Some(parts) = self.hosts[index].parts() else {
            return;
        };
        let running = parts.hypervisor.with(id, |domain| runs(domain));
        if running == Ok(true) {
            let reason = match again {
                true => ShutdownReason::Reboot,
                false => ShutdownReason::PowerOff,
            };
            parts.hypervisor.end(id, reason);
            guest.is_reborn = true;
            guest.fate = Fate::MayBeGone("it ended by itself");
        }
    }
}
