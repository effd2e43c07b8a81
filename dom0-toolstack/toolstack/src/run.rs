//! Running commands: what the hypervisor can answer is answered here, what needs the network, the
//! clock or the terminal is handed back as an [`Effect`] for dom0 to carry out.

mod domains;
mod moves;
mod stores;

use crate::command::{self, Command, ConsoleKind, DirtyLogOptions, HostCommand, Known};
use crate::config;
use crate::editor::Completion;
use crate::host::Hypervisor;
use crate::modules;
use crate::names::{self, id_of, resolve};
use crate::operate::block_migrate::BlockMove;
use crate::operate::migrate::{Evacuated, MoveOptions};
use crate::operate::{OperateError, Toolstack};
use crate::show::{self, Stream, Tail};
use crate::site::Site;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainInfo, PowerAction, Status, VcpuIndex, VcpuInfo, text};

/// Most vCPUs of a domain that are listed.
const VCPUS_MAX: u32 = config::VCPUS_MAX;

/// What is left to be done for a command. All text has lines ended by `\n`.
#[derive(Clone, PartialEq, Debug)]
pub enum Effect {
    /// Write this.
    Print(String),
    /// Write this; the command has failed.
    Fail(String),
    /// Write `text`, then show a domain's console with a [`Tail`] or
    /// [`show::DeviceTail`], and hand it what is typed until
    /// [`show::ends_console`].
    Follow {
        /// The domain.
        domain: DomainId,
        /// Which of its consoles.
        console: ConsoleKind,
        /// What to write first.
        text: String,
    },
    /// Wait until a domain has ended or is gone, or Ctrl-C.
    AwaitEnd(DomainId),
    /// Wait until a domain's memory has come to its target ([`Toolstack::memory`]), or Ctrl-C.
    AwaitMemory(DomainId),
    /// Count the pages a domain writes to with a [`crate::dirty::DirtyLog`], second by second, or until Ctrl-C.
    DirtyRate {
        /// The domain.
        domain: DomainId,
        /// For how long.
        seconds: u32,
    },
    /// Examine the dirty log with a [`crate::dirty::check::DirtyCheck`].
    DirtyLog {
        /// The domain.
        domain: DomainId,
        /// How.
        options: DirtyLogOptions,
    },
    /// Move domains, each with a job of [`Toolstack::jobs`] and [`Toolstack::migrate`], showing the jobs' lines;
    /// Ctrl-C calls them off.
    Migrate {
        /// The domains, with what to remember of each.
        moves: Vec<(DomainId, Evacuated)>,
        /// The other host.
        peer: String,
        /// How.
        options: MoveOptions,
        /// Show events as JSON.
        json: bool,
        /// What has moved is to be remembered, with [`Toolstack::remember_evacuated`].
        evacuates: bool,
    },
    /// Say with [`Toolstack::plan_move`] what moving domains would take.
    PlanMove {
        /// The domains.
        moves: Vec<(DomainId, Evacuated)>,
        /// The other host.
        peer: String,
        /// How.
        options: MoveOptions,
    },
    /// Move disks with [`Toolstack::block_migrate`], showing the job's lines; Ctrl-C calls it off.
    MoveDisks {
        /// The domain.
        domain: DomainId,
        /// Its name.
        name: String,
        /// What and how.
        wanted: BlockMove,
        /// Show events as JSON.
        json: bool,
    },
    /// Give configurations to a host with [`Toolstack::migrate_offline`].
    MoveOffline {
        /// Paths of files.
        configs: Vec<String>,
        /// The other host.
        peer: String,
    },
    /// Decide with [`Toolstack::resolve_move`] whose a domain is.
    ResolveMove {
        /// The domain.
        domain: String,
        /// What that means, to be written first.
        text: String,
        /// The operator need not type the domain's name.
        yes: bool,
    },
    /// Ask a host with [`Toolstack::recall`] for what was moved there.
    Recall {
        /// The other host.
        peer: String,
    },
    /// Show `xl top` with a [`show::TopState`] until [`show::ends_top`].
    Top {
        /// Seconds between updates.
        delay_s: u32,
        /// Updates, without end if `None`.
        iterations: Option<u32>,
        /// Lines without screen control.
        batch: bool,
    },
    /// Send echo requests until Ctrl-C.
    Ping {
        /// To whom.
        host: String,
        /// How many, without end if `None`.
        count: Option<u32>,
        /// Milliseconds between them.
        interval_ms: u32,
    },
    /// Show network devices and addresses.
    Ip,
    /// Show the host's disks with [`show::disk_list`].
    DiskList,
    /// Read blocks of one of the host's disks and show them with [`show::disk_dump`].
    DiskRead {
        /// Its name.
        disk: String,
        /// The first block.
        block: u64,
        /// Blocks.
        blocks: u32,
    },
    /// Restart or switch off, once what was written is out.
    Power(PowerAction),
}

/// Runs a command on the host called `name`. Not to be dropped half way.
pub async fn run<S: Site>(toolstack: &Toolstack<S>, name: &str, command: Command) -> Effect {
    match answer(toolstack, name, command).await {
        Ok(effect) => effect,
        Err(error) => Effect::Fail(format!("{error}\n")),
    }
}

/// What a command comes to.
type Answer = Result<Effect, OperateError>;

