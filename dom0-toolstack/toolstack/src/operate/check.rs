//! Everything that can be known before a domain is made, all problems at once, each where it is set.

use super::{OperateError, Toolstack};
use crate::build::{self, PAGES_PER_MIB};
use crate::config::{Attachment, Config, Document, Image, Mac, Spot};
use crate::host::Hypervisor;
use crate::modules::BootModule;
use crate::names::{self, id_of};
use crate::registry::Entry;
use crate::site::{Device, DeviceHost, FileError, Files, Site, random_uuid};
use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use godwit_abi::{DomainId, DomainInfo, PAGE_SIZE_BYTES, text};

/// Host memory for a domain beyond its own pages, at most: nested tables of 4 KiB pages (8 bytes a
/// page) twice over, and the fixed part.
const OVERHEAD_BYTES: u64 = 2 << 20;
const OVERHEAD_BYTES_PER_PAGE: u64 = 16;

/// What a guest is loaded from.
#[derive(Clone, Debug)]
pub struct Images {
    /// The kernel.
    pub kernel: Cow<'static, [u8]>,
    /// The ramdisk.
    pub ramdisk: Option<Cow<'static, [u8]>>,
}

/// A configuration that the host can make a domain of, as far as can be known.
#[derive(Clone, Debug)]
pub struct Checked {
    /// With uuid and MACs.
    pub config: Config,
    /// Its images.
    pub images: Images,
}

/// Problems found, with their places.
type Problems = Vec<(Spot, String)>;

impl<S: Site> Toolstack<S> {
    /// Checks a configuration against the host. `instead_of` is a domain that is to be gone by then.
    pub async fn check(
        &self,
        document: &Document,
        instead_of: Option<DomainId>,
    ) -> Result<Checked, OperateError> {
        let mut config = document.config.clone();
        let mut problems = self.check_now(&config, instead_of)?;
        let kernel = self.image("kernel", &config.kernel, &mut problems).await;
        let ramdisk = match &config.ramdisk {
            Some(ramdisk) => self
                .image("ramdisk", ramdisk, &mut problems)
                .await
                .map(Some),
            None => Some(None),
        };
        self.complete(&mut config);
        let images = kernel.zip(ramdisk);
        let images = images.map(|(kernel, ramdisk)| Images { kernel, ramdisk });
        if let Some(images) = &images
            && let Err(error) = build::plan(&config, &images.kernel, images.ramdisk.as_deref())
        {
            let what = format!("'{}' cannot be loaded: {error}", config.kernel);
            problems.push((Spot::Key("kernel"), what));
        }
        // A domain that is to be gone has its devices still.
        if instead_of.is_none() {
            self.check_devices(&config, &mut problems).await;
        }
        match images {
            Some(images) if problems.is_empty() => Ok(Checked { config, images }),
            Some(_) | None => Err(OperateError::Config(document.refuse(problems))),
        }
    }

    /// What can be checked without waiting, so that it still holds when the domain is made.
    pub(super) fn check_now(
        &self,
        config: &Config,
        instead_of: Option<DomainId>,
    ) -> Result<Problems, OperateError> {
        self.check_without(config, instead_of, instead_of)
    }

    /// The same of a copy of `original`, which has the name, volumes and addresses and is gone when the copy runs; its
    /// memory is there until then.
    pub(super) fn check_beside(
        &self,
        config: &Config,
        original: Option<DomainId>,
    ) -> Result<Problems, OperateError> {
        self.check_without(config, original, None)
    }

    fn check_without(
        &self,
        config: &Config,
        instead_of: Option<DomainId>,
        returning: Option<DomainId>,
    ) -> Result<Problems, OperateError> {
        let mut problems = Vec::new();
        if let Some(why) = self.orphan_in_the_way(&config.name) {
            problems.push((Spot::Key("name"), why));
        }
        let domains = names::all(self.site.hypervisor())?;
        let gone = |id: DomainId| Some(id) == instead_of;
        let others = domains.iter().filter(|info| !gone(id_of(info)));
        check_identity(config, others, &mut problems);
        let old = domains.iter().find(|info| Some(id_of(info)) == returning);
        self.check_memory(config, old, &mut problems)?;
        let cpus = self.site.hypervisor().host_info()?.cpus;
        let there = 1u64.checked_shl(cpus).map_or(u64::MAX, |bit| bit - 1);
        if config.cpus.iter().any(|set| set & there == 0) {
            let what = format!("the host has only the CPUs 0 to {}", cpus.saturating_sub(1));
            problems.push((Spot::Key("cpus"), what));
        }
        for (other, entry) in self.registry.all() {
            if !gone(other) {
                check_sharing(config, &entry, &mut problems);
            }
        }
        Ok(problems)
    }

    fn check_memory(
        &self,
        config: &Config,
        old: Option<&DomainInfo>,
        problems: &mut Problems,
    ) -> Result<(), OperateError> {
        let needed = memory_needed_bytes(config.memory_max_mib);
        let returned = old.map_or(0, |info| {
            info.memory_pages * PAGE_SIZE_BYTES + info.overhead_bytes
        });
        let free = self.site.hypervisor().host_info()?.free_bytes + returned;
        if needed > free {
            let key = match config.memory_max_mib == config.memory_mib {
                true => "memory",
                false => "maxmem",
            };
            let (needed, free) = (needed.div_ceil(1 << 20), free >> 20);
            let what = format!("{needed} MiB are needed and {free} MiB are free");
            problems.push((Spot::Key(key), what));
        }
        Ok(())
    }

