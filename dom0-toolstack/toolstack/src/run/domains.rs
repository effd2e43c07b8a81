//! Commands about domains.

use super::{Answer, Effect, print, some_or_all};
use crate::command::{Action, AfterSave, ConsoleKind, SchedulerSet};
use crate::config::{Attachment, DiskTarget, Mac};
use crate::host::Hypervisor;
use crate::names::{id_of, resolve};
use crate::operate::migrate::Stage;
use crate::operate::{Created, OperateError, Toolstack};
use crate::registry::Entry;
use crate::show::{self, DeviceTail, Stream, Tail};
use crate::site::{Device, DeviceHost, Site};
use crate::table::{Align, Table, pair};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainInfo, VcpuIndex, text};

/// `xl list`.
pub(super) fn list<S: Site>(
    toolstack: &Toolstack<S>,
    long: bool,
    domain: Option<String>,
) -> Answer {
    let domains = some_or_all(toolstack.site.hypervisor(), domain)?;
    print(match long {
        true => list_long(toolstack, &domains),
        false => show::list(&domains),
    })
}

/// What `xl list -l` prints: what the hypervisor knows, then devices.
fn list_long<S: Site>(toolstack: &Toolstack<S>, domains: &[DomainInfo]) -> String {
    let mut out = String::new();
    for (index, info) in domains.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        out.push_str(&show::list_long(core::slice::from_ref(info)));
        let Some(entry) = toolstack.registry.entry(id_of(info)) else {
            continue;
        };
        pair(&mut out, "cpu_policy", entry.config.cpu_policy.word());
        pair(&mut out, "memory_target", &format!("{}", entry.target_mib));
        pair(&mut out, "restarts", &format!("{}", entry.restarts));
        if let Some(source) = &entry.source {
            pair(&mut out, "config", source);
        }
        for link in &entry.links {
            let what = match &link.device {
                Device::Disk(disk) => format!("{disk}"),
                Device::Vif(vif) => format!("{vif}"),
                Device::Console | Device::Rng | Device::Balloon => format!("{}", link.device),
            };
            pair(&mut out, &format!("pci_{:02x}", link.slot), &what);
        }
    }
    out
}

/// What is said of a domain that was made.
pub(super) fn made(how: &str, made: &Created, more: &str, console: bool) -> Answer {
    let (name, domain) = (&made.name, made.domain);
    let text = format!("{how} domain '{name}' (id {domain}){more}\n");
    match console {
        true => Ok(Effect::Follow {
            domain,
            console: ConsoleKind::Serial,
            text,
        }),
        false => print(text),
    }
}

/// Runs a command about one domain.
pub(super) async fn answer<S: Site>(
    toolstack: &Toolstack<S>,
    name: &str,
    action: Action,
) -> Answer {
    let hypervisor = toolstack.site.hypervisor();
    let info = &resolve(hypervisor, name)?;
    let domain = id_of(info);
    match action {
        Action::Destroy => toolstack.destroy(domain).await?,
        Action::Pause => {
            stays(toolstack, domain)?;
            hypervisor.domain_pause(domain)?;
        }
        Action::Unpause => {
            stays(toolstack, domain)?;
            hypervisor.domain_unpause(domain)?;
        }
        Action::Console { kind, follow } => return console(toolstack, domain, kind, follow),
        Action::Shutdown { again, wait } => {
            toolstack.ask_to_end(domain, again)?;
            if wait {
                return Ok(Effect::AwaitEnd(domain));
            }
        }
        Action::Save { target, after } => return save(toolstack, domain, &target, after).await,
        Action::MigrateCancel => migrate_cancel(toolstack, domain)?,
        Action::Rename { name } => return print(toolstack.domain_rename(domain, &name)?),
        Action::DomId => return print(format!("{domain}\n")),
        Action::DomName => return print(format!("{}\n", text(&info.name))),
        Action::ConfigList => return print(known(toolstack, domain)?.config.render()),
        Action::ConfigUpdate { config, settings } => {
            toolstack.config_update(domain, &config, &settings).await?;
        }
        Action::VcpuPin { vcpu, cpus } => vcpu_pin(toolstack, info, vcpu, cpus)?,
        Action::MemSet { mib } => {
            toolstack.memory_set(domain, mib)?;
            return Ok(Effect::AwaitMemory(domain));
        }
        Action::DirtyRate { .. } | Action::DirtyLog(_) if domain == DomainId::CONTROL => {
            let why = "the control domain's writes are not tracked\n";
            return Ok(Effect::Fail(why.into()));
        }
        Action::DirtyRate { seconds } => return Ok(Effect::DirtyRate { domain, seconds }),
        Action::DirtyLog(options) => return Ok(Effect::DirtyLog { domain, options }),
        Action::MemMax { mib } => toolstack.memory_max(domain, mib)?,
        Action::BlockList => return print(block_list(toolstack, domain)?),
        Action::BlockAttach(disk) => toolstack.attach_disk(domain, disk).await?,
        Action::BlockDetach { index } => block_detach(toolstack, domain, index).await?,
        Action::NetworkList => return print(network_list(toolstack, domain)?),
        Action::NetworkAttach(vif) => {
            let mac = toolstack.attach_vif(domain, vif).await?;
            return print(format!("{mac}\n"));
        }
        Action::NetworkDetach { device } => network_detach(toolstack, domain, &device).await?,
    }
    print(String::new())
}

