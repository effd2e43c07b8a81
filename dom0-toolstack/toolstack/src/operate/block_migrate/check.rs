//! What speaks against moving disks, all of it at once, and what will be done if nothing does.

use super::{BlockMove, Destination};
use crate::config::{Disk, DiskTarget};
use crate::operate::migrate::{Job, Stage};
use crate::operate::{OperateError, Toolstack};
use crate::site::{Device, DeviceHost, Room, Site, Stores};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::DomainId;
use godwit_backends::disk::{Disk as _, Geometry};

/// A disk by its number, and where it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskChoice {
    /// 0 is `vda`.
    pub index: u8,
    /// Where to.
    pub to: Destination,
}

/// One disk that can be moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlannedDisk {
    /// The disk as it is.
    pub disk: Disk,
    /// Its PCI device number.
    pub slot: u32,
    /// Where it goes.
    pub target: DiskTarget,
    /// Its size.
    pub bytes: u64,
}

/// What will be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The disks, in the order they are moved.
    pub disks: Vec<PlannedDisk>,
}

impl Plan {
    /// In words, a line a disk.
    pub fn text(&self, wanted: &BlockMove) -> String {
        let mut out = String::new();
        for one in &self.disks {
            let (vdev, from, to, kib) = (
                one.disk.vdev(),
                &one.disk.target,
                &one.target,
                one.bytes >> 10,
            );
            let old = match (&one.disk.target, wanted.delete_source) {
                (DiskTarget::Nbd { .. }, _) => "the export keeps what it has",
                (DiskTarget::Volume { .. }, true) => "the old volume is deleted afterwards",
                (DiskTarget::Volume { .. }, false) => "the old volume is kept, renamed",
            };
            out += &format!("{vdev}: {from} to {to}, {kib} KiB while the guest writes; {old}\n");
        }
        out
    }
}

/// What is found on the way.
struct Findings<'a> {
    problems: Vec<String>,
    /// Bytes that are wanted of each store.
    wanted: BTreeMap<&'a str, u64>,
}

impl<S: Site> Toolstack<S> {
    /// What moving disks would do, or everything that speaks against it, a line each. Touches nothing.
    pub async fn plan_disks(
        &self,
        domain: DomainId,
        wanted: &BlockMove,
    ) -> Result<Plan, OperateError> {
        let entry = self.known(domain)?;
        let mut problems = Vec::new();
        let choices = choices(&entry.config.disks, wanted, &mut problems);
        let mut found = Findings {
            problems,
            wanted: BTreeMap::new(),
        };
        let mut disks: Vec<PlannedDisk> = Vec::new();
        for (disk, to) in &choices {
            let is_it = |device: &Device| matches!(device, Device::Disk(own) if own == disk);
            let link = entry.links.iter().find(|link| is_it(&link.device));
            let switch = link.and_then(|link| self.site.devices().disk(domain, link.slot));
            let (Some(link), Some(switch)) = (link, switch) else {
                let what = format!("disk: {} is not served", disk.vdev());
                found.problems.push(what);
                continue;
            };
            let geometry = switch.geometry();
            let target = target_of(&entry.config.name, disk, to);
            self.shared(domain, disk, &mut found.problems);
            if disks.iter().any(|other| other.target == target) {
                found
                    .problems
                    .push(format!("volume: two disks are to go to {target}"));
            }
            match (to, &target) {
                (Destination::Store { store, .. }, DiskTarget::Volume { volume, .. }) => {
                    let place = (store.as_str(), volume.as_str());
                    self.check_store(disk, place, &geometry, &mut found).await;
                }
                (Destination::Store { .. } | Destination::Export(_), _) => {
                    self.check_export(disk, &target, &geometry, &mut found.problems)
                        .await;
                }
            }
            disks.push(PlannedDisk {
                disk: disk.clone(),
                slot: link.slot,
                target,
                bytes: geometry.bytes(),
            });
        }
        match found.problems.is_empty() {
            true => Ok(Plan { disks }),
            false => Err(OperateError::Other(found.problems.join("\n"))),
        }
    }

    /// A disk that another domain has too would go on there as it was.
    fn shared(&self, domain: DomainId, disk: &Disk, problems: &mut Vec<String>) {
        for (other, entry) in self.registry.all() {
            let theirs = |their: &Disk| their.target == disk.target;
            if other != domain && entry.config.disks.iter().any(theirs) {
                let (name, vdev) = (&entry.config.name, disk.vdev());
                problems.push(format!(
                    "shared: {vdev} is {}, which domain '{name}' has too and would keep: detach it there \
                     first (xl block-detach), or move memory only (xl migrate)",
                    disk.target
                ));
            }
        }
    }

