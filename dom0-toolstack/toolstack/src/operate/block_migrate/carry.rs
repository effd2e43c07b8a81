//! Moving one disk after the other.

use super::check::PlannedDisk;
use super::config_file::retarget;
use super::note::Note;
use super::{BlockMove, DiskProgress};
use crate::config::DiskTarget;
use crate::operate::migrate::{Job, Stage, still_there};
use crate::operate::{OperateError, Toolstack};
use crate::registry::Entry;
use crate::show::uuid_text;
use crate::site::{Device, DeviceHost, Files, NewVolume, Site, Stores};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use godwit_abi::DomainId;
use godwit_backends::disk::Disk;
use godwit_backends::storage::mirror::{Mirror, MirrorError, Pace, SwitchDisk};

/// What the name of a volume that is not used any more ends with.
const OLD_SUFFIX: &str = ".old";

impl From<MirrorError> for OperateError {
    fn from(error: MirrorError) -> Self {
        OperateError::Other(error.to_string())
    }
}

/// One disk on its way.
struct Carry<'a, S: Site> {
    tools: &'a Toolstack<S>,
    job: &'a Job,
    domain: DomainId,
    one: &'a PlannedDisk,
    /// Its place among the disks that are moved.
    at: usize,
    is_last: bool,
    note: Note,
    switch: Rc<SwitchDisk>,
    /// The volume has been entered in its store.
    entered: Cell<bool>,
    /// The configuration file as it was, if it was changed.
    file_before: RefCell<Option<(String, Vec<u8>)>>,
    told: RefCell<Vec<String>>,
}

/// What a disk is moved to.
enum Onto {
    Volume(Rc<dyn NewVolume>),
    Export(Rc<dyn Disk>),
}

impl Onto {
    fn disk(&self) -> Rc<dyn Disk> {
        match self {
            Onto::Volume(volume) => volume.disk(),
            Onto::Export(disk) => Rc::clone(disk),
        }
    }
}

impl<S: Site> Toolstack<S> {
    pub(super) async fn move_disks(
        &self,
        job: &Job,
        domain: DomainId,
        wanted: &BlockMove,
    ) -> Result<String, OperateError> {
        let _busy = self.reserve(domain)?;
        job.concerns(domain);
        self.plan_disks(domain, wanted).await?;
        self.await_turn(job, domain).await?;
        // Others may have changed what there is while it waited.
        let plan = self.plan_disks(domain, wanted).await?;
        job.tell(plan.text(wanted).trim_end().into());
        job.enter(Stage::Copy);
        let mut moved = Vec::new();
        for (at, one) in plan.disks.iter().enumerate() {
            let is_last = at + 1 == plan.disks.len();
            if let Err(error) = self.carry(job, domain, (at, one, is_last), wanted).await {
                let (vdev, source) = (one.disk.vdev(), &one.disk.target);
                let others = match moved.is_empty() {
                    true => String::new(),
                    false => format!("; moved already: {}", moved.join(", ")),
                };
                let left = match &one.target {
                    DiskTarget::Volume { .. } => "nothing is left of",
                    DiskTarget::Nbd { .. } => "of no use is what was written to",
                };
                let what = format!(
                    "{vdev}: {error}; it is on {source} as before, {left} {}{others}",
                    one.target
                );
                return Err(OperateError::Other(what));
            }
            moved.push(format!("{} is {}", one.disk.vdev(), one.target));
        }
        Ok(format!("domain '{}': {}", job.name, moved.join(", ")))
    }

    async fn carry(
        &self,
        job: &Job,
        domain: DomainId,
        (at, one, is_last): (usize, &PlannedDisk, bool),
        wanted: &BlockMove,
    ) -> Result<(), OperateError> {
        let entry = self.known(domain)?;
        let switch = self.site.devices().disk(domain, one.slot);
        let switch = switch.ok_or_else(|| OperateError::Other("it is not served".into()))?;
        let uuid = entry.config.uuid.unwrap_or_default();
        let carry = Carry {
            tools: self,
            job,
            domain,
            one,
            at,
            is_last,
            note: Note {
                key: uuid_text(&uuid).chars().take(8).collect(),
                domain: entry.config.name.clone(),
                vdev: one.disk.vdev(),
                source: one.disk.target.clone(),
                target: one.target.clone(),
                file: entry.source.clone(),
            },
            switch,
            entered: Cell::new(false),
            file_before: RefCell::new(None),
            told: RefCell::default(),
        };
        carry.run(wanted).await
    }
}