/// `xl restore`.
pub(super) async fn restore<S: Site>(
    toolstack: &Toolstack<S>,
    target: &DiskTarget,
    paused: bool,
    console: bool,
) -> Answer {
    let (domain, digest) = toolstack.restore(target, paused).await?;
    let digest = format!(", memory digest {digest}");
    made("restored", &domain, &digest, console)
}

async fn save<S: Site>(
    toolstack: &Toolstack<S>,
    domain: DomainId,
    target: &DiskTarget,
    after: AfterSave,
) -> Answer {
    let saved = toolstack.save(domain, target, after).await?;
    let then = match after {
        AfterSave::Destroy => "",
        AfterSave::Run => "; it runs on",
        AfterSave::Pause => "; it stays paused",
    };
    print(format!("{saved}{then}\n"))
}

async fn block_detach<S: Site>(
    toolstack: &Toolstack<S>,
    domain: DomainId,
    index: u8,
) -> Result<(), OperateError> {
    let wanted = |device: &Device| matches!(device, Device::Disk(disk) if disk.index == index);
    toolstack.detach(domain, wanted).await
}

async fn network_detach<S: Site>(
    toolstack: &Toolstack<S>,
    domain: DomainId,
    device: &str,
) -> Result<(), OperateError> {
    let mac = vif_named(&known(toolstack, domain)?, device)?;
    let wanted = |device: &Device| matches!(device, Device::Vif(vif) if vif.mac == Some(mac));
    toolstack.detach(domain, wanted).await
}

/// Refuses a domain that moves.
fn stays<S: Site>(toolstack: &Toolstack<S>, domain: DomainId) -> Result<(), OperateError> {
    toolstack.given_up(domain)?.map_or(Ok(()), Err)
}

/// `xl migrate-cancel`.
fn migrate_cancel<S: Site>(toolstack: &Toolstack<S>, domain: DomainId) -> Result<(), OperateError> {
    let other = |what: &str| Err(OperateError::Other(what.into()));
    let Some(job) = toolstack.jobs.of(domain) else {
        return other("it is not on the move");
    };
    match job.stage() {
        Stage::Queue | Stage::Check | Stage::Copy | Stage::Stop | Stage::Prove => job.cancel(),
        Stage::HandOver => {
            return other("it is given up already: only the other host can bring it back");
        }
        Stage::Fetch => {
            return other(
                "it runs on one host and part of its memory is still on the other: only when all of it has come is the move over",
            );
        }
        Stage::Clean | Stage::Done => return other("it has moved already"),
    }
    Ok(())
}

fn known<S: Site>(toolstack: &Toolstack<S>, domain: DomainId) -> Result<Entry, OperateError> {
    let entry = toolstack.registry.entry(domain);
    entry.ok_or(OperateError::Foreign(domain))
}

fn console<S: Site>(
    toolstack: &Toolstack<S>,
    domain: DomainId,
    console: ConsoleKind,
    follow: bool,
) -> Answer {
    if follow {
        let text = String::new();
        return Ok(Effect::Follow {
            domain,
            console,
            text,
        });
    }
    let hypervisor = toolstack.site.hypervisor();
    let mut text = match console {
        ConsoleKind::Serial => Tail::open(hypervisor, Stream::Guest(domain))?.all(hypervisor)?,
        ConsoleKind::Virtio => DeviceTail::open(domain)
            .next(toolstack.site.devices())
            .map_err(OperateError::Other)?,
    };
    // A guest may be in the middle of a line; the prompt begins one.
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    print(text)
}

pub(super) fn sched_credit2<S: Site>(toolstack: &Toolstack<S>, set: SchedulerSet) -> Answer {
    let SchedulerSet {
        domain,
        weight,
        cap_percent,
    } = set;
    let hypervisor = toolstack.site.hypervisor();
    let Some(name) = domain
        .clone()
        .filter(|_| weight.is_some() || cap_percent.is_some())
    else {
        return print(show::sched_credit2(&some_or_all(hypervisor, domain)?));
    };
    let info = resolve(hypervisor, &name)?;
    let weight = weight.unwrap_or(info.weight);
    let cap_percent = cap_percent.unwrap_or(info.cap_percent);
    hypervisor.scheduler_set(id_of(&info), weight, cap_percent)?;
    toolstack
        .registry
        .change(hypervisor, id_of(&info), |entry| {
            (entry.config.weight, entry.config.cap_percent) = (weight, cap_percent);
        })?;
    print(String::new())
}