    async fn check_store<'a>(
        &self,
        disk: &Disk,
        (store, volume): (&'a str, &str),
        geometry: &Geometry,
        found: &mut Findings<'a>,
    ) {
        let stores = self.site.stores();
        let vdev = disk.vdev();
        let room: Room = match stores.room(store).await {
            Ok(room) => room,
            Err(why) => return found.problems.push(format!("store: {why}")),
        };
        let problems = &mut found.problems;
        let target = DiskTarget::Volume {
            store: store.into(),
            volume: volume.into(),
        };
        if target == disk.target {
            return problems.push(format!("itself: {vdev} is {target} already"));
        }
        match stores.volumes(Some(store)).await {
            Ok(volumes) if volumes.iter().any(|one| one.name == volume) => problems.push(format!(
                "volume: {target} exists already: delete it (xl volume-delete), or name another \
                 (--disk {vdev}={store}:NAME)"
            )),
            Ok(_) => {}
            Err(why) => problems.push(format!("store: {why}")),
        }
        unlike(&vdev, geometry.block_bytes, room.block_bytes, problems);
        let wanted = found.wanted.entry(store).or_default();
        *wanted += geometry.bytes();
        if geometry.bytes() > room.largest_bytes || *wanted > room.free_bytes {
            problems.push(format!(
                "room: {} KiB are wanted in store '{store}' for {vdev} ({} KiB for all disks), the largest volume \
                 it can take has {} KiB of {} KiB that are free",
                geometry.bytes() >> 10,
                *wanted >> 10,
                room.largest_bytes >> 10,
                room.free_bytes >> 10
            ));
        }
    }

    async fn check_export(
        &self,
        disk: &Disk,
        target: &DiskTarget,
        geometry: &Geometry,
        problems: &mut Vec<String>,
    ) {
        let vdev = disk.vdev();
        if *target == disk.target {
            return problems.push(format!("itself: {vdev} is {target} already"));
        }
        if let Some(name) = self.user_of(target) {
            return problems.push(format!("volume: {target} is in use by domain '{name}'"));
        }
        let text = format!("{target}");
        let moving = |job: &Rc<Job>| {
            let mut disks = job.disks().into_iter();
            job.stage() < Stage::Done && disks.any(|disk| disk.target == text)
        };
        if let Some(job) = self.jobs.all().iter().find(|job| moving(job)) {
            problems.push(format!(
                "volume: a disk of domain '{}' is being moved to {target}",
                job.name
            ));
            return;
        }
        let theirs = match self.site.stores().open(target, true).await {
            Ok(disk) => disk.geometry(),
            Err(why) => return problems.push(format!("store: {why}")),
        };
        unlike(&vdev, geometry.block_bytes, theirs.block_bytes, problems);
        if theirs.bytes() < geometry.bytes() {
            problems.push(format!(
                "size: {target} has {} bytes and {vdev} has {}",
                theirs.bytes(),
                geometry.bytes()
            ));
        }
    }
}

/// A guest that has seen blocks of one size cannot be given others.
fn unlike(vdev: &str, ours: u32, theirs: u32, problems: &mut Vec<String>) {
    if ours != theirs {
        problems.push(format!(
            "sectors: {vdev} has blocks of {ours} bytes and the target of {theirs}: the guest would have to be \
             stopped and the volume copied (xl volume-import)"
        ));
    }
}

/// The disks that are to be moved.
fn choices(
    disks: &[Disk],
    wanted: &BlockMove,
    problems: &mut Vec<String>,
) -> Vec<(Disk, Destination)> {
    let mut all = Vec::new();
    for choice in &wanted.disks {
        match disks.iter().find(|disk| disk.index == choice.index) {
            Some(disk) => all.push((disk.clone(), choice.to.clone())),
            None => {
                let letter = char::from(b'a' + choice.index);
                problems.push(format!("disk: it has no vd{letter} (xl block-list)"));
            }
        }
    }
    if let Some(store) = &wanted.rest {
        let named = |disk: &&Disk| wanted.disks.iter().all(|one| one.index != disk.index);
        let to = || Destination::Store {
            store: store.clone(),
            volume: None,
        };
        all.extend(disks.iter().filter(named).map(|disk| (disk.clone(), to())));
    }
    if all.is_empty() && problems.is_empty() {
        problems.push("disk: it has none to move".into());
    }
    all
}

/// What will be behind a disk.
fn target_of(domain: &str, disk: &Disk, to: &Destination) -> DiskTarget {
    match to {
        Destination::Export(target) => target.clone(),
        Destination::Store { store, volume } => {
            let own = match &disk.target {
                DiskTarget::Volume { volume, .. } => volume.clone(),
                DiskTarget::Nbd { .. } => format!("{domain}-{}", disk.vdev()),
            };
            DiskTarget::Volume {
                store: store.clone(),
                volume: volume.clone().unwrap_or(own),
            }
        }
    }
}
