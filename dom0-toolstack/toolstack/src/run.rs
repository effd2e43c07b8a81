//! Running commands: what the hypervisor can answer is answered here, what needs the network, the
//! clock or the terminal is handed back as an [`Effect`] for dom0 to carry out.

use crate::command::{self, Command, Known};
use crate::config;
use crate::editor::Completion;
use crate::host::Hypervisor;
use crate::modules::{self, BootModule};
use crate::names::{self, id_of, resolve};
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
    /// Show a domain's debug console with a [`Tail`] until [`show::ends_console`].
    Follow(DomainId),
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
    let hypervisor = toolstack.site.hypervisor();
    match command {
        Command::Top {
            delay_s,
            iterations,
            batch,
        } => Effect::Top {
            delay_s,
            iterations,
            batch,
        },
        Command::Ping {
            host,
            count,
            interval_ms,
        } => Effect::Ping {
            host,
            count,
            interval_ms,
        },
        Command::Ip => Effect::Ip,
        Command::DiskList => Effect::DiskList,
        Command::DiskRead {
            disk,
            block,
            blocks,
        } => Effect::DiskRead {
            disk,
            block,
            blocks,
        },
        Command::Reboot => Effect::Power(PowerAction::Reboot),
        Command::PowerOff => Effect::Power(PowerAction::PowerOff),
        Command::Help(text) => Effect::Print(text),
        Command::Echo(text) => Effect::Print(format!("{text}\n")),
        Command::Modules => Effect::Print(modules::render(&toolstack.modules)),
        Command::NotImplemented(what) => Effect::Fail(format!("not implemented: {what}\n")),
        Command::Create { settings, paused } => create(toolstack, &settings, paused).await,
        Command::Console { domain, follow } => console(hypervisor, &domain, follow),
        Command::Info => print(
            hypervisor
                .host_info()
                .map(|info| show::info(name, &info, hypervisor.now_tsc())),
        ),
        Command::Uptime => print(
            hypervisor
                .host_info()
                .map(|info| show::uptime(&info, hypervisor.now_tsc())),
        ),
        Command::Dmesg => {
            print(Tail::open(hypervisor, Stream::Log).and_then(|mut tail| tail.all(hypervisor)))
        }
        Command::List { long, domain } => with_domains(hypervisor, domain, |domains| {
            let render = if long { show::list_long } else { show::list };
            Ok(render(domains))
        }),
        Command::VcpuList { domain } => vcpu_list(hypervisor, domain),
        Command::Destroy { domain } => match resolve(hypervisor, &domain) {
            Ok(info) => done(toolstack.destroy(id_of(&info)).await),
            Err(error) => Effect::Fail(format!("{error}\n")),
        },
        Command::Pause { domain } => {
            on_domain(hypervisor, &domain, |id| hypervisor.domain_pause(id))
        }
        Command::Unpause { domain } => {
            on_domain(hypervisor, &domain, |id| hypervisor.domain_unpause(id))
        }
        Command::SchedCredit2 {
            domain,
            weight,
            cap_percent,
        } => sched_credit2(hypervisor, domain, weight, cap_percent),
        Command::DebugKeys { keys } => debug_keys(hypervisor, &keys),
    }
}