async fn answer<S: Site>(toolstack: &Toolstack<S>, name: &str, command: Command) -> Answer {
    let hypervisor = toolstack.site.hypervisor();
    match command {
        Command::Top {
            delay_s,
            iterations,
            batch,
        } => Ok(Effect::Top {
            delay_s,
            iterations,
            batch,
        }),
        Command::Ping {
            host,
            count,
            interval_ms,
        } => Ok(Effect::Ping {
            host,
            count,
            interval_ms,
        }),
        Command::Ip => Ok(Effect::Ip),
        Command::DiskList => Ok(Effect::DiskList),
        Command::DiskRead {
            disk,
            block,
            blocks,
        } => Ok(Effect::DiskRead {
            disk,
            block,
            blocks,
        }),
        Command::Reboot => Ok(Effect::Power(PowerAction::Reboot)),
        Command::PowerOff => Ok(Effect::Power(PowerAction::PowerOff)),
        Command::Help(text) => print(text),
        Command::Echo(text) => print(format!("{text}\n")),
        Command::Modules => print(modules::render(&toolstack.modules)),
        Command::NotImplemented(what) => Ok(Effect::Fail(format!("not implemented: {what}\n"))),
        Command::Info => info(hypervisor, name),
        Command::Uptime => uptime(hypervisor),
        Command::Dmesg => print(Tail::open(hypervisor, Stream::Log)?.all(hypervisor)?),
        Command::DebugKeys { keys } => debug_keys(hypervisor, &keys),
        Command::List { long, domain } => domains::list(toolstack, long, domain),
        Command::VcpuList { domain } => vcpu_list(hypervisor, domain),
        Command::DomainUptime { domain } => domains::uptime(toolstack, domain),
        Command::Move(command) => moves::answer(toolstack, command).await,
        Command::SchedCredit2(set) => domains::sched_credit2(toolstack, set),
        Command::Create {
            config,
            settings,
            paused,
            console,
        } => {
            let made = toolstack.create(&config, &settings, paused).await?;
            domains::made("created", &made, "", console)
        }
        Command::Restore {
            target,
            paused,
            console,
        } => domains::restore(toolstack, &target, paused, console).await,
        Command::Domain { domain, action } => domains::answer(toolstack, &domain, action).await,
        Command::Store(command) => stores::answer(toolstack, command).await,
        Command::Host(command) => host(toolstack, name, command).await,
    }
}

/// Completions for the text before the cursor. Offers no domains when they cannot be listed.
pub fn complete<S: Site>(toolstack: &Toolstack<S>, before: &str) -> Completion {
    let domains = names::all(toolstack.site.hypervisor()).unwrap_or_default();
    let domains: Vec<String> = domains.iter().map(|info| text(&info.name).into()).collect();
    let modules: Vec<&str> = toolstack.modules.iter().map(|module| module.name).collect();
    let seen = toolstack.seen.borrow();
    let hosts = toolstack.known_hosts();
    let hosts: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let known = Known {
        domains: &domains,
        modules: &modules,
        keys: config::KEYS,
        files: &seen.files,
        hosts: &hosts,
        stores: &seen.stores,
        volumes: &seen.volumes,
    };
    command::complete(before, known)
}

async fn host<S: Site>(toolstack: &Toolstack<S>, name: &str, command: HostCommand) -> Answer {
    print(match command {
        HostCommand::Key { new } => toolstack.host_key(name, new).await?,
        HostCommand::List => toolstack.host_list(),
        HostCommand::Add(host) => toolstack.host_add(host).await?,
        HostCommand::Remove { name } => toolstack.host_remove(&name).await?,
    })
}

fn info(hypervisor: &impl Hypervisor, name: &str) -> Answer {
    let info = hypervisor.host_info()?;
    print(show::info(name, &info, hypervisor.now_tsc()))
}

fn uptime(hypervisor: &impl Hypervisor) -> Answer {
    let info = hypervisor.host_info()?;
    print(show::uptime(&info, hypervisor.now_tsc()))
}

/// Silent when there is nothing to say, as `xl` is.
fn print(text: String) -> Answer {
    Ok(Effect::Print(text))
}

/// The domain that is named, or all.
fn some_or_all(
    hypervisor: &impl Hypervisor,
    domain: Option<String>,
) -> Result<Vec<DomainInfo>, OperateError> {
    Ok(match domain {
        Some(name) => alloc::vec![resolve(hypervisor, &name)?],
        None => names::all(hypervisor)?,
    })
}

fn vcpu_list(hypervisor: &impl Hypervisor, domain: Option<String>) -> Answer {
    let mut all = Vec::new();
    for info in some_or_all(hypervisor, domain)? {
        all.push((info, vcpus_of(hypervisor, &info)?));
    }
    print(show::vcpu_list(&all))
}

/// The vCPUs of a domain; none when it is gone meanwhile.
fn vcpus_of(hypervisor: &impl Hypervisor, info: &DomainInfo) -> Result<Vec<VcpuInfo>, Status> {
    let mut all = Vec::new();
    for index in 0..info.vcpus.min(VCPUS_MAX) {
        match hypervisor.vcpu_info(id_of(info), VcpuIndex(index as u16)) {
            Ok(vcpu) => all.push(vcpu),
            Err(Status::NoDomain) => break,
            Err(status) => return Err(status),
        }
    }
    Ok(all)
}

fn debug_keys(hypervisor: &impl Hypervisor, keys: &[u8]) -> Answer {
    for key in keys {
        match hypervisor.debug_key(*key) {
            Ok(()) => {}
            Err(Status::BadArgument) => {
                let key = char::from(*key);
                let what = format!("there is no debug key '{key}' (h lists them)\n");
                return Ok(Effect::Fail(what));
            }
            Err(status) => return Err(status.into()),
        }
    }
    print(String::new())
}

#[cfg(test)]
mod tests;