fn vcpu_pin<S: Site>(
    toolstack: &Toolstack<S>,
    info: &DomainInfo,
    vcpu: Option<u16>,
    cpus: u64,
) -> Result<(), OperateError> {
    let hypervisor = toolstack.site.hypervisor();
    let vcpus = match vcpu {
        Some(vcpu) => vcpu..vcpu.saturating_add(1),
        None => 0..info.vcpus as u16,
    };
    for vcpu in vcpus.clone() {
        hypervisor.vcpu_affinity_set(id_of(info), VcpuIndex(vcpu), cpus)?;
    }
    let noted = toolstack.registry.change(hypervisor, id_of(info), |entry| {
        let sets = &mut entry.config.cpus;
        let all = sets.first().copied().unwrap_or(u64::MAX);
        if sets.len() != info.vcpus as usize {
            *sets = alloc::vec![all; info.vcpus as usize];
        }
        for vcpu in vcpus {
            sets[usize::from(vcpu)] = cpus;
        }
    });
    Ok(noted?)
}

/// What `xl uptime` prints.
pub(super) fn uptime<S: Site>(toolstack: &Toolstack<S>, domain: Option<String>) -> Answer {
    let hypervisor = toolstack.site.hypervisor();
    let now_ns = hypervisor.wall_clock();
    let mut table = Table::new(&[
        ("Name", Align::Left, 32),
        ("ID", Align::Right, 5),
        ("Uptime", Align::Left, 0),
    ]);
    for info in some_or_all(hypervisor, domain)? {
        let entry = toolstack.registry.entry(id_of(&info));
        let made_ns = entry.map_or(0, |entry| entry.made_ns);
        let uptime = match now_ns {
            Ok(now_ns) if made_ns != 0 => clock(now_ns.saturating_sub(made_ns) / 1_000_000_000),
            Ok(_) | Err(_) => "unknown".into(),
        };
        table.row(alloc::vec![
            text(&info.name).into(),
            format!("{}", id_of(&info)),
            uptime,
        ]);
    }
    print(table.render())
}

/// Seconds as `xl uptime` shows them.
fn clock(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let time = format!("{}:{:02}:{:02}", hours % 24, minutes % 60, seconds % 60);
    match days {
        0 => time,
        days => format!("{days} days, {time}"),
    }
}

fn block_list<S: Site>(toolstack: &Toolstack<S>, domain: DomainId) -> Result<String, OperateError> {
    let mut table = Table::new(&[
        ("Vdev", Align::Left, 4),
        ("PCI", Align::Right, 3),
        ("Access", Align::Left, 6),
        ("Target", Align::Left, 32),
        ("State", Align::Left, 0),
    ]);
    for link in known(toolstack, domain)?.links {
        if let Device::Disk(disk) = link.device {
            table.row(alloc::vec![
                disk.vdev(),
                format!("{:02x}", link.slot),
                if disk.read_only { "ro" } else { "rw" }.into(),
                disk.target.to_string(),
                toolstack.site.devices().describe(domain, link.slot),
            ]);
        }
    }
    Ok(table.render())
}

fn network_list<S: Site>(
    toolstack: &Toolstack<S>,
    domain: DomainId,
) -> Result<String, OperateError> {
    let mut table = Table::new(&[
        ("Idx", Align::Right, 3),
        ("Mac Addr.", Align::Left, 17),
        ("PCI", Align::Right, 3),
        ("Type", Align::Left, 6),
        ("Forwards", Align::Left, 16),
        ("State", Align::Left, 0),
    ]);
    let entry = known(toolstack, domain)?;
    for (index, vif) in entry.config.vifs.iter().enumerate() {
        let slot = entry.links.iter().find_map(|link| match &link.device {
            Device::Vif(own) if own.mac == vif.mac => Some(link.slot),
            Device::Vif(_) | Device::Disk(_) | Device::Console | Device::Rng | Device::Balloon => {
                None
            }
        });
        let describe = |slot| toolstack.site.devices().describe(domain, slot);
        table.row(alloc::vec![
            format!("{index}"),
            vif.mac.map_or_else(|| "-".into(), |mac| mac.to_string()),
            slot.map_or_else(|| "-".into(), |slot| format!("{slot:02x}")),
            match vif.attachment {
                Attachment::Bridge { .. } => "bridge".into(),
                Attachment::Gateway { routed: true, .. } => "routed".into(),
                Attachment::Gateway { routed: false, .. } => "nat".into(),
            },
            forwards(&vif.attachment),
            slot.map(describe).unwrap_or_default(),
        ]);
    }
    Ok(table.render())
}

/// The ports of the host that lead to a guest, as they are configured.
fn forwards(attachment: &Attachment) -> String {
    match attachment {
        Attachment::Bridge { .. } => "-".into(),
        Attachment::Gateway { forwards, .. } if forwards.is_empty() => "-".into(),
        Attachment::Gateway { forwards, .. } => {
            let texts: Vec<String> = forwards.iter().map(ToString::to_string).collect();
            texts.join(" ")
        }
    }
}

/// A network device by its number or address.
fn vif_named(entry: &Entry, device: &str) -> Result<Mac, OperateError> {
    let macs: Vec<Mac> = entry.config.vifs.iter().filter_map(|vif| vif.mac).collect();
    let found = match device.parse::<usize>() {
        Ok(index) => macs.get(index).copied(),
        Err(_) => Mac::parse(device).ok().filter(|mac| macs.contains(mac)),
    };
    found.ok_or_else(|| OperateError::Other(format!("it has no network device '{device}'")))
}
