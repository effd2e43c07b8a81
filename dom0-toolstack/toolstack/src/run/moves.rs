//! Commands about domains that move between hosts.

use super::{Answer, Effect, print};
use crate::command::MoveCommand;
use crate::names::{id_of, resolve};
use crate::operate::migrate::{Evacuated, LOCALHOST, MoveOptions, OPEN_MAX, Stage};
use crate::operate::{OperateError, Toolstack};
use crate::show;
use crate::site::Site;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{DomainId, text};

/// Runs one.
pub(super) async fn answer<S: Site>(toolstack: &Toolstack<S>, command: MoveCommand) -> Answer {
    let (jobs, site) = (&toolstack.jobs, &toolstack.site);
    match command {
        MoveCommand::Migrate {
            domains,
            peer,
            options,
            json,
            dry_run,
        } => {
            let moves = found(toolstack, &domains, &peer)?;
            Ok(match dry_run {
                true => Effect::PlanMove {
                    moves,
                    peer,
                    options,
                },
                false => leave(moves, peer, options, json, false),
            })
        }
        MoveCommand::Disks {
            domain,
            wanted,
            json,
            dry_run,
        } => {
            let info = resolve(toolstack.site.hypervisor(), &domain)?;
            let (domain, name) = (id_of(&info), text(&info.name).into());
            match dry_run {
                true => print(toolstack.plan_disks(domain, &wanted).await?.text(&wanted)),
                false => Ok(Effect::MoveDisks {
                    domain,
                    name,
                    wanted,
                    json,
                }),
            }
        }
        MoveCommand::Offline { configs, peer } => Ok(Effect::MoveOffline { configs, peer }),
        MoveCommand::Status { json: true } => print(show::moves_json(&jobs.all(), false)),
        MoveCommand::Status { json: false } => {
            print(show::moves(&jobs.all(), jobs.limit(), site.now_us()))
        }
        MoveCommand::History { json: true } => print(show::moves_json(&jobs.all(), true)),
        MoveCommand::History { json: false } => print(show::history(&jobs.all())),
        MoveCommand::Costs => {
            let now_ns = || site.now_us() * 1000;
            print(show::costs(&godwit_migrate::encode::costs::measure(now_ns)))
        }
        MoveCommand::Limit { limit } => {
            if let Some(limit) = limit {
                jobs.set_limit(limit);
                toolstack.remember_moves().await;
            }
            print(format!("{}\n", jobs.limit()))
        }
        MoveCommand::Resolve {
            domain,
            peer_is_gone,
            yes,
        } => decide(toolstack, domain, peer_is_gone, yes),
        MoveCommand::Evacuate { peer, options } => evacuate(toolstack, peer, options),
        MoveCommand::Return { peer } => Ok(Effect::Recall { peer }),
    }
}

/// The moves themselves.
fn leave(
    moves: Vec<(DomainId, Evacuated)>,
    peer: String,
    options: MoveOptions,
    json: bool,
    evacuates: bool,
) -> Effect {
    Effect::Migrate {
        moves,
        peer,
        options,
        json,
        evacuates,
    }
}

/// `xl host-evacuate`.
fn evacuate<S: Site>(toolstack: &Toolstack<S>, peer: String, options: MoveOptions) -> Answer {
    if toolstack.host_named(&peer) == LOCALHOST {
        let what = format!("{peer} is this host: it would not be any emptier");
        return Err(OperateError::Other(what));
    }
    let moves = toolstack.to_evacuate(&peer);
    match moves.is_empty() {
        true => print("this host has no domains to move\n".into()),
        false => Ok(leave(moves, peer, options, false, true)),
    }
}

/// `xl migrate-resolve`.
fn decide<S: Site>(
    toolstack: &Toolstack<S>,
    domain: String,
    peer_is_gone: bool,
    yes: bool,
) -> Answer {
    let text = toolstack.explain_undecided(&domain)?;
    match peer_is_gone {
        true => Ok(Effect::ResolveMove { domain, text, yes }),
        false => print(text),
    }
}

/// The domains of some names; every name that cannot move is told.
fn found<S: Site>(
    toolstack: &Toolstack<S>,
    names: &[String],
    peer: &str,
) -> Result<Vec<(DomainId, Evacuated)>, OperateError> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in names {
        match resolve(toolstack.site.hypervisor(), name) {
            Ok(info) if id_of(&info) == DomainId::CONTROL => {
                problems.push("the control domain does not move".into());
            }
            Ok(info) => {
                let it = Evacuated {
                    peer: peer.into(),
                    uuid: String::new(),
                    name: text(&info.name).into(),
                };
                found.push((id_of(&info), it));
            }
            Err(error) => problems.push(format!("{error}")),
        }
    }
    let open = toolstack.jobs.all();
    let open = open.iter().filter(|job| job.stage() < Stage::Done).count();
    if open + found.len() > OPEN_MAX {
        problems.push(format!("at most {OPEN_MAX} moves are open at a time"));
    }
    match problems.is_empty() {
        true => Ok(found),
        false => Err(OperateError::Other(problems.join("\n"))),
    }
}