/// Completions for the text before the cursor. Offers no domains when they cannot be listed.
pub fn complete(
    hypervisor: &impl Hypervisor,
    modules: &[BootModule<'_>],
    before: &str,
) -> Completion {
    let domains = names::all(hypervisor).unwrap_or_default();
    let domains: Vec<String> = domains.iter().map(|info| text(&info.name).into()).collect();
    let modules: Vec<&str> = modules.iter().map(|module| module.name).collect();
    let known = Known {
        domains: &domains,
        modules: &modules,
        keys: config::KEYS,
    };
    command::complete(before, known)
}

fn refused(status: Status) -> Effect {
    Effect::Fail(format!("the hypervisor refuses: {status}\n"))
}

fn print(result: Result<String, Status>) -> Effect {
    match result {
        Ok(text) => Effect::Print(text),
        Err(status) => refused(status),
    }
}

/// Prints something about one domain or about all.
fn with_domains(
    hypervisor: &impl Hypervisor,
    domain: Option<String>,
    render: impl FnOnce(&[DomainInfo]) -> Result<String, Status>,
) -> Effect {
    let domains = match domain {
        Some(name) => match resolve(hypervisor, &name) {
            Ok(info) => alloc::vec![info],
            Err(error) => return Effect::Fail(format!("{error}\n")),
        },
        None => match names::all(hypervisor) {
            Ok(all) => all,
            Err(status) => return refused(status),
        },
    };
    print(render(&domains))
}

fn vcpu_list(hypervisor: &impl Hypervisor, domain: Option<String>) -> Effect {
    with_domains(hypervisor, domain, |domains| {
        let mut all = Vec::new();
        for info in domains {
            all.push((*info, vcpus_of(hypervisor, info)?));
        }
        Ok(show::vcpu_list(&all))
    })
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

/// Does something to the domain that is named; silent when it went well, as `xl` is.
fn on_domain(
    hypervisor: &impl Hypervisor,
    name: &str,
    act: impl FnOnce(DomainId) -> Result<(), Status>,
) -> Effect {
    match resolve(hypervisor, name) {
        Ok(info) => print(act(id_of(&info)).map(|()| String::new())),
        Err(error) => Effect::Fail(format!("{error}\n")),
    }
}

fn console(hypervisor: &impl Hypervisor, name: &str, follow: bool) -> Effect {
    let domain = match resolve(hypervisor, name) {
        Ok(info) => id_of(&info),
        Err(error) => return Effect::Fail(format!("{error}\n")),
    };
    if follow {
        return Effect::Follow(domain);
    }
    let tail = Tail::open(hypervisor, Stream::Guest(domain));
    print(
        tail.and_then(|mut tail| tail.all(hypervisor))
            .map(whole_lines),
    )
}

/// A guest may be in the middle of a line; the prompt begins one.
fn whole_lines(mut text: String) -> String {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// Silent when it went well, as `xl` is.
fn done(result: Result<(), OperateError>) -> Effect {
    match result {
        Ok(()) => Effect::Print(String::new()),
        Err(error) => Effect::Fail(format!("{error}\n")),
    }
}

async fn create<S: Site>(toolstack: &Toolstack<S>, settings: &[String], paused: bool) -> Effect {
    match toolstack
        .create(command::EMPTY_CONFIG, settings, paused)
        .await
    {
        Ok(made) => {
            let (name, id) = (made.name, made.domain);
            Effect::Print(format!("created domain '{name}' (id {id})\n"))
        }
        Err(error) => Effect::Fail(format!("{error}\n")),
    }
}

fn sched_credit2(
    hypervisor: &impl Hypervisor,
    domain: Option<String>,
    weight: Option<u32>,
    cap_percent: Option<u32>,
) -> Effect {
    if weight.is_none() && cap_percent.is_none() {
        return with_domains(hypervisor, domain, |all| Ok(show::sched_credit2(all)));
    }
    let Some(name) = domain else {
        return Effect::Fail("weight and cap need -d DOMAIN\n".into());
    };
    match resolve(hypervisor, &name) {
        Ok(info) => {
            let weight = weight.unwrap_or(info.weight);
            let cap = cap_percent.unwrap_or(info.cap_percent);
            let set = hypervisor.scheduler_set(id_of(&info), weight, cap);
            print(set.map(|()| String::new()))
        }
        Err(error) => Effect::Fail(format!("{error}\n")),
    }
}

fn debug_keys(hypervisor: &impl Hypervisor, keys: &[u8]) -> Effect {
    for key in keys {
        match hypervisor.debug_key(*key) {
            Ok(()) => {}
            Err(Status::BadArgument) => {
                let key = char::from(*key);
                return Effect::Fail(format!("there is no debug key '{key}' (h lists them)\n"));
            }
            Err(status) => return refused(status),
        }
    }
    Effect::Print(String::new())
}

#[cfg(test)]
mod tests;