    async fn image(
        &self,
        key: &'static str,
        image: &Image,
        problems: &mut Problems,
    ) -> Option<Cow<'static, [u8]>> {
        let what = match image {
            Image::Module(name) => match BootModule::find(&self.modules, name) {
                Some(module) => return Some(Cow::Borrowed(module.bytes)),
                None => {
                    let known: Vec<&str> = self.modules.iter().map(|module| module.name).collect();
                    match known.as_slice() {
                        [] => format!(
                            "there is no boot module '{name}'; there are none (GRUB: module2 /boot/FILE NAME)"
                        ),
                        known => format!(
                            "there is no boot module '{name}'; there are: {}",
                            known.join(" ")
                        ),
                    }
                }
            },
            Image::File(path) => match self.site.files().read(path).await {
                Ok(bytes) => return Some(Cow::Owned(bytes)),
                Err(FileError::NotFound) => format!("there is no file '{path}'"),
                Err(error @ (FileError::NoPartition | FileError::Failed(_))) => {
                    format!("'{path}' cannot be read: {error}")
                }
            },
        };
        problems.push((Spot::Key(key), what));
        None
    }

    /// Chooses what the configuration leaves open.
    fn complete(&self, config: &mut Config) {
        if config.uuid.is_none() {
            config.uuid = Some(random_uuid(self.site.random()));
        }
        let entries = self.registry.all();
        let used = entries
            .iter()
            .flat_map(|(_, entry)| entry.config.vifs.iter());
        let mut taken: Vec<Mac> = used.chain(&config.vifs).filter_map(|vif| vif.mac).collect();
        for vif in &mut config.vifs {
            if vif.mac.is_none() {
                vif.mac = Some(self.free_mac(&taken));
                taken.extend(vif.mac);
            }
        }
    }

    /// A random address that is not among `taken`.
    pub(super) fn free_mac(&self, taken: &[Mac]) -> Mac {
        let mut random = self.site.random();
        loop {
            let mac = Mac::random([random[0], random[1], random[2]]);
            if !taken.contains(&mac) {
                return mac;
            }
            // Ends: there are 2^23 addresses and fewer devices than that.
            let next = u32::from_be_bytes([0, random[0], random[1], random[2]]).wrapping_add(1);
            random[..3].copy_from_slice(&next.to_be_bytes()[1..]);
        }
    }

    pub(super) async fn check_devices(&self, config: &Config, problems: &mut Problems) {
        let (mut disks, mut vifs) = (0, 0);
        for device in Entry::devices(config) {
            let spot = match &device {
                Device::Disk(_) => {
                    disks += 1;
                    Spot::Disk(disks - 1)
                }
                Device::Vif(_) => {
                    vifs += 1;
                    Spot::Vif(vifs - 1)
                }
                Device::Console => Spot::Key("console"),
                Device::Rng => Spot::Key("rng"),
                Device::Balloon => Spot::Key("balloon"),
            };
            if let Err(what) = self.site.devices().check(&device).await {
                problems.push((spot, what));
            }
        }
    }
}

/// Host memory that a domain takes, bytes, at most.
pub(super) fn memory_needed_bytes(memory_mib: u64) -> u64 {
    let pages = memory_mib * PAGES_PER_MIB;
    pages * (PAGE_SIZE_BYTES + OVERHEAD_BYTES_PER_PAGE) + OVERHEAD_BYTES
}

fn check_identity<'a>(
    config: &Config,
    domains: impl Iterator<Item = &'a DomainInfo>,
    problems: &mut Problems,
) {
    for info in domains {
        let (name, id) = (text(&info.name), id_of(info));
        if name == config.name {
            let what = format!("there is a domain '{name}' already (id {id})");
            problems.push((Spot::Key("name"), what));
        }
        if Some(info.uuid) == config.uuid {
            let what = format!("the domain '{name}' (id {id}) has this uuid already");
            problems.push((Spot::Key("uuid"), what));
        }
    }
}

/// Volumes, addresses and ports that another domain has.
fn check_sharing(config: &Config, other: &Entry, problems: &mut Problems) {
    let name = &other.config.name;
    for (index, disk) in config.disks.iter().enumerate() {
        let mut theirs = other.config.disks.iter();
        let clash = theirs.find(|their| their.target == disk.target);
        if clash.is_some_and(|their| !their.read_only || !disk.read_only) {
            let what = format!("'{}' is in use by domain '{name}'", disk.target);
            problems.push((Spot::Disk(index), what));
        }
    }
    for (index, vif) in config.vifs.iter().enumerate() {
        for their in &other.config.vifs {
            if vif.mac.is_some() && vif.mac == their.mac {
                let what = format!("the domain '{name}' has this mac already");
                problems.push((Spot::Vif(index), what));
            }
            let (
                Attachment::Gateway { forwards, .. },
                Attachment::Gateway {
                    forwards: taken, ..
                },
            ) = (&vif.attachment, &their.attachment)
            else {
                continue;
            };
            let key = |forward: &crate::config::Forward| (forward.protocol, forward.host_port);
            for forward in forwards {
                if taken.iter().any(|other| key(other) == key(forward)) {
                    let what = format!("'{forward}': domain '{name}' has this port of the host");
                    problems.push((Spot::Vif(index), what));
                }
            }
        }
    }
}