impl<S: Site> Carry<'_, S> {
    async fn run(&self, wanted: &BlockMove) -> Result<(), OperateError> {
        let onto = self.open().await?;
        if let Err(why) = self.tools.note_disk_move(&self.note).await {
            return Err(OperateError::Other(why));
        }
        let carried = self.copy_and_switch(&onto, wanted.bandwidth_bytes).await;
        drop(onto);
        match carried {
            Ok(()) => self.clean(wanted.delete_source).await,
            Err(_) => self.take_back().await,
        }
        self.tools.forget_disk_move(&self.note).await;
        for line in self.told.take() {
            self.job.tell(line);
        }
        carried
    }

    async fn open(&self) -> Result<Onto, OperateError> {
        let stores = self.tools.site.stores();
        let opened = match &self.one.target {
            DiskTarget::Volume { store, volume } => {
                let user = format!("domain {}, {}", self.note.domain, self.note.vdev);
                let new = stores.prepare_volume(store, volume, self.one.bytes, &user);
                new.await.map(Onto::Volume)
            }
            DiskTarget::Nbd { .. } => stores.open(&self.one.target, true).await.map(Onto::Export),
        };
        opened.map_err(OperateError::Other)
    }

    async fn copy_and_switch(
        &self,
        onto: &Onto,
        bandwidth_bytes: Option<u64>,
    ) -> Result<(), OperateError> {
        let site = &self.tools.site;
        let begun = self.switch.begin(onto.disk(), site.timer()).await;
        let mirror = begun?;
        let go_on = || {
            self.show(&mirror, false);
            let asked = self.job.check_cancelled();
            let there = asked.and_then(|()| still_there(site.hypervisor(), self.domain));
            there.map(drop).map_err(|error| error.to_string())
        };
        let pace = Pace {
            bandwidth_bytes,
            go_on: &go_on,
        };
        let mut done = mirror.converge(&pace).await.map_err(OperateError::from);
        if done.is_ok() {
            if self.is_last {
                self.job.enter(Stage::Prove);
            }
            let begun_us = site.now_us();
            done = self.switch.switch(async || self.settle(onto).await).await;
            if done.is_ok() {
                self.say_done(&mirror, site.now_us() - begun_us);
            }
        }
        if let Err(error) = &done {
            let why = MirrorError::Stopped(error.to_string());
            self.switch.end(why).await;
        }
        done
    }

    /// Shows how far it is.
    fn show(&self, mirror: &Mirror, switched: bool) {
        let progress = DiskProgress {
            vdev: self.note.vdev.clone(),
            target: self.one.target.to_string(),
            switched,
            progress: mirror.progress(),
        };
        self.job.note_disk(self.at, progress);
    }

    fn say_done(&self, mirror: &Mirror, us: u64) {
        self.show(mirror, true);
        let progress = mirror.progress();
        let mut line = format!(
            "{}: {} KiB copied, {} KiB of zeroes, {} KiB written by the guest to both; both equal, switched in {us} us",
            self.note.vdev,
            progress.copied_bytes >> 10,
            progress.zero_bytes >> 10,
            progress.mirrored_bytes >> 10,
        );
        if !progress.unequal.is_empty() {
            line += &format!(
                "; not equal at first, copied again: bytes {:?}",
                progress.unequal
            );
        }
        self.told.borrow_mut().push(line);
    }

    /// Both are equal and lasting, and no request of the guest is under way: from now on it is the new one.
    async fn settle(&self, onto: &Onto) -> Result<(), OperateError> {
        let (tools, hypervisor) = (self.tools, self.tools.site.hypervisor());
        still_there(hypervisor, self.domain)?;
        let mut entry = tools.known(self.domain)?;
        if let Onto::Volume(volume) = onto {
            volume.enter().await.map_err(OperateError::Other)?;
            self.entered.set(true);
        }
        self.change_file(&entry).await;
        self.take(&mut entry);
        Ok(tools.registry.set(hypervisor, self.domain, entry)?)
    }

    /// Gives an entry the new disk.
    fn take(&self, entry: &mut Entry) {
        let old = &self.one.disk;
        let links = entry.links.iter_mut();
        let linked = links.filter_map(|link| match &mut link.device {
            Device::Disk(disk) => Some(disk),
            Device::Vif(_) | Device::Console | Device::Rng | Device::Balloon => None,
        });
        let configured = entry.config.disks.iter_mut();
        let next = entry.next.iter_mut();
        let later = next.flat_map(|config| config.disks.iter_mut());
        for disk in linked.chain(configured).chain(later) {
            if disk.index == old.index && disk.target == old.target {
                disk.target = self.one.target.clone();
            }
        }
    }

    /// Has the configuration file name the new disk; what cannot be done is told.
    async fn change_file(&self, entry: &Entry) {
        let (new, vdev) = (&self.one.target, &self.note.vdev);
        let line = match &entry.source {
            None => {
                format!("the domain has no configuration file: make it again with {new} as {vdev}")
            }
            Some(file) => match self.rewrite(file).await {
                Ok(()) => format!("{file} names {new} now"),
                Err(why) => {
                    format!(
                        "{file} is not changed ({why}): make the domain again with {new} as {vdev}"
                    )
                }
            },
        };
        self.told.borrow_mut().push(line);
    }

    async fn rewrite(&self, file: &str) -> Result<(), String> {
        let files = self.tools.site.files();
        let bytes = files.read(file).await.map_err(|error| error.to_string())?;
        let text = core::str::from_utf8(&bytes).map_err(|_| "it is no text".to_string())?;
        let (old, new) = (&self.one.disk.target, &self.one.target);
        let text = retarget(file, text, self.one.disk.index, old, new)?;
        let written = files.write(file, text.as_bytes()).await;
        written.map_err(|error| error.to_string())?;
        *self.file_before.borrow_mut() = Some((file.into(), bytes));
        Ok(())
    }

    /// Nothing is left of a move that failed.
    async fn take_back(&self) {
        let mut told = Vec::new();
        let before = self.file_before.take();
        if let Some((file, bytes)) = before
            && let Err(error) = self.tools.site.files().write(&file, &bytes).await
        {
            let source = &self.one.disk.target;
            told.push(format!("{file} is to name {source} again: {error}"));
        }
        if let (true, DiskTarget::Volume { store, volume }) = (self.entered.get(), &self.one.target)
            && let Err(why) = self.tools.site.stores().delete_volume(store, volume).await
        {
            told.push(format!("{store}/{volume} is left over: {why}"));
        }
        *self.told.borrow_mut() = told;
    }

    /// Sees to the old volume.
    async fn clean(&self, delete: bool) {
        if self.is_last {
            self.job.enter(Stage::Clean);
        }
        let is_remote = matches!(self.one.target, DiskTarget::Nbd { .. });
        let (site, slot) = (&self.tools.site, self.one.slot);
        site.devices().disk_moved(self.domain, slot, is_remote);
        let line = match &self.one.disk.target {
            DiskTarget::Nbd { .. } => format!("{} keeps what it has", self.one.disk.target),
            DiskTarget::Volume { store, volume } if delete => {
                match site.stores().delete_volume(store, volume).await {
                    Ok(()) => format!("{store}/{volume} is deleted"),
                    Err(why) => format!("{store}/{volume} is not deleted: {why}"),
                }
            }
            DiskTarget::Volume { store, volume } => self.put_aside(store, volume).await,
        };
        self.told.borrow_mut().push(line);
    }

    /// Keeps the old volume by a name that nobody starts from by mistake.
    async fn put_aside(&self, store: &str, volume: &str) -> String {
        let stores = self.tools.site.stores();
        let all = stores.volumes(Some(store)).await.unwrap_or_default();
        let is_free = |name: &String| all.iter().all(|one| one.name != *name);
        let names = (1..=all.len() + 1).map(|count| match count {
            1 => format!("{volume}{OLD_SUFFIX}"),
            count => format!("{volume}{OLD_SUFFIX}{count}"),
        });
        let name = names
            .into_iter()
            .find(is_free)
            .expect("one more than there are");
        match stores.rename_volume(store, volume, &name).await {
            Ok(()) => format!("the old volume is kept as {store}/{name}"),
            Err(why) => format!("the old volume stays {store}/{volume}: {why}"),
        }
    }
}
